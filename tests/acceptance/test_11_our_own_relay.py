"""A relay of our own, with a gateway and a stream, is enrolled, changed, drained and seen like any router."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from acceptance.stage import Noc, eventually

from lab import topology
from lab.namespaces import Lab
from lab.scenario import Scenario
from lab.topology import Topology

pytestmark = [pytest.mark.root, pytest.mark.slow]

INTENT = {
    "inet": {
        "anycast_prefix": f"{topology.DISCOVERY.ipv4}/32",
        "anycast_address": str(topology.DISCOVERY.ipv4),
        "local_address": str(topology.RELAY.ipv4),
    },
    "inet6": {
        "anycast_prefix": f"{topology.DISCOVERY.ipv6}/128",
        "anycast_address": str(topology.DISCOVERY.ipv6),
        "local_address": str(topology.RELAY.ipv6),
    },
    "tunnel_limit": 500,
}


@pytest.fixture
def streaming(tmp_path: Path) -> Iterator[Scenario]:
    discovery = [str(topology.DISCOVERY.ipv4), str(topology.DISCOVERY.ipv6)]
    with (
        Lab(Topology(prefix=f"islx{os.getpid()}", receivers=1)) as lab,
        Scenario(lab, tmp_path, relay={"discovery_address": discovery}) as scenario,
    ):
        scenario.send(topology.SSM_GROUP_IPV4, "--rate", "50")
        receiver = scenario.receive(topology.SSM_GROUP_IPV4)
        receiver.wait_for_more(30.0)
        yield scenario


def test_it_is_enrolled_changed_drained_and_its_tunnels_are_seen(noc: Noc, streaming: Scenario):
    socket = streaming.relay.place.socket
    made = noc.cli(
        "relay", "add", "our-own", "--platform", "isthmus", "--host", f"unix://{socket}", "--poll-interval", "5"
    )
    relay = made["id"]
    noc.manager.put_intent(relay, INTENT)
    plan = noc.plan(relay)
    assert "500" in plan["diff"]
    job = noc.apply(relay)
    assert job["state"] == "succeeded", noc.log_of(job["id"])
    assert job["confirm_deadline"]
    (tunnel,) = eventually(lambda: noc.manager.items(f"/tunnels?relay_id={relay}&state=active&min_channels=1"), 60.0)
    assert tunnel["gateway_address"]
    channels = noc.manager.items(f"/channels?relay_id={relay}")
    assert topology.SSM_GROUP_IPV4 in {row["group_address"] for row in channels}
    eventually(lambda: (noc.manager.items(f"/tunnels?relay_id={relay}")[0]["packets"] or 0) > 0)
    drained = noc.change(relay, "drain")
    assert drained["state"] == "succeeded", noc.log_of(drained["id"])
    assert streaming.relay.tunnels(), "a drain cuts no tunnel"
    assert noc.change(relay, "undrain")["state"] == "succeeded"
    assert noc.change(relay, "rollback")["state"] == "succeeded"
