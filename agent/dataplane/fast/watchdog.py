"""Sees to it that what the programs redirect to an interface leaves by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from agent.dataplane.fast.interfaces import KernelPorts

INTERVAL: Final = 1.0
"""Seconds between two looks."""

_ENOUGH: Final = 20
"""Packets in one interval below which nothing is concluded."""

_SHARE: Final = 4
"""An interface that sent less than one in so many of what was redirected to it has lost them."""

_ROUNDS: Final = 2
"""Intervals one after the other: counters of some network cards are brought up to date seldom."""


class Watchdog:
    """Takes interfaces off XDP whose far end went away without a link going down.

    Args:
        loop: the event loop.
        ports: the interfaces.
        redirected: packets redirected to each interface so far, by name; numbers may begin anew.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ports: KernelPorts,
        redirected: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        self._loop = loop
        self._ports = ports
        self._redirected = redirected
        self._before: dict[str, tuple[int, int, int]] = {}
        self._lost: dict[str, int] = {}
        self._timer = loop.call_later(INTERVAL, self._look)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(INTERVAL, self._look)
        targets = self._ports.targets()
        redirected = self._redirected() if self._redirected is not None and targets else {}
        for name in self._before.keys() - targets.keys():
            del self._before[name]
            self._lost.pop(name, None)
        for name, index in targets.items():
            if not self._ports.is_target(index):
                self._ports.refuse(name, "its driver takes redirected frames no longer")
            elif name in redirected:
                self._compare(name, index, redirected[name])

    def _compare(self, name: str, index: int, redirected: int) -> None:
        try:
            sent = self._ports.transmitted(name, index)
        except OSError:  # gone, of which there is a message on its way
            return
        known = self._before.get(name)
        self._before[name] = (index, redirected, sent)
        if known is None or known[0] != index or redirected < known[1]:
            self._lost.pop(name, None)
            return
        expected, left = redirected - known[1], sent - known[2]
        if expected < _ENOUGH:
            return
        if left * _SHARE >= expected:
            self._lost.pop(name, None)
            return
        self._lost[name] = self._lost.get(name, 0) + 1
        if self._lost[name] >= _ROUNDS:
            del self._lost[name]
            self._ports.refuse(name, f"of {expected} packets redirected to it in a second it sent {max(left, 0)}")
