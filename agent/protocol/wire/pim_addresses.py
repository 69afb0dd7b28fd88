"""Encoded-Unicast, -Group and -Source addresses of PIM (RFC 7761 §4.9.1).

Only the native encoding (type 0) of IPv4 and IPv6 is spoken; a source with join attributes (RFC 5384) is refused, as
we never say that we understand them.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.protocol.channels import Address, Family
from agent.protocol.wire.errors import Malformed, Truncated
from agent.protocol.wire.pim_messages import EncodedSource

UNICAST_SIZE: Final = {Family.IPV4: 6, Family.IPV6: 18}
GROUP_SIZE: Final = {Family.IPV4: 8, Family.IPV6: 20}
SOURCE_SIZE: Final = {Family.IPV4: 8, Family.IPV6: 20}
HOST_MASK: Final = {Family.IPV4: 32, Family.IPV6: 128}
"""Mask length of a single address, in bits."""

_FAMILY_NUMBER: Final = {Family.IPV4: 1, Family.IPV6: 2}  # IANA address family numbers
_FAMILY_OF_NUMBER: Final = {1: Family.IPV4, 2: Family.IPV6}
_NATIVE: Final = 0
_SPARSE, _WILDCARD, _RPT = 4, 2, 1
_SOURCE_LAYOUT: Final = {Family.IPV4: struct.Struct("!HBB4s"), Family.IPV6: struct.Struct("!HBB16s")}


def decode_unicast(data: bytes, offset: int) -> tuple[Address, int]:
    """Encoded-Unicast address of either family at `offset`, and the offset behind it.

    Raises:
        Truncated: fewer bytes than the address.
        Malformed: unknown address family or encoding type.
    """
    family = _family(data, offset)
    return _address(data, offset + 2, family), offset + UNICAST_SIZE[family]


def decode_unicast_of(data: bytes, offset: int, family: Family) -> tuple[Address, int]:
    """As `decode_unicast`, of one family only.

    Raises:
        Truncated: fewer bytes than the address.
        Malformed: another address family, or an unknown encoding type.
    """
    _expect(data, offset, family)
    return _address(data, offset + 2, family), offset + UNICAST_SIZE[family]


def decode_group(data: bytes, offset: int, family: Family) -> tuple[Address, int, int]:
    """Encoded-Group address at `offset`: the group, its mask length in bits, and the offset behind it.

    The B and Z bits mean nothing to us (RFC 5015, RFC 5059) and are ignored as reserved bits are.

    Raises:
        Truncated: fewer bytes than the address.
        Malformed: another family, unknown encoding, not multicast, or a mask longer than the address.
    """
    _expect(data, offset, family)
    group = _address(data, offset + 4, family)
    mask = data[offset + 3]
    if mask > HOST_MASK[family] or not group.is_multicast:
        raise Malformed(f"PIM group {group}/{mask}", data)
    return group, mask, offset + GROUP_SIZE[family]


def decode_sources(data: bytes, offset: int, count: int, family: Family) -> tuple[EncodedSource, ...]:
    """`count` Encoded-Source addresses from `offset`; the S bit is ignored.

    Raises:
        Truncated: fewer bytes than `count` sources.
        Malformed: another family, unknown encoding, not a host mask, or a wildcard without the RPT bit.
    """
    size = SOURCE_SIZE[family]
    end = offset + count * size
    if end > len(data):
        raise Truncated(f"{count} PIM sources need {end - offset} bytes, {len(data) - offset} are there", data)
    start, bits = _FAMILY_NUMBER[family] << 8 | _NATIVE, HOST_MASK[family]
    parse: type[IPv4Address | IPv6Address] = IPv4Address if family is Family.IPV4 else IPv6Address
    sources = []
    for kind, flags, mask, packed in _SOURCE_LAYOUT[family].iter_unpack(data[offset:end]):
        if kind != start:
            raise Malformed(f"PIM address family {kind >> 8}, encoding {kind & 0xFF} of a source", data)
        if mask != bits:
            raise Malformed(f"PIM source with a mask of {mask} bits", data)
        if flags & _WILDCARD and not flags & _RPT:
            raise Malformed("PIM wildcard source without the RPT bit", data)
        sources.append(EncodedSource(parse(packed), flags & _WILDCARD != 0, flags & _RPT != 0))
    return tuple(sources)


def encode_unicast(address: Address) -> bytes:
    """Encoded-Unicast address."""
    return bytes((_FAMILY_NUMBER[Family.of(address)], _NATIVE)) + address.packed


def encode_group(group: Address, mask_length: int | None = None) -> bytes:
    """Encoded-Group address; a single group unless `mask_length` says otherwise."""
    family = Family.of(group)
    mask = HOST_MASK[family] if mask_length is None else mask_length
    return bytes((_FAMILY_NUMBER[family], _NATIVE, 0, mask)) + group.packed


def encode_source(source: EncodedSource) -> bytes:
    """Encoded-Source address with the S bit and a host mask."""
    family = Family.of(source.address)
    flags = _SPARSE | (_WILDCARD if source.wildcard else 0) | (_RPT if source.rpt else 0)
    return bytes((_FAMILY_NUMBER[family], _NATIVE, flags, HOST_MASK[family])) + source.address.packed


def _family(data: bytes, offset: int) -> Family:
    if offset + 2 > len(data):
        raise Truncated("PIM encoded address", data)
    family = _FAMILY_OF_NUMBER.get(data[offset])
    if family is None or data[offset + 1] != _NATIVE:
        raise Malformed(f"PIM address family {data[offset]}, encoding {data[offset + 1]}", data)
    return family


def _expect(data: bytes, offset: int, family: Family) -> None:
    found = _family(data, offset)
    if found is not family:
        raise Malformed(f"PIM address of IPv{found} in a message of IPv{family}", data)


def _address(data: bytes, offset: int, family: Family) -> Address:
    size = 4 if family is Family.IPV4 else 16
    if offset + size > len(data):
        raise Truncated("PIM encoded address", data)
    packed = data[offset : offset + size]
    return IPv4Address(packed) if family is Family.IPV4 else IPv6Address(packed)
