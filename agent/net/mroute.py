"""The kernel's multicast routing: (S,G) entries from one incoming interface to a set of outgoing ones.

One process at a time owns a table of a family; the kernel takes the entries away when its socket closes. The router
remembers what was asked for, so that an interface that vanishes and returns finds its place and its channels again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pyroute2 import NetlinkError

from agent.net.mroute_layout import (
    MRT_ADD_MFC,
    MRT_ADD_VIF,
    MRT_ASSERT,
    MRT_DEL_MFC,
    MRT_DEL_VIF,
    MRT_INIT,
    MRT_PIM,
    MRT_TABLE,
    SIOCGETSGCNT,
    SLOTS,
    Upcall,
    layout_of,
)
from agent.net.rtnetlink import with_rtnetlink
from agent.protocol.channels import Address, Family

DEFAULT_TABLE: Final = 253
"""The table the kernel uses when no rule says otherwise (RT_TABLE_DEFAULT)."""

_RULE_FAMILY: Final = {Family.IPV4: 128, Family.IPV6: 129}  # RTNL_FAMILY_IPMR, RTNL_FAMILY_IP6MR
_UPCALLS_AT_ONCE: Final = 64


class MulticastRoutingError(Exception):
    """The kernel's multicast routing cannot be used as asked."""


class MulticastRoutingBusyError(MulticastRoutingError):
    """Another daemon (FRR pimd or pim6d, pimd, smcroute, mrouted) owns the multicast routing socket."""


class MulticastRoutingUnsupportedError(MulticastRoutingError):
    """This kernel has no multicast routing for the family, or no tables beside the default one."""


class MulticastRoutingPermissionError(MulticastRoutingError):
    """CAP_NET_ADMIN or CAP_NET_RAW is missing."""


class InterfaceLimitError(MulticastRoutingError):
    """More than 32 interfaces are in use."""


@dataclass(frozen=True, slots=True)
class RouteTraffic:
    """What the kernel forwarded for one (S,G): packets, octets, and packets that came in on a wrong interface.

    A train of segmentable datagrams counts as one packet.
    """

    packets: int
    bytes: int
    wrong_interface: int


@dataclass(slots=True)
class _Route:
    incoming: str
    outgoing: frozenset[str]


@dataclass(slots=True)
class _Interface:
    slot: int
    index: int  # 0 while the interface does not exist


