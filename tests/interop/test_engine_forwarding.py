"""What every engine puts on the wire downstream, octet by octet."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from forwarding.planes import EVERY_WAY

from agent.dataplane.engine import Refusal
from agent.dataplane.fast.layout import Plane
from lab.bench.engine_border import Border
from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import EngineTopology
from lab.bench.inner_packets import (
    checksum,
    datagram,
    datagram_ipv4,
    datagram_ipv6,
    ipv4,
    ipv6,
    one_hop_on,
    udp,
)
from lab.bench.relay_topology import inside, run

pytestmark = pytest.mark.root

DONT_FRAGMENT = 0x4000
MORE_FRAGMENTS = 0x2000


@pytest.fixture(scope="module")
def topology() -> Iterator[EngineTopology]:
    if missing := missing_for_engine():
        pytest.skip(missing)
    with EngineTopology(f"isx-forward{os.getpid()}", downstreams=2, downstream_mtu=9500, redirectable=True) as made:
        yield made


class Bench:
    """A border with its relay and the wire behind its first interface."""

    def __init__(self, topology: EngineTopology, stack: ExitStack, **settings) -> None:
        stack.enter_context(inside(topology.gateway))
        self.border = stack.enter_context(Border(topology, on_unsupported=pytest.skip, **settings))
        self.relay = self.border.relay()
        self.wire = self.border.wire()

    def received(self, count: int) -> list[bytes]:
        self.border.run_until(lambda: len(self.wire.collect()) >= count)
        return self.wire.packets


@pytest.fixture
def make_bench(topology: EngineTopology, plane: Plane | None) -> Iterator:
    with ExitStack() as stack:
        yield lambda **settings: Bench(topology, stack, plane=plane, **settings)


@EVERY_WAY
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_packets_leave_as_a_router_would_emit_them(make_bench, inner: int, outer: int, segmentation: bool) -> None:
    bench = make_bench(outer=outer, segmentation=segmentation)
    bench.border.forward(inner)
    make = datagram_ipv4 if inner == 4 else datagram_ipv6
    fields = [{"identification": 65530 + index & 0xFFFF} if inner == 4 else {} for index in range(40)]
    sent = [make(bytes([index]) * 1316, **each) for index, each in enumerate(fields)]
    bench.relay.send_train(sent)
    assert bench.received(40) == [one_hop_on(packet) for packet in sent]
    group = b"\x01\x00\x5e\x01\x01\x01" if inner == 4 else b"\x33\x33\x80\x00\x00\x01"
    assert bench.wire.destinations == {group}
    bench.border.run_until(lambda: bench.border.engine.counters().tunnels["relay"].packets == 40)
    counters = bench.border.engine.counters()
    assert counters.tunnels["relay"].bytes == sum(map(len, sent))
    assert counters.refused == {}


@EVERY_WAY
def test_dont_fragment_stays_set(make_bench, segmentation: bool) -> None:
    bench = make_bench(segmentation=segmentation)
    bench.border.forward(4)
    sent = [datagram_ipv4(bytes([n]) * 1316, identification=9 + n, flags=DONT_FRAGMENT) for n in range(30)]
    bench.relay.send_train(sent)
    assert bench.received(30) == [one_hop_on(packet) for packet in sent]


def test_only_the_meaningless_identification_of_atomic_packets_may_change_in_a_train(make_bench) -> None:
    """RFC 6864 §4.1: with Don't Fragment set and no fragment the field has no meaning."""
    bench = make_bench()
    bench.border.forward(4)
    sent = [datagram_ipv4(bytes([n]) * 1316, identification=0, flags=DONT_FRAGMENT) for n in range(30)]
    bench.relay.send_train(sent)

    def plain(packet: bytes) -> bytes:
        assert checksum(packet[:20]) == 0
        return packet[:4] + packet[6:10] + packet[12:]

    assert [plain(packet) for packet in bench.received(30)] == [plain(one_hop_on(packet)) for packet in sent]


def test_identifications_of_fragmentable_packets_survive_any_numbering(make_bench, plane) -> None:
    bench = make_bench()
    bench.border.forward(4)
    numbers = [1, 2, 3, 9, 9, 8, 0xFFFF, 0, 1, 5]
    sent = [datagram_ipv4(bytes([n & 255]) * 700, identification=n) for n in numbers]
    bench.relay.send_train(sent)
    received = bench.received(len(sent))
    if plane is Plane.XDP_MFC:  # the kernel joins what it forwards (rx-udp-gro-forwarding) and numbers it anew
        received, sent = map(without_identification, received), map(without_identification, sent)
    assert list(received) == [one_hop_on(packet) for packet in sent]


