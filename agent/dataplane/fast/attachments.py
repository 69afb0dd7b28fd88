"""Attaches the programs where tunnels come in, and takes them away with the last tunnel."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from agent.dataplane.engine import TunnelSocket
from agent.dataplane.fast.borrowed import BorrowedSettings
from agent.dataplane.fast.layout import ANY_STATION, Plane
from agent.net.bpf import BpfObject, Link, attach_tc, attach_xdp
from agent.net.ethtool import Ethtool
from agent.net.interfaces import Interface, InterfaceChange, InterfaceMonitor
from agent.net.routing import local_address_towards
from agent.net.rpf import UnicastRoutes
from agent.protocol.channels import Address, Endpoint

_log = logging.getLogger(__name__)

XDP_PROGRAM: Final = "gateway_xdp"
TC_PROGRAM: Final = "gateway_tc"
_JOINING: Final = "rx-udp-gro-forwarding"
_SETTLE: Final = 0.05  # seconds; one change of an address is several messages
_LINGER: Final = 0.2  # seconds a program stays that is wished for no longer: what it began is still on its way
_DRIVER_PLANES: Final = frozenset((Plane.XDP, Plane.XDP_MFC))
_ANY: Final = frozenset((Plane.XDP, Plane.XDP_MFC, Plane.TC))
_NO_ROUTE: Final = "no route leads to the relay"
_UNWANTED: Final = "not to be used"


def _ignore(_name: str) -> None:
    """What nobody listens to."""


@dataclass(slots=True)
class _Uplink:
    """An interface tunnels come in on.

    Attributes:
        index: the interface the programs were attached to, 0 while there is none.
        mtu: at that time; a driver may take the program after it became smaller.
        xdp: the program in the driver.
        tc: the program behind it.
        reasons: why a program is not there.
    """

    index: int = 0
    mtu: int = 0
    xdp: Link | None = None
    tc: Link | None = None
    reasons: dict[Plane, str] = field(default_factory=dict)


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
        self._borrowed = BorrowedSettings(None) if borrowed is None else borrowed
        self._wished = _ANY
        self._tunnels: dict[str, _Tunnel] = {}
        self._uplinks: dict[str, _Uplink] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._ethtool = Ethtool()
        self._routes = UnicastRoutes(loop, self._routes_changed)
        self._monitor = InterfaceMonitor(loop, self._interface_changed)
        for index in self._borrowed:  # by an agent that was killed
            self._leave_as_found(index)

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
        return frozenset() if uplink is None else _planes(uplink)

    def reason(self, name: str, plane: Plane) -> str:
        """Why a plane's program does not see a tunnel's data, for `status`; empty when it does."""
        uplink = self._uplink_of(name)
        if uplink is None:
            return _NO_ROUTE
        return "" if plane in _planes(uplink) else self._explain(uplink, plane)

    def local(self, name: str) -> Endpoint | None:
        """Our address and port the relay sends to, None while that is not known (no route, socket not bound)."""
        tunnel = self._tunnels.get(name)
        return None if tunnel is None else tunnel.local

    def vlans(self, name: str) -> tuple[int, ...]:  # noqa: ARG002 the same for every tunnel
        """Tags of a tunnel's frames where the programs see them: none, for a VLAN device has its own program (tc)."""
        return ()

    def station(self, name: str) -> bytes:
        """MAC address a tunnel's frames are for; `ANY_STATION` when it comes in on interfaces of several."""
        tunnel = self._tunnels.get(name)
        found = {self._mac(each) for each in tunnel.uplinks} if tunnel is not None else set()
        return found.pop() if len(found) == 1 else ANY_STATION

    def interface(self, name: str) -> int | None:
        """Index of the interface a tunnel's data comes in on."""
        uplink = self._uplink_of(name)
        return None if uplink is None or not uplink.index else uplink.index

    def wish(self, planes: tuple[Plane, ...]) -> None:
        """Planes anybody may use, the best first: the programs of others need not be attached."""
        wished = frozenset(planes) & _ANY
        if wished == self._wished:
            return
        self._wished = wished
        self._tell_after(self._attach_needed)
        if self._lingering is None:
            self._lingering = self._loop.call_later(_LINGER, self._detach_unwanted)

    def attached(self) -> dict[str, tuple[frozenset[Plane], dict[Plane, str]]]:
        """Per uplink what works there, and for the other planes wished for why not."""
        return {
            name: (
                _planes(uplink),
                {plane: self._explain(uplink, plane) for plane in self._wished - _planes(uplink)},
            )
            for name, uplink in self._uplinks.items()
        }

    def close(self) -> None:
        """Detach everything."""
        for timer in (self._timer, self._lingering):
            if timer is not None:
                timer.cancel()
        self._tunnels.clear()
        for name in tuple(self._uplinks):
            self._detach(name, self._uplinks.pop(name))
        self._routes.close()
        self._monitor.close()
        self._ethtool.close()

    def _uplink_of(self, name: str) -> _Uplink | None:
        tunnel = self._tunnels.get(name)
        return None if tunnel is None or not tunnel.uplinks else self._uplinks.get(tunnel.uplinks[0])

    def _mac(self, interface: str) -> bytes:
        found = self._monitor.get(interface)
        return found.mac if found is not None and len(found.mac) == len(ANY_STATION) else ANY_STATION

    def _explain(self, uplink: _Uplink, plane: Plane) -> str:
        if plane not in self._wished:
            return _UNWANTED
        return uplink.reasons.get(plane) or "the uplink does not exist"

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
            self._detach(name, self._uplinks.pop(name))
        for name in sorted(needed):
            uplink = self._uplinks.setdefault(name, _Uplink())
            interface = self._monitor.get(name)
            index = interface.index if interface is not None else 0
            if uplink.index != index:
                self._detach(name, uplink)
                uplink.index = index
            if interface is not None:
                self._attach(interface, uplink)

    def _attach(self, interface: Interface, uplink: _Uplink) -> None:
        wants_xdp, wants_tc = self._wanted()
        if wants_xdp and uplink.xdp is None:
            uplink.xdp = self._attach_xdp(interface, uplink)
        if wants_tc and uplink.tc is None:
            uplink.tc = self._attach_tc(interface, uplink)
        uplink.mtu = interface.mtu
        self._join(interface.name, uplink)

    def _wanted(self) -> tuple[bool, bool]:
        """Whether the program in the driver, and the one behind it, are of use."""
        wishes_mfc = Plane.XDP_MFC in self._wished
        return Plane.XDP in self._wished or wishes_mfc, Plane.TC in self._wished or wishes_mfc

    def _detach_unwanted(self) -> None:
        """Take programs away that are wished for no longer; in the driver first, which hands on to the other."""
        self._lingering = None
        wants_xdp, wants_tc = self._wanted()

        def detach() -> None:
            for name, uplink in self._uplinks.items():
                if not wants_xdp:
                    _close(name, uplink.xdp)
                    uplink.xdp = None
                if not wants_tc:
                    _close(name, uplink.tc)
                    uplink.tc = None

        self._tell_after(detach)

    def _attach_xdp(self, interface: Interface, uplink: _Uplink) -> Link | None:
        try:
            link = attach_xdp(self._loaded.program(XDP_PROGRAM), interface.index)
        except OSError as error:
            self._refuse(interface, uplink, _DRIVER_PLANES, self._why_no_xdp(interface, error))
            return None
        uplink.reasons.pop(Plane.XDP, None)
        uplink.reasons.pop(Plane.XDP_MFC, None)
        return link

    def _attach_tc(self, interface: Interface, uplink: _Uplink) -> Link | None:
        try:
            link = attach_tc(self._loaded, TC_PROGRAM, interface.index)
        except OSError as error:
            reason = f"no tc program can be attached to {interface.name}: {error.strerror}"
            self._refuse(interface, uplink, frozenset((Plane.TC, Plane.XDP_MFC)), reason)
            return None
        uplink.reasons.pop(Plane.TC, None)
        return link

    def _refuse(self, interface: Interface, uplink: _Uplink, planes: frozenset[Plane], reason: str) -> None:
        if any(uplink.reasons.get(plane) != reason for plane in planes & self._wished):
            _log.info("program not attached interface=%s: %s", interface.name, reason)
        uplink.reasons.update(dict.fromkeys(planes, reason))

    def _why_no_xdp(self, interface: Interface, error: OSError) -> str:
        name = interface.name
        if error.errno == errno.ERANGE:
            return f"an MTU of {interface.mtu} is too large for the driver of {name} with XDP; lower it"
        if error.errno in {errno.EBUSY, errno.EEXIST}:
            return f"another XDP program is attached to {name}"
        if error.errno in {errno.EOPNOTSUPP, errno.EINVAL}:
            return f"the driver of {name} has no native XDP"
        return f"no XDP program can be attached to {name}: {error.strerror}"

    def _join(self, name: str, uplink: _Uplink) -> None:
        """Have the kernel join what it will forward, or not.

        Without it xdp-mfc is no faster than the kernel itself; with it tc sees nothing but trains, which it leaves to
        the sockets. While channels move from one to the other both are wished for, and tc has its way.
        """
        wanted: bool | None = None
        if Plane.TC in self._wished and uplink.tc is not None:
            wanted = False
        elif Plane.XDP_MFC in self._wished and uplink.xdp is not None:
            wanted = True
        if wanted is None:
            self._leave_as_found(uplink.index)
            return
        try:
            before = self._ethtool.feature(name, _JOINING)
            if before is not None and before is not wanted:
                self._borrowed.borrow(uplink.index, found=before)
                self._ethtool.set_feature(name, _JOINING, enabled=wanted)
        except OSError as error:
            _log.info("%s cannot be set interface=%s: %s", _JOINING, name, error.strerror)

    def _leave_as_found(self, index: int) -> None:
        found = self._borrowed.found(index)
        if found is None:
            return
        try:
            self._ethtool.set_feature(socket.if_indextoname(index), _JOINING, enabled=found)
        except OSError as error:  # its interface is gone
            _log.debug("%s not restored interface=%d: %s", _JOINING, index, error)
        self._borrowed.give_back(index)

    def _detach(self, name: str, uplink: _Uplink) -> None:
        _close(name, uplink.xdp)
        _close(name, uplink.tc)
        self._leave_as_found(uplink.index)
        uplink.xdp = uplink.tc = None
        uplink.reasons.clear()
        uplink.index = 0

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
        reasons = tuple(self.reason(name, plane) for plane in sorted(_ANY))
        return self.planes(name), self.local(name), self.station(name), self.interface(name), reasons


def _close(name: str, link: Link | None) -> None:
    if link is not None:
        try:
            link.close()
        except OSError as error:  # its interface is gone, and the program with it
            _log.debug("program not detached interface=%s: %s", name, error)


def _planes(uplink: _Uplink) -> frozenset[Plane]:
    planes = set()
    if uplink.xdp is not None:
        planes.add(Plane.XDP)
        if uplink.tc is not None:
            planes.add(Plane.XDP_MFC)
    if uplink.tc is not None:
        planes.add(Plane.TC)
    return frozenset(planes)


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
