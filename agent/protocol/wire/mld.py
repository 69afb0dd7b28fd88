"""MLDv1 (RFC 2710) and MLDv2 (RFC 3810) messages: ICMPv6 types 130, 131, 132 and 143."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address
from typing import Final

from agent.protocol.channels import Address, Family
from agent.protocol.wire.checksum import internet_checksum, ones_complement_sum, pseudo_header
from agent.protocol.wire.errors import BadChecksum, Malformed, Truncated, UnknownType
from agent.protocol.wire.groups import (
    AnySourceReport,
    GroupMessage,
    GroupVersion,
    Leave,
    Query,
    Report,
    decode_long_exponent,
    encode_long_exponent,
)
from agent.protocol.wire.ip import PROTOCOL_ICMPV6
from agent.protocol.wire.records import decode_records, encode_records
from agent.protocol.wire.source_query import decode_source_query, encode_source_query_end

QUERY: Final = 130
REPORT_V1: Final = 131
DONE: Final = 132
REPORT_V2: Final = 143
_UNSPECIFIED: Final = IPv6Address(0)


def decode(data: bytes, source: Address, destination: Address) -> GroupMessage:
    """Decode an MLD message; the addresses of the packet around it enter the checksum.

    Raises:
        Truncated: shorter than the layout.
        Malformed: a group that is not multicast.
        BadChecksum: checksum wrong.
        UnknownType: another ICMPv6 type.
    """
    if len(data) < 8:
        raise Truncated(f"MLD message of {len(data)} bytes", data)
    kind = data[0]
    if kind not in (QUERY, REPORT_V1, DONE, REPORT_V2):
        raise UnknownType(f"ICMPv6 type {kind}", data)
    if ones_complement_sum(pseudo_header(source, destination, PROTOCOL_ICMPV6, len(data)) + data) != 0xFFFF:
        raise BadChecksum("MLD checksum", data)
    if kind == REPORT_V2:
        return Report(decode_records(data, 8, int.from_bytes(data[6:8], "big"), Family.IPV6))
    if len(data) < 24:
        raise Truncated(f"MLD message of {len(data)} bytes", data)
    group = IPv6Address(data[8:24])
    if kind == QUERY:
        return _decode_query(data, group)
    if not group.is_multicast:
        raise Malformed(f"MLD group {group}", data)
    return AnySourceReport(group) if kind == REPORT_V1 else Leave(group)


def encode(message: GroupMessage, source: Address, destination: Address) -> bytes:
    """Encode with the checksum filled; times round down to what their codes can say."""
    match message:
        case Query():
            body = _encode_query(message)
        case Report(records):
            body = struct.pack("!BBHHH", REPORT_V2, 0, 0, 0, len(records)) + encode_records(records)
        case AnySourceReport(group):
            body = _encode_basic(REPORT_V1, 0, group)
        case Leave(group):
            body = _encode_basic(DONE, 0, group)
    checksum = internet_checksum(pseudo_header(source, destination, PROTOCOL_ICMPV6, len(body)) + body)
    return body[:2] + checksum.to_bytes(2, "big") + body[4:]


def _decode_query(data: bytes, group: IPv6Address) -> Query:
    """Version by length (RFC 3810 §8.1): 24 bytes are MLDv1, 28 and more are MLDv2, between is an error."""
    asked = None if group == _UNSPECIFIED else group
    if asked is not None and not asked.is_multicast:
        raise Malformed(f"MLD query for {group}", data)
    code = int.from_bytes(data[4:6], "big")
    if len(data) == 24:
        return Query(asked, (), code / 1000, robustness=0, interval=0, version=GroupVersion.ANY_SOURCE)
    return decode_source_query(data, 24, Family.IPV6, asked, decode_long_exponent(code) / 1000)


def _encode_query(query: Query) -> bytes:
    group = query.group if query.group is not None else _UNSPECIFIED
    milliseconds = int(query.max_response_time * 1000 + 1e-6)
    if query.version is not GroupVersion.SOURCE_SPECIFIC:
        return _encode_basic(QUERY, min(milliseconds, 0xFFFF), group)
    return _encode_basic(QUERY, encode_long_exponent(milliseconds), group) + encode_source_query_end(query)


def _encode_basic(kind: int, code: int, group: Address) -> bytes:
    return struct.pack("!BBHHH", kind, 0, 0, code, 0) + group.packed
