"""The fast engine with real programs: channels leave and enter userspace as the world around them changes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address, ip_network

import pytest

from agent.dataplane.engine import Refusal
from agent.dataplane.fast.layout import MOST_CHANNELS, Plane, channel_key
from agent.protocol.channels import Channel
from lab.bench.engine_border import Border
from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import UPLINK_AT_GATEWAY, UPLINK_AT_RELAY, EngineTopology
from lab.bench.inner_packets import datagram_ipv4, one_hop_on
from lab.bench.relay_topology import inside, run

pytestmark = pytest.mark.root

FAST = pytest.mark.parametrize("plane", ["xdp", "xdp-mfc", "tc"], indirect=True)
DRIVER = pytest.mark.parametrize("plane", ["xdp", "tc"], indirect=True)
UDP_GRO = 104


@pytest.fixture(scope="module")
def topology() -> Iterator[EngineTopology]:
    if missing := missing_for_engine():
        pytest.skip(missing)
    with EngineTopology(f"isx-accel{os.getpid()}", downstreams=2, redirectable=True) as made:
        yield made


@pytest.fixture
def border(topology: EngineTopology, plane: Plane | None) -> Iterator[Border]:
    with ExitStack() as stack:
        stack.enter_context(inside(topology.gateway))
        yield stack.enter_context(Border(topology, on_unsupported=pytest.skip, plane=plane))


def packets(first: int, count: int = 5, group: str = "232.1.1.1") -> list[bytes]:
    return [datagram_ipv4(bytes([n]) * 80, identification=n, group=group) for n in range(first, first + count)]


@FAST
def test_a_first_packet_is_told_once_for_each_tunnel(border: Border) -> None:
    border.add_tunnel("second", 2269)
    told = []
    border.engine.on_first_packet = lambda _channel, tunnel: told.append(tunnel)
    one, other, wire = border.relay(), border.relay(2269, receiving=1), border.wire()
    border.forward(4)
    one.send(*packets(0))
    border.run_until(lambda: told == ["relay"])
    border.forward(4, tunnels=["second"])
    other.send(*packets(10))
    border.run_until(lambda: told == ["relay", "second"])
    one.send(*packets(20))
    border.run_until(lambda: border.refused(Refusal.NOT_SUBSCRIBED) == 5)
    border.forward(4)
    one.send(*packets(30))
    border.run_until(lambda: told == ["relay", "second", "relay"])
    expected = [one_hop_on(packet) for start in (0, 10, 30) for packet in packets(start)]
    border.run_until(lambda: wire.collect() == expected)


@DRIVER
def test_a_first_packet_whose_event_was_lost_is_told_by_the_counters(border: Border) -> None:
    assert border.fast is not None
    told = []
    border.engine.on_first_packet = lambda channel, tunnel: told.append((channel, tunnel))
    relay, channel = border.relay(), border.forward(4)
    entries = border.programs.map("channels4")
    entry = bytearray(entries.lookup(channel_key(channel)) or b"")
    entry[19] = 0  # announce, as if the ring had taken the event and nobody heard it
    entries.update(channel_key(channel), bytes(entry))
    relay.send(*packets(0))
    border.run_until(lambda: told == [(channel, "relay")])
    assert border.fast.details["lost_events"] == "1"


@FAST
def test_a_source_that_becomes_ours_is_refused_until_it_is_not(border: Border) -> None:
    relay, wire = border.relay(), border.wire()
    border.forward(4)
    relay.send(*packets(0))
    border.run_until(lambda: len(wire.collect()) == 5)
    border.engine.set_local_networks([ip_network("198.51.100.0/24")])
    border.run_until(lambda: border.refused(Refusal.SPOOFED_LOCAL_SOURCE) == 0)
    relay.send(*packets(10))
    border.run_until(lambda: border.refused(Refusal.SPOOFED_LOCAL_SOURCE) == 5)
    border.engine.set_local_networks([])
    relay.send(*packets(20))
    border.run_until(lambda: len(wire.collect()) == 10)
    assert wire.packets == [one_hop_on(packet) for packet in (*packets(0), *packets(20))]


@FAST
def test_a_new_source_goes_through_userspace_first(border: Border, plane: Plane) -> None:
    group = ip_address("239.1.1.1")

    def accept(border: Border, channel: Channel, tunnel: str) -> None:
        border.engine.set_channel(channel, frozenset({tunnel}), frozenset({"down0"}))

    border.on_new_source = accept
    relay, wire = border.relay(), border.wire()
    border.engine.set_group(group, frozenset({"relay"}))
    channel = Channel.parse("198.51.100.10", str(group))
    relay.send(*packets(0, group=str(group)))
    border.run_until(lambda: len(wire.collect()) == 5 and border.plane_of(channel) is plane)
    relay.send(*packets(10, group=str(group)))
    expected = [one_hop_on(packet) for start in (0, 10) for packet in packets(start, group=str(group))]
    border.run_until(lambda: wire.collect() == expected)
    border.run_until(lambda: border.engine.counters().channels[channel].packets == 10)
    assert border.new_sources == [(channel, "relay")]


@FAST
def test_a_link_that_goes_down_is_left_out_and_joins_in_again(border: Border, plane: Plane) -> None:
    relay, wires = border.relay(), [border.wire(0), border.wire(1)]
    channel = border.forward(4, "down0", "down1")
    run("ip", "link", "set", "down1", "down")
    border.run_until(lambda: border.fast is not None and len(border.fast._registry.get(channel).plan.ports) == 1)
    relay.send(*packets(0))
    border.run_until(lambda: wires[0].collect() == [one_hop_on(packet) for packet in packets(0)])
    assert wires[1].collect() == []
    run("ip", "link", "set", "down0", "down")
    border.run_until(lambda: border.plane_of(channel) is Plane.USERSPACE)
    assert border.fast is not None
    assert border.fast.explain(channel)[1] == "has no outgoing interface that is up"
    for name in ("down0", "down1"):
        run("ip", "link", "set", name, "up")
    border.run_until(lambda: border.plane_of(channel) is plane and border.limit == 1500)
    border.run_until(lambda: border.fast is not None and len(border.fast._registry.get(channel).plan.ports) == 2)
    border.run_until(lambda: border.plane_of(channel) is plane)

    def seen_by_both() -> bool:
        relay.send(*packets(50, 1))  # more than once: a link that came up drops what comes before it is ready
        return all(one_hop_on(packets(50, 1)[0]) in wire.collect() for wire in wires)

    border.run_until(seen_by_both)


@DRIVER
def test_the_uplink_may_be_a_downstream_interface(border: Border, topology: EngineTopology, plane: Plane) -> None:
    with inside(topology.relay):
        run("ethtool", "-K", UPLINK_AT_RELAY, "gro", "on")
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        wire.bind((UPLINK_AT_RELAY, 0))
        wire.setblocking(False)
    relay, channel = border.relay(), border.forward(4, UPLINK_AT_GATEWAY, "down0")
    seen: list[bytes] = []

    def collect() -> list[bytes]:
        try:
            while frame := wire.recv(70000):
                if frame[:6] == b"\x01\x00\x5e\x01\x01\x01":
                    seen.append(frame[14:])
        except BlockingIOError:
            return seen

    relay.send(*packets(0))
    border.run_until(lambda: collect() == [one_hop_on(packet) for packet in packets(0)])
    assert border.plane_of(channel) is plane
    wire.close()


@pytest.mark.parametrize("plane", ["tc"], indirect=True)
def test_a_tunnel_gives_trains_unless_tc_forwards_of_it(border: Border) -> None:
    assert border.fast is not None
    border.add_tunnel("second", 2269)

    def trains() -> list[int]:
        return [each.getsockopt(socket.SOL_UDP, UDP_GRO) for each in border.sockets]

    assert trains() == [1, 1]
    first, second = border.forward(4), border.forward(4, group="232.1.1.2")
    assert trains() == [0, 1]
    border.engine.remove_channel(first)
    assert trains() == [0, 1]
    border.fast.choose(())
    border.run_until(lambda: border.plane_of(second) is Plane.USERSPACE)
    assert trains() == [1, 1]


@DRIVER
def test_a_relay_that_moves_is_followed(border: Border) -> None:
    wire = border.wire()
    border.forward(4)
    former = border.sockets.pop()
    border.engine.remove_tunnel("relay")
    former.close()
    border.add_tunnel("relay", 2275)
    border.forward(4)
    stranger, relay = border.relay(), border.relay(2275)
    stranger.send(*packets(0))
    border.run_until(lambda: border.refused(Refusal.WRONG_RELAY) == 5)
    relay.send(*packets(10))
    border.run_until(lambda: wire.collect() == [one_hop_on(packet) for packet in packets(10)])


@DRIVER
def test_a_link_made_again_under_its_name_is_the_planes_again(border: Border, plane: Plane) -> None:
    relay, channel = border.relay(), border.forward(4)
    former = border.topology
    former.disconnect_downstream(0)
    border.run_until(lambda: border.plane_of(channel) is Plane.USERSPACE)
    former.connect_downstream(0)
    border.engine.interface_changed("down0")
    wire = border.wire()
    border.run_until(lambda: border.plane_of(channel) is plane)

    def seen() -> bool:
        relay.send(*packets(0, 1))  # more than once: a new link drops what comes before it is ready
        return one_hop_on(packets(0, 1)[0]) in wire.collect()

    border.run_until(seen)


@pytest.mark.parametrize("plane", ["xdp"], indirect=True)
def test_a_channel_the_map_has_no_room_for_goes_through_userspace(border: Border, plane: Plane) -> None:
    """Its group goes to the socket as a whole, since the programs would refuse what has no entry."""
    assert border.fast is not None
    entries = border.programs.map("channels4")
    others = [number.to_bytes(8, "big") for number in range(MOST_CHANNELS)]
    for key in others:
        entries.update(key, bytes(24))
    channel = Channel.parse("198.51.100.10", "232.1.1.1")
    relay, wire = border.relay(), border.wire()
    border.engine.set_channel(channel, frozenset({"relay"}), frozenset({"down0"}))
    border.run_until(lambda: "no room" in border.fast.explain(channel)[1])
    relay.send(*packets(0))
    border.run_until(lambda: wire.collect() == [one_hop_on(packet) for packet in packets(0)])
    assert border.fast.exceptions()["new_source"] == 5
    for key in others:
        entries.delete(key)
    border.forward(4)
    relay.send(*packets(10))
    border.run_until(lambda: wire.collect() == [one_hop_on(packet) for n in (0, 10) for packet in packets(n)])
    border.run_until(lambda: border.engine.counters().forwarded.packets == 10)
    assert border.programs.map("groups4").keys() == []
