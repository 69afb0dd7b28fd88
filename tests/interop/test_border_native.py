"""Native first with FRR as the upstream neighbour of a `native` interface, for a source both FRR and the relay have.

    source --+-- relay -- Internet -- border -- LAN 1 -- host
             +-- router --- LAN 0 ---+

Which of the two the border asks is up to its unicast route.
"""

import time

import pytest
from scripted.border_scene import SOURCE, border_scene, channel_row, measured, pim_neighbors, wrong_of

from lab import topology
from lab.frr import PimTimers, missing_for_frr, pim_interface
from lab.namespaces import missing_for_namespaces, wait_until
from lab.topology import HOST_INTERFACE

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_namespaces() + missing_for_frr()), reason=", ".join(missing)),
]

GROUP = topology.NUMBERED_GROUP_IPV4
ROUTER, HOST = str(topology.router_upstream(1).ipv4), 1
NATIVE, TUNNEL = ("native", "down0", ROUTER), ("tunnel", "amt0", None)
AT_SOURCE = "wire1"
ROUTER_AT_SOURCE = "198.51.100.2/24"


def connect_to_source(lab):
    """Give the domain's router a leg on the source's LAN: whatever the source sends, it and the relay get alike."""
    source, router, address = lab.topology.source, lab.topology.router, topology.SOURCE
    lab.run(source, "ip", "link", "set", HOST_INTERFACE, "down")
    lab.run(source, "ip", "link", "set", HOST_INTERFACE, "name", "wire0")
    lab.run(source, "ip", "address", "flush", "dev", "wire0")
    lab.run(source, *f"ip link add {AT_SOURCE} type veth peer name source0 netns {router}".split())
    lab.run(source, *f"ip link add {HOST_INTERFACE} type bridge mcast_snooping 0 forward_delay 0".split())
    for port in ("wire0", AT_SOURCE):
        lab.run(source, "ip", "link", "set", port, "master", HOST_INTERFACE, "up")
    lab.run(source, "ip", "address", "add", address.with_prefix_ipv4, "dev", HOST_INTERFACE)
    lab.run(source, "ip", "link", "set", HOST_INTERFACE, "up")
    lab.run(source, "ip", "route", "replace", "default", "via", str(topology.RELAY_NATIVE_ADDRESS.ipv4))
    lab.run(router, "ip", "address", "add", ROUTER_AT_SOURCE, "dev", "source0")
    lab.run(router, "ip", "link", "set", "source0", "up")


@pytest.fixture(scope="module")
def scene(_nothing_abandoned, tmp_path_factory):
    sizes = {"routed": 1, "downstreams": 2, "receivers": 2}
    with border_scene(tmp_path_factory.mktemp("native"), sizes, native=["down0"]) as scene:
        connect_to_source(scene.lab)
        scene.routers[0].configure(pim_interface("source0", PimTimers()))
        scene.scenario.send(GROUP, "--rate", "500")
        yield scene


@pytest.fixture(scope="module")
def host(scene):
    receiver = scene.receive(GROUP, receiver=HOST)
    receiver.wait_for_more(20, packets=100)
    return receiver


def upstream(scene):
    row = channel_row(scene.scenario.border, GROUP)
    return (row["upstream"], row["incoming_interface"], row["upstream_neighbor"]) if row else None


def joined_at_frr(scene):
    """Whether pimd has our Join: (S,G) joined on its interface towards us."""
    interface = scene.routers[0].json("show ip pim join").get(topology.ROUTER_UPSTREAM, {})
    return interface.get(GROUP, {}).get(SOURCE, {}).get("channelJoinName") == "JOIN"


def route(scene, command):
    lead = (f"{SOURCE}/32", "via", ROUTER) if command == "replace" else (f"{SOURCE}/32",)
    scene.lab.run(scene.names.border, "ip", "route", command, *lead)


def test_a_flowing_source_moves_to_its_native_router_and_back_without_loss(scene, host):
    assert upstream(scene) == TUNNEL
    before = wrong_of(host)
    for _ in range(2):
        route(scene, "replace")
        began = time.monotonic()
        wait_until(lambda: upstream(scene) == NATIVE, 5, "native")
        wait_until(lambda: joined_at_frr(scene), 5, "pimd has our Join")
        scene.wait_for_leave(GROUP, 10)
        measured("from the route to the leave at the relay, s", time.monotonic() - began)
        host.wait_for_more(5, packets=300)
        route(scene, "del")
        wait_until(lambda: upstream(scene) == TUNNEL, 5, "through the tunnel")
        wait_until(lambda: scene.relay_has(GROUP) and not joined_at_frr(scene), 10, "pruned at pimd")
        host.wait_for_more(5, packets=300)
    lost, doubled, late = (after - earlier for after, earlier in zip(wrong_of(host), before, strict=True))
    measured("packets lost", lost)
    measured("packets doubled", doubled)
    measured("packets late", late)
    assert lost == 0


def test_after_a_restart_the_relay_serves_a_native_source_only_until_its_router_is_heard(scene, host):
    route(scene, "replace")
    wait_until(lambda: upstream(scene) == NATIVE, 5, "native")
    scene.wait_for_leave(GROUP, 10)
    border = scene.scenario.border
    seen = []
    border.stop()
    wait_until(lambda: not joined_at_frr(scene), 10, "our goodbye pruned it")
    border.launch()
    began = time.monotonic()

    def is_native():
        if scene.relay_has(GROUP):
            seen.append(time.monotonic() - began)
        return joined_at_frr(scene)

    wait_until(is_native, 15, "native again")
    measured("from the launch to our Join, s", time.monotonic() - began)
    measured("asked of the relay before the router's Hello, s", seen[-1] - seen[0] if seen else 0.0)
    border.wait_until_ready()
    scene.wait_for_leave(GROUP, 10)
    assert upstream(scene) == NATIVE
    host.wait_for_more(10, packets=100)
    assert not scene.relay_has(GROUP)


def test_a_native_router_that_dies_is_replaced_by_the_tunnel(scene, host):
    route(scene, "replace")
    wait_until(lambda: upstream(scene) == NATIVE, 15, "native")
    host.wait_for_more(10)
    router = scene.routers[0]
    router.kill("pimd")
    began = time.monotonic()
    wait_until(lambda: upstream(scene) == TUNNEL, 6, "its Hello expired")
    host.wait_for_more(5)
    measured("from the crash to the tunnel, s", time.monotonic() - began)
    assert not pim_neighbors(scene.scenario.border)
