"""Default routes and half-default ones (prefixes of at most one bit), read and copied as the kernel has them.

Messages are taken apart only as far as the copy needs (linux/rtnetlink.h): metrics, equal paths and encapsulations
travel unread, and the rest of a full BGP table is passed over without decoding.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from agent.protocol.channels import Family

MAIN_TABLE: Final = 254

_LONGEST: Final = 1  # bits of prefix
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_REQUEST, _ACKNOWLEDGE, _DUMP, _REPLACE, _CREATE = 0x001, 0x004, 0x300, 0x100, 0x400
_RTA_OIF, _RTA_PRIORITY, _RTA_MULTIPATH, _RTA_CACHEINFO, _RTA_TABLE, _RTA_PREF, _RTA_NH_ID = 4, 6, 9, 12, 15, 20, 30
_RTM_F_CLONED: Final = 0x200  # an exception of IPv6's path MTU, no route
_RTNH_F_ONLINK: Final = 0x04  # the one flag of a next hop that is not its present state
_UNREACHABLE: Final = 7  # RTN_UNREACHABLE
_MESSAGE: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_NEXT_HOP: Final = struct.Struct("=HBBi")  # length, flags, hops, ifindex
_LARGEST_ANSWER: Final = 1 << 18
_TIMEOUT: Final = 10.0
_LAST_RESORT: Final = 0xFFFFFFFF

_ADDRESS_FAMILY: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class ShortRoute:
    """One route with a prefix of no or one bit.

    Attributes:
        header: struct rtmsg without its table and state flags: family, dst_len, src_len, tos, protocol, scope, type,
            flags.
        table: routing table.
        attributes: (type, value) of what makes the route; neither table nor age.
    """

    header: tuple[int, int, int, int, int, int, int, int]
    table: int
    attributes: tuple[tuple[int, bytes], ...]

    @property
    def protocol(self) -> int:
        """Who made it (RTPROT_*)."""
        return self.header[4]

    @property
    def interfaces(self) -> frozenset[int]:
        """Indices of the interfaces it leads out of; none when only its next hop object would tell."""
        found = set()
        for kind, value in self.attributes:
            if kind == _RTA_OIF:
                found.add(struct.unpack("=i", value)[0])
            elif kind == _RTA_MULTIPATH:
                found.update(_NEXT_HOP.unpack_from(value, at)[3] for at, _ in _elements(value, _NEXT_HOP.size))
        return frozenset(found)

    def copy_to(self, table: int, protocol: int) -> ShortRoute:
        """The same route in another table."""
        return replace(self, header=(*self.header[:4], protocol, *self.header[5:]), table=table)


def last_resort(family: Family, table: int, protocol: int) -> ShortRoute:
    """A default route that says "unreachable" when there is no other."""
    metric = struct.pack("=I", _LAST_RESORT)
    header = (int(_ADDRESS_FAMILY[family]), 0, 0, 0, protocol, 0, _UNREACHABLE, 0)
    attributes: tuple[tuple[int, bytes], ...] = ((_RTA_PRIORITY, metric),)
    if family is Family.IPV6:  # as the kernel shows it: on its loopback interface, of medium preference
        attributes = ((_RTA_OIF, struct.pack("=i", socket.if_nametoindex("lo"))), *attributes, (_RTA_PREF, b"\0"))
    return ShortRoute(header, table, attributes)


def is_about_short_route(message: bytes) -> bool:
    """Whether a datagram of route news has a message about a default or half-default route."""
    for at, _ in _elements(message, _MESSAGE.size, wide=True):
        kind = _MESSAGE.unpack_from(message, at)[1]
        if kind not in {_RTM_NEWROUTE, _RTM_DELROUTE} or len(message) < at + _MESSAGE.size + _ROUTE.size:
            return True  # a link, a rule: whatever it is, looking is cheap
        if message[at + _MESSAGE.size + 1] <= _LONGEST:
            return True
    return False


def read_short_routes(family: Family) -> list[ShortRoute]:
    """All of one family, of every table.

    Raises:
        OSError: the kernel does not tell.
    """
    found: list[ShortRoute] = []
    with _open() as rtnetlink:
        body = _ROUTE.pack(_ADDRESS_FAMILY[family], 0, 0, 0, 0, 0, 0, 0, 0)
        rtnetlink.send(_MESSAGE.pack(_MESSAGE.size + len(body), _RTM_GETROUTE, _REQUEST | _DUMP, 1, 0) + body)
        while True:
            data = rtnetlink.recv(_LARGEST_ANSWER)
            for at, length in _elements(data, _MESSAGE.size, wide=True):
                kind = _MESSAGE.unpack_from(data, at)[1]
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    _raise_error(data, at)
                if kind == _RTM_NEWROUTE and data[at + _MESSAGE.size + 1] <= _LONGEST:
                    route = _parse(data[at + _MESSAGE.size : at + length])
                    if route is not None:
                        found.append(route)


def add_route(route: ShortRoute) -> None:
    """Make a route, in place of one of the same prefix and metric.

    Raises:
        OSError: the kernel refuses it.
    """
    _change(_RTM_NEWROUTE, _CREATE | _REPLACE, route)


def delete_route(route: ShortRoute) -> None:
    """Take a route away; one that is gone is no error.

    Raises:
        OSError: the kernel refuses it.
    """
    try:
        _change(_RTM_DELROUTE, 0, route)
    except OSError as error:
        if error.errno not in {errno.ESRCH, errno.ENOENT, errno.ENODEV}:
            raise


def _change(kind: int, flags: int, route: ShortRoute) -> None:
    family, length, source_length, tos, protocol, scope, route_type, route_flags = route.header
    # Tables above 255 are in the attribute alone (RT_TABLE_COMPAT).
    table = route.table if route.table < 256 else 252
    body = _ROUTE.pack(family, length, source_length, tos, table, protocol, scope, route_type, route_flags)
    for number, value in (*route.attributes, (_RTA_TABLE, struct.pack("=I", route.table))):
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value + bytes(-len(value) % 4)
    head = _MESSAGE.pack(_MESSAGE.size + len(body), kind, _REQUEST | _ACKNOWLEDGE | flags, 1, 0)
    with _open() as rtnetlink:
        rtnetlink.send(head + body)
        _raise_error(rtnetlink.recv(_LARGEST_ANSWER), 0)


def _parse(body: bytes) -> ShortRoute | None:
    family, length, source_length, tos, table, protocol, scope, kind, flags = _ROUTE.unpack_from(body)
    if flags & _RTM_F_CLONED:
        return None
    attributes = {}
    for at, size in _elements(body, _ATTRIBUTE.size, start=_ROUTE.size):
        number = _ATTRIBUTE.unpack_from(body, at)[1]
        attributes[number] = body[at + _ATTRIBUTE.size : at + size]
    if _RTA_TABLE in attributes:
        table = struct.unpack("=I", attributes.pop(_RTA_TABLE))[0]
    attributes.pop(_RTA_CACHEINFO, None)
    if _RTA_OIF in attributes or _RTA_MULTIPATH in attributes:
        attributes.pop(_RTA_NH_ID, None)  # the kernel told both; a copy stands on its own
    if _RTA_MULTIPATH in attributes:
        attributes[_RTA_MULTIPATH] = _without_state(attributes[_RTA_MULTIPATH])
    header = (family, length, source_length, tos, protocol, scope, kind, flags & _RTNH_F_ONLINK)
    return ShortRoute(header, table, tuple(sorted(attributes.items())))


def _without_state(paths: bytes) -> bytes:
    """Next hops without the flags the kernel sets itself and takes from nobody."""
    changed = bytearray(paths)
    for at, _ in _elements(paths, _NEXT_HOP.size):
        changed[at + 2] &= _RTNH_F_ONLINK
    return bytes(changed)


def _elements(data: bytes, smallest: int, *, start: int = 0, wide: bool = False) -> Iterator[tuple[int, int]]:
    """Position and length of aligned elements that begin with their length, of four bytes when `wide`, else of two."""
    at = start
    while at + smallest <= len(data):
        length = struct.unpack_from("=I" if wide else "=H", data, at)[0]
        if length < smallest:
            return
        yield at, length
        at += (length + 3) & ~3


def _raise_error(data: bytes, at: int) -> None:
    number = -struct.unpack_from("=i", data, at + _MESSAGE.size)[0]
    if number:
        raise OSError(number, f"rtnetlink: {os.strerror(number)}")


def _open() -> socket.socket:
    rtnetlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    rtnetlink.settimeout(_TIMEOUT)
    rtnetlink.bind((0, 0))
    return rtnetlink