def without_identification(packet: bytes) -> bytes:
    """An IPv4 packet as if it had number 0."""
    head = packet[:4] + b"\0\0" + packet[6:10] + b"\0\0" + packet[12:20]
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + packet[20:]


@pytest.mark.parametrize("plane", ["userspace", "xdp"], indirect=True)
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_interleaved_flows_keep_their_own_order(make_bench, inner: int, outer: int) -> None:
    bench = make_bench(outer=outer)
    groups = [f"232.1.1.{n}" if inner == 4 else f"ff3e::8000:{n}" for n in range(1, 6)]
    for group in groups:
        bench.border.forward(inner, group=group)
    make = datagram_ipv4 if inner == 4 else datagram_ipv6
    sent = [
        make(struct.pack(">I", n) * (10 if n % 7 else 20), group=groups[n % 5], ports=(5000, 5004 + n % 2))
        for n in range(200)
    ]
    bench.relay.send(*sent)

    def by_flow(packets: list[bytes]) -> dict[bytes, list[bytes]]:
        flows: dict[bytes, list[bytes]] = {}
        for packet in packets:
            flows.setdefault(packet[16:24] if inner == 4 else packet[24:44], []).append(packet)
        return flows

    assert by_flow(bench.received(200)) == by_flow([one_hop_on(packet) for packet in sent])


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_sizes_around_the_outer_mtu_pass_whole(make_bench, inner: int, outer: int) -> None:
    """30 octets over IPv4 and 50 over IPv6: above MTU 1500 the outer packet comes in fragments."""
    bench = make_bench(outer=outer)
    bench.border.forward(inner)
    overhead = 28 if inner == 4 else 48
    sent = [datagram(inner, os.urandom(size - overhead)) for size in (*range(1448, 1480), 9000, 9000, overhead + 1)]
    bench.relay.send(*sent)
    received = bench.received(len(sent))
    assert sorted(received) == sorted(one_hop_on(packet) for packet in sent)


@pytest.mark.parametrize("plane", ["userspace", "xdp"], indirect=True)
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_zero_outer_checksums_are_accepted(make_bench, inner: int, outer: int) -> None:
    """RFC 6935: IPv6 needs the receiver's consent."""
    bench = make_bench(outer=outer)
    bench.border.forward(inner)
    bench.relay.without_checksum()
    make = datagram_ipv4 if inner == 4 else datagram_ipv6
    sent = [make(os.urandom(1315), **({"identification": n} if inner == 4 else {})) for n in range(50)]
    bench.relay.send(*sent)
    assert bench.received(50) == [one_hop_on(packet) for packet in sent]


@pytest.mark.parametrize("inner", [4, 6])
def test_a_damaged_payload_is_not_given_a_right_checksum(make_bench, inner: int) -> None:
    bench = make_bench()
    bench.border.forward(inner)
    bench.relay.without_checksum()
    make = datagram_ipv4 if inner == 4 else datagram_ipv6
    sent = [make(bytes([n]) * 1000, **({"identification": n} if inner == 4 else {})) for n in range(20)]
    sent[7] = sent[7][:-1] + b"\xee"
    bench.relay.send(*sent)
    assert bench.received(20) == [one_hop_on(packet) for packet in sent]


def test_packets_without_inner_udp_checksum_stay_without(make_bench, plane) -> None:
    bench = make_bench()
    bench.border.forward(4)
    sent = [datagram_ipv4(bytes([n]) * 1000, identification=n, summed=n % 3 == 0) for n in range(24)]
    bench.relay.send_train(sent)
    received, expected = bench.received(24), [one_hop_on(packet) for packet in sent]
    if plane is Plane.XDP_MFC:  # those without a checksum pass those the kernel joins to trains
        received, expected = sorted(received), sorted(expected)
    assert received == expected


def test_inner_fragments_pass_untouched_and_in_order(make_bench) -> None:
    bench = make_bench()
    bench.border.forward(4)
    body = udp("198.51.100.10", "232.1.1.1", os.urandom(2992))
    parts = [(body[:1400], MORE_FRAGMENTS), (body[1400:2800], MORE_FRAGMENTS | 175), (body[2800:], 350)]
    fragments = [ipv4(part, identification=77, flags=flags) for part, flags in parts]
    whole = [datagram_ipv4(bytes([n]) * 1372, identification=n) for n in range(6)]
    sent = [*whole[:3], *fragments, *whole[3:], *fragments]
    bench.relay.send(*sent)
    assert bench.received(len(sent)) == [one_hop_on(packet) for packet in sent]


