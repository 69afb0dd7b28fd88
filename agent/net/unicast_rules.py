"""Keeps unicast on the uplink while a routing daemon's routes point at the tunnel interface.

The daemon's reverse-path check wants a unicast route to every source out of the tunnel interface, for which it is given
two half-default routes. The kernel must not follow those with ordinary traffic:

    ip rule pref P      lookup main suppress_prefixlength 1     everything but default and half-default routes
    ip rule pref P + 10 lookup TABLE                            copies of the real ones, and "unreachable" behind them

The copies follow the main table. What an earlier process left is taken over or removed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Iterable
from typing import Any, Final

from pyroute2 import IPRoute, NetlinkError

from agent.net.rtnetlink import with_rtnetlink
from agent.net.short_routes import (
    MAIN_TABLE,
    ShortRoute,
    add_route,
    delete_route,
    is_about_short_route,
    last_resort,
    read_short_routes,
)
from agent.net.sysctl import write_sysctl
from agent.protocol.channels import Family

_log = logging.getLogger(__name__)

PRIORITY_STEP: Final = 10
"""By how much the second rule comes later."""

PROTOCOL: Final = 226
"""RTPROT of the copies, by which they are told from what others put into the table."""

_GROUPS: Final = 0x001 | 0x040 | 0x080 | 0x400 | 0x40000  # RTMGRP_LINK, IPV4_ROUTE, IPV4_RULE, IPV6_ROUTE, IPV6_RULE
_SETTLE: Final = 0.02  # seconds; a change of the default route is several messages
_REST: Final = 0.25  # seconds between two rounds at least, so that links in constant motion do not take the processor
_LARGEST_MESSAGE: Final = 1 << 16
_DRAIN: Final = 256


class UnicastRules:
    """The rules and the table behind them, for as long as this is open.

    Attributes:
        copies: routes in the table, by family, the last resort not counted.
        errors: routes and rules the kernel refused since the start.
        last_error: the last of those errors.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tunnel_interface: str,
        families: Iterable[Family],
        *,
        priority: int,
        table: int,
    ) -> None:
        """Set everything up and follow the main table.

        Args:
            loop: event loop the table is followed on.
            tunnel_interface: where routes lead that are not copied.
            families: which IP versions to keep on the uplink.
            priority: of the first rule.
            table: routing table for the copies.

        Raises:
            OSError: the kernel refuses, mostly for want of CAP_NET_ADMIN.
        """
        self.copies: dict[Family, int] = {}
        self.errors = 0
        self.last_error: OSError | None = None
        self._loop = loop
        self._interface = tunnel_interface
        self._families = tuple(families)
        self._priority = priority
        self._table = table
        self._timer: asyncio.TimerHandle | None = None
        self._earliest = 0.0
        ignore_dead_routes(tunnel_interface)
        self._news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            self._news.bind((0, _GROUPS))
            for family in self._families:
                self._follow_routes(family)
                self._have_rules(family)
        except BaseException:
            self._news.close()
            self._remove()
            raise
        loop.add_reader(self._news, self._hear)

    def close(self) -> None:
        """Take rules and copies away; safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._news.fileno() < 0:
            return
        self._loop.remove_reader(self._news)
        self._news.close()
        self._remove()

    def _rules(self) -> tuple[dict[str, Any], ...]:
        """In the order they are made: with the first one alone, traffic would follow the half-default routes."""
        return (
            {"priority": self._priority + PRIORITY_STEP, "table": self._table},
            {"priority": self._priority, "table": MAIN_TABLE, "FRA_SUPPRESS_PREFIXLEN": 1},
        )

    def _have_rules(self, family: Family) -> None:
        def make(route: IPRoute) -> None:
            for rule in self._rules():
                try:
                    route.rule("add", family=_address_family(family), **rule)
                except NetlinkError as error:
                    if error.code != errno.EEXIST:
                        raise OSError(error.code, f"rule {rule['priority']} refused: {error}") from error

        with_rtnetlink(make)

    def _remove(self) -> None:
        def remove(route: IPRoute) -> None:
            for family in self._families:
                for rule in reversed(self._rules()):
                    try:
                        route.rule("del", family=_address_family(family), **rule)
                    except NetlinkError as error:
                        if error.code not in {errno.ENOENT, errno.ESRCH}:
                            _log.warning("rule stays priority=%d: %s", rule["priority"], error)

        with_rtnetlink(remove)
        for family in self._families:
            for route in self._read(family):
                if self._is_copy(route):
                    self._try(delete_route, route)

    def _follow_routes(self, family: Family) -> None:
        """Make the table what the main one asks for: new ones first, so that there is always a way."""
        index = _index_of(self._interface)
        found = self._read(family)
        wanted = {
            route.copy_to(self._table, PROTOCOL): None
            for route in found
            if route.table == MAIN_TABLE and index not in route.interfaces
        }
        self.copies[family] = len(wanted)
        wanted[last_resort(family, self._table, PROTOCOL)] = None
        present = {route: None for route in found if self._is_copy(route)}
        for route in wanted:
            if route not in present:
                self._try(add_route, route)
        for route in present:
            if route not in wanted:
                self._try(delete_route, route)

    def _is_copy(self, route: ShortRoute) -> bool:
        return route.table == self._table and route.protocol == PROTOCOL

    def _read(self, family: Family) -> list[ShortRoute]:
        try:
            return read_short_routes(family)
        except OSError as error:
            self._count(error)
            return []

    def _try(self, change: Any, route: ShortRoute) -> None:  # noqa: ANN401
        try:
            change(route)
        except OSError as error:
            self._count(error)

    def _count(self, error: OSError) -> None:
        self.errors += 1
        self.last_error = error
        _log.warning("unicast route cannot be kept on the uplink: %s", error, extra={"reason": "unicast_rules"})

    def _hear(self) -> None:
        for _ in range(_DRAIN):
            try:
                message, (sender, _) = self._news.recvfrom(_LARGEST_MESSAGE)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: messages were lost, whatever they said
                self._follow_soon()
                continue
            if sender == 0 and is_about_short_route(message):
                self._follow_soon()

    def _follow_soon(self) -> None:
        if self._timer is None:
            due = max(self._loop.time() + _SETTLE, self._earliest)
            self._timer = self._loop.call_at(due, self._follow)

    def _follow(self) -> None:
        self._timer = None
        self._earliest = self._loop.time() + _REST
        for family in self._families:
            self._follow_routes(family)
            try:
                self._have_rules(family)  # somebody may have flushed them
            except OSError as error:
                self._count(error)


def ignore_dead_routes(tunnel_interface: str) -> None:
    """Have the kernel pass over routes out of a tunnel interface that nobody holds open, even after a crash."""
    for name in ("ipv4", "ipv6"):
        write_sysctl("net", name, "conf", tunnel_interface, "ignore_routes_with_linkdown", value="1")


def _address_family(family: Family) -> int:
    return int(socket.AF_INET if family is Family.IPV4 else socket.AF_INET6)


def _index_of(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return -1
