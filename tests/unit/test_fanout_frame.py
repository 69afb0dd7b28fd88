"""Captured frames become inner packets: TTL, checksums, segmentation, refusals (all frames synthetic)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dataplane.capture_frame import complete_checksum, internet_checksum, read_frame
from agent.dataplane.engine import Refusal

ETHERNET = bytes.fromhex("01005e010101 020000000001 0800".replace(" ", ""))
IPV4_SOURCE, IPV4_GROUP = bytes([10, 0, 0, 1]), bytes([232, 1, 1, 1])
IPV6_SOURCE, IPV6_GROUP = bytes.fromhex("20010db8" + "0" * 23 + "1"), bytes.fromhex("ff3e" + "0" * 20 + "80000001")


def words_sum(data: bytes) -> int:
    """One's complement sum the slow, obvious way (RFC 1071 §1)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def udp(payload: bytes, addresses: bytes, checksum: bool = True) -> bytes:
    header = struct.pack("!HHHH", 4000, 5000, 8 + len(payload), 0)
    if not checksum:
        return header + payload
    value = words_sum(addresses + struct.pack("!HH", 17, 8 + len(payload)) + header + payload) ^ 0xFFFF
    return header[:6] + struct.pack("!H", value or 0xFFFF) + payload


def ipv4(
    body: bytes, *, ttl: int = 16, flags: int = 0, options: bytes = b"", protocol: int = 17, tos: int = 0
) -> bytes:
    header = bytearray(
        struct.pack(
            "!BBHHHBBH", 0x45 + len(options) // 4, tos, 20 + len(options) + len(body), 7, flags, ttl, protocol, 0
        )
        + IPV4_SOURCE
        + IPV4_GROUP
        + options
    )
    header[10:12] = struct.pack("!H", words_sum(bytes(header)) ^ 0xFFFF)
    return bytes(header) + body


def ipv6(body: bytes, *, hops: int = 16, following: int = 17) -> bytes:
    return struct.pack("!IHBB", 0x6000_0000, len(body), following, hops) + IPV6_SOURCE + IPV6_GROUP + body


def frame(packet: bytes, *, flags: int = 0, gso: int = 0, size: int = 0, start: int = 0, offset: int = 0) -> memoryview:
    return memoryview(bytearray(struct.pack("=BBHHHH", flags, gso, 0, size, start, offset) + ETHERNET + packet))


def read(packet: bytes, **virtio: int) -> tuple[Refusal | None, list[bytes]]:
    packets: list[bytes] = []
    return read_frame(frame(packet, **virtio), 14, packets), packets


def header_is_sound(packet: bytes) -> bool:
    return words_sum(packet[: (packet[0] & 15) * 4]) == 0xFFFF


@pytest.mark.parametrize("ttl", [2, 3, 64, 128, 255])
def test_ipv4_ttl_is_decremented_and_nothing_else_changes(ttl: int) -> None:
    sent = ipv4(
        udp(b"payload", IPV4_SOURCE + IPV4_GROUP), ttl=ttl, flags=0x4000, options=bytes([0x94, 4, 0, 0]), tos=0xB9
    )
    refusal, packets = read(sent)
    assert refusal is None
    (got,) = packets
    assert got[8] == ttl - 1
    assert header_is_sound(got)
    assert got[:8] + got[9:10] + got[12:] == sent[:8] + sent[9:10] + sent[12:]


@given(st.binary(min_size=6, max_size=6), st.integers(2, 255))
def test_incremental_checksum_equals_a_fresh_one(noise: bytes, ttl: int) -> None:
    # RFC 1624 exists because the older formula got some of these wrong.
    sent = bytearray(ipv4(b"x" * 8, ttl=ttl))
    sent[1], sent[4:6], sent[12:15] = noise[0], noise[1:3], noise[3:6]
    sent[10:12] = b"\0\0"
    sent[10:12] = struct.pack("!H", words_sum(bytes(sent[:20])) ^ 0xFFFF)
    _, packets = read(bytes(sent))
    assert header_is_sound(packets[0])


def test_ipv6_hop_limit_is_decremented_and_nothing_else_changes() -> None:
    sent = ipv6(udp(b"payload", IPV6_SOURCE + IPV6_GROUP))
    refusal, packets = read(sent)
    assert refusal is None
    assert packets == [sent[:7] + b"\x0f" + sent[8:]]


@pytest.mark.parametrize("ttl", [0, 1])
def test_an_expired_packet_goes_no_further(ttl: int) -> None:
    assert read(ipv4(b"x" * 8, ttl=ttl)) == (Refusal.TTL_EXPIRED, [])
    assert read(ipv6(b"x" * 8, hops=ttl)) == (Refusal.TTL_EXPIRED, [])


