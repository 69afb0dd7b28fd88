"""PIM version 2 messages (RFC 7761 §4.9, RFC 5059 §4): bytes <-> frozen dataclasses, both families.

A PIM message is the payload of an IP packet of protocol 103. Its checksum covers the message alone on IPv4, and the
pseudo-header too on IPv6; of a Register the first eight bytes only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from agent.protocol.channels import Address, Family
from agent.protocol.wire.checksum import internet_checksum, ones_complement_sum, pseudo_header
from agent.protocol.wire.errors import BadChecksum, Malformed, Truncated, UnknownType
from agent.protocol.wire.pim_addresses import decode_group, decode_unicast_of, encode_group, encode_unicast
from agent.protocol.wire.pim_hello import decode_hello, encode_hello
from agent.protocol.wire.pim_join_prune import decode_join_prune, encode_join_prune
from agent.protocol.wire.pim_messages import (
    HOLDTIME_FOREVER,
    PROTOCOL_PIM,
    Assert,
    Bootstrap,
    EncodedSource,
    Hello,
    JoinPrune,
    JoinPruneGroup,
    LanPruneDelay,
    Message,
    Register,
    RegisterStop,
)
from agent.protocol.wire.pim_packing import JoinPruneEntry, pack_join_prunes

__all__ = [
    "HOLDTIME_FOREVER",
    "PROTOCOL_PIM",
    "Assert",
    "Bootstrap",
    "EncodedSource",
    "Hello",
    "JoinPrune",
    "JoinPruneEntry",
    "JoinPruneGroup",
    "LanPruneDelay",
    "Message",
    "Register",
    "RegisterStop",
    "decode",
    "encode",
    "pack_join_prunes",
]

VERSION: Final = 2
HELLO: Final = 0
REGISTER: Final = 1
REGISTER_STOP: Final = 2
JOIN_PRUNE: Final = 3
BOOTSTRAP: Final = 4
ASSERT: Final = 5

_HEADER: Final = 4
_REGISTER_HEADER: Final = 8
_RPT: Final = 0x8000_0000
_BORDER: Final = 0x8000_0000
_NULL: Final = 0x4000_0000
_NO_FORWARD: Final = 0x80


def decode(payload: bytes, source: Address, destination: Address) -> Message:
    """Decode a PIM message; the addresses of the packet around it enter the checksum on IPv6.

    Raises:
        Truncated: shorter than its layout or the counts in it.
        Malformed: another version than 2, or a field that does not fit.
        BadChecksum: checksum wrong.
        UnknownType: a type that is not among `Message`.
    """
    if len(payload) < _HEADER:
        raise Truncated(f"PIM message of {len(payload)} bytes", payload)
    if payload[0] >> 4 != VERSION:
        raise Malformed(f"PIM version {payload[0] >> 4}", payload)
    kind = payload[0] & 0x0F
    if kind not in _DECODERS:
        raise UnknownType(f"PIM type {kind}", payload)
    if not _verifies(payload, kind, source, destination):
        raise BadChecksum("PIM checksum", payload)
    return _DECODERS[kind](payload, Family.of(source))


def encode(message: Message, source: Address, destination: Address) -> bytes:
    """Encode with the checksum filled, for a packet from `source` to `destination`.

    Raises:
        ValueError: a value beyond its field.
    """
    flags = 0
    match message:
        case Hello():
            kind, body = HELLO, encode_hello(message)
        case JoinPrune():
            kind, body = JOIN_PRUNE, encode_join_prune(message)
        case Assert():
            kind, body = ASSERT, _encode_assert(message)
        case Register(packet, border, null):
            bits = (_BORDER if border else 0) | (_NULL if null else 0)
            kind, body = REGISTER, struct.pack("!I", bits) + packet
        case RegisterStop(group, stopped):
            kind, body = REGISTER_STOP, encode_group(group) + encode_unicast(stopped)
        case Bootstrap(no_forward=no_forward):
            kind, body, flags = BOOTSTRAP, _encode_bootstrap(message), _NO_FORWARD if no_forward else 0
    data = struct.pack("!BBH", VERSION << 4 | kind, flags, 0) + body
    covered = data[:_REGISTER_HEADER] if kind == REGISTER else data
    return data[:2] + _sum_to_store(covered, source, destination).to_bytes(2, "big") + data[4:]


def _verifies(payload: bytes, kind: int, source: Address, destination: Address) -> bool:
    """A Register is good over its first eight bytes, or over all of it as some send it (RFC 7761 §4.9.3)."""
    if kind == REGISTER and _sum_to_store(payload[:_REGISTER_HEADER], source, destination) == 0:
        return True
    return _sum_to_store(payload, source, destination) == 0


def _sum_to_store(covered: bytes, source: Address, destination: Address) -> int:
    if source.version == 4:
        return internet_checksum(covered)
    return ones_complement_sum(pseudo_header(source, destination, PROTOCOL_PIM, len(covered)) + covered) ^ 0xFFFF


def _decode_hello(data: bytes, family: Family) -> Hello:
    return decode_hello(data, _HEADER, family)


def _decode_join_prune(data: bytes, family: Family) -> JoinPrune:
    return decode_join_prune(data, _HEADER, family)


def _decode_assert(data: bytes, family: Family) -> Assert:
    group, mask, offset = decode_group(data, _HEADER, family)
    _single(group, mask, data)
    address, offset = decode_unicast_of(data, offset, family)
    if offset + 8 > len(data):
        raise Truncated("PIM Assert", data)
    preference, metric = struct.unpack_from("!II", data, offset)
    rpt = bool(preference & _RPT)
    if address.is_unspecified and not rpt:
        raise Malformed("PIM (*,G) Assert without the RPT bit", data)
    return Assert(group, None if address.is_unspecified else address, preference & ~_RPT, metric, rpt)


def _encode_assert(message: Assert) -> bytes:
    """The source of (*,G) is the family's zero address (RFC 7761 §4.9.6)."""
    if not 0 <= message.preference < _RPT or not 0 <= message.metric <= 0xFFFF_FFFF:
        raise ValueError(f"PIM Assert preference {message.preference}, metric {message.metric}")
    source = type(message.group)(0) if message.source is None else message.source
    rpt = _RPT if message.rpt or message.source is None else 0
    metrics = struct.pack("!II", rpt | message.preference, message.metric)
    return encode_group(message.group) + encode_unicast(source) + metrics


