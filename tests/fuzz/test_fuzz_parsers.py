"""Every parser on every input: a value or a WireError, and what is encoded decodes to itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fuzzing.strategies import (
    AMT_MESSAGES,
    FAMILIES,
    any_address,
    group_messages,
    ones_complement,
    source,
    vector_bytes,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.protocol.channels import Family
from agent.protocol.wire import amt, checksum, group_packet, groups, igmp, ip, mld, records
from agent.protocol.wire.errors import WireError

HERE, THERE = source(Family.IPV6, 1), source(Family.IPV6, 2)


def decode_udp(data: bytes) -> ip.UDPDatagram:
    return ip.decode_udp(ip.decode(data))


def decode_mld(data: bytes) -> groups.GroupMessage:
    return mld.decode(data, HERE, THERE)


DECODERS: dict[str, Callable[[bytes], object]] = {
    "amt": amt.decode,
    "group_packet": group_packet.decode,
    "ip": ip.decode,
    "udp": decode_udp,
    "igmp": igmp.decode,
    "mld": decode_mld,
}


def outcome(decode: Callable[[bytes], object], data: bytes) -> object | None:
    """What is decoded, None for a refusal; anything else that is raised fails the test."""
    try:
        return decode(data)
    except WireError as error:
        refusal = error
    assert refusal.reason
    assert isinstance(refusal.packet, bytes)
    return None


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=200))
def test_random_bytes(name: str, data: bytes) -> None:
    outcome(DECODERS[name], data)


@pytest.mark.parametrize("name", DECODERS)
@given(data=vector_bytes("amt", "group", "ip", "udp"), cut=st.integers(0, 60))
def test_spoilt_packets(name: str, data: bytes, cut: int) -> None:
    outcome(DECODERS[name], data)
    outcome(DECODERS[name], data[cut:])


@given(data=vector_bytes("group"))
def test_spoilt_group_packets_that_decode_encode_again(data: bytes) -> None:
    packet = outcome(group_packet.decode, data)
    if not isinstance(packet, group_packet.GroupPacket):
        return
    again = group_packet.encode(packet.message, packet.source, packet.destination)
    assert group_packet.decode(again).message == packet.message


@given(data=vector_bytes("ip", "group", "udp"))
def test_spoilt_ip_packets_that_decode_encode_again(data: bytes) -> None:
    packet = outcome(ip.decode, data)
    if isinstance(packet, ip.IPPacket):
        assert ip.decode(packet.encode()) == packet


@given(data=vector_bytes("amt"))
def test_spoilt_amt_messages_that_decode_encode_again(data: bytes) -> None:
    message = outcome(amt.decode, data)
    if message is not None:
        assert amt.decode(message.encode()) == message


@given(message=AMT_MESSAGES)
def test_amt_messages_decode_to_themselves(message: amt.Message) -> None:
    assert amt.decode(message.encode()) == message


@given(family=FAMILIES, data=st.data())
def test_group_messages_decode_to_themselves(family: Family, data: st.DataObject) -> None:
    message = data.draw(group_messages(family))
    packet = group_packet.decode(group_packet.encode(message, source(family, 1)))
    assert packet.message == message
    assert (packet.ttl, packet.router_alert) == (1, True)


@st.composite
def ip_packets(draw: st.DrawFn) -> ip.IPPacket:
    family = draw(FAMILIES)
    ipv4 = family is Family.IPV4
    alert = bytes((148, 4, 0, 0)) if ipv4 else bytes((5, 2, 0, 0, 1, 0))
    fragment = draw(st.booleans())
    identified = fragment or ipv4
    more = fragment and draw(st.booleans())
    offset = draw(st.integers(0 if more else 1, 8000)) * 8 if fragment else 0
    payload = draw(st.binary(max_size=64))
    assume(not more or payload)
    return ip.IPPacket(
        source=draw(any_address(family)),
        destination=draw(any_address(family)),
        protocol=draw(st.sampled_from([2, 17, 89, 253])),
        payload=payload[: len(payload) // 8 * 8] if more else payload,
        ttl=draw(st.integers(0, 255)),
        traffic_class=draw(st.integers(0, 255)),
        options=draw(st.sampled_from([b"", alert])),
        identification=draw(st.integers(0, 0xFFFF)) if identified else 0,
        dont_fragment=ipv4 and not fragment and draw(st.booleans()),
        more_fragments=more,
        fragment_offset=offset,
    )


@given(packet=ip_packets())
def test_ip_packets_decode_to_themselves(packet: ip.IPPacket) -> None:
    assert ip.decode(packet.encode()) == packet


@given(
    family=FAMILIES,
    ports=st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    payload=st.binary(max_size=100),
)
def test_udp_datagrams_decode_to_themselves(family: Family, ports: tuple[int, int], payload: bytes) -> None:
    here, there = source(family, 1), source(family, 2)
    datagram = ip.UDPDatagram(*ports, payload)
    encoded = ip.encode_udp(here, there, datagram)
    assert encoded[6:8] != b"\0\0", "RFC 768: zero means no checksum"
    assert ip.decode_udp(ip.IPPacket(here, there, 17, encoded)) == datagram


@given(data=st.binary(max_size=300))
def test_checksums_agree_with_a_sum_word_by_word(data: bytes) -> None:
    """RFC 1071 §1; negative zero and zero are one value of a sum."""
    assert checksum.ones_complement_sum(data) % 0xFFFF == ones_complement(data) % 0xFFFF
    even = data + b"\0" * (len(data) % 2)
    assert checksum.verifies(even + checksum.internet_checksum(data).to_bytes(2, "big"))


@given(data=st.binary(max_size=100), offset=st.integers(0, 120), count=st.integers(0, 70000), family=FAMILIES)
def test_records_never_read_beyond_their_bytes(data: bytes, offset: int, count: int, family: Family) -> None:
    for decode in (records.decode_records, records.decode_addresses):
        outcome(lambda data, decode=decode: decode(data, offset, count, family), data)


# --- floating codes


def test_every_short_code_is_the_rfc_value() -> None:
    """RFC 3376 §4.1.1: below 128 itself, from there (mantissa | 16) << (exponent + 3)."""
    for code in range(256):
        value = code if code < 128 else ((code & 15) | 16) << (((code >> 4) & 7) + 3)
        assert groups.decode_exponent(code) == value
        assert groups.encode_exponent(value) == code


def test_every_long_code_is_the_rfc_value() -> None:
    """RFC 3810 §5.1.3: below 32768 itself, from there (mantissa | 4096) << (exponent + 3)."""
    for code in range(65536):
        value = code if code < 32768 else ((code & 4095) | 4096) << (((code >> 12) & 7) + 3)
        assert groups.decode_long_exponent(code) == value
        assert groups.encode_long_exponent(value) == code


@given(value=st.integers(0, 10**8))
def test_codes_round_down(value: int) -> None:
    for encode, decode, largest in (
        (groups.encode_exponent, groups.decode_exponent, 255),
        (groups.encode_long_exponent, groups.decode_long_exponent, 65535),
    ):
        code = encode(value)
        assert 0 <= code <= largest
        assert decode(code) <= value
        assert code == largest or decode(code + 1) > value