def test_ethernet_padding_is_cut_off() -> None:
    sent = ipv4(udp(b"", IPV4_SOURCE + IPV4_GROUP))
    _, packets = read(sent + bytes(18))
    assert len(packets[0]) == 28


def test_an_inner_fragment_passes_untouched() -> None:
    sent = ipv4(b"tail of a datagram", flags=0x2000 | 185)
    _, packets = read(sent)
    assert packets[0][4:8] == sent[4:8]
    assert packets[0][20:] == sent[20:]


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        ipv4(b"x" * 8)[:19],
        b"\x55" + ipv4(b"x" * 8)[1:],
        ipv4(b"x" * 8)[:2] + b"\xff\xff" + ipv4(b"x" * 8)[4:],
        b"\x44" + ipv4(b"x" * 8)[1:],
        ipv4(b"x" * 8)[:10] + b"\x00\x00" + ipv4(b"x" * 8)[12:],
        ipv6(b"x" * 8)[:-1],
        ipv6(b"")[:40],
        b"\x60" + bytes(30),
    ],
    ids=["empty", "short", "version", "length", "header-length", "checksum", "truncated6", "jumbo6", "short6"],
)
def test_a_broken_packet_is_refused(packet: bytes) -> None:
    assert read(packet) == (Refusal.BAD_INNER_HEADER, [])


@given(st.binary(max_size=120))
def test_no_frame_raises(data: bytes) -> None:
    packets: list[bytes] = []
    refusal = read_frame(memoryview(bytearray(data)), 14, packets)
    assert (refusal is None) == bool(packets)


@pytest.mark.parametrize("size", [1, 2, 7, 1316])
@pytest.mark.parametrize("version", [4, 6])
def test_a_checksum_left_to_the_hardware_is_completed(version: int, size: int) -> None:
    payload = bytes(range(256)) * 6
    addresses = IPV4_SOURCE + IPV4_GROUP if version == 4 else IPV6_SOURCE + IPV6_GROUP
    whole = udp(payload[:size], addresses)
    pseudo = words_sum(addresses + struct.pack("!HH", 17, len(whole)))
    partial = whole[:6] + struct.pack("!H", pseudo) + whole[8:]
    packet = ipv4(partial) if version == 4 else ipv6(partial)
    refusal, packets = read(packet, flags=1, start=14 + len(packet) - len(partial), offset=6)
    assert refusal is None
    assert packets[0].endswith(whole)


def test_a_checksum_position_outside_the_packet_is_refused() -> None:
    packet = ipv4(b"x" * 8)
    assert read(packet, flags=1, start=14 + 24, offset=6) == (Refusal.BAD_INNER_HEADER, [])
    assert not complete_checksum(memoryview(bytearray(packet)), 2, 6)


@given(st.binary(max_size=64))
def test_checksum_equals_the_obvious_one(data: bytes) -> None:
    expected = words_sum(data) ^ 0xFFFF
    assert internet_checksum(data) == (expected or 0xFFFF)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("checksum", [True, False])
def test_a_super_packet_becomes_the_datagrams_meant(version: int, checksum: bool) -> None:
    payload = bytes(range(250)) * 4
    addresses = IPV4_SOURCE + IPV4_GROUP if version == 4 else IPV6_SOURCE + IPV6_GROUP
    whole = udp(payload, addresses, checksum)
    refusal, packets = read(ipv4(whole) if version == 4 else ipv6(whole), gso=5, size=300)
    pieces = [payload[start : start + 300] for start in range(0, 1000, 300)]
    header = 20 if version == 4 else 40
    assert refusal is None
    assert [packet[header:] for packet in packets] == [udp(piece, addresses, checksum) for piece in pieces]
    if version == 4:
        assert all(map(header_is_sound, packets))
        assert [packet[2:6] for packet in packets] == [
            struct.pack("!HH", 28 + len(piece), 7 + index) for index, piece in enumerate(pieces)
        ]
        assert {packet[8] for packet in packets} == {15}
    else:
        assert [packet[4:6] for packet in packets] == [struct.pack("!H", 8 + len(piece)) for piece in pieces]
        assert {packet[7] for packet in packets} == {15}


@pytest.mark.parametrize(("gso", "size"), [(1, 300), (3, 300), (4, 300), (5, 0)])
def test_a_super_packet_of_another_kind_is_refused(gso: int, size: int) -> None:
    whole = udp(bytes(1000), IPV4_SOURCE + IPV4_GROUP)
    assert read(ipv4(whole), gso=gso, size=size) == (Refusal.BAD_INNER_HEADER, [])
    assert read(ipv4(whole, protocol=6), gso=5, size=300) == (Refusal.BAD_INNER_HEADER, [])
