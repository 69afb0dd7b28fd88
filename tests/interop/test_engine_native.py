"""Native channels in the kernel's multicast routing: how they are met, and how they move to a tunnel and back."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from forwarding.planes import EACH_ONCE, USERSPACE_ONLY

from agent.dataplane.engine import EngineError, Refusal
from agent.dataplane.fast.layout import Plane
from agent.protocol.channels import Channel
from lab.bench.engine_border import Border
from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import EngineTopology, host_interface
from lab.bench.inner_packets import GROUP, SOURCE, datagram, datagram_ipv4, datagram_ipv6, one_hop_on
from lab.bench.relay_topology import inside

pytestmark = pytest.mark.root

VERSIONS = pytest.mark.parametrize("version", [4, 6])


class NativeSource:
    """Sends multicast frames from the host's side of a downstream link."""

    def __init__(self, topology: EngineTopology, index: int) -> None:
        with inside(topology.host):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._socket.bind((host_interface(index), 0))

    def send(self, *packets: bytes) -> None:
        """Send IP packets to their groups."""
        for packet in packets:
            if packet[0] >> 4 == 4:
                ends = b"\x01\x00\x5e" + bytes((packet[17] & 0x7F,)) + packet[18:20], b"\x08\x00"
            else:
                ends = b"\x33\x33" + packet[36:40], b"\x86\xdd"
            self._socket.send(ends[0] + b"\x02\0\0\0\0\x09" + ends[1] + packet)

    def close(self) -> None:
        self._socket.close()


class Bench:
    """A border between two links and a relay; it notes what the engine tells."""

    def __init__(self, topology: EngineTopology, stack: ExitStack, **settings) -> None:
        stack.enter_context(inside(topology.gateway))
        self.border = stack.enter_context(Border(topology, on_unsupported=pytest.skip, **settings))
        self.engine = self.border.engine
        self.relay = self.border.relay()
        self.wire = self.border.wire(0)
        self.native = NativeSource(topology, 1)
        stack.callback(self.native.close)
        self.told: list[tuple[str, Channel, str]] = []
        self.engine.on_unknown_source = lambda channel, name: self.told.append(("unknown", channel, name))
        self.engine.on_wrong_interface = lambda channel, name: self.told.append(("wrong", channel, name))
        self.engine.on_first_packet = lambda channel, name: self.told.append(("first", channel, name))
        for name in ("down0", "down1"):
            self.engine.watch_interface(name)

    def arrives(self, packet: bytes) -> None:
        self.border.run_until(lambda: one_hop_on(packet) in self.wire.collect())

    def is_told(self, *what: object) -> None:
        self.border.run_until(lambda: what in self.told)


@pytest.fixture
def make_bench(plane: Plane | None) -> Iterator:
    if missing := missing_for_engine():
        pytest.skip(missing)
    with (
        EngineTopology(f"isx-native{os.getpid()}", downstreams=2, redirectable=True) as topology,
        ExitStack() as stack,
    ):
        yield lambda **settings: Bench(topology, stack, plane=plane, **settings)


def channel_of(version: int) -> Channel:
    return Channel.parse(SOURCE[version], GROUP[version])


@USERSPACE_ONLY
@VERSIONS
@pytest.mark.parametrize("table", [253, 4243])
def test_a_source_on_a_watched_link_is_told_and_its_first_packet_is_not_lost(make_bench, version, table) -> None:
    bench, channel = make_bench(table=table), channel_of(version)
    packet = datagram(version, b"first")
    bench.native.send(packet)
    bench.is_told("unknown", channel, "down1")
    bench.engine.set_channel(channel, frozenset(), frozenset({"down0"}), "down1")
    bench.arrives(packet)
    second = datagram(version, b"second")
    bench.native.send(second)
    bench.arrives(second)
    traffic = bench.engine.traffic(channel)
    assert traffic is not None
    assert (traffic.packets, traffic.bytes) == (2, len(packet) + len(second))
    assert bench.engine.counters().channels[channel] == traffic


@USERSPACE_ONLY
@VERSIONS
def test_a_link_watched_no_longer_is_silent(make_bench, version) -> None:
    bench = make_bench()
    bench.engine.unwatch_interface("down1")
    bench.native.send(datagram(version, b"x"))
    bench.engine.watch_interface("down1")
    other = SOURCE[version] + "1"
    make = datagram_ipv4 if version == 4 else datagram_ipv6
    bench.native.send(make(b"y", source=other))
    bench.is_told("unknown", Channel.parse(other, GROUP[version]), "down1")
    assert len(bench.told) == 1


@EACH_ONCE
def test_a_channel_moves_from_a_tunnel_to_a_link_in_place(make_bench, version) -> None:
    bench, channel = make_bench(), channel_of(version)
    bench.border.forward(version)
    tunnelled = [datagram(version, bytes([n]) * 50) for n in range(5)]
    bench.relay.send(*tunnelled)
    bench.arrives(tunnelled[-1])
    native = [datagram(version, bytes([100 + n]) * 50) for n in range(5)]
    bench.native.send(native[0])
    bench.is_told("wrong", channel, "down1")
    changes = route_changes(version)
    bench.engine.set_channel(channel, frozenset({"relay"}), frozenset({"down0"}), "down1")
    deleted = changes.finish()
    assert deleted == 0, "the entry was changed, not deleted"
    bench.native.send(*native)
    bench.arrives(native[-1])
    bench.relay.send(native[-1])
    bench.border.run_until(lambda: bench.border.refused(Refusal.DUPLICATE) == 1)
    assert sorted(bench.wire.collect()) == sorted(map(one_hop_on, (*tunnelled, *native)))
    traffic = bench.engine.traffic(channel)
    assert traffic is not None
    assert traffic.packets == len(tunnelled) + len(native)
    assert bench.engine.feed_traffic(channel) == {"relay": 6}


