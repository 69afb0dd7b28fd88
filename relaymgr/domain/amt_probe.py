"""The messages of an AMT handshake as a probe needs them (RFC 7450 section 5.1): what it sends, what it accepts."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

PORT: Final = 2268
_IGMP, _HOP_BY_HOP, _ICMPV6 = 2, 0, 58


class BadAnswer(Exception):
    """A datagram that is no answer to what was asked."""


def discovery(nonce: int) -> bytes:
    """Relay Discovery (section 5.1.1)."""
    return b"\x01\x00\x00\x00" + nonce.to_bytes(4, "big")


def request(nonce: int, *, mld: bool = False) -> bytes:
    """Request (section 5.1.3); `mld` asks for an MLDv2 query in place of an IGMPv3 one."""
    return bytes((3, int(mld), 0, 0)) + nonce.to_bytes(4, "big")


def advertised(data: bytes, nonce: int) -> IPv4Address | IPv6Address:
    """Relay address of an Advertisement (section 5.1.2).

    Raises:
        BadAnswer: no Advertisement, not for this nonce, or no unicast address.
    """
    _header(data, 2, nonce, data[4:8])
    if len(data) not in {12, 24}:
        raise BadAnswer(f"Advertisement with an address of {len(data) - 8} bytes")
    address = ip_address(data[8:])
    if address.is_multicast or address.is_unspecified:
        raise BadAnswer(f"Advertisement of {address}")
    return address


@dataclass(frozen=True, slots=True)
class Query:
    """A Membership Query (section 5.1.4)."""

    limit: bool
    """L flag: the relay takes no new tunnels."""
    gateway_seen: bool
    """G flag: the relay tells where the Request came from."""
    protocol: str
    """igmp or mld"""


def queried(data: bytes, nonce: int) -> Query:
    """Take a Membership Query apart.

    Raises:
        BadAnswer: no Query, not for this nonce, or its inner packet is no IGMP or MLD in its own length.
    """
    _header(data, 4, nonce, data[8:12])
    inner = data[12:]
    if len(inner) < 20:
        raise BadAnswer(f"Query with an inner packet of {len(inner)} bytes")
    version = inner[0] >> 4
    if version == 4:
        length, protocol = int.from_bytes(inner[2:4], "big"), inner[9]
        name = "igmp" if protocol == _IGMP else None
    elif version == 6:
        length, protocol = 40 + int.from_bytes(inner[4:6], "big"), inner[6]
        name = "mld" if protocol in {_HOP_BY_HOP, _ICMPV6} else None
    else:
        raise BadAnswer(f"Query with an inner packet of IP version {version}")
    if name is None or not 20 <= length <= len(inner):
        raise BadAnswer(f"Query with an inner packet of protocol {protocol} and {length} of {len(inner)} bytes")
    return Query(limit=bool(data[1] & 2), gateway_seen=bool(data[1] & 1), protocol=name)


def _header(data: bytes, kind: int, nonce: int, found: bytes) -> None:
    if len(data) < 12:
        raise BadAnswer(f"{len(data)} bytes")
    if data[0] != kind:
        raise BadAnswer(f"version and type {data[0]:#04x} in place of {kind:#04x}")
    if found != nonce.to_bytes(4, "big"):
        raise BadAnswer("an answer to another nonce")
