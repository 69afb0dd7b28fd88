"""AMTRELAY records as bytes (RFC 8777 §4.2) and the names they are asked under (§2.2), for the public functions."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from agent.protocol.driad import RelayRecord, decode_record, reverse_name
from agent.protocol.wire.errors import Malformed, Truncated, UnknownType, WireError

NAME = bytes.fromhex("09616d7472656c617973076578616d706c6503636f6d00")  # amtrelays.example.com.

EXAMPLES = {
    "0a01cb00710f": (10, False, "203.0.113.15"),
    "0a0220010db8000000000000000000000015": (10, False, "2001:db8::15"),
}


# --- §4.2: the records of the examples


@pytest.mark.parametrize(("text", "expected"), EXAMPLES.items())
def test_address_records(text, expected) -> None:
    precedence, discovery_optional, relay = expected
    record = decode_record(bytes.fromhex(text))
    assert record == RelayRecord(precedence, discovery_optional, ip_address(relay))


def test_name_record() -> None:
    record = decode_record(b"\x80\x83" + NAME)
    assert record == RelayRecord(128, True, "amtrelays.example.com.")


# --- §4.2.1: precedence


@pytest.mark.parametrize("precedence", [0, 1, 127, 128, 255])
def test_precedence_is_the_first_byte(precedence) -> None:
    assert decode_record(bytes([precedence, 1, 192, 0, 2, 1])).precedence == precedence


# --- §4.2.2: D bit


@pytest.mark.parametrize(("kind", "field"), [(0, b""), (1, bytes(4)), (2, bytes(16)), (3, NAME)])
@pytest.mark.parametrize("bit", [0, 1])
def test_the_d_bit_is_the_top_bit_of_the_type_byte_for_every_type(kind, field, bit) -> None:
    record = decode_record(bytes([10, bit << 7 | kind]) + field)
    assert record.discovery_optional is bool(bit)
    assert record.relay_type == kind


# --- §4.2.3: type


@pytest.mark.parametrize("kind", [4, 5, 63, 127])
@pytest.mark.parametrize("bit", [0, 0x80])
@pytest.mark.parametrize("field", [b"", bytes(4), bytes(16)])
def test_undefined_types_are_not_considered(kind, bit, field) -> None:
    with pytest.raises(UnknownType):
        decode_record(bytes([10, bit | kind]) + field)


# --- §4.2.4: relay


def test_type_0_says_that_no_relay_shall_be_used() -> None:
    assert decode_record(b"\x0a\x00").relay is None


@pytest.mark.parametrize(("kind", "size"), [(0, 0), (1, 4), (2, 16)])
def test_relay_fields_have_the_length_of_their_type(kind, size) -> None:
    decode_record(bytes([10, kind]) + bytes(size))
    for other in {0, 1, 3, 4, 5, 15, 16, 17, 32} - {size}:
        with pytest.raises(WireError):
            decode_record(bytes([10, kind]) + bytes(other))


@pytest.mark.parametrize("data", [b"", b"\x0a"])
def test_a_record_without_type_is_refused(data) -> None:
    with pytest.raises(Truncated):
        decode_record(data)


@pytest.mark.parametrize(
    "field",
    [
        b"\xc0\x0c",  # a pointer alone
        b"\x03amt\xc0\x0c",  # a pointer behind a label
        b"\x40amt\x00",  # a label type that is none
        NAME + b"\x00",  # bytes behind the root
        (b"\x3f" + b"a" * 63) * 4 + b"\x00",  # 257 bytes: longer than a name may be
    ],
)
def test_names_are_uncompressed_whole_and_alone(field) -> None:
    with pytest.raises(Malformed):
        decode_record(b"\x0a\x03" + field)


@pytest.mark.parametrize("length", range(len(NAME)))
def test_names_that_end_early_are_refused(length) -> None:
    with pytest.raises(Truncated):
        decode_record(b"\x0a\x03" + NAME[:length])


def test_the_longest_name_is_read() -> None:
    field = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"b" * 61 + b"\x00"
    assert len(field) == 255
    relay = decode_record(b"\x0a\x03" + field).relay
    assert relay == ".".join(["a" * 63] * 3 + ["b" * 61]) + "."


# --- §4.3.1: presentation


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("0a01cb00710f", "10 0 1 203.0.113.15"),
        ("0a8220010db8000000000000000000000015", "10 1 2 2001:db8::15"),
        ("8083" + NAME.hex(), "128 1 3 amtrelays.example.com."),
        ("0000", "0 0 0 ."),
    ],
)
def test_presentation_names_precedence_d_bit_type_and_relay(data, text) -> None:
    assert str(decode_record(bytes.fromhex(data))) == text


# --- §2.2: names


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("198.51.100.12", "12.100.51.198.in-addr.arpa."),
        ("203.0.113.255", "255.113.0.203.in-addr.arpa."),
        ("2001:db8::a", "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."),
    ],
)
def test_the_name_asked_is_the_reverse_name_of_the_source(source, name) -> None:
    assert reverse_name(ip_address(source)) == name


def test_a_zone_is_no_part_of_the_name() -> None:
    assert reverse_name(ip_address("fe80::1%eth0")) == reverse_name(ip_address("fe80::1"))
