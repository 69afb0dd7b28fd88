"""The interfaces the programs may send to, in the kernel's maps."""

from __future__ import annotations

import asyncio
import contextlib

from agent.dataplane.fast.layout import devmap_value, index_key, port_value
from agent.dataplane.fast.port import Port
from agent.dataplane.fast.programs import Programs
from agent.dataplane.fast.slots import GRACE


class PortTable:
    """Keeps the maps `ports` and `single_ports`.

    Args:
        loop: the event loop.
        programs: the loaded object.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, programs: Programs) -> None:
        self._loop = loop
        self._egress = programs.program("gateway_egress")
        self._ports = programs.map("ports")
        self._singles = programs.map("single_ports")
        self._written: dict[int, bytes] = {}
        self._users: dict[int, int] = {}
        self._is_closed = False
        self._names: dict[int, str] = {}

    @property
    def in_use(self) -> int:
        """Interfaces the maps hold."""
        return len(self._written)

    def acquire(self, port: Port) -> None:
        """One more channel goes out of a port.

        Raises:
            OSError: the kernel refused, as with more than 256 interfaces.
        """
        if self._written.get(port.index) != port.address:
            try:
                self._ports.update(index_key(port.index), port_value(port.address))
                self._singles.update(index_key(port.index), devmap_value(port.index, self._egress))
            except OSError:  # the interface may be gone by now
                self._sweep(port.index)
                raise
            self._written[port.index] = port.address
        self._users[port.index] = self._users.get(port.index, 0) + 1
        self._names[port.index] = port.name

    def release(self, index: int) -> None:
        """One channel fewer goes out of an interface; packets on their way out of it are let through."""
        self._users[index] -= 1
        if not self._users[index]:
            del self._users[index], self._names[index]
            self._loop.call_later(GRACE, self._sweep, index)

    def indexes(self, name: str) -> list[int]:
        """What interfaces of a name have had, as far as channels go out of them."""
        return [index for index, known in self._names.items() if known == name]

    def forget(self, index: int) -> None:
        """An interface is gone or another one: the kernel has taken it out of its devmaps, it is written again."""
        self._written.pop(index, None)
        self._sweep(index)

    def close(self) -> None:
        """Write nothing more: the numbers of closed maps may be those of others."""
        self._is_closed = True

    def _sweep(self, index: int) -> None:
        if index in self._users or self._is_closed:
            return
        self._written.pop(index, None)
        for each in (self._singles, self._ports):
            with contextlib.suppress(OSError):  # what is not there any more
                each.delete(index_key(index))
