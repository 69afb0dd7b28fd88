"""Dead, hanging and babbling routers: the API and the healthy ones go on, and what is unknown is not shown as zero."""

from __future__ import annotations

from typing import Any

import pytest
from acceptance.stage import Noc, eventually

from lab.manager import free_port

pytestmark = pytest.mark.slow

QUICK = {"connect_timeout_seconds": 3, "rpc_timeout_seconds": 3}


@pytest.fixture(scope="module")
def sick(noc: Noc) -> dict[str, Any]:
    """One healthy relay, and one of each way to be ill; two of them were seen well before."""
    found: dict[str, Any] = {}
    for name in ("healthy", "hang-mid-rpc", "garbage"):
        router = noc.router("mx80")
        router.order(tunnels=4)
        found[name] = router, noc.enrol(router, f"sick-{name}", **QUICK)
    assert noc.apply(found["healthy"][1])["state"] == "succeeded"
    ios = noc.router("ios")
    ios.order(fault="vty-full")  # before the manager has its line
    found["vty-full"] = ios, noc.enrol(ios, "sick-vty-full", intent=False, **QUICK)
    dead = {"name": "sick-dead", "platform": "junos", "host": "127.0.0.1", "port": free_port()}
    pinned = {"host_key": ios.host_key, "credential_id": noc.credential(), "poll_interval_seconds": 5}
    found["dead"] = None, noc.manager.call("POST", "/relays", json=dead | pinned | QUICK)["id"]
    for name in ("hang-mid-rpc", "garbage"):
        router, relay = found[name]
        eventually(lambda: noc.relay(relay)["reachability"] == "reachable", 60.0)  # noqa: B023
        router.order(fault=name)
    eventually(lambda: noc.relay(found["healthy"][1])["active_tunnels"] == 4, 60.0)
    return found


def test_the_illness_and_its_reason_are_seen_and_unknown_is_null(noc: Noc, sick: dict[str, Any]):
    for name in ("hang-mid-rpc", "garbage", "vty-full", "dead"):
        relay = sick[name][1]
        seen = eventually(
            lambda: found if (found := noc.relay(relay))["reachability"] == "unreachable" else None,  # noqa: B023
            90.0,
        )
        assert seen["reachability_reason"], name
        assert seen["stale"], name
    assert "XML" in noc.relay(sick["garbage"][1])["reachability_reason"]
    dead = noc.relay(sick["dead"][1])
    assert dead["active_tunnels"] is None
    assert dead["active_channels"] is None
    assert dead["polled_at"] is None
    assert noc.manager.items(f"/statistics?relay_id={dead['id']}") == []
    kinds = {row["kind"] for row in noc.manager.items(f"/events?relay_id={dead['id']}")}
    assert "relay.unreachable" in kinds


def test_the_healthy_ones_are_polled_on(noc: Noc, sick: dict[str, Any]):
    relay = sick["healthy"][1]
    first = noc.relay(relay)["polled_at"]
    eventually(lambda: noc.relay(relay)["polled_at"] > first)
    rows = noc.manager.items(f"/tunnels?relay_id={relay}")
    assert len(rows) == 4
    assert all(row["stale"] is None and row["age_seconds"] is not None for row in rows)
    assert noc.manager.request("GET", "/relays").status_code == 200


def test_recovery_is_noticed(noc: Noc, sick: dict[str, Any]):
    router, relay = sick["garbage"]
    router.order(fault=None)
    noc.manager.call("POST", f"/relays/{relay}/backup")
    eventually(lambda: noc.relay(relay)["reachability"] == "reachable", 400.0)
    kinds = [row["kind"] for row in noc.manager.items(f"/events?relay_id={relay}")]
    assert "relay.reachable" in kinds or "relay.recovered" in kinds, kinds
