"""IGMPv1 (RFC 1112), IGMPv2 (RFC 2236) and IGMPv3 (RFC 3376) messages."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import Final

from agent.protocol.channels import Address, Family
from agent.protocol.wire.checksum import internet_checksum, verifies
from agent.protocol.wire.errors import BadChecksum, Malformed, Truncated, UnknownType
from agent.protocol.wire.groups import (
    AnySourceReport,
    GroupMessage,
    GroupVersion,
    Leave,
    Query,
    Report,
    decode_exponent,
    encode_exponent,
)
from agent.protocol.wire.records import decode_records, encode_records
from agent.protocol.wire.source_query import decode_source_query, encode_source_query_end

QUERY: Final = 0x11
REPORT_V1: Final = 0x12
REPORT_V2: Final = 0x16
LEAVE: Final = 0x17
REPORT_V3: Final = 0x22
_UNSPECIFIED: Final = IPv4Address(0)


def decode(data: bytes) -> GroupMessage:
    """Decode an IGMP message; bytes beyond the layout count for the checksum only (RFC 3376 §4.1.10, §4.2.11).

    Raises:
        Truncated: shorter than the layout.
        Malformed: a group that is not multicast.
        BadChecksum: checksum wrong.
        UnknownType: a type that is neither query, report nor leave.
    """
    if len(data) < 8:
        raise Truncated(f"IGMP message of {len(data)} bytes", data)
    if not verifies(data):
        raise BadChecksum("IGMP checksum", data)
    kind = data[0]
    if kind == REPORT_V3:
        return Report(decode_records(data, 8, int.from_bytes(data[6:8], "big"), Family.IPV4))
    if kind not in (QUERY, REPORT_V1, REPORT_V2, LEAVE):
        raise UnknownType(f"IGMP type {kind:#x}", data)
    group = IPv4Address(data[4:8])
    if kind == QUERY:
        return _decode_query(data, group)
    if not group.is_multicast:
        raise Malformed(f"IGMP group {group}", data)
    if kind == LEAVE:
        return Leave(group)
    return AnySourceReport(group, GroupVersion.ANY_SOURCE_BASIC if kind == REPORT_V1 else GroupVersion.ANY_SOURCE)


def encode(message: GroupMessage) -> bytes:
    """Encode with the checksum filled; times round down to what their codes can say."""
    match message:
        case Query():
            body = _encode_query(message)
        case Report(records):
            body = struct.pack("!BBHHH", REPORT_V3, 0, 0, 0, len(records)) + encode_records(records)
        case AnySourceReport(group, version):
            body = _encode_basic(REPORT_V1 if version is GroupVersion.ANY_SOURCE_BASIC else REPORT_V2, 0, group)
        case Leave(group):
            body = _encode_basic(LEAVE, 0, group)
    return body[:2] + internet_checksum(body).to_bytes(2, "big") + body[4:]


def _decode_query(data: bytes, group: IPv4Address) -> Query:
    """Version by length and Max Resp Code (RFC 3376 §7.1): 8 bytes are v1 or v2, 12 and more are v3."""
    asked = None if group == _UNSPECIFIED else group
    if asked is not None and not asked.is_multicast:
        raise Malformed(f"IGMP query for {group}", data)
    code = data[1]
    if len(data) == 8:
        if code == 0:
            return Query(asked, (), 10.0, robustness=0, interval=0, version=GroupVersion.ANY_SOURCE_BASIC)
        return Query(asked, (), code / 10, robustness=0, interval=0, version=GroupVersion.ANY_SOURCE)
    return decode_source_query(data, 8, Family.IPV4, asked, decode_exponent(code) / 10)


def _encode_query(query: Query) -> bytes:
    group = query.group if query.group is not None else _UNSPECIFIED
    deciseconds = int(query.max_response_time * 10 + 1e-6)
    if query.version is GroupVersion.ANY_SOURCE_BASIC:
        return _encode_basic(QUERY, 0, group)
    if query.version is GroupVersion.ANY_SOURCE:
        return _encode_basic(QUERY, min(max(deciseconds, 1), 255), group)
    return _encode_basic(QUERY, encode_exponent(deciseconds), group) + encode_source_query_end(query)


def _encode_basic(kind: int, code: int, group: Address) -> bytes:
    return struct.pack("!BBH", kind, code, 0) + group.packed
