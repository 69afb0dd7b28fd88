"""A change of six relays goes in waves, stops where the error budget ends, and goes on or ends as the operator says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from acceptance.stage import INTENTS, Noc, Router, eventually

pytestmark = pytest.mark.slow

ENDED = {"aborted", "succeeded", "failed"}


def states(noc: Noc, rollout: str) -> list[str]:
    rows = noc.manager.items(f"/rollouts/{rollout}/relays")
    return [row["state"] for row in sorted(rows, key=lambda row: (row["wave"], row["relay_id"]))]


def in_state(noc: Noc, rollout: str, *wanted: str) -> dict[str, Any]:
    def look():
        found = noc.manager.call("GET", f"/rollouts/{rollout}")
        return found if found["state"] in wanted else None

    return eventually(look, 120.0)


@dataclass
class Six:
    """Six relays, the second of which refuses every commit."""

    kinds: list[str]
    routers: list[Router]
    relays: list[str]

    def body(self, name: str, budget: int) -> dict[str, Any]:
        waves = {"relay_ids": self.relays, "sizes": [1, 2, "100%"]}
        return {"name": name, "error_budget": budget, "ticket": "NOC-6", **waves}


@pytest.fixture(scope="module")
def six(noc: Noc) -> Six:
    kinds = ["mx80", "mx80", "iosxe", "mx80", "mx80", "iosxe"]
    routers = [noc.router(kind) for kind in kinds]
    relays = [noc.enrol(one, f"fleet-{number}", poll_interval_seconds=3600) for number, one in enumerate(routers)]
    routers[1].order(fault="commit-refused")
    return Six(kinds, routers, relays)


def test_it_stops_where_the_error_budget_ends(noc: Noc, six: Six):
    rollout = noc.manager.call("POST", "/rollouts", json=six.body("no failure allowed", 0))
    assert rollout["wave_sizes"] == [1, 2, 3]
    assert in_state(noc, rollout["id"], "paused", *ENDED)["state"] == "failed"
    rows = {row["relay_id"]: row for row in noc.manager.items(f"/rollouts/{rollout['id']}/relays")}
    assert rows[six.relays[0]]["state"] == "succeeded"
    assert rows[six.relays[1]]["state"] == "failed"
    assert rows[six.relays[1]]["detail"]
    assert {rows[relay]["state"] for relay in six.relays[3:]} == {"skipped"}
    assert all(one.changes_sent() == [] for one in six.routers[3:])


def test_it_pauses_and_goes_on(noc: Noc, six: Six):
    six.routers[0].order(fault="slow:0.3")
    rollout = noc.manager.call("POST", "/rollouts", json=six.body("one failure allowed", 1))["id"]
    noc.manager.call("POST", f"/rollouts/{rollout}/pause", json={})
    six.routers[0].order(fault=None)
    eventually(lambda: "running" not in states(noc, rollout), 60.0)
    assert noc.manager.call("GET", f"/rollouts/{rollout}")["state"] == "paused"
    assert states(noc, rollout).count("pending") >= 5
    noc.manager.call("POST", f"/rollouts/{rollout}/resume", json={"comment": "go on"})
    done = in_state(noc, rollout, *ENDED)
    assert done["state"] == "succeeded", done
    assert states(noc, rollout).count("failed") == 1
    assert all("198.51.100.7" in one.configuration() for one in six.routers[3:])


def test_aborted_it_starts_no_more(noc: Noc, six: Six):
    for kind, relay in zip(six.kinds, six.relays, strict=True):
        extra = {"tunnel_limit": 4000} if kind == "mx80" else {"group_policy": {"name": "g", "permit": ["232.0.0.0/8"]}}
        noc.manager.put_intent(relay, INTENTS[kind] | extra)
    six.routers[0].order(fault="slow:0.3")
    rollout = noc.manager.call("POST", "/rollouts", json=six.body("given up", 1))["id"]
    noc.manager.call("POST", f"/rollouts/{rollout}/abort", json={"comment": "enough"})
    six.routers[0].order(fault=None)
    assert in_state(noc, rollout, *ENDED)["state"] == "aborted"
    eventually(lambda: "running" not in states(noc, rollout), 60.0)
    left = states(noc, rollout)
    assert left.count("skipped") >= 5, left
    assert "tunnel-limit 4000" not in six.routers[4].configuration()
