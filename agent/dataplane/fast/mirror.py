"""Follows the multicast routes another daemon (FRR) set in the kernel, for what comes in on the tunnel interface.

The programs forward by a copy of those routes. To redirect into the tunnel interface instead would leave forwarding to
the kernel's multicast routing, which costs several times as much a packet. What it costs here: the kernel's counters of
a route, which `ip -s mroute` and FRR's `show ip mroute count` show, stand still while programs forward it, but for what
keeps FRR from taking its source for silent (`agent.dataplane.fast.kept_routes`); the agent's own counters have those
packets.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from typing import Final

from agent.net.socket_options import set_receive_buffer
from agent.protocol.channels import Channel, Family

_GROUPS: Final = {Family.IPV4: 0x20, Family.IPV6: 0x200}  # RTMGRP_IPV4_MROUTE, RTMGRP_IPV6_MROUTE
_KINDS: Final = {Family.IPV4: 128, Family.IPV6: 129}  # RTNL_FAMILY_IPMR, RTNL_FAMILY_IP6MR
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP: Final = 0x301
_INTERRUPTED: Final = 0x10
_DESTINATION, _SOURCE, _INCOMING, _PATHS, _TABLE = 1, 2, 3, 9, 15
_DEFAULT_TABLES: Final = {128: 253, 129: 254}  # RT_TABLE_DEFAULT, RT6_TABLE_DFLT
_HEADER: Final = struct.Struct("=IHHII")
_ROUTE_SIZE: Final = 12
_LARGEST_CHUNK: Final = 1 << 18
_RECEIVE_BUFFER: Final = 4 << 20
_DRAIN: Final = 32
_RETRY: Final = 1.0  # seconds


def _ignore(_channel: Channel | None) -> None:
    """What nobody listens to."""


class MulticastMirror:
    """The kernel's multicast routes with one incoming interface; implements `agent.dataplane.fast.outgoing.Outgoing`.

    Args:
        loop: the event loop.
        incoming: index of that interface.
        families: which IP versions.

    Raises:
        OSError: no rtnetlink socket could be had.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, incoming: int, families: Iterable[Family]) -> None:
        self.on_changed: Callable[[Channel | None], None] = _ignore
        self._loop = loop
        self._incoming = incoming
        self._families = tuple(families)
        self._routes: dict[Channel, frozenset[str]] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._sequence = 0
        self._socket = self._open()

    def interfaces(self, channel: Channel) -> frozenset[str] | None:
        """Names of the interfaces it goes to, which may be none; None when there is no route yet."""
        return self._routes.get(channel)

    def close(self) -> None:
        """Follow no longer; safe to call twice."""
        if self._retry is not None:
            self._retry.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _open(self) -> socket.socket:
        """Subscribe, then ask for everything: what changes meanwhile is in the same queue, in order."""
        rtnetlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            set_receive_buffer(rtnetlink, _RECEIVE_BUFFER)
            rtnetlink.bind((0, sum(_GROUPS[family] for family in self._families)))
            self._missing = list(self._families)
            self._seen: set[Channel] = set()
            self._is_interrupted = False
            self._ask(rtnetlink)
        except BaseException:
            rtnetlink.close()
            raise
        self._loop.add_reader(rtnetlink, self._drain)
        return rtnetlink

    def _ask(self, rtnetlink: socket.socket) -> None:
        self._sequence += 1
        body = struct.pack("=B11x", _KINDS[self._missing[0]])
        header = _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _REQUEST_DUMP, self._sequence, 0)
        rtnetlink.send(header + body)

    def _drain(self) -> None:
        for _ in range(_DRAIN):
            if self._socket.fileno() < 0:
                return
            try:
                data, (sender, _) = self._socket.recvfrom(_LARGEST_CHUNK)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: messages were lost
                self._begin_anew()
                return
            if sender == 0:  # other processes may write to this socket too
                self._take_all(data)

    def _begin_anew(self) -> None:
        self._retry = None
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        try:
            self._socket = self._open()
        except OSError:
            self._retry = self._loop.call_later(_RETRY, self._begin_anew)

    def _take_all(self, data: bytes) -> None:
        while len(data) >= _HEADER.size:
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data)
            if length < _HEADER.size:
                return
            is_answer = bool(self._missing) and sequence == self._sequence
            self._is_interrupted |= is_answer and bool(flags & _INTERRUPTED)
            if kind in {_RTM_NEWROUTE, _RTM_DELROUTE}:
                self._take(data[_HEADER.size : length], removed=kind == _RTM_DELROUTE)
            elif is_answer and kind in {_NLMSG_DONE, _NLMSG_ERROR}:  # an error: the kernel cannot route that family
                self._end_dump()
            data = data[(length + 3) & ~3 :]

    def _end_dump(self) -> None:
        if not self._is_interrupted:
            self._missing.pop(0)
        self._is_interrupted = False
        if self._missing:
            self._ask(self._socket)
            return
        for channel in self._routes.keys() - self._seen:  # gone while we did not hear of it
            self._tell(channel, None)
        self._seen.clear()

    def _take(self, body: bytes, *, removed: bool) -> None:
        if len(body) < _ROUTE_SIZE or body[0] not in _KINDS.values():
            return
        attributes = dict(_attributes(body[_ROUTE_SIZE:]))
        if _number(attributes.get(_TABLE)) != _DEFAULT_TABLES[body[0]]:
            return
        size = 4 if body[0] == _KINDS[Family.IPV4] else 16
        source, group = attributes.get(_SOURCE, b""), attributes.get(_DESTINATION, b"")
        if len(source) != size or len(group) != size or not any(source):  # (*,G): packets need an entry of their own
            return
        try:
            channel = Channel(ip_address(source), ip_address(group))
        except ValueError:
            return
        if removed or _number(attributes.get(_INCOMING)) != self._incoming:
            self._seen.discard(channel)
            self._tell(channel, None)
            return
        if self._missing:
            self._seen.add(channel)
        self._tell(channel, frozenset(_names(attributes.get(_PATHS, b""))))

    def _tell(self, channel: Channel, interfaces: frozenset[str] | None) -> None:
        if self._routes.get(channel) == interfaces:
            return
        if interfaces is None:
            del self._routes[channel]
        else:
            self._routes[channel] = interfaces
        self.on_changed(channel)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def _number(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value is not None and len(value) == 4 else 0


def _names(paths: bytes) -> Iterator[str]:
    """Names of the outgoing interfaces; one that is gone meanwhile is out of the route as well."""
    at = 0
    while at + 8 <= len(paths):
        length, _, _, index = struct.unpack_from("=HBBi", paths, at)
        if length < 8:
            return
        with suppress(OSError):
            yield socket.if_indextoname(index)
        at += (length + 3) & ~3
