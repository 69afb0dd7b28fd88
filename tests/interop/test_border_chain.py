"""Router mode above two routers in a row that run FRR's pimd: joins, prunes, restarts, failures, flapping links.

No router has static multicast state; what is joined was joined by a receiver's report and came up the row as PIM.
"""

import time

import pytest
from scripted.border_scene import (
    SOURCE,
    ask,
    border_scene,
    channel_row,
    measured,
    pim_neighbors,
    wrong_of,
)

from lab import topology
from lab.frr import missing_for_frr
from lab.namespaces import missing_for_namespaces, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_namespaces() + missing_for_frr()), reason=", ".join(missing)),
]

GROUP = topology.NUMBERED_GROUP_IPV4
CHANNEL = {"source": SOURCE, "group": GROUP, "interface": "down1"}
BEHIND, HOST = 0, 1  # receivers: below the last router, and on the border's second LAN
UP, DOWN = topology.ROUTER_UPSTREAM, topology.ROUTER_DOWNSTREAM
HEALED = 10.0
"""A new Generation ID is answered at once; at the latest the next periodic Join, 5 s later, tells it all again."""


@pytest.fixture(scope="module")
def scene(_nothing_abandoned, tmp_path_factory):
    sizes = {"routed": 2, "downstreams": 2, "receivers": 2}
    with border_scene(tmp_path_factory.mktemp("chain"), sizes) as scene:
        scene.scenario.send(GROUP, "--rate", "200")
        yield scene


@pytest.fixture(scope="module")
def stream(scene):
    """A receiver behind both routers that has the stream; what follows interrupts it again and again."""
    receiver = scene.receive(GROUP)
    receiver.wait_for_more(20, packets=50)
    return receiver


def wait_for_stream(stream, since, what):
    stream.wait_for_more(HEALED, packets=10)
    measured(what, time.monotonic() - since)


def kinds(scene):
    return [item["kind"] for item in channel_row(scene.scenario.border, GROUP)["interests"]]


def test_each_join_came_from_pimd_and_the_last_prune_leaves_the_relay(scene):
    receiver = scene.receive(GROUP)
    receiver.wait_for_more(20, packets=200)
    for router in scene.routers:
        text = router.vtysh("show running-config")
        assert not any(word in text for word in ("ip mroute", "igmp join", "igmp static"))
        upstream = router.json("show ip pim upstream")[GROUP][SOURCE]
        assert (upstream["inboundInterface"], upstream["joinState"]) == (UP, "Joined")
        assert upstream["sourceIgmp"] is (router is scene.routers[-1])
        mroute = router.json("show ip mroute")[GROUP][SOURCE]
        assert (mroute["iif"], set(mroute["oil"]), mroute["installed"]) == (UP, {DOWN}, 1)
    (interest,) = channel_row(scene.scenario.border, GROUP)["interests"]
    assert (interest["kind"], interest["neighbor"]) == ("pim", str(topology.router_upstream(1).ipv4))
    figures = receiver.finish()
    measured("time to first packet, s", figures["join_seconds"])
    assert [figures[name] for name in ("lost", "duplicates", "reordered")] == [0, 0, 0]
    began = time.monotonic()
    scene.wait_for_leave(GROUP, 10)
    measured("from the leave to the relay, s", time.monotonic() - began)
    assert channel_row(scene.scenario.border, GROUP) is None


def test_the_tunnel_ends_with_the_last_of_pim_igmp_and_a_static_join(scene):
    border = scene.scenario.border
    behind = scene.receive(GROUP)
    behind.wait_for_more(10)
    host = scene.receive(GROUP, receiver=HOST)
    host.wait_for_more(10)
    ask(border, "POST", "joins", CHANNEL)
    wait_until(lambda: sorted(kinds(scene)) == ["api", "igmp", "pim"], 10, "all three ask")
    assert channel_row(border, GROUP)["outgoing_interfaces"] == ["down0", "down1"]
    behind.finish()
    wait_until(lambda: sorted(kinds(scene)) == ["api", "igmp"], 10, "the routers pruned it")
    assert channel_row(border, GROUP)["outgoing_interfaces"] == ["down1"]
    assert scene.relay_has(GROUP)
    host.wait_for_more(10, packets=100)
    assert wrong_of(host) == [0, 0, 0]
    host.finish()
    wait_until(lambda: kinds(scene) == ["api"], 15, "the host left")
    assert scene.relay_has(GROUP)
    ask(border, "DELETE", "joins", CHANNEL)
    scene.wait_for_leave(GROUP, 5)


@pytest.mark.parametrize("index", [0, 1], ids=["next to us", "further down"])
def test_a_pimd_that_crashed_and_came_back_has_the_stream_again(scene, stream, index):
    router = scene.routers[index]
    before = pim_neighbors(scene.scenario.border)[0]["generation_id"]
    router.kill("pimd")
    router.restart("pimd")
    wait_for_stream(stream, time.monotonic(), "from the restart of pimd, s")
    after = pim_neighbors(scene.scenario.border)[0]["generation_id"]
    assert (after != before) is (index == 0)


def test_an_agent_that_was_stopped_and_started_has_the_stream_again(scene, stream):
    border = scene.scenario.border
    border.stop()
    border.start()
    wait_for_stream(stream, time.monotonic(), "from the restart of the agent, s")


@pytest.mark.parametrize("place", ["border", "router"])
def test_a_link_that_flaps_brings_the_stream_back(scene, stream, place):
    namespace, interface = (scene.names.border, "down0") if place == "border" else (scene.names.router, UP)
    for _ in range(2):
        scene.lab.set_link(namespace, interface, up=False)
        wait_until(lambda: not comes(stream), 10, "nothing comes any more")
        scene.lab.set_link(namespace, interface, up=True)
        wait_for_stream(stream, time.monotonic(), "from the link up, s")


def comes(receiver):
    before = receiver.received
    time.sleep(0.3)
    return receiver.received > before
