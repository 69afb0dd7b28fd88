"""The host's interfaces as outgoing ports of the fast planes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.port import Port
from agent.net.interfaces import Interface, InterfaceChange, InterfaceMonitor

_FAST: Final = frozenset((Plane.XDP, Plane.XDP_MFC, Plane.TC))


def _ignore(_name: str) -> None:
    """What nobody listens to."""


class KernelPorts:
    """Follows the interfaces in use through rtnetlink; implements `agent.dataplane.fast.port.Ports`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read the host's interfaces.

        Raises:
            OSError: no rtnetlink socket could be had.
        """
        self.on_changed: Callable[[str], None] = _ignore
        self._wanted: frozenset[str] = frozenset()
        self._monitor = InterfaceMonitor(loop, self._changed)

    def get(self, name: str) -> Port | None:
        """The port of that name; None when there is no such interface, it is down, or no fast plane can use it."""
        interface = self._monitor.get(name)
        if name not in self._wanted or interface is None or not interface.up or len(interface.mac) != 6:
            return None
        return _port(interface)

    def want(self, names: frozenset[str]) -> None:
        """Interfaces in use: find out about them, and forget others."""
        self._wanted = names

    def close(self) -> None:
        """Stop watching."""
        self._monitor.close()

    def _changed(self, change: InterfaceChange) -> None:
        names = {change.interface.name} if change.previous is None else {change.interface.name, change.previous.name}
        for name in names & self._wanted:
            self.on_changed(name)


def _port(interface: Interface) -> Port:
    return Port(interface.name, interface.index, interface.mac, interface.mtu, _FAST)
