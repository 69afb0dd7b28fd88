"""Frames that the program on the uplinks refuses, and those it leaves to the socket, with their counters."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agent.dataplane.engine import Refusal
from agent.net.bpf import object_path
from lab.bench.gateway_program import (
    ANY_SOURCE_GROUP,
    DROP,
    LENIENT_PORT,
    OUR_PORT,
    PASS,
    RELAY_PORT,
    GatewayProgram,
    Outer,
    refused,
)
from lab.bench.gateway_program_checks import (
    expect_forwarded,
    expect_left,
    expect_refused,
)
from lab.bench.inner_packets import GROUP, datagram, datagram_ipv4, datagram_ipv6, one_hop_on

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
@pytest.mark.parametrize("hops", [0, 1])
def test_a_packet_out_of_hops_is_refused(program: GatewayProgram, outer: int, inner: int, hops: int) -> None:
    packet = datagram_ipv4(b"x", ttl=hops) if inner == 4 else datagram_ipv6(b"x", hop_limit=hops)
    expect_refused(program, Outer(outer).around(packet), Refusal.TTL_EXPIRED)


@OF_FAMILIES
def test_an_unknown_source_is_refused(program: GatewayProgram, outer: int, inner: int) -> None:
    make, source = (datagram_ipv4, "198.51.100.99") if inner == 4 else (datagram_ipv6, "2001:db8:51::99")
    expect_refused(program, Outer(outer).around(make(b"x", source=source)), Refusal.NOT_SUBSCRIBED)


@OF_FAMILIES
def test_a_channel_of_another_tunnel_is_not_subscribed(program: GatewayProgram, outer: int, inner: int) -> None:
    program.set_channel(inner, tunnel=5)
    expect_refused(program, Outer(outer).around(datagram(inner, b"x")), Refusal.NOT_SUBSCRIBED)


@OF_FAMILIES
def test_a_new_source_of_a_group_wanted_from_any_is_left(program: GatewayProgram, outer: int, inner: int) -> None:
    make = datagram_ipv4 if inner == 4 else datagram_ipv6
    expect_left(program, Outer(outer).around(make(b"x", group=ANY_SOURCE_GROUP[inner])), "new_source")


@OF_OUTER
@pytest.mark.parametrize("sender", ["192.0.2.9", "2001:db8:2::9"])
def test_data_of_a_stranger_is_refused(program: GatewayProgram, outer: int, sender: str) -> None:
    if (":" in sender) is not (outer == 6):
        sender = "192.0.3.1" if outer == 4 else "2001:db8:3::1"
    expect_refused(program, Outer(outer, relay=sender).around(datagram(4, b"x")), Refusal.WRONG_RELAY)


@OF_OUTER
def test_data_from_another_port_of_the_relay_is_refused(program: GatewayProgram, outer: int) -> None:
    frame = Outer(outer, ports=(9999, OUR_PORT[outer])).around(datagram(4, b"x"))
    expect_refused(program, frame, Refusal.WRONG_RELAY)


@OF_OUTER
def test_data_from_another_port_is_taken_by_a_tunnel_that_may(program: GatewayProgram, outer: int) -> None:
    program.set_channel(4, tunnel=outer)
    packet = datagram(4, b"x")
    frame = Outer(outer, ports=(9999, LENIENT_PORT)).around(packet)
    expect_forwarded(program, frame, packet, one_hop_on(packet), outer)


BAD_SOURCES = {
    4: ["0.0.0.0", "127.0.0.1", "127.255.255.255", "169.254.0.1", "224.1.1.1", "239.0.0.1", "240.0.0.1",
        "255.255.255.255"],
    6: ["::", "::1", "fe80::1", "febf::1", "ff0e::1"],
}  # fmt: skip
BAD_GROUPS = {4: ["10.0.0.1", "223.255.255.255", "240.0.0.0"], 6: ["2001:db8::1", "fe80::1", "::"]}
LOCAL_GROUPS = {4: ["224.0.0.0", "224.0.0.13", "224.0.0.255", "224.0.1.39", "224.0.1.40"],
                6: ["ff00::1", "ff01::1", "ff02::1", "ff12::1", "ff32::1"]}  # fmt: skip


def _each(values: dict[int, list[str]]) -> list[tuple[int, str]]:
    return [(version, value) for version, listed in values.items() for value in listed]


@OF_OUTER
@pytest.mark.parametrize(("inner", "source"), _each(BAD_SOURCES))
def test_a_source_that_cannot_be_is_refused(program: GatewayProgram, outer: int, inner: int, source: str) -> None:
    make = datagram_ipv4 if inner == 4 else datagram_ipv6
    expect_refused(program, Outer(outer).around(make(b"x", source=source)), Refusal.BAD_INNER_HEADER)


@OF_OUTER
@pytest.mark.parametrize(("inner", "group"), _each(BAD_GROUPS))
def test_unicast_is_refused(program: GatewayProgram, outer: int, inner: int, group: str) -> None:
    make = datagram_ipv4 if inner == 4 else datagram_ipv6
    expect_refused(program, Outer(outer).around(make(b"x", group=group)), Refusal.BAD_INNER_HEADER)


@OF_OUTER
@pytest.mark.parametrize(("inner", "group"), _each(LOCAL_GROUPS))
def test_groups_of_one_link_are_refused(program: GatewayProgram, outer: int, inner: int, group: str) -> None:
    make = datagram_ipv4 if inner == 4 else datagram_ipv6
    expect_refused(program, Outer(outer).around(make(b"x", group=group)), Refusal.LINK_LOCAL_GROUP)


@OF_OUTER
@pytest.mark.parametrize(("inner", "source"), [(4, "198.51.100.99"), (4, "126.255.0.1"), (4, "169.253.1.1"),
                                               (6, "2001:db8::9"), (6, "fec0::1"), (6, "::2")])  # fmt: skip
@pytest.mark.parametrize("group", ["224.0.1.1", "239.255.255.255", "ff03::1", "ff3e::1"])
def test_other_channels_are_only_not_subscribed(
    program: GatewayProgram, outer: int, inner: int, source: str, group: str
) -> None:
    if (":" in group) is not (inner == 6):
        group = GROUP[inner]
    make = datagram_ipv4 if inner == 4 else datagram_ipv6
    expect_refused(program, Outer(outer).around(make(b"x", source=source, group=group)), Refusal.NOT_SUBSCRIBED)


@OF_FAMILIES
@pytest.mark.parametrize("change", [1, 7, 1000])
def test_a_packet_that_claims_more_than_there_is_is_refused(
    program: GatewayProgram, outer: int, inner: int, change: int
) -> None:
    packet = datagram(inner, b"some payload")
    at = 2 if inner == 4 else 4
    length = int.from_bytes(packet[at : at + 2], "big") + change
    expect_refused(
        program,
        Outer(outer).around(packet[:at] + length.to_bytes(2, "big") + packet[at + 2 :]),
        Refusal.BAD_INNER_HEADER,
    )


@OF_FAMILIES
@pytest.mark.parametrize("behind", [b"\0", b"\x06\x00" + datagram(4, b"x")], ids=["octet", "datagram"])
def test_more_than_one_packet_is_left(program: GatewayProgram, outer: int, inner: int, behind: bytes) -> None:
    expect_left(program, Outer(outer).around(datagram(inner, b"x") + behind), "aggregate")


@OF_OUTER
@pytest.mark.parametrize("octet", range(20))
def test_a_damaged_inner_header_is_never_forwarded(program: GatewayProgram, outer: int, octet: int) -> None:
    packet = datagram(4, b"x")
    damaged = packet[:octet] + bytes((packet[octet] ^ 0x10,)) + packet[octet + 1 :]
    run = program.run(Outer(outer).around(damaged))
    assert run.verdict in (DROP, PASS)
    counts = program.counts()
    assert counts in (refused(Refusal.BAD_INNER_HEADER), {"inner_options": (1,)}, {"aggregate": (1,)})


@OF_OUTER
@pytest.mark.parametrize("version", [0, 1, 3, 5, 7, 15])
def test_another_version_is_refused(program: GatewayProgram, outer: int, version: int) -> None:
    packet = datagram(4, b"x")
    frame = Outer(outer).around(bytes((version << 4 | 5,)) + packet[1:])
    expect_refused(program, frame, Refusal.BAD_INNER_HEADER)


@OF_OUTER
def test_inner_options_are_left(program: GatewayProgram, outer: int) -> None:
    expect_left(program, Outer(outer).around(datagram_ipv4(b"x", options=b"\x94\x04\0\0")), "inner_options")


@OF_OUTER
def test_hop_by_hop_options_are_left(program: GatewayProgram, outer: int) -> None:
    packet = datagram_ipv6(b"x")
    packet = packet[:6] + b"\0" + packet[7:]
    expect_left(program, Outer(outer).around(packet), "inner_options")


@OF_FAMILIES
def test_a_packet_too_long_for_an_interface_is_left(program: GatewayProgram, outer: int, inner: int) -> None:
    packet = datagram(inner, bytes(100))
    program.set_channel(inner, tunnel=outer, limit=len(packet) - 1)
    expect_left(program, Outer(outer).around(packet), "too_big")
    program.forget_counts()
    program.set_channel(inner, tunnel=outer, limit=len(packet))
    expect_forwarded(program, Outer(outer).around(packet), packet, one_hop_on(packet), outer)


@pytest.mark.parametrize("flags", [0x2000, 0x2001])
def test_outer_fragments_are_left(program: GatewayProgram, flags: int) -> None:
    frame = Outer(flags=flags).around(datagram(4, b"x"))
    expect_left(program, frame, "outer_fragment" if flags == 0x2000 else None)


def test_outer_options_are_left(program: GatewayProgram) -> None:
    expect_left(program, Outer(options=b"\x01\x01\x01\0").around(datagram(4, b"x")), "outer_options")


@pytest.mark.parametrize(
    ("next_header", "extension", "counted"),
    [
        (0, bytes((17, 0)) + bytes(6), "outer_options"),
        (60, bytes((17, 1)) + bytes(14), "outer_options"),
        (43, bytes((17, 0)) + bytes(6), "outer_options"),
        (44, bytes((17, 0, 0, 1)) + bytes(4), "outer_fragment"),
        (44, bytes((17, 0, 0, 8)) + bytes(4), None),
        (60, bytes((60, 0)) + bytes(6) + bytes((17, 0)) + bytes(6), None),
    ],
)
def test_outer_extension_headers_are_left(
    program: GatewayProgram, next_header: int, extension: bytes, counted: str | None
) -> None:
    frame = Outer(6, next_header=next_header, extension=extension).around(datagram(4, b"x"))
    expect_left(program, frame, counted)


@OF_OUTER
@pytest.mark.parametrize("message", [b"", b"\x00\x00", b"\x02\x00", b"\x04\x00", b"\x05\x00", b"\x16\x00", b"\xf6\x00"])
def test_other_messages_are_left(program: GatewayProgram, outer: int, message: bytes) -> None:
    expect_left(program, Outer(outer, message=message).around(datagram(4, bytes(40))))


@OF_OUTER
def test_the_reserved_octet_means_nothing(program: GatewayProgram, outer: int) -> None:
    program.set_channel(4, tunnel=outer)
    packet = datagram(4, b"x")
    expect_forwarded(program, Outer(outer, message=b"\x06\xff").around(packet), packet, one_hop_on(packet), outer)


@OF_OUTER
@pytest.mark.parametrize("port", [1, 2268, 40001])
def test_other_ports_are_left(program: GatewayProgram, outer: int, port: int) -> None:
    expect_left(program, Outer(outer, ports=(RELAY_PORT, port)).around(datagram(4, b"x")))


@OF_OUTER
def test_other_addresses_are_left(program: GatewayProgram, outer: int) -> None:
    elsewhere = "192.0.2.77" if outer == 4 else "2001:db8:2::77"
    expect_left(program, Outer(outer, gateway=elsewhere).around(datagram(4, b"x")))


@OF_FAMILIES
def test_a_frame_cut_anywhere_is_left(program: GatewayProgram, outer: int, inner: int) -> None:
    frame = Outer(outer).around(datagram(inner, b"payload"))
    for size in range(14, len(frame)):
        run = program.run(frame[:size])
        assert (run.verdict, run.data) == (PASS, frame[:size]), size
    assert program.counts() == {}


@OF_OUTER
@pytest.mark.parametrize("change", [-1, 1, -8])
def test_an_outer_length_that_disagrees_is_left(program: GatewayProgram, outer: int, change: int) -> None:
    frame = bytearray(Outer(outer).around(datagram(4, b"payload")))
    at = 14 + (24 if outer == 4 else 44)
    frame[at : at + 2] = (int.from_bytes(frame[at : at + 2], "big") + change).to_bytes(2, "big")
    expect_left(program, bytes(frame))


def test_a_damaged_outer_header_is_left(program: GatewayProgram) -> None:
    frame = bytearray(Outer().around(datagram(4, b"payload")))
    frame[14 + 8] ^= 1
    expect_left(program, bytes(frame))
