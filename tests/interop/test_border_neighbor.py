"""Router mode and a scripted PIM neighbour: IPv6, which Debian's routers lack, and very many channels at once."""

import itertools
import socket
import time
from ipaddress import ip_address

import pytest
from scripted.border_scene import border_scene, channel_row, measured, pim_neighbors
from scripted.pim_neighbor import PimNeighbor

from agent.protocol.channels import Channel
from lab import topology
from lab.bench.relay_topology import inside
from lab.namespaces import missing_for_namespaces, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_namespaces()), reason=", ".join(missing)),
]

GROUP = topology.SSM_GROUP_IPV6
SOURCE = str(topology.SOURCE.ipv6)
CHANNEL = Channel.parse(SOURCE, GROUP)
PIM = "\n[pim]\nhello_interval = 1.0\ndr_priority = 10\n"
ROUTER, HOST = 0, 1
MANY = [
    Channel(ip_address(f"198.51.100.{1 + source}"), ip_address(0xE8020000 + group))
    for group in range(1000)
    for source in range(20)
]
LONG_QUERIES = {"query_interval": 30.0, "query_response_interval": 5.0, "channels_per_tunnel": 30_000}


@pytest.fixture(scope="module")
def scene(_nothing_abandoned, tmp_path_factory):
    directory, sizes = tmp_path_factory.mktemp("neighbor"), {"downstreams": 2, "receivers": 2}
    gateway = {"channel_limit": 30_000}
    with border_scene(directory, sizes, pim=PIM, frr=False, relay=LONG_QUERIES, gateway=gateway) as scene:
        yield scene


def link_local(scene, namespace, interface):
    text = scene.lab.run(namespace, "ip", "-6", "-o", "address", "show", "dev", interface, "scope", "link").stdout
    return ip_address(text.split("inet6 ")[1].partition("/")[0])


@pytest.fixture
def neighbor(scene):
    """A router of IPv6 on the border's first LAN, and the border's address there."""
    namespace = scene.names.receiver(ROUTER)
    ours = link_local(scene, namespace, "eth0")
    with PimNeighbor(namespace, "eth0", ours) as neighbor:
        wait_until(lambda: pim_neighbors(scene.scenario.border, 6), 10, "a neighbour of IPv6")
        yield neighbor, link_local(scene, scene.names.border, "down0")


def mroute(scene):
    return scene.lab.run(scene.names.border, "ip", "-6", "mroute", "show").stdout


def arrives(namespace, group):
    """Whether packets to a group of IPv6 come out of the wire there; no host joins it for that."""
    with inside(namespace):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))
    wire.settimeout(2.0)
    deadline = time.monotonic() + 2.0
    try:
        while time.monotonic() < deadline:
            if wire.recv(2048)[24:40] == group.packed:
                return True
    except TimeoutError:
        pass
    finally:
        wire.close()
    return False


def test_a_host_of_ipv6_is_served_by_the_kernels_routing_beside_pim(scene, neighbor):
    scene.scenario.send(GROUP, "--rate", "200")
    host = scene.receive(GROUP, receiver=HOST)
    host.wait_for_more(10, packets=200)
    row = channel_row(scene.scenario.border, GROUP, SOURCE)
    assert [item["kind"] for item in row["interests"]] == ["mld"]
    (line,) = [line for line in mroute(scene).splitlines() if f"({SOURCE},{GROUP})" in line]
    assert "Iif: amt0" in line
    assert "Oifs: down1" in line
    assert host.is_whole()
    measured("time to first packet, s", host.figures["join_seconds"])
    scene.quiet()
    scene.wait_for_leave(GROUP, 15, SOURCE)


def test_a_router_of_ipv6_joins_and_prunes(scene, neighbor):
    router, border = neighbor
    scene.scenario.send(GROUP, "--rate", "200")
    began = time.monotonic()
    router.join(border, [CHANNEL])
    wait_until(lambda: scene.relay_has(GROUP, SOURCE), 5, "joined at the relay")
    measured("from the Join to the relay, s", time.monotonic() - began)
    row = channel_row(scene.scenario.border, GROUP, SOURCE)
    assert [(item["kind"], item["neighbor"]) for item in row["interests"]] == [("pim", str(router.address))]
    assert row["outgoing_interfaces"] == ["down0"]
    assert arrives(scene.names.receiver(ROUTER), CHANNEL.group)
    router.prune(border, [CHANNEL])
    scene.wait_for_leave(GROUP, 5, SOURCE)
    assert GROUP not in mroute(scene)


def test_a_router_of_ipv6_that_falls_silent_is_left_after_its_holdtime(scene, neighbor):
    router, border = neighbor
    router.join(border, [CHANNEL], holdtime=2)
    wait_until(lambda: scene.relay_has(GROUP, SOURCE), 5, "joined at the relay")
    scene.wait_for_leave(GROUP, 4, SOURCE)


def test_very_many_channels_in_one_stream_are_all_subscribed_and_hellos_stay_in_time(scene):
    border = scene.scenario.border
    address = scene.names.receiver_address(ROUTER).ipv4
    with PimNeighbor(scene.names.receiver(ROUTER), "eth0", address) as router:
        wait_until(lambda: pim_neighbors(border), 10, "a neighbour")
        heard = len(router.hellos())
        began = time.monotonic()
        router.join(topology.border_downstream(0).ipv4, MANY)
        wait_until(lambda: carried(border) >= len(MANY), 30, "every channel is wanted", interval=0.5)
        measured("from the first Join until all are wanted, s", time.monotonic() - began)
        wait_until(lambda: carried(scene.scenario.relay) >= len(MANY), 30, "all are at the relay", interval=0.5)
        measured("from the first Join until all are at the relay, s", time.monotonic() - began)
        router.prune(topology.border_downstream(0).ipv4, MANY)
        wait_until(lambda: carried(scene.scenario.relay) == 0, 30, "none is at the relay", interval=0.5)
        measured("from the first Join until all are left again, s", time.monotonic() - began)
        times = router.hellos()[heard:]
        gaps = [late - early for early, late in itertools.pairwise(times)]
        measured("longest time between Hellos, s", max(gaps))
        assert max(gaps) < 3.0, "neighbours would have forgotten us"


def carried(agent):
    return agent.get("status")["counts"]["channels"]