@EACH_ONCE
def test_the_rest_of_a_tunnel_is_passed_on_and_no_other_tunnels(make_bench, version) -> None:
    bench, channel = make_bench(), channel_of(version)
    bench.border.add_tunnel("second", 2269)
    stranger = bench.border.relay(2269, receiving=1)
    bench.border.forward(version)
    packets = [datagram(version, bytes([n]) * 50) for n in range(4)]
    bench.relay.send(packets[0])
    bench.arrives(packets[0])
    bench.engine.set_channel(channel, frozenset(), frozenset({"down0"}), "down1")
    stranger.send(packets[3])
    bench.border.run_until(lambda: bench.border.refused(Refusal.NOT_SUBSCRIBED) == 1)
    bench.relay.send(packets[1], packets[2])
    bench.arrives(packets[2])
    bench.engine.remove_channel(channel)
    bench.relay.send(packets[3])
    bench.border.run_until(lambda: bench.border.refused(Refusal.NOT_SUBSCRIBED) == 2)
    assert sorted(bench.wire.collect()) == sorted(map(one_hop_on, packets[:3]))


@EACH_ONCE
def test_a_channel_moves_from_a_link_to_a_tunnel_with_the_tunnels_first_packet(make_bench, version) -> None:
    bench, channel = make_bench(), channel_of(version)
    bench.engine.set_channel(channel, frozenset({"relay"}), frozenset({"down0"}), "down1")
    native = datagram(version, b"native")
    bench.native.send(native)
    bench.arrives(native)

    def move(moving: Channel, tunnel: str) -> None:
        bench.engine.set_channel(moving, frozenset({tunnel}), frozenset({"down0"}))

    bench.engine.on_first_packet = move
    tunnelled = [datagram(version, bytes([n]) * 50) for n in range(5)]
    bench.relay.send(*tunnelled)
    bench.arrives(tunnelled[-1])
    assert sorted(bench.wire.collect()) == sorted(map(one_hop_on, (native, *tunnelled)))
    traffic = bench.engine.traffic(channel)
    assert traffic is not None
    assert traffic.packets == 6
    assert bench.border.refused(Refusal.DUPLICATE) == 0


@USERSPACE_ONLY
def test_strays_nobody_may_route_are_not_told(make_bench) -> None:
    bench = make_bench()
    for source in ("169.254.1.1", "127.0.0.5"):
        bench.native.send(datagram_ipv4(b"x", source=source))
    bench.native.send(datagram_ipv4(b"x", source="198.51.100.77"))
    bench.is_told("unknown", Channel.parse("198.51.100.77", GROUP[4]), "down1")
    assert len(bench.told) == 1


@USERSPACE_ONLY
def test_a_native_interface_that_is_not_there_is_refused(make_bench) -> None:
    bench = make_bench()
    with pytest.raises(EngineError, match="nowhere0 does not exist"):
        bench.engine.set_channel(channel_of(4), frozenset(), frozenset({"down0"}), "nowhere0")
    assert bench.engine.traffic(channel_of(4)) is None


@USERSPACE_ONLY
@VERSIONS
def test_a_recreated_native_interface_brings_its_channels_again(make_bench, version) -> None:
    bench, channel = make_bench(), channel_of(version)
    bench.engine.set_channel(channel, frozenset(), frozenset({"down0"}), "down1")
    topology = bench.border.topology
    topology.disconnect_downstream(1)
    bench.engine.interface_changed("down1")
    topology.connect_downstream(1)
    bench.engine.interface_changed("down1")
    source = NativeSource(topology, 1)
    packet = datagram(version, b"again")

    def sent_and_seen() -> bool:
        source.send(packet)  # more than once: a new link drops what comes before it is ready
        return one_hop_on(packet) in bench.wire.collect()

    bench.border.run_until(sent_and_seen)
    source.close()


class Monitor:
    """Listens to the kernel's notifications of multicast routes."""

    _DELETED = 25  # RTM_DELROUTE

    def __init__(self, group: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.setsockopt(270, 1, group)  # NETLINK_ADD_MEMBERSHIP
        self._socket.settimeout(5)

    def finish(self) -> int:
        """How many routes were deleted up to the first message, which there is after each change."""
        kinds = []
        with self._socket as notes, suppress(BlockingIOError):
            while True:
                kinds.append(int.from_bytes(notes.recv(65536)[4:6], "little"))
                notes.setblocking(False)
        return kinds.count(self._DELETED)


def route_changes(version: int) -> Monitor:
    return Monitor({4: 6, 6: 10}[version])  # RTNLGRP_IPV4_MROUTE, RTNLGRP_IPV6_MROUTE
