"""Single questions about a link, answered while they are asked: its counters, what its driver does in XDP."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from enum import IntFlag
from typing import Final

_NETLINK_GENERIC: Final = 16
_NLMSG_ERROR: Final = 2
_REQUEST: Final = 1
_RTM_GETSTATS: Final = 94
_LINK_64: Final = 1  # IFLA_STATS_LINK_64
_CONTROL: Final = 16  # GENL_ID_CTRL
_GET_FAMILY: Final = 3
_FAMILY_ID, _FAMILY_NAME = 1, 2
_DEV_GET: Final = 1  # NETDEV_CMD_DEV_GET
_DEV_INDEX, _DEV_XDP_FEATURES = 1, 3
_HEADER: Final = struct.Struct("=IHHII")
_LARGEST_ANSWER: Final = 1 << 16


class XdpFeatures(IntFlag):
    """What a driver does in XDP (linux/netdev.h)."""

    BASIC = 1
    REDIRECT = 2
    TRANSMIT = 4  # takes frames other interfaces redirect to it


class LinkQuery:
    """Asks through sockets of its own, and so in the network namespace it was made in."""

    def __init__(self) -> None:
        """Open the sockets and find out whether this kernel tells of XDP.

        Raises:
            OSError: no netlink socket could be had.
        """
        self._sequence = 0
        self._route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        try:
            self._generic = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)
        except OSError:
            self._route.close()
            raise
        self._netdev = self._family("netdev")

    def close(self) -> None:
        """Close the sockets."""
        self._route.close()
        self._generic.close()

    def transmitted(self, index: int) -> int | None:
        """Packets a link has sent since it was made; None when there is no such link."""
        try:
            answer = self._ask(self._route, _RTM_GETSTATS, struct.pack("=BxHII", 0, 0, index, _LINK_64))
        except OSError:
            return None
        value = dict(_attributes(answer[12:])).get(_LINK_64, b"")
        return int(struct.unpack_from("=QQ", value)[1]) if len(value) >= 16 else None

    def xdp_features(self, index: int) -> XdpFeatures | None:
        """What the driver says; None where the kernel (before Linux 6.3) does not tell, or there is no such link."""
        if self._netdev is None:
            return None
        try:
            answer = self._ask(self._generic, self._netdev, _generic(_DEV_GET, _DEV_INDEX, struct.pack("=I", index)))
        except OSError:
            return None
        value = dict(_attributes(answer[4:])).get(_DEV_XDP_FEATURES, b"")
        return XdpFeatures(struct.unpack("=Q", value)[0] & 7) if len(value) == 8 else None

    def _family(self, name: str) -> int | None:
        try:
            answer = self._ask(self._generic, _CONTROL, _generic(_GET_FAMILY, _FAMILY_NAME, name.encode() + b"\0"))
        except OSError:  # ENOENT: this kernel has no such family
            return None
        value = dict(_attributes(answer[4:])).get(_FAMILY_ID, b"")
        return int(struct.unpack("=H", value)[0]) if len(value) == 2 else None

    def _ask(self, link: socket.socket, kind: int, body: bytes) -> bytes:
        """Body of the answer to a question that has one message for an answer.

        Raises:
            OSError: the kernel refused it.
        """
        self._sequence += 1
        link.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST, self._sequence, 0) + body)
        while True:
            answer = link.recv(_LARGEST_ANSWER, socket.MSG_DONTWAIT)  # there already: it was made while we sent
            length, answered, _, sequence, _ = _HEADER.unpack_from(answer)
            if sequence != self._sequence:
                continue
            if answered == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
                raise OSError(number or errno.ENODATA, os.strerror(number or errno.ENODATA))
            return answer[_HEADER.size : length]


def _generic(command: int, attribute: int, value: bytes) -> bytes:
    return struct.pack("=BBH", command, 1, 0) + struct.pack("=HH", 4 + len(value), attribute) + value


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3