def test_ipv6_fragments_pass_untouched(make_bench) -> None:
    bench = make_bench()
    bench.border.forward(6)
    body = udp("2001:db8:51::10", "ff3e::8000:1", os.urandom(1800))
    head = struct.pack(">BBHI", 17, 0, 1, 99), struct.pack(">BBHI", 17, 0, 1200, 99)
    sent = [ipv6(head[0] + body[:1200], next_header=44), ipv6(head[1] + body[1200:], next_header=44)]
    bench.relay.send(*sent)
    assert bench.received(2) == [one_hop_on(packet) for packet in sent]


OPTIONS_AND_PROTOCOLS = {
    4: [
        datagram_ipv4(b"router alert" * 20, options=bytes((0x94, 4, 0, 0))),
        ipv4(b"p" * 60, protocol=47),
        ipv4(b"p" * 2, protocol=50),
    ],
    6: [
        ipv6(bytes((17, 0, 1, 4, 0, 0, 0, 0)) + udp("2001:db8:51::10", "ff3e::8000:1", b"x" * 80), next_header=0),
        ipv6(b"p" * 60, next_header=47),
        ipv6(b"", next_header=59),
    ],
}


@pytest.mark.parametrize("inner", [4, 6])
def test_options_and_other_protocols_pass(make_bench, inner) -> None:
    bench = make_bench()
    bench.border.forward(inner)
    sent = OPTIONS_AND_PROTOCOLS[inner]
    bench.relay.send(*sent)
    assert sorted(bench.received(len(sent))) == sorted(one_hop_on(packet) for packet in sent)


def test_every_downstream_interface_of_a_channel_gets_every_packet(make_bench, topology) -> None:
    bench = make_bench()
    second = bench.border.wire(1)
    bench.border.forward(4, "down0", "down1")
    sent = [datagram_ipv4(bytes([n]) * 1316, identification=n, flags=DONT_FRAGMENT) for n in range(30)]
    bench.relay.send_train(sent)
    expected = [one_hop_on(packet) for packet in sent]
    assert bench.received(30) == expected
    bench.border.run_until(lambda: second.collect() == expected)


ECN_TABLE = [  # RFC 6040 §4.2, figure 4: outer, inner, result
    (0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 3),
    (1, 0, 0), (1, 1, 1), (1, 2, 1), (1, 3, 3),
    (2, 0, 0), (2, 1, 1), (2, 2, 2), (2, 3, 3),
    (3, 0, None), (3, 1, 3), (3, 2, 3), (3, 3, 3),
]  # fmt: skip


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
@EVERY_WAY
def test_congestion_marks_follow_the_decapsulation_table(make_bench, inner, outer, segmentation) -> None:
    """RFC 6040 §4.2 as RFC 9601 applies it to AMT; the DSCP is the inner packet's."""
    bench = make_bench(outer=outer, segmentation=segmentation)
    bench.border.forward(inner)

    def packet(ecn: int, number: int) -> bytes:
        payload = struct.pack(">I", number) * 50
        if inner == 4:
            return datagram_ipv4(payload, tos=0xB8 | ecn, identification=number)
        return datagram_ipv6(payload, traffic_class=0xB8 | ecn)

    expected = []
    for row, (outer_mark, inner_mark, result) in enumerate(ECN_TABLE):
        bench.relay.mark(outer_mark)
        bench.relay.send_train([packet(inner_mark, 10 * row + n) for n in range(4)])
        if result is not None:
            expected += [one_hop_on(packet(result, 10 * row + n)) for n in range(4)]
    assert sorted(bench.received(len(expected))) == sorted(expected)
    bench.border.run_until(lambda: bench.border.refused(Refusal.CONGESTION_LOST) == 4)


def test_a_packet_too_big_for_an_interface_is_fragmented_or_dropped_there_only(make_bench, topology) -> None:
    bench = make_bench()
    second = bench.border.wire(1)
    bench.border.forward(4, "down0", "down1")
    with inside(topology.gateway):
        run("ip", "link", "set", "down1", "mtu", "1000")
    bench.border.run_until(lambda: bench.border.limit in (None, 1000))
    kept = datagram_ipv4(b"k" * 1316, flags=DONT_FRAGMENT)
    cut = datagram_ipv4(b"c" * 1316)
    bench.relay.send(kept, cut)
    bench.relay.send_train([datagram_ipv4(bytes([n]) * 1316, identification=n, flags=DONT_FRAGMENT) for n in range(9)])
    bench.relay.send_train([datagram_ipv4(bytes([n]) * 1316, identification=n) for n in range(9)])
    assert len(bench.received(20)) == 20
    bench.border.run_until(lambda: len(second.collect()) == 20)
    assert {packet[6] & 0x40 for packet in second.packets} == {0}
    assert all(len(packet) <= 1000 for packet in second.packets)
    with inside(topology.gateway):
        run("ip", "link", "set", "down1", "mtu", "9500")