def _decode_register(data: bytes, _: Family) -> Register:
    if len(data) < _REGISTER_HEADER:
        raise Truncated("PIM Register", data)
    bits = int.from_bytes(data[_HEADER:_REGISTER_HEADER], "big")
    return Register(data[_REGISTER_HEADER:], border=bool(bits & _BORDER), null=bool(bits & _NULL))


def _decode_register_stop(data: bytes, family: Family) -> RegisterStop:
    group, mask, offset = decode_group(data, _HEADER, family)
    _single(group, mask, data)
    source, _ = decode_unicast_of(data, offset, family)
    return RegisterStop(group, source)


def _decode_bootstrap(data: bytes, family: Family) -> Bootstrap:
    """Fragment tag, hash mask length, BSR priority, BSR address; the rest is the RPs' affair (RFC 5059 §4.1)."""
    if len(data) < _HEADER + 4:
        raise Truncated("PIM Bootstrap", data)
    bsr, _ = decode_unicast_of(data, _HEADER + 4, family)
    return Bootstrap(bsr, data[_HEADER + 3], data[_HEADER:], no_forward=bool(data[1] & _NO_FORWARD))


def _encode_bootstrap(message: Bootstrap) -> bytes:
    """The body as it came; it says BSR and priority itself."""
    start = encode_unicast(message.bsr)
    if len(message.body) < 4 or message.body[3] != message.priority or message.body[4 : 4 + len(start)] != start:
        raise ValueError("PIM Bootstrap whose body says another BSR or priority")
    return message.body


def _single(group: Address, mask: int, data: bytes) -> None:
    if mask != group.max_prefixlen:
        raise Malformed(f"PIM group range {group}/{mask} in place of a group", data)


_DECODERS: Final[dict[int, Callable[[bytes, Family], Message]]] = {
    HELLO: _decode_hello,
    REGISTER: _decode_register,
    REGISTER_STOP: _decode_register_stop,
    JOIN_PRUNE: _decode_join_prune,
    BOOTSTRAP: _decode_bootstrap,
    ASSERT: _decode_assert,
}
