"""One question to the kernel's unicast routing, as bytes: RTM_GETROUTE and its answer (linux/rtnetlink.h).

pyroute2 would decode the answer too, some thirty times slower, and a change of routes has every source asked for again.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from agent.protocol.channels import Address

_RTM_NEWROUTE: Final = 24
_RTM_GETROUTE: Final = 26
_NLM_F_REQUEST: Final = 0x01
_RTM_F_FIB_MATCH: Final = 0x2000  # answer with the table's entry, not with a host route; older kernels ignore it
_RTN_UNICAST: Final = 1
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_GATEWAY: Final = 5
_RTA_PRIORITY: Final = 6
_RTA_MULTIPATH: Final = 9
_RTA_VIA: Final = 18
_MESSAGE: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_NEXT_HOP: Final = struct.Struct("=HBBi")  # length, flags, hops, ifindex


@dataclass(frozen=True, slots=True)
class RouteAnswer:
    """The entry of the routing table that leads to an address.

    Attributes:
        prefix_length: bits of its prefix; 0 is a default route.
        metric: its priority, lower is better.
        hops: (interface index, gateway or None when on link), one a path.
    """

    prefix_length: int
    metric: int
    hops: tuple[tuple[int, Address | None], ...]


def route_request(destination: Address, sequence: int) -> bytes:
    """The question for `destination`."""
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    packed = destination.packed
    body = _ROUTE.pack(family, destination.max_prefixlen, 0, 0, 0, 0, 0, 0, _RTM_F_FIB_MATCH)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _RTA_DST) + packed
    return _MESSAGE.pack(_MESSAGE.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, sequence, 0) + body


def route_answer(message: bytes, sequence: int) -> RouteAnswer | None:
    """The answer to the question numbered `sequence`; None when nothing leads there but errors and local addresses.

    Raises:
        LookupError: an answer to another question.
    """
    if len(message) < _MESSAGE.size + _ROUTE.size:
        return None
    _, kind, _, answered, _ = _MESSAGE.unpack_from(message)
    if answered != sequence:
        raise LookupError("an answer to another question")
    if kind != _RTM_NEWROUTE:
        return None
    _, prefix_length, _, _, _, _, _, route_type, _ = _ROUTE.unpack_from(message, _MESSAGE.size)
    if route_type != _RTN_UNICAST:
        return None
    attributes = dict(_attributes(message[_MESSAGE.size + _ROUTE.size :]))
    metric = int.from_bytes(attributes.get(_RTA_PRIORITY, b""), sys.byteorder)
    if _RTA_MULTIPATH in attributes:
        hops = tuple(_paths(attributes[_RTA_MULTIPATH]))
    elif _RTA_OIF in attributes:
        hops = ((struct.unpack("=i", attributes[_RTA_OIF])[0], _gateway(attributes)),)
    else:
        hops = ()
    return RouteAnswer(prefix_length, metric, hops) if hops else None


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _paths(data: bytes) -> Iterator[tuple[int, Address | None]]:
    at = 0
    while at + _NEXT_HOP.size <= len(data):
        length, _, _, index = _NEXT_HOP.unpack_from(data, at)
        if length < _NEXT_HOP.size:
            return
        yield index, _gateway(dict(_attributes(data[at + _NEXT_HOP.size : at + length])))
        at += (length + 3) & ~3


def _gateway(attributes: dict[int, bytes]) -> Address | None:
    """The next router; of the other family where an IPv4 route says so (RTA_VIA, RFC 5549)."""
    packed = attributes.get(_RTA_GATEWAY, attributes.get(_RTA_VIA, b"\0\0")[2:])
    return ip_address(packed) if len(packed) in {4, 16} else None
