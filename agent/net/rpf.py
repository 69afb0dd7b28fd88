"""Where the kernel's unicast routing says a source is, kept up to date without blocking the event loop.

A question (RTM_GETROUTE) is answered by the kernel while it is being sent, so asking waits for nothing. Any message
about routes, rules, links or addresses only says that answers may have changed: those known are then asked for again, a
slice a turn of the loop, and the differences reported. Lost messages (ENOBUFS) are such a message too, and a full BGP
table in motion costs no decoding.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.net.route_query import RouteAnswer, route_answer, route_request
from agent.net.socket_options import set_receive_buffer
from agent.protocol.channels import Address

_log = logging.getLogger(__name__)

# RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE and 1 << (RTNLGRP_IPV6_RULE - 1): IPv4 routes
# vanish with their link or address without a message of their own.
_GROUPS: Final = 0x001 | 0x010 | 0x040 | 0x080 | 0x100 | 0x400 | 0x40000
_LARGEST_ANSWER: Final = 1 << 16
_DRAIN: Final = 256
_RECEIVE_BUFFER: Final = 1 << 20

SETTLE: Final = 0.02
"""Seconds to wait after a message: routes come in bursts."""

REST: Final = 0.25
"""Seconds between two rounds at least, so that routes in constant motion do not take the processor."""

ASKED_AT_ONCE: Final = 200
"""Addresses asked for again in one turn of the loop, a few milliseconds."""

KEPT: Final = 200_000
"""Addresses followed; beyond it the oldest is forgotten and asked for anew when needed."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One path to an address.

    Attributes:
        interface: name of the interface it leaves by.
        gateway: the next router, None when the address is on that link.
    """

    interface: str
    gateway: Address | None


@dataclass(frozen=True, slots=True)
class UnicastRoute:
    """The routing table's entry for an address.

    Attributes:
        prefix_length: bits of its prefix; 0 is a default route.
        metric: its priority, lower is better.
        hops: the paths, more than one with equal-cost routes.
    """

    prefix_length: int
    metric: int
    hops: tuple[Hop, ...]


class UnicastRoutes:
    """The kernel's routes to the addresses asked for, followed.

    Attributes:
        rounds: how often everything known was asked for again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_changed: Callable[[frozenset[Address]], None]) -> None:
        """Follow routes.

        Args:
            loop: the event loop.
            on_changed: called with addresses asked for before whose route is another one now.

        Raises:
            OSError: no rtnetlink socket could be had.
        """
        self.rounds = 0
        self._loop = loop
        self._on_changed = on_changed
        self._known: dict[Address, UnicastRoute | None] = {}
        self._sequence = 0
        self._timer: asyncio.Handle | None = None
        self._is_stale = False
        self._earliest = 0.0
        self._questions = _rtnetlink(0)
        try:
            self._news = _rtnetlink(_GROUPS)
        except OSError:
            self._questions.close()
            raise
        loop.add_reader(self._news, self._hear)

    def towards(self, address: Address) -> UnicastRoute | None:
        """The route to `address`, None when there is none; from now on changes of it are reported."""
        if address in self._known:
            return self._known[address]
        while len(self._known) >= KEPT:
            del self._known[next(iter(self._known))]
        route = self._known[address] = self._ask(address)
        return route

    def forget(self, address: Address) -> None:
        """Follow `address` no longer."""
        self._known.pop(address, None)

    def close(self) -> None:
        """Stop following; what is known stays readable."""
        if self._timer is not None:
            self._timer.cancel()
        if self._news.fileno() >= 0:
            self._loop.remove_reader(self._news)
            self._news.close()
        self._questions.close()

    def _ask(self, address: Address) -> UnicastRoute | None:
        if self._questions.fileno() < 0:
            return None
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        try:
            self._questions.send(route_request(address, self._sequence))
            while True:
                data, (sender, _) = self._questions.recvfrom(_LARGEST_ANSWER)
                if sender != 0:  # other processes may write to this socket too
                    continue
                try:
                    answer = route_answer(data, self._sequence)
                except LookupError:
                    continue
                return _named(answer) if answer is not None else None
        except OSError as error:
            _log.warning("no answer about a route address=%s: %s", address, error, extra={"reason": "no_route_answer"})
            self._expire()
            return None

    def _hear(self) -> None:
        for _ in range(_DRAIN):
            try:
                _, (sender, _) = self._news.recvfrom(_LARGEST_ANSWER)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: messages were lost, whatever they said
                sender = 0
            if sender == 0:
                self._expire()

    def _expire(self) -> None:
        self._is_stale = True
        if self._timer is None:
            due = max(self._loop.time() + SETTLE, self._earliest)
            self._timer = self._loop.call_at(due, self._begin_round)

    def _begin_round(self) -> None:
        self._is_stale = False
        self.rounds += 1
        self._go_on(list(self._known), 0)

    def _go_on(self, addresses: list[Address], first: int) -> None:
        changed = set()
        last = first + ASKED_AT_ONCE
        for address in addresses[first:last]:
            if address in self._known and (route := self._ask(address)) != self._known[address]:
                self._known[address] = route
                changed.add(address)
        if last < len(addresses):
            self._timer = self._loop.call_soon(self._go_on, addresses, last)
        else:
            self._timer = None
            self._earliest = self._loop.time() + REST
            if self._is_stale:
                self._expire()
        if changed:
            self._on_changed(frozenset(changed))


def _rtnetlink(groups: int) -> socket.socket:
    rtnetlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    try:
        set_receive_buffer(rtnetlink, _RECEIVE_BUFFER)
        rtnetlink.bind((0, groups))
    except BaseException:
        rtnetlink.close()
        raise
    return rtnetlink


def _named(answer: RouteAnswer) -> UnicastRoute | None:
    hops = []
    for index, gateway in answer.hops:
        try:
            hops.append(Hop(socket.if_indextoname(index), gateway))
        except OSError:  # gone meanwhile, which is a change we are about to hear of
            continue
    return UnicastRoute(answer.prefix_length, answer.metric, tuple(hops)) if hops else None