class MulticastRouter:
    """Owner of one family's multicast routing table.

    Args:
        family: IPv4 or IPv6.
        table: number of the table; another than the default one is reached through rules on the incoming
            interfaces and those watched, which exist until `close`.

    Attributes:
        tells_wrong_interface: whether the kernel tells of every packet of a known route on another interface than its
            incoming one; without that it tells only of interfaces the route goes out of.

    Raises:
        MulticastRoutingError: one of its kinds, with what to do about it.
    """

    def __init__(self, family: Family, table: int = DEFAULT_TABLE) -> None:
        self.family = family
        self.table = table
        self._layout = layout_of(family)
        self._interfaces: dict[str, _Interface] = {}
        self._routes: dict[tuple[Address, Address], _Route] = {}
        self._rules: set[str] = set()
        self._watched: set[str] = set()
        self.tells_wrong_interface = False
        try:
            self._socket = self._layout.open_socket()
        except PermissionError as error:
            raise MulticastRoutingPermissionError("multicast routing needs CAP_NET_RAW and CAP_NET_ADMIN") from error
        except OSError as error:
            raise MulticastRoutingUnsupportedError(f"no raw {family.name} socket: {error.strerror}") from error
        try:
            self._initialise()
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Descriptor that becomes readable when `drain` has something."""
        return self._socket.fileno()

    def set_route(self, source: Address, group: Address, incoming: str, outgoing: Iterable[str]) -> None:
        """Forward (source, group) from `incoming` to `outgoing`, replacing what was set before.

        The kernel's entry is changed in place, the incoming interface too: no packet meets a table without it, and its
        counters go on.

        Outgoing interfaces that do not exist are remembered and join in once `interface_changed` finds them.

        Raises:
            InterfaceLimitError: no slot is left for one of the interfaces.
            MulticastRoutingError: the incoming interface does not exist, or the kernel refused.
        """
        wanted = _Route(incoming, frozenset(outgoing) - {incoming})
        for name in (incoming, *sorted(wanted.outgoing)):
            self._slot(name)
        if not self._interfaces[incoming].index:
            raise MulticastRoutingError(f"incoming interface {incoming} does not exist")
        self._direct(incoming)
        self._add(source, group, wanted)
        self._routes[source, group] = wanted

    def remove_route(self, source: Address, group: Address) -> None:
        """Stop forwarding (source, group); nothing happens when it is unknown."""
        route = self._routes.pop((source, group), None)
        if route is not None:
            self._delete(source, group, route)

    def watch(self, name: str) -> None:
        """Give an interface its slot now, so that packets without a route are told of with `drain`.

        One that does not exist is remembered, as an outgoing one is.

        Raises:
            InterfaceLimitError: no slot is left.
            MulticastRoutingError: the kernel refused.
        """
        self._watched.add(name)
        try:
            self._slot(name)
            self._direct(name)
        except MulticastRoutingError:
            self._watched.discard(name)
            raise

    def unwatch(self, name: str) -> None:
        """Give up what `watch` did, unless a route needs it."""
        self._watched.discard(name)
        self._release(name)

    def interface_changed(self, name: str) -> None:
        """Look at an interface again: attach it when it is new or was recreated, forget its index when it is gone."""
        interface = self._interfaces.get(name)
        if interface is None or interface.index == (index := _index_of(name)):
            return
        self._detach(interface)
        interface.index = index
        if index:
            self._attach(name, interface)
        for (source, group), route in self._routes.items():
            if name == route.incoming or name in route.outgoing:
                with contextlib.suppress(MulticastRoutingError):
                    self._add(source, group, route)

    def interface_name(self, slot: int) -> str | None:
        """Name of the interface in a slot, as an upcall gives it."""
        return next((name for name, interface in self._interfaces.items() if interface.slot == slot), None)

    def drain(self) -> list[Upcall]:
        """Upcalls waiting, at most 64."""
        upcalls = []
        for _ in range(_UPCALLS_AT_ONCE):
            try:
                message = self._socket.recv(2048)
            except OSError:  # nothing left, or an error the socket will report again
                break
            upcall = self._layout.upcall(message)
            if upcall is not None:
                upcalls.append(upcall)
        return upcalls

    def traffic(self, source: Address, group: Address) -> RouteTraffic | None:
        """What the kernel forwarded since the route was set, or None when it has no such route."""
        try:
            answer = fcntl.ioctl(self._socket, SIOCGETSGCNT, self._layout.count_request(source, group))
        except OSError:
            return None
        return RouteTraffic(*self._layout.counts(answer))

    def close(self) -> None:
        """Give multicast routing back; routes, slots and rules go."""
        for name in tuple(self._rules):
            self._rule("del", name)
        self._socket.close()  # the kernel does MRT_DONE
        self._routes.clear()
        self._watched.clear()
        self._interfaces.clear()

    def _initialise(self) -> None:
        level = self._layout.level
        try:
            if self.table != DEFAULT_TABLE:
                self._socket.setsockopt(level, MRT_TABLE, struct.pack("=I", self.table))
            self._socket.setsockopt(level, MRT_INIT, struct.pack("=i", 1))
        except PermissionError as error:
            raise MulticastRoutingPermissionError("multicast routing needs CAP_NET_ADMIN") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise MulticastRoutingBusyError(
                    f"another daemon (pimd, pim6d, smcroute, mrouted) owns {self.family.name} multicast routing table "
                    f"{self.table}: stop it, set gateway.mroute_table to another one, or use mode frr beside FRR"
                ) from error
            raise MulticastRoutingUnsupportedError(
                f"no {self.family.name} multicast routing with table {self.table} in this kernel: {error.strerror}"
            ) from error
        self._layout.silence(self._socket)
        self._socket.setblocking(False)
        self._socket.setsockopt(level, MRT_ASSERT, struct.pack("=i", 1))
        with contextlib.suppress(OSError):  # a kernel without PIM
            self._socket.setsockopt(level, MRT_PIM, struct.pack("=i", 1))
            self.tells_wrong_interface = True

    def _slot(self, name: str) -> int:
        interface = self._interfaces.get(name)
        if interface is None:
            interface = _Interface(self._free_slot(), _index_of(name))
            if interface.index:
                self._attach(name, interface)
            self._interfaces[name] = interface
        return interface.slot

    def _free_slot(self) -> int:
        used = {interface.slot for interface in self._interfaces.values()}
        if len(used) == SLOTS:
            self._release_unused()
            used = {interface.slot for interface in self._interfaces.values()}
        for slot in range(SLOTS):
            if slot not in used:
                return slot
        raise InterfaceLimitError(f"the kernel routes multicast between {SLOTS} interfaces at most, all are in use")

    def _release_unused(self) -> None:
        for name in tuple(self._interfaces):
            self._release(name)

    def _release(self, name: str) -> None:
        """Empty a slot nothing needs, and leave its packets to other tables again."""
        routed = any(name == route.incoming or name in route.outgoing for route in self._routes.values())
        if name not in self._interfaces or name in self._watched or routed:
            return
        self._detach(self._interfaces.pop(name))
        if name in self._rules:
            self._rules.discard(name)
            with contextlib.suppress(MulticastRoutingError):
                self._rule("del", name)

    def _attach(self, name: str, interface: _Interface) -> None:
        argument = self._layout.interface(interface.slot, interface.index)
        try:
            self._socket.setsockopt(self._layout.level, MRT_ADD_VIF, argument)
        except OSError as error:
            raise MulticastRoutingError(f"cannot route multicast on {name}: {error.strerror}") from error

    def _detach(self, interface: _Interface) -> None:
        """Empty a slot; the kernel has done so already when the interface was removed."""
        argument = self._layout.interface(interface.slot, interface.index)
        with contextlib.suppress(OSError):
            self._socket.setsockopt(self._layout.level, MRT_DEL_VIF, argument)

    def _add(self, source: Address, group: Address, route: _Route) -> None:
        incoming = self._interfaces[route.incoming].slot
        present = [self._interfaces[name] for name in route.outgoing]
        outgoing = [interface.slot for interface in present if interface.index]
        try:
            self._socket.setsockopt(
                self._layout.level, MRT_ADD_MFC, self._layout.route(source, group, incoming, outgoing)
            )
        except OSError as error:
            raise MulticastRoutingError(f"cannot set ({source},{group}): {error.strerror}") from error

    def _delete(self, source: Address, group: Address, route: _Route) -> None:
        interface = self._interfaces.get(route.incoming)
        slot = interface.slot if interface is not None else 0
        with contextlib.suppress(OSError):
            self._socket.setsockopt(self._layout.level, MRT_DEL_MFC, self._layout.route(source, group, slot, ()))

    def _direct(self, incoming: str) -> None:
        """Send packets of an incoming interface to our table when it is not the default one."""
        if self.table == DEFAULT_TABLE or incoming in self._rules:
            return
        self._rule("add", incoming)
        self._rules.add(incoming)

    def _rule(self, command: str, incoming: str) -> None:
        try:
            with_rtnetlink(
                lambda route: route.rule(command, family=_RULE_FAMILY[self.family], iifname=incoming, table=self.table)
            )
        except NetlinkError as error:
            if error.code in (errno.EEXIST, errno.ENOENT):
                return
            raise MulticastRoutingError(
                f"cannot {command} the rule iif {incoming} table {self.table}: {error}"
            ) from error


def _index_of(name: str) -> int:
    """Interface index, or 0 when there is no such interface."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0
