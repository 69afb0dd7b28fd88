"""The host's interfaces as outgoing ports of the fast planes: what each may be sent by, and why not more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.port import Port
from agent.dataplane.fast.probe import InterfaceProbe, Sender
from agent.net.ethtool import Ethtool
from agent.net.interfaces import ChangeKind, Interface, InterfaceChange, InterfaceMonitor
from agent.net.link_query import LinkQuery, XdpFeatures

_log = logging.getLogger(__name__)

FIRST_RETRY: Final = 2.0
"""Seconds after which an interface that took no redirected frames is tried out again; twice as long each time."""

LONGEST_RETRY: Final = 300.0
"""Seconds between two attempts at most."""

_MAC_SIZE: Final = 6
_UNTRIED: Final = "not tried out yet"
_NO_ETHERNET: Final = "it has no Ethernet header"
_NO_TARGET: Final = {
    "802.1Q VLAN Support": "a VLAN device is no target of native XDP",
    "bridge": "a bridge is no target of native XDP",
    "bonding": "a bond is no target of native XDP",
    "macvlan": "a macvlan device is no target of native XDP",
    "dummy": "a dummy device is no target of native XDP",
}
"""Why, by driver; also for kernels that do not tell."""


def _ignore(_name: str) -> None:
    """What nobody listens to."""


@dataclass(slots=True)
class _Watched:
    """An interface in use.

    Attributes:
        interface: as it was last seen, None while it does not exist.
        refused: why XDP may not send to it; empty when it may.
        failures: attempts that failed one after the other.
        retry: the next attempt.
    """

    interface: Interface | None = None
    refused: str = _UNTRIED
    failures: int = 0
    retry: asyncio.TimerHandle | None = None


class KernelPorts:
    """Follows the interfaces in use; implements `agent.dataplane.fast.port.Ports`.

    An interface is no target of XDP before frames redirected to it were seen to leave; see `InterfaceProbe`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Sender | None = None) -> None:
        """Read the host's interfaces.

        Args:
            loop: the event loop.
            send: redirects frames to try interfaces out; without it none is a target of XDP.

        Raises:
            OSError: no netlink socket could be had.
        """
        self.on_changed: Callable[[str], None] = _ignore
        self._loop = loop
        self._watched: dict[str, _Watched] = {}
        self._ethtool = Ethtool()
        self._query = LinkQuery()
        self._probe = None if send is None else InterfaceProbe(loop, send, self._query, self._ethtool)
        self._monitor = InterfaceMonitor(loop, self._changed)

    def get(self, name: str) -> Port | None:
        """The port of that name; None when there is no such interface, it is down, or no fast plane can use it."""
        watched = self._watched.get(name)
        if watched is None or watched.interface is None or not watched.interface.up:
            return None
        interface = watched.interface
        reasons: dict[Plane, str] = {}
        if len(interface.mac) != _MAC_SIZE:
            reasons = {Plane.XDP: _NO_ETHERNET, Plane.TC: _NO_ETHERNET}
        elif watched.refused:
            reasons = {Plane.XDP: watched.refused}
        planes = frozenset((Plane.XDP, Plane.XDP_MFC, Plane.TC)) - reasons.keys()
        address = interface.mac if len(interface.mac) == _MAC_SIZE else bytes(_MAC_SIZE)
        return Port(name, interface.index, address, interface.mtu, planes, reasons)

    def want(self, names: frozenset[str]) -> None:
        """Interfaces in use: find out about them (probing takes a moment), and forget others."""
        for name in self._watched.keys() - names:
            self._forget(name)
        for name in names - self._watched.keys():
            watched = self._watched[name] = _Watched(self._monitor.get(name))
            self._try_out(name, watched)

    def refuse(self, name: str, reason: str) -> None:
        """Send to an interface by XDP no longer, and try it out again later."""
        watched = self._watched.get(name)
        if watched is None or watched.refused:
            return
        _log.warning("interface taken off xdp interface=%s: %s", name, reason)
        self._failed(name, watched, reason)
        self.on_changed(name)

    def names(self) -> tuple[str, ...]:
        """Interfaces in use, existing or not."""
        return tuple(sorted(self._watched))

    def targets(self) -> dict[str, int]:
        """Interfaces XDP may send to, with their indexes."""
        return {
            name: watched.interface.index
            for name, watched in self._watched.items()
            if watched.interface is not None and watched.interface.up and not watched.refused
        }

    def transmitted(self, name: str, index: int) -> int:
        """Frames an interface sent, or where its driver counts them apart, those that were redirected to it.

        Raises:
            OSError: there is no such interface.
        """
        if self._probe is None:
            raise OSError(95, "not tried out", name)
        return self._probe.count(name, index)[0]

    def is_target(self, index: int) -> bool:
        """Whether the driver still says that it takes redirected frames, or does not say."""
        features = self._query.xdp_features(index)
        return features is None or XdpFeatures.TRANSMIT in features

    def close(self) -> None:
        """Stop watching."""
        for name in tuple(self._watched):
            self._forget(name)
        self._monitor.close()
        self._query.close()
        self._ethtool.close()

    def _forget(self, name: str) -> None:
        watched = self._watched.pop(name)
        if watched.retry is not None:
            watched.retry.cancel()
        if self._probe is not None:
            self._probe.cancel(name)

    def _changed(self, change: InterfaceChange) -> None:
        names = {change.interface.name} if change.previous is None else {change.interface.name, change.previous.name}
        for name in names & self._watched.keys():
            watched = self._watched[name]
            before, watched.interface = watched.interface, self._monitor.get(name)
            now = watched.interface
            is_new = now is not None and (before is None or before.index != now.index)
            if is_new or (now is not None and now.up and change.kind is ChangeKind.UP):
                watched.failures = 0
                self._try_out(name, watched)
            if change.kind is not ChangeKind.ADDRESSES:
                self.on_changed(name)

    def _try_out(self, name: str, watched: _Watched) -> None:
        if watched.retry is not None:
            watched.retry.cancel()
            watched.retry = None
        if self._probe is not None:
            self._probe.cancel(name)
        interface = watched.interface
        if interface is None or not interface.up:
            watched.refused = _UNTRIED
            return
        refusal = self._refusal(interface)
        if refusal or self._probe is None:
            self._failed(name, watched, refusal or "this engine cannot try interfaces out")
            return
        watched.refused = watched.refused or _UNTRIED
        self._probe.start(name, interface.index, interface.mac, lambda reason: self._tried(name, watched, reason))

    def _refusal(self, interface: Interface) -> str:
        """Why an interface is no target, as far as that can be told without trying."""
        if len(interface.mac) != _MAC_SIZE:
            return _NO_ETHERNET
        try:
            driver = self._ethtool.driver(interface.name)
        except OSError:
            return "it is gone"
        if driver in _NO_TARGET:
            return _NO_TARGET[driver]
        if self.is_target(interface.index):
            return ""
        if driver == "veth":
            return "its far end has neither GRO nor an XDP program; ethtool -K PEER gro on"
        return f"its driver ({driver or 'unknown'}) says that it takes no redirected frames"

    def _tried(self, name: str, watched: _Watched, reason: str) -> None:
        before = watched.refused
        if reason:
            self._failed(name, watched, reason)
        else:
            watched.refused, watched.failures = "", 0
        if before != watched.refused:
            self.on_changed(name)

    def _failed(self, name: str, watched: _Watched, reason: str) -> None:
        watched.refused = reason
        delay = min(FIRST_RETRY * 2.0**watched.failures, LONGEST_RETRY)
        watched.failures = min(watched.failures + 1, 16)
        watched.retry = self._loop.call_later(delay, self._retry, name, watched)

    def _retry(self, name: str, watched: _Watched) -> None:
        watched.retry = None
        before = watched.refused
        self._try_out(name, watched)
        if watched.refused != before:
            self.on_changed(name)
