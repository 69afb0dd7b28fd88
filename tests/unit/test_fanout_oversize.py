"""Inner fragmentation and the messages about packets too big (RFC 7450 §5.3.3.6.2); packets synthetic."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.dataplane.capture_frame import internet_checksum
from agent.dataplane.fanout_oversize import fragment_ipv4, too_big_message

COPIED = bytes([0x94, 4, 0, 0])  # router alert: copy flag set
NOT_COPIED = bytes([0x07, 7, 4, 0, 0, 0, 0, 0])  # record route and end of list


def ipv4(payload: bytes, *, flags: int = 0, options: bytes = b"") -> bytes:
    header = bytearray(
        struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 99, flags, 9, 17, 0)
        + bytes([10, 0, 0, 1, 232, 1, 1, 1])
        + options
    )
    header[10:12] = struct.pack("!H", internet_checksum(bytes(header)) % 0xFFFF)
    return bytes(header) + payload


def reassemble(pieces: list[bytes]) -> bytes:
    whole: dict[int, bytes] = {}
    for piece in pieces:
        offset = (struct.unpack_from("!H", piece, 6)[0] & 0x1FFF) * 8
        whole[offset] = piece[(piece[0] & 15) * 4 :]
    payload = b""
    for offset in sorted(whole):
        assert offset == len(payload)
        payload += whole[offset]
    return payload


@given(st.integers(1, 4000), st.integers(68, 1500), st.sampled_from([b"", COPIED, NOT_COPIED, COPIED + NOT_COPIED]))
def test_fragments_fit_and_make_the_whole(size: int, limit: int, options: bytes) -> None:
    payload = bytes(index % 251 for index in range(size))
    packet = ipv4(payload, options=options)
    pieces = fragment_ipv4(packet, limit)
    assert pieces is not None
    assert all(len(piece) <= limit and struct.unpack_from("!H", piece, 2)[0] == len(piece) for piece in pieces)
    assert all(internet_checksum(piece[: (piece[0] & 15) * 4]) % 0xFFFF == 0 for piece in pieces)
    assert reassemble(pieces) == payload
    assert [bool(piece[6] & 0x20) for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert all(piece[4:6] == packet[4:6] and piece[8:10] == packet[8:10] for piece in pieces)
    assert all((COPIED in piece[20 : (piece[0] & 15) * 4]) == (COPIED in options) for piece in pieces)
    assert all(b"\x07\x07\x04" not in piece[20 : (piece[0] & 15) * 4] for piece in pieces[1:])


def test_a_middle_fragment_stays_a_middle_fragment() -> None:
    pieces = fragment_ipv4(ipv4(bytes(1400), flags=0x2000 | 100), 700)
    assert pieces is not None
    assert [struct.unpack_from("!H", piece, 6)[0] for piece in pieces] == [0x2000 | 100, 0x2000 | 185, 0x2000 | 270]


def test_dont_fragment_is_obeyed() -> None:
    assert fragment_ipv4(ipv4(bytes(1400), flags=0x4000), 700) is None


def test_fragmentation_needed_names_the_tunnel_mtu() -> None:
    packet = ipv4(bytes(1472))
    message = too_big_message(packet, 1470)
    # RFC 1191 §4: type 3, code 4, the MTU in the low half of the second word, then the IP header and 8 bytes.
    assert message[:2] == b"\x03\x04"
    assert message[4:8] == struct.pack("!HH", 0, 1470)
    assert message[8:] == packet[:28]
    assert internet_checksum(message) % 0xFFFF == 0


@pytest.mark.parametrize(("mtu", "told"), [(1450, 1450), (1000, 1280)])
def test_packet_too_big_never_names_less_than_the_minimum(mtu: int, told: int) -> None:
    packet = struct.pack("!IHBB", 0x6000_0000, 1460, 17, 5) + bytes(32) + bytes(1460)
    message = too_big_message(packet, mtu)
    # RFC 4443 §3.2: type 2, code 0, MTU in a whole word; the error fits the minimum MTU of 1280.
    assert message[:2] == b"\x02\x00"
    assert message[4:8] == struct.pack("!I", told)
    assert len(message) + 40 <= 1280
    assert packet.startswith(message[8:])
