"""What the program on the uplinks does with each frame: verdict, octets, counters. No frame leaves the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agent.dataplane.engine import Refusal
from agent.dataplane.fast.layout import EVENT, FIRST_PACKET, Plane
from agent.net.bpf import RingBuffer, object_path
from lab.bench.gateway_program import (
    DOUBLY_TAGGED_PORT,
    DROP,
    LENIENT_PORT,
    LIMIT,
    PASS,
    REDIRECT,
    RELAY_PORT,
    SECRET,
    SECRET_KEEP_WHOLE,
    TAGGED_PORT,
    GatewayProgram,
    Outer,
    forwarded,
    refused,
)
from lab.bench.gateway_program_checks import (
    expect_forwarded,
    expect_left,
    expect_refused,
    link_header,
    with_ecn,
    without_dont_fragment,
)
from lab.bench.inner_packets import datagram, datagram_ipv4, datagram_ipv6, ipv4, one_hop_on

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root"),
    pytest.mark.skipif(not object_path("gateway").exists(), reason="gateway.bpf.o is missing: `make bpf`"),
]

FAMILIES = [(4, 4), (4, 6), (6, 4), (6, 6)]
OF_FAMILIES = pytest.mark.parametrize(("outer", "inner"), FAMILIES, ids=lambda value: f"v{value}")
OF_OUTER = pytest.mark.parametrize("outer", [4, 6], ids=lambda value: f"v{value}")
DONT_FRAGMENT = 0x4000


@pytest.fixture(scope="module")
def loaded() -> Iterator[GatewayProgram]:
    with GatewayProgram() as program:
        yield program


@pytest.fixture
def program(loaded: GatewayProgram) -> GatewayProgram:
    loaded.forget_counts()
    loaded.set_receive_cores(0)
    for version in (4, 6):
        loaded.set_channel(version)
    return loaded


@OF_FAMILIES
@pytest.mark.parametrize("size", [0, 1, 18, 63, 188, 1316, LIMIT - 48])
def test_a_packet_leaves_as_a_router_would_emit_it(program: GatewayProgram, outer: int, inner: int, size: int) -> None:
    program.set_channel(inner, tunnel=outer)
    packet = datagram(inner, bytes(index % 251 for index in range(size)))
    expect_forwarded(program, Outer(outer).around(packet), packet, one_hop_on(packet), outer)


@OF_FAMILIES
@pytest.mark.parametrize("padding", [1, 2, 17, 300])
def test_what_stands_behind_the_outer_packet_is_cut_off(
    program: GatewayProgram, outer: int, inner: int, padding: int
) -> None:
    program.set_channel(inner, tunnel=outer)
    packet = datagram(inner, b"short")
    frame = Outer(outer, padding=b"\xee" * padding).around(packet)
    expect_forwarded(program, frame, packet, one_hop_on(packet), outer)


@OF_FAMILIES
@pytest.mark.parametrize("hops", [2, 3, 64, 128, 255])
def test_the_hop_is_taken(program: GatewayProgram, outer: int, inner: int, hops: int) -> None:
    program.set_channel(inner, tunnel=outer)
    packet = datagram_ipv4(b"x", ttl=hops) if inner == 4 else datagram_ipv6(b"x", hop_limit=hops)
    expect_forwarded(program, Outer(outer).around(packet), packet, one_hop_on(packet), outer)


@pytest.mark.parametrize("identification", range(0, 65536, 1657))
@pytest.mark.parametrize("tos", [0, 0xB9, 0xFE])
def test_the_header_checksum_is_as_if_computed_anew(program: GatewayProgram, identification: int, tos: int) -> None:
    packet = datagram_ipv4(b"x", identification=identification, tos=tos)
    wanted = one_hop_on(with_ecn(packet, 3) if tos & 3 else packet)
    expect_forwarded(program, Outer(tos=3 if tos & 3 else 0).around(packet), packet, wanted)


def test_an_all_ones_checksum_is_taken_and_becomes_the_usual_one(program: GatewayProgram) -> None:
    """It says the same as zero (RFC 1624 §3); some identification makes the sum come out so."""
    found = (datagram_ipv4(b"x", identification=number) for number in range(65536))
    packet = next(packet for packet in found if packet[10:12] == b"\0\0")
    wanted = one_hop_on(packet)
    altered = packet[:10] + b"\xff\xff" + packet[12:]
    expect_forwarded(program, Outer().around(altered), altered, wanted)


# RFC 6040 §4.2, figure 4: rows are the inner field, columns the outer one, each in the order 00, 01, 10, 11.
DECAPSULATED = {0: (0, 0, 0, None), 1: (1, 1, 1, 3), 2: (2, 1, 2, 3), 3: (3, 3, 3, 3)}


@OF_FAMILIES
@pytest.mark.parametrize("inner_ecn", range(4))
@pytest.mark.parametrize("outer_ecn", range(4))
def test_congestion_marks_leave_the_tunnel(
    program: GatewayProgram, outer: int, inner: int, inner_ecn: int, outer_ecn: int
) -> None:
    program.set_channel(inner, tunnel=outer)
    tos = 0xB8 | inner_ecn
    packet = datagram_ipv4(b"x", tos=tos) if inner == 4 else datagram_ipv6(b"x", traffic_class=tos)
    frame = Outer(outer, tos=0x40 | outer_ecn).around(packet)
    wanted = DECAPSULATED[inner_ecn][outer_ecn]
    if wanted is None:
        expect_refused(program, frame, Refusal.CONGESTION_LOST)
    else:
        expect_forwarded(program, frame, packet, one_hop_on(with_ecn(packet, wanted)), outer)


@OF_OUTER
@pytest.mark.parametrize("flags", [0x2000, 0x2001, 0x00B9, DONT_FRAGMENT, 0x8000])
def test_inner_fragments_and_flags_are_forwarded(program: GatewayProgram, outer: int, flags: int) -> None:
    program.set_channel(4, tunnel=outer)
    packet = ipv4(bytes(64), flags=flags)
    expect_forwarded(program, Outer(outer).around(packet), packet, one_hop_on(packet), outer)


TAGS = {
    TAGGED_PORT: [((0x8100, 7),), ((0x8100, 0xE007),), ((0x88A8, 7),), ((0x8100, 7), (0x8100, 0))],
    DOUBLY_TAGGED_PORT: [((0x88A8, 7), (0x8100, 9)), ((0x8100, 0x2007), (0x8100, 0x1009))],
    LENIENT_PORT: [(), ((0x8100, 0),), ((0x8100, 0xE000),)],
}
WRONG_TAGS = {
    TAGGED_PORT: [(), ((0x8100, 8),), ((0x8100, 7), (0x8100, 9)), ((0x9100, 7),)],
    DOUBLY_TAGGED_PORT: [((0x8100, 7),), ((0x88A8, 9), (0x8100, 7)), ((0x8100, 7), (0x8100, 9), (0x8100, 1))],
    LENIENT_PORT: [((0x8100, 7),), ((0x8100, 0), (0x8100, 7))],
}


@OF_FAMILIES
@pytest.mark.parametrize(("port", "tags"), [(port, tags) for port, listed in TAGS.items() for tags in listed])
def test_the_tags_of_a_tunnel_go_with_the_rest(
    program: GatewayProgram, outer: int, inner: int, port: int, tags: tuple[tuple[int, int], ...]
) -> None:
    program.set_channel(inner, tunnel=outer)
    packet = datagram(inner, b"x")
    frame = Outer(outer, ports=(RELAY_PORT, port), tags=tags).around(packet)
    expect_forwarded(program, frame, packet, one_hop_on(packet), outer)


@OF_FAMILIES
@pytest.mark.parametrize(("port", "tags"), [(port, tags) for port, listed in WRONG_TAGS.items() for tags in listed])
def test_frames_of_another_vlan_are_left(
    program: GatewayProgram, outer: int, inner: int, port: int, tags: tuple[tuple[int, int], ...]
) -> None:
    expect_left(program, Outer(outer, ports=(RELAY_PORT, port), tags=tags).around(datagram(inner, b"x")))


@OF_FAMILIES
@pytest.mark.parametrize("plane", [Plane.USERSPACE, Plane.TC])
def test_a_channel_of_another_plane_is_left(program: GatewayProgram, outer: int, inner: int, plane: Plane) -> None:
    program.set_channel(inner, tunnel=outer, plane=plane, refuse=Refusal.SPOOFED_LOCAL_SOURCE)
    counted = "userspace_channel" if plane is Plane.USERSPACE else None
    expect_left(program, Outer(outer).around(datagram(inner, b"x")), counted)


@OF_FAMILIES
@pytest.mark.parametrize("refusal", [Refusal.SPOOFED_LOCAL_SOURCE, Refusal.NOT_SUBSCRIBED])
def test_a_channel_may_be_refused_as_a_whole(program: GatewayProgram, outer: int, inner: int, refusal: Refusal) -> None:
    program.set_channel(inner, tunnel=outer, refuse=refusal)
    expect_refused(program, Outer(outer).around(datagram(inner, b"x")), refusal)


@OF_FAMILIES
@pytest.mark.parametrize("changes", [{"single": 99}, {"single": 0, "set": 2}], ids=["single", "set"])
def test_an_interface_that_is_not_there_is_an_output_error(
    program: GatewayProgram, outer: int, inner: int, changes: dict[str, int]
) -> None:
    program.set_channel(inner, tunnel=outer, **changes)
    run = program.run(Outer(outer).around(datagram(inner, b"x")))
    assert run.verdict == DROP
    assert program.counts() == refused(Refusal.OUTPUT_ERROR)


@OF_FAMILIES
def test_several_interfaces_are_a_set(program: GatewayProgram, outer: int, inner: int) -> None:
    program.set_channel(inner, tunnel=outer, single=0, set=1)
    packet = datagram(inner, b"x")
    expect_forwarded(program, Outer(outer).around(packet), packet, one_hop_on(packet), outer)


@OF_FAMILIES
@pytest.mark.parametrize("flags", [0, DONT_FRAGMENT])
@pytest.mark.parametrize("marks", [(0, 0), (2, 3), (2, 1)])
def test_a_packet_for_the_kernels_routing_keeps_its_hops_and_loses_dont_fragment(
    program: GatewayProgram, outer: int, inner: int, flags: int, marks: tuple[int, int]
) -> None:
    inner_ecn, outer_ecn = marks
    program.set_channel(inner, tunnel=outer, plane=Plane.XDP_MFC)
    if inner == 4:
        packet = datagram_ipv4(b"x", flags=flags, tos=inner_ecn)
        wanted = without_dont_fragment(packet)
    else:
        wanted = packet = datagram_ipv6(b"x", traffic_class=inner_ecn)
    ecn = DECAPSULATED[inner_ecn][outer_ecn]
    assert ecn is not None
    run = program.run(Outer(outer, tos=outer_ecn).around(packet))
    station = SECRET_KEEP_WHOLE if flags and inner == 4 else SECRET
    assert run.verdict == PASS
    assert run.data == station + link_header(packet)[6:] + with_ecn(wanted, ecn)
    assert program.counts() == forwarded(inner, outer, len(packet))


@OF_FAMILIES
def test_the_first_packet_is_told_once(program: GatewayProgram, outer: int, inner: int) -> None:
    told: list[bytes] = []
    ring = RingBuffer(program.map("events"), lambda event: told.append(bytes(event)))
    try:
        program.set_channel(inner, tunnel=outer, announce=True)
        frame = Outer(outer).around(datagram(inner, b"x"))
        assert [program.run(frame).verdict for _ in range(3)] == [REDIRECT] * 3
        ring.drain()
        assert told == [EVENT.pack(FIRST_PACKET, inner, outer, 0)]
    finally:
        ring.close()


@OF_FAMILIES
@pytest.mark.parametrize("changes", [{"limit": 20}, {"plane": Plane.TC}, {"refuse": Refusal.NOT_SUBSCRIBED}])
def test_a_packet_not_forwarded_is_not_told(
    program: GatewayProgram, outer: int, inner: int, changes: dict[str, object]
) -> None:
    told: list[bytes] = []
    ring = RingBuffer(program.map("events"), lambda event: told.append(bytes(event)))
    try:
        program.set_channel(inner, tunnel=outer, announce=True, **changes)
        program.run(Outer(outer).around(datagram(inner, b"x")))
        ring.drain()
        assert told == []
    finally:
        ring.close()


@OF_FAMILIES
def test_without_a_processor_to_hand_it_to_a_packet_is_left_to_the_socket(
    program: GatewayProgram, outer: int, inner: int
) -> None:
    program.set_channel(inner, tunnel=outer)
    program.set_receive_cores(2)
    expect_left(program, Outer(outer).around(datagram(inner, b"x")))
