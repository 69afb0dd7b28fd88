"""Where packets for an address go first: interface and hardware address of the next hop, followed through rtnetlink.

The kernel resolves; this asks it to (NTF_USE), since packets that programs send do not.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from agent.net.route_query import route_answer, route_request
from agent.net.socket_options import set_receive_buffer
from agent.protocol.channels import Address

_GROUPS: Final = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000
"""RTMGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, and of RTNLGRP_IPV6_RULE."""

_NEW_NEIGHBOUR: Final = 28
_DELETE_NEIGHBOUR: Final = 29
_GET_NEIGHBOUR: Final = 30
_DONE: Final = 3
_MESSAGE: Final = struct.Struct("=IHHII")
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_ATTRIBUTE: Final = struct.Struct("=HH")
_NDA_DST: Final = 1
_NDA_LLADDR: Final = 2
_VALID: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x80  # REACHABLE, STALE, DELAY, PROBE, PERMANENT
_FAILED: Final = 0x20
_USE: Final = 0x01
_CREATE: Final = 0x405  # NLM_F_REQUEST, NLM_F_ACK left out, NLM_F_CREATE
_DUMP: Final = 0x301
_CHUNK: Final = 1 << 18
_RECEIVE_BUFFER: Final = 4 << 20
_ROUTES_SETTLE: Final = 0.1
_ASK_EVERY: Final = 15.0
_ASK_FAILED_EVERY: Final = 3.0
_TICK: Final = 1.0
_SIOCGIFHWADDR: Final = 0x8927
_ETHERNET: Final = 1


@dataclass(frozen=True, slots=True)
class Hop:
    """A next hop: index of the interface and address, as packed octets, of the router or of the host itself."""

    interface: int
    address: bytes


@dataclass(slots=True)
class Neighbour:
    """What is known of a hop.

    Attributes:
        hardware: its MAC address, None while it is not known.
        failed: it did not answer, and has not since.
        ask_at: when the kernel is asked to look again, in seconds of the loop's clock.
    """

    hardware: bytes | None = None
    failed: bool = False
    ask_at: float = 0.0


class Adjacencies:
    """Next hops of addresses and what is known of them.

    Args:
        loop: calls back from it.
        on_neighbour: a hop that is watched changed.
        on_routes: routes, addresses or interfaces changed: ask for every hop again.

    Raises:
        OSError: no rtnetlink socket could be had.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_neighbour: Callable[[Hop], None], on_routes: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._on_neighbour = on_neighbour
        self._on_routes = on_routes
        self._watched: dict[Hop, Neighbour] = {}
        self._settling: asyncio.TimerHandle | None = None
        self._sequence = 0
        self._questions = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._questions.settimeout(1.0)
        set_receive_buffer(self._news, _RECEIVE_BUFFER)
        self._news.bind((0, _GROUPS))
        loop.add_reader(self._news, self._readable)
        self._tick = loop.call_later(_TICK, self._ask)

    def hop(self, address: Address) -> Hop | None:
        """The next hop towards an address; None when there is none, or it is this host."""
        self._sequence += 1
        try:
            self._questions.send(route_request(address, self._sequence))
            while True:
                with suppress(LookupError):
                    answer = route_answer(self._questions.recv(_CHUNK), self._sequence)
                    break
        except OSError:
            return None
        if answer is None:
            return None
        interface, gateway = answer.hops[hash(address) % len(answer.hops)]
        return Hop(interface, (gateway or address).packed)

    def watch(self, hop: Hop) -> Neighbour:
        """What is known of a hop; it is followed from now on."""
        known = self._watched.get(hop)
        if known is None:
            known = self._watched[hop] = Neighbour(ask_at=self._loop.time() + _ASK_EVERY)
            self._use(hop)
            self._read_all()
        return known

    def forget(self, hop: Hop) -> None:
        """Follow a hop no more."""
        self._watched.pop(hop, None)

    def close(self) -> None:
        """Follow nothing any more."""
        self._tick.cancel()
        if self._settling is not None:
            self._settling.cancel()
        self._loop.remove_reader(self._news)
        self._news.close()
        self._questions.close()

    def _ask(self) -> None:
        now = self._loop.time()
        for hop, known in self._watched.items():
            if known.ask_at <= now:
                known.ask_at = now + (_ASK_EVERY if known.hardware else _ASK_FAILED_EVERY)
                self._use(hop)
        self._tick = self._loop.call_later(_TICK, self._ask)

    def _use(self, hop: Hop) -> None:
        """Have the kernel resolve a hop, or check that it is still there, as for a packet of its own."""
        family = socket.AF_INET if len(hop.address) == 4 else socket.AF_INET6
        body = _NEIGHBOUR.pack(family, hop.interface, 0, _USE, 0)
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(hop.address), _NDA_DST) + hop.address
        with suppress(OSError):
            self._news.send(_MESSAGE.pack(_MESSAGE.size + len(body), _NEW_NEIGHBOUR, _CREATE, 0, 0) + body)

    def _read_all(self) -> None:
        with suppress(OSError):
            body = _NEIGHBOUR.pack(0, 0, 0, 0, 0)
            self._questions.send(_MESSAGE.pack(_MESSAGE.size + len(body), _GET_NEIGHBOUR, _DUMP, 0, 0) + body)
            while self._read(self._questions.recv(_CHUNK)) != _DONE:
                pass

    def _readable(self) -> None:
        try:
            while True:
                kind = self._read(self._news.recv(_CHUNK))
                if kind not in {_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR, 2} and self._settling is None:
                    self._settling = self._loop.call_later(_ROUTES_SETTLE, self._routes_changed)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                self._read_all()
                self._routes_changed()

    def _routes_changed(self) -> None:
        self._settling = None
        self._on_routes()

    def _read(self, data: bytes) -> int:
        """Take in what is said of neighbours; returns the kind of the last message."""
        at, kind = 0, 0
        while at + _MESSAGE.size <= len(data):
            length, kind, _, _, _ = _MESSAGE.unpack_from(data, at)
            if length < _MESSAGE.size:
                break
            if kind in {_NEW_NEIGHBOUR, _DELETE_NEIGHBOUR} and length >= _MESSAGE.size + _NEIGHBOUR.size:
                self._learn(kind, data[at + _MESSAGE.size : at + length])
            at += (length + 3) & ~3
        return kind

    def _learn(self, kind: int, message: bytes) -> None:
        _, interface, state, _, _ = _NEIGHBOUR.unpack_from(message)
        attributes: dict[int, bytes] = {}
        at = _NEIGHBOUR.size
        while at + _ATTRIBUTE.size <= len(message):
            length, name = _ATTRIBUTE.unpack_from(message, at)
            if length < _ATTRIBUTE.size:
                break
            attributes[name] = message[at + _ATTRIBUTE.size : at + length]
            at += (length + 3) & ~3
        hop = Hop(interface, attributes.get(_NDA_DST, b""))
        known = self._watched.get(hop)
        if known is None:
            return
        before = known.hardware, known.failed
        hardware = attributes.get(_NDA_LLADDR, b"")
        if kind == _NEW_NEIGHBOUR and state & _VALID and len(hardware) == 6:
            known.hardware, known.failed = hardware, False
        elif kind == _NEW_NEIGHBOUR and state & _FAILED:
            known.hardware, known.failed = None, True
            known.ask_at = min(known.ask_at, self._loop.time() + _ASK_FAILED_EVERY)
        elif kind == _DELETE_NEIGHBOUR:
            # The kernel tidied up what its own packets do not use: the address is good until another is known.
            self._use(hop)
        if before != (known.hardware, known.failed):
            self._on_neighbour(hop)


def own_hardware(interface: int) -> bytes | None:
    """MAC address of an interface; None when it is gone or no Ethernet."""
    try:
        request = struct.pack("16s24x", socket.if_indextoname(interface).encode())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe.fileno(), _SIOCGIFHWADDR, request)
    except OSError:
        return None
    kind: int = struct.unpack_from("=H", answer, 16)[0]
    return answer[18:24] if kind == _ETHERNET else None
