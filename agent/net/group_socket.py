"""Kernel multicast membership by interface index (RFC 3678 §5): one socket, its limits and its refusals."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

from agent.net.sysctl import read_sysctl
from agent.protocol.channels import Address, Family

_MCAST_JOIN_GROUP: Final = 42
_MCAST_BLOCK_SOURCE: Final = 43
_MCAST_UNBLOCK_SOURCE: Final = 44
_MCAST_LEAVE_GROUP: Final = 45
_MCAST_JOIN_SOURCE_GROUP: Final = 46
_MCAST_LEAVE_SOURCE_GROUP: Final = 47
_LEVEL: Final = {Family.IPV4: socket.IPPROTO_IP, Family.IPV6: socket.IPPROTO_IPV6}
_DOMAIN: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}

FULL: Final = frozenset({errno.ENOBUFS, errno.ENOMEM})
"""Errors that mean this socket holds all it may."""


def membership_limits(family: Family) -> tuple[int, int]:
    """Groups per socket and sources per group the kernel allows now.

    IPv6 has no sysctl for groups: a socket's option memory (net.core.optmem_max) is the limit there, met as ENOMEM or
    ENOBUFS, and 20 stays well below it.
    """
    if family is Family.IPV4:
        return _setting("ipv4", "igmp_max_memberships", 20), _setting("ipv4", "igmp_max_msf", 10)
    return 20, _setting("ipv6", "mld_max_msf", 64)


class GroupSocket:
    """A socket that only holds memberships; bound to no port, it receives nothing.

    Raises:
        OSError: out of file descriptors.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self._socket = socket.socket(_DOMAIN[family], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def join(self, interface: int, group: Address) -> None:
        """Join a group, all sources; OSError as setsockopt gives it."""
        self._set(_MCAST_JOIN_GROUP, interface, group)

    def leave(self, interface: int, group: Address) -> None:
        """Leave a group with all its sources."""
        self._set(_MCAST_LEAVE_GROUP, interface, group)

    def join_source(self, interface: int, group: Address, source: Address) -> None:
        """Join one source of a group."""
        self._set(_MCAST_JOIN_SOURCE_GROUP, interface, group, source)

    def leave_source(self, interface: int, group: Address, source: Address) -> None:
        """Leave one source of a group; the group goes with the last."""
        self._set(_MCAST_LEAVE_SOURCE_GROUP, interface, group, source)

    def block(self, interface: int, group: Address, source: Address) -> None:
        """Exclude one source of a group joined with all sources."""
        self._set(_MCAST_BLOCK_SOURCE, interface, group, source)

    def unblock(self, interface: int, group: Address, source: Address) -> None:
        """Take an exclusion back."""
        self._set(_MCAST_UNBLOCK_SOURCE, interface, group, source)

    def close(self) -> None:
        """Leave everything."""
        self._socket.close()

    def _set(self, option: int, interface: int, group: Address, source: Address | None = None) -> None:
        request = struct.pack("=I4x", interface) + _storage(group)
        if source is not None:
            request += _storage(source)
        self._socket.setsockopt(_LEVEL[self.family], option, request)


def _storage(address: Address) -> bytes:
    """Struct sockaddr_storage, 128 bytes."""
    if address.version == 4:
        return struct.pack("=HH4s120x", socket.AF_INET, 0, address.packed)
    return struct.pack("=HHI16s104x", socket.AF_INET6, 0, 0, address.packed)


def _setting(protocol: str, name: str, default: int) -> int:
    value = read_sysctl("net", protocol, name)
    return int(value) if value is not None and value.isdigit() else default
