"""Attaches the programs where tunnels come in, and takes them away with the last tunnel."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from agent.dataplane.engine import TunnelSocket
from agent.dataplane.fast.borrowed import BorrowedSettings
from agent.dataplane.fast.joining import Joining
from agent.dataplane.fast.layout import ANY_STATION, Plane
from agent.dataplane.fast.uplink_programs import FAST_PLANES, UplinkPrograms
from agent.net.bpf import BpfObject
from agent.net.ethtool import Ethtool
from agent.net.interfaces import InterfaceChange, InterfaceMonitor
from agent.net.routing import local_address_towards
from agent.net.rpf import UnicastRoutes
from agent.protocol.channels import Address, Endpoint

_SETTLE: Final = 0.05  # seconds; one change of an address is several messages
_LINGER: Final = 0.2  # seconds a program stays that is wished for no longer: what it began is still on its way
_NO_ROUTE: Final = "no route leads to the relay"


def _ignore(_name: str) -> None:
    """What nobody listens to."""


@dataclass(slots=True)
class _Tunnel:
    """A tunnel as it was last seen: uplinks, the first being the one the route leads to, and our end of it."""

    settings: TunnelSocket
    uplinks: tuple[str, ...] = ()
    local: Endpoint | None = None


class KernelUplinks:
    """Implements `agent.dataplane.fast.uplinks.Uplinks`.

    Args:
        loop: the event loop.
        loaded: the gateway's programs.
        configured: interfaces the configuration names; without any, those the routes to the relays use.
        borrowed: which uplinks have another `rx-udp-gro-forwarding` than they were found with.

    Raises:
        OSError: no netlink socket could be had.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        loaded: BpfObject,
        configured: tuple[str, ...] = (),
        borrowed: BorrowedSettings | None = None,
    ) -> None:
        self.on_changed: Callable[[str], None] = _ignore
        self._loop = loop
        self._loaded = loaded
        self._configured = configured
        self._wished = FAST_PLANES
        self._tunnels: dict[str, _Tunnel] = {}
        self._uplinks: dict[str, UplinkPrograms] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._ethtool = Ethtool()
        self._joining = Joining(self._ethtool, BorrowedSettings(None) if borrowed is None else borrowed)
        self._routes = UnicastRoutes(loop, self._routes_changed)
        self._monitor = InterfaceMonitor(loop, self._interface_changed)

    def add_tunnel(self, tunnel: TunnelSocket) -> None:
        """Find out where a tunnel's data comes in and attach what can be attached there; replaces one of that name."""
        self._tunnels[tunnel.name] = _Tunnel(tunnel)
        self._locate(self._tunnels[tunnel.name])
        self._attach_needed()

    def remove_tunnel(self, name: str) -> None:
        """Forget a tunnel; an uplink without tunnels gets its programs detached."""
        removed = self._tunnels.pop(name, None)
        if removed is None:
            return
        relay = removed.settings.relay.address
        if all(tunnel.settings.relay.address != relay for tunnel in self._tunnels.values()):
            self._routes.forget(relay)
        self._attach_needed()

    def planes(self, name: str) -> frozenset[Plane]:
        """The planes whose programs see a tunnel's data; empty for an unknown tunnel."""
        uplink = self._uplink_of(name)
        if uplink is None:
            return frozenset()
        return uplink.planes - {Plane.XDP_MFC} if self._dead_end() else uplink.planes

    def reason(self, name: str, plane: Plane) -> str:
        """Why a plane's program does not see a tunnel's data, for `status`; empty when it does."""
        uplink = self._uplink_of(name)
        if uplink is None:
            return _NO_ROUTE
        if plane in self.planes(name):
            return ""
        dead_end = self._dead_end() if plane in uplink.planes else None
        return (dead_end or uplink).explain(plane, self._wished)

    def local(self, name: str) -> Endpoint | None:
        """Our address and port the relay sends to, None while that is not known (no route, socket not bound)."""
        tunnel = self._tunnels.get(name)
        return None if tunnel is None else tunnel.local

    def station(self, name: str) -> bytes:
        """MAC address a tunnel's frames are for; `ANY_STATION` when it comes in on interfaces of several."""
        tunnel = self._tunnels.get(name)
        uplinks = [self._uplinks.get(each) for each in tunnel.uplinks] if tunnel is not None else []
        found = {uplink.station for uplink in uplinks if uplink is not None}
        return found.pop() if len(found) == 1 else ANY_STATION

    def interface(self, name: str) -> int | None:
        """Index of the interface a tunnel's data comes in on."""
        uplink = self._uplink_of(name)
        return None if uplink is None or not uplink.index else uplink.index

    def wish(self, planes: tuple[Plane, ...]) -> None:
        """Planes anybody may use, the best first: the programs of others need not be attached."""
        wished = frozenset(planes) & FAST_PLANES
        if wished == self._wished:
            return
        self._wished = wished
        self._tell_after(self._attach_needed)
        if self._lingering is None:
            self._lingering = self._loop.call_later(_LINGER, self._detach_unwished)

    def attached(self) -> dict[str, tuple[frozenset[Plane], dict[Plane, str]]]:
        """Per uplink what works there, and for the other planes wished for why not."""
        return {
            name: (
                uplink.planes,
                {plane: uplink.explain(plane, self._wished) for plane in self._wished - uplink.planes},
            )
            for name, uplink in self._uplinks.items()
        }

    def close(self) -> None:
        """Detach everything."""
        for timer in (self._timer, self._lingering):
            if timer is not None:
                timer.cancel()
        self._tunnels.clear()
        self._attach_needed()
        self._routes.close()
        self._monitor.close()
        self._ethtool.close()

    def _uplink_of(self, name: str) -> UplinkPrograms | None:
        tunnel = self._tunnels.get(name)
        return None if tunnel is None or not tunnel.uplinks else self._uplinks.get(tunnel.uplinks[0])

    def _dead_end(self) -> UplinkPrograms | None:
        """An uplink whose packets xdp-mfc would lose: the driver's program strips any tunnel's, for nobody."""
        return next((uplink for uplink in self._uplinks.values() if uplink.hands_to_nobody), None)

    def _locate(self, tunnel: _Tunnel) -> None:
        """Ask the kernel where a tunnel's data comes in, and under which address."""
        relay = tunnel.settings.relay.address
        route = self._routes.towards(relay)
        bound = _bound_interface(tunnel.settings.socket)
        towards = tuple(hop.interface for hop in route.hops) if route is not None else ()
        if bound:
            tunnel.uplinks = (bound,)
        else:
            others = tuple(name for name in self._configured if name not in towards)
            tunnel.uplinks = (*towards, *others)
        tunnel.local = _local_end(tunnel.settings.socket, relay, bound or None)

    def _attach_needed(self) -> None:
        """Bring programs to where they are needed, and away from where they are not."""
        needed = {name for tunnel in self._tunnels.values() for name in tunnel.uplinks}
        for name in self._uplinks.keys() - needed:
            self._detach(self._uplinks.pop(name))
        for name in sorted(needed):
            uplink = self._uplinks.get(name)
            if uplink is None:
                uplink = self._uplinks[name] = UplinkPrograms(name, self._loaded, self._ethtool.driver)
            interface = self._monitor.get(name)
            if uplink.index and (interface is None or uplink.index != interface.index):
                self._detach(uplink)
            if interface is not None:
                uplink.attach(interface, self._wished)
                self._join(uplink)

    def _detach(self, uplink: UplinkPrograms) -> None:
        index = uplink.index
        uplink.detach()
        self._joining.leave_as_found(index)

    def _join(self, uplink: UplinkPrograms) -> None:
        """Have the kernel join what it will forward, or not.

        Without it xdp-mfc is no faster than the kernel itself; with it tc sees nothing but trains, which it leaves to
        the sockets. While channels move from one to the other both are wished for, and tc has its way.
        """
        if Plane.TC in self._wished and uplink.tc is not None:
            self._joining.set(uplink.name, uplink.index, wanted=False)
        elif Plane.XDP_MFC in self._wished and uplink.xdp is not None:
            self._joining.set(uplink.name, uplink.index, wanted=True)
        else:
            self._joining.leave_as_found(uplink.index)

    def _detach_unwished(self) -> None:
        self._lingering = None

        def detach() -> None:
            for uplink in self._uplinks.values():
                uplink.detach_unwished(self._wished)

        self._tell_after(detach)

    def _routes_changed(self, _addresses: frozenset[Address]) -> None:
        self._expire()

    def _interface_changed(self, _change: InterfaceChange) -> None:
        self._expire()

    def _expire(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_SETTLE, self._look_again)

    def _look_again(self) -> None:
        self._timer = None

        def look() -> None:
            for tunnel in self._tunnels.values():
                self._locate(tunnel)
            self._attach_needed()

        self._tell_after(look)

    def _tell_after(self, change: Callable[[], None]) -> None:
        """Do something and tell of the tunnels it made a difference to."""
        before = {name: self._state(name) for name in self._tunnels}
        change()
        for name, state in before.items():
            if name in self._tunnels and self._state(name) != state:
                self.on_changed(name)

    def _state(self, name: str) -> object:
        reasons = tuple(self.reason(name, plane) for plane in sorted(FAST_PLANES))
        return self.planes(name), self.local(name), self.station(name), self.interface(name), reasons


def _bound_interface(tunnel: socket.socket) -> str:
    """The interface a socket is bound to; empty when to none."""
    try:
        value = tunnel.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
    except OSError:
        return ""
    return value.split(b"\0", 1)[0].decode(errors="replace")


def _local_end(tunnel: socket.socket, relay: Address, interface: str | None) -> Endpoint | None:
    """Our address and port as the relay sees them from this host."""
    try:
        name = tunnel.getsockname()
    except OSError:  # closed
        return None
    own, port = ip_address(name[0].partition("%")[0]), name[1]
    if not port:
        return None
    address = local_address_towards(relay, interface) if own.is_unspecified else own
    return None if address is None else Endpoint(address, port)
