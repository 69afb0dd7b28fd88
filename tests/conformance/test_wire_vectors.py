"""The codecs agree with bytes written down from the RFCs, in both directions."""

from __future__ import annotations

from contextlib import suppress

import pytest
from vectors.loader import Vector, load_vectors
from vectors.meaning import amt_message, group_packet, ip_packet, pim_message, udp_datagram

from agent.protocol.wire import amt, errors, ip, pim
from agent.protocol.wire import group_packet as group_packets

VECTORS = load_vectors()


def chosen(*decoders: str, refused: bool = False, canonical: bool = False) -> list[object]:
    """Vectors as parameters, one test each."""
    return [
        pytest.param(vector, id=vector.name)
        for vector in VECTORS.values()
        if vector.decoder in decoders and bool(vector.error) == refused and not (canonical and vector.decode_only)
    ]


def decode_udp(data: bytes) -> ip.UDPDatagram:
    return ip.decode_udp(ip.decode(data))


def decode_pim(data: bytes) -> pim.Message:
    packet = ip.decode(data)
    assert packet.protocol == pim.PROTOCOL_PIM
    return pim.decode(packet.payload, packet.source, packet.destination)


DECODERS = {"amt": amt.decode, "group": group_packets.decode, "pim": decode_pim, "ip": ip.decode, "udp": decode_udp}


@pytest.mark.parametrize("vector", chosen("amt"))
def test_amt_message_is_decoded(vector: Vector) -> None:
    assert amt.decode(vector.data) == amt_message(vector, VECTORS), vector.rfc


@pytest.mark.parametrize("vector", chosen("amt", canonical=True))
def test_amt_message_is_encoded(vector: Vector) -> None:
    assert amt_message(vector, VECTORS).encode().hex(" ") == vector.data.hex(" "), vector.rfc


@pytest.mark.parametrize("vector", chosen("group"))
def test_group_packet_is_decoded(vector: Vector) -> None:
    assert group_packets.decode(vector.data) == group_packet(vector), vector.rfc


@pytest.mark.parametrize("vector", chosen("group", canonical=True))
def test_group_packet_is_encoded_to_the_default_destination(vector: Vector) -> None:
    packet = group_packet(vector)
    assert group_packets.encode(packet.message, packet.source).hex(" ") == vector.data.hex(" "), vector.rfc


@pytest.mark.parametrize("vector", chosen("pim"))
def test_pim_message_is_decoded(vector: Vector) -> None:
    assert decode_pim(vector.data) == pim_message(vector), vector.rfc
    assert str(ip.decode(vector.data).source) == vector.value("source")


@pytest.mark.parametrize("vector", chosen("pim", canonical=True))
def test_pim_message_is_encoded(vector: Vector) -> None:
    packet = ip.decode(vector.data)
    payload = pim.encode(pim_message(vector), packet.source, packet.destination)
    assert payload.hex(" ") == packet.payload.hex(" "), vector.rfc


@pytest.mark.parametrize("vector", chosen("ip"))
def test_ip_packet_is_decoded(vector: Vector) -> None:
    packet = ip.decode(vector.data)
    assert packet == ip_packet(vector), vector.rfc
    assert packet.is_fragment == (packet.more_fragments or packet.fragment_offset > 0)
    datagram = udp_datagram(vector)
    if datagram is not None:
        assert ip.decode_udp(packet) == datagram, vector.rfc


@pytest.mark.parametrize("vector", chosen("ip", canonical=True))
def test_ip_packet_is_encoded(vector: Vector) -> None:
    packet = ip_packet(vector)
    assert packet.encode().hex(" ") == vector.data.hex(" "), vector.rfc
    datagram = udp_datagram(vector)
    if datagram is not None:
        encoded = ip.encode_udp(packet.source, packet.destination, datagram)
        assert encoded.hex(" ") == packet.payload.hex(" "), vector.rfc


@pytest.mark.parametrize("vector", chosen("amt", "group", "pim", "ip", "udp", refused=True))
def test_malformed_packet_is_refused_with_its_error(vector: Vector) -> None:
    with pytest.raises(getattr(errors, vector.error)) as caught:
        DECODERS[vector.decoder](vector.data)
    assert caught.value.reason, vector.rfc


@pytest.mark.parametrize("vector", chosen("amt", "group", "pim", "ip"))
def test_every_shorter_prefix_raises_a_wire_error_or_nothing(vector: Vector) -> None:
    for length in range(len(vector.data)):
        with suppress(errors.WireError):
            DECODERS[vector.decoder](vector.data[:length])


@pytest.mark.parametrize("vector", chosen("group", canonical=True))
def test_any_flipped_bit_of_a_checksummed_message_is_noticed(vector: Vector) -> None:
    """RFC 791 §3.1, RFC 3376 §4.1.2, RFC 4443 §2.3; IPv6 covers neither its first two words nor the options."""
    header = 0 if vector.data[0] >> 4 == 4 else 48
    for bit in range(header * 8, len(vector.data) * 8):
        changed = bytearray(vector.data)
        changed[bit // 8] ^= 0x80 >> bit % 8
        with pytest.raises(errors.WireError):
            group_packets.decode(bytes(changed))


@pytest.mark.parametrize("vector", chosen("pim", canonical=True))
def test_any_flipped_bit_of_a_pim_message_is_noticed(vector: Vector) -> None:
    """RFC 7761 §4.9; of a Register the first eight bytes are covered."""
    packet = ip.decode(vector.data)
    covered = 8 if vector.expect == "Register" else len(packet.payload)
    for bit in range(covered * 8):
        changed = bytearray(packet.payload)
        changed[bit // 8] ^= 0x80 >> bit % 8
        with pytest.raises(errors.WireError):
            pim.decode(bytes(changed), packet.source, packet.destination)


def test_vectors_cover_every_amt_message_pim_message_and_group_record() -> None:
    """A vector that is lost must not go unnoticed."""
    expected = {vector.expect for vector in VECTORS.values()}
    assert {member.__name__ for member in amt.Message.__args__} <= expected
    assert {member.__name__ for member in pim.Message.__args__} <= expected
    records = " ".join(text for vector in VECTORS.values() for text in vector.values("record"))
    for kind in ("MODE_IS_INCLUDE", "MODE_IS_EXCLUDE", "CHANGE_TO_INCLUDE", "CHANGE_TO_EXCLUDE", "ALLOW", "BLOCK"):
        assert kind in records
