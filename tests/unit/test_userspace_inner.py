"""Judging inner packets and the decapsulation of congestion marks."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dataplane.engine import Refusal
from agent.dataplane.userspace_flow import DONT_FRAGMENT_SOURCE, PLAIN_SOURCE, Flow, flow_of
from agent.dataplane.userspace_inner import (
    Inner,
    decapsulated_ecn,
    inspect,
    internet_checksum,
    ones_complement_sum,
    with_ecn,
)
from agent.protocol.channels import Family
from lab.bench.inner_packets import checksum, datagram_ipv4, datagram_ipv6, ipv4, ipv6


def nobody(_: object) -> bool:
    """No address is our own."""
    return False


def flow(packet: bytes, mark: int = 0) -> Flow:
    judged = flow_of(packet, mark, nobody)
    assert isinstance(judged, Flow)
    return judged


def test_a_plain_datagram_is_accepted_with_its_channel() -> None:
    packet = datagram_ipv4(b"payload")
    assert inspect(packet, nobody) == Inner(Family.IPV4, packet[12:20], 16, whole_datagram=True)
    packet = datagram_ipv6(b"payload")
    assert inspect(packet, nobody) == Inner(Family.IPV6, packet[8:40], 16, whole_datagram=True)


@pytest.mark.parametrize(
    "packet",
    [
        ipv4(b"x" * 40, flags=0x2000),
        ipv4(b"x" * 40, flags=0x00B9),
        ipv4(b"x" * 40, protocol=6),
        ipv4(b"\x13\x88\x13\x8c\x00\x09\0\0xy"),  # UDP length shorter than the packet
        ipv4(b"\x13\x88\x13\x8c\x00\x08\0\0"),  # no payload: nothing to cut
        datagram_ipv4(b"payload", options=b"\x94\x04\0\0"),
        ipv6(b"x" * 40, next_header=44),
        ipv6(b"\x13\x88\x13\x8c\x00\x09\0\0xy"),
    ],
)
def test_what_a_kernel_could_not_cut_up_again_travels_alone(packet: bytes) -> None:
    judged = inspect(packet, nobody)
    assert isinstance(judged, Inner)
    assert not judged.whole_datagram


@given(st.binary(max_size=120))
def test_any_octets_are_judged(packet: bytes) -> None:
    assert isinstance(inspect(packet, nobody), Inner | Refusal)


@given(st.sampled_from([datagram_ipv4(b"payload" * 5), datagram_ipv6(b"payload" * 5)]), st.data())
def test_whatever_is_accepted_has_consistent_lengths(packet: bytes, data: st.DataObject) -> None:
    changed = bytearray(packet)
    for _ in range(data.draw(st.integers(0, 4))):
        changed[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(changed[: data.draw(st.integers(0, len(packet)))])
    judged = inspect(cut, nobody)
    if isinstance(judged, Inner):
        at, extra = (2, 0) if judged.family is Family.IPV4 else (4, 40)
        assert int.from_bytes(cut[at : at + 2], "big") + extra == len(cut)
        assert judged.hop_limit > 1


@pytest.mark.parametrize("version", [4, 6])
def test_own_addresses_are_told_by_the_callers_predicate(version: int) -> None:
    packet = datagram_ipv4(b"x") if version == 4 else datagram_ipv6(b"x")
    asked = []
    assert inspect(packet, lambda address: not asked.append(str(address))) is Refusal.SPOOFED_LOCAL_SOURCE
    assert asked == ["198.51.100.10" if version == 4 else "2001:db8:51::10"]


def test_congestion_marks_as_in_the_table() -> None:
    """RFC 6040 §4.2, figure 4: rows are the inner field (Not-ECT, ECT(0), ECT(1), CE), columns the outer."""
    not_ect, ect1, ect0, ce = range(4)
    table = {
        not_ect: {not_ect: not_ect, ect0: not_ect, ect1: not_ect, ce: None},
        ect0: {not_ect: ect0, ect0: ect0, ect1: ect1, ce: ce},
        ect1: {not_ect: ect1, ect0: ect1, ect1: ect1, ce: ce},
        ce: {not_ect: ce, ect0: ce, ect1: ce, ce: ce},
    }
    for inner, row in table.items():
        for outer, result in row.items():
            assert decapsulated_ecn(outer, inner) == result


@given(st.integers(0, 3), st.integers(0, 255), st.integers(0, 0xFFFF))
def test_a_new_congestion_mark_keeps_everything_else(ecn: int, tos: int, identification: int) -> None:
    for packet in (datagram_ipv4(b"x", tos=tos, identification=identification), datagram_ipv6(b"x", traffic_class=tos)):
        made = with_ecn(packet, ecn)
        if packet[0] >> 4 == 4:
            assert made == datagram_ipv4(b"x", tos=tos & 0xFC | ecn, identification=identification)
        else:
            assert made == datagram_ipv6(b"x", traffic_class=tos & 0xFC | ecn)


@given(st.binary(min_size=2, max_size=80).filter(lambda data: len(data) % 2 == 0))
def test_the_checksum_is_that_of_the_word_by_word_sum(data: bytes) -> None:
    assert internet_checksum(data) == checksum(data)
    assert ones_complement_sum(data) == ~checksum(data) & 0xFFFF


def test_a_refused_packet_has_no_flow() -> None:
    assert flow_of(b"", 0, nobody) is Refusal.BAD_INNER_HEADER
    assert flow_of(datagram_ipv4(b"x"), 3, nobody) is Refusal.CONGESTION_LOST


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_valid_sums_are_those_of_intact_headers(first: int, second: int) -> None:
    known = flow(datagram_ipv4(b"x", identification=first))
    packet = datagram_ipv4(b"x", identification=second)
    number, sum_field = struct.unpack_from(">H4xH", packet, 4)
    assert number + sum_field in known.valid_sums
    assert number + (sum_field ^ 1) not in known.valid_sums


@given(st.integers(0, 0xFFFF), st.integers(2, 40), st.integers(1, 1400), st.booleans())
def test_the_header_of_an_ipv4_train(identification: int, count: int, size: int, keep: bool) -> None:
    packet = datagram_ipv4(b"x" * size, flags=0x4000 if keep else 0, identification=identification, tos=0xB8)
    start = flow(packet).train_start(identification, size, count)
    virtio, ethernet, ip, udp = start[:10], start[10:24], start[24:44], start[44:]
    assert struct.unpack("=BBHHHH", virtio) == (1, 5, 14 + 20 + 8, size, 14 + 20, 6)
    assert ethernet == b"\x01\x00\x5e\x01\x01\x01" + (DONT_FRAGMENT_SOURCE if keep else PLAIN_SOURCE) + b"\x08\x00"
    length = 20 + 8 + count * size
    assert ip[:10] == packet[:2] + struct.pack(">HHH", length, identification, 0) + packet[8:10]
    assert checksum(ip) == 0
    assert ip[12:] == packet[12:20]
    assert udp[:6] == packet[20:24] + struct.pack(">H", length - 20)
    pseudo_header = packet[12:20] + struct.pack(">HH", 17, length - 20)
    assert int.from_bytes(udp[6:], "big") == ~checksum(pseudo_header) & 0xFFFF


@given(st.integers(2, 40), st.integers(1, 1400))
def test_the_header_of_an_ipv6_train(count: int, size: int) -> None:
    packet = datagram_ipv6(b"x" * size, traffic_class=0xB8)
    start = flow(packet).train_start(0, size, count)
    assert struct.unpack("=BBHHHH", start[:10]) == (1, 5, 14 + 40 + 8, size, 14 + 40, 6)
    assert start[10:24] == b"\x33\x33\x80\x00\x00\x01" + PLAIN_SOURCE + b"\x86\xdd"
    length = 8 + count * size
    assert start[24:64] == packet[:4] + struct.pack(">H", length) + packet[6:40]
    pseudo_header = packet[8:40] + struct.pack(">HH", 17, length)
    assert start[64:] == packet[40:44] + struct.pack(">HH", length, ~checksum(pseudo_header) & 0xFFFF)


def test_the_group_address_makes_the_frame_multicast() -> None:
    """RFC 1112 §6.4: the low 23 bits; RFC 2464 §7: the low 32."""
    assert flow(datagram_ipv4(b"x", group="239.255.129.3")).frame_start[10:16].hex() == "01005e7f8103"
    assert flow(datagram_ipv6(b"x", group="ff3e::8123:4567")).frame_start[10:16].hex() == "333381234567"
