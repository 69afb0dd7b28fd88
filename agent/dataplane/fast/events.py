"""First packets of channels: told by the programs, once for each tunnel of a channel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from agent.dataplane.fast.layout import EVENT, FIRST_PACKET
from agent.dataplane.fast.programs import Programs

LOOK_AGAIN: Final = 1.0
"""Seconds between two looks at the counters of channels of which no packet was told: an event may have had no room."""

_log = logging.getLogger(__name__)


class FirstPackets:
    """Listens to the ring buffer, and looks at the counters while anybody waits.

    Args:
        loop: the event loop.
        programs: the loaded object.
        on_packet: called with a channel's slot when its first packet was forwarded; may come twice.
        counted: in which of some slots anything was forwarded, by one reading of all.

    Attributes:
        lost: first packets that only the counters told of.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        programs: Programs,
        on_packet: Callable[[int], None],
        counted: Callable[[Collection[int]], Collection[int]],
    ) -> None:
        self.lost = 0
        self._loop = loop
        self._on_packet = on_packet
        self._counted = counted
        self._heard: list[bytes] = []
        self._awaited: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._events = programs.make_events(self._heard.append)
        loop.add_reader(self._events.fileno(), self.drain)

    def expect(self, slot: int) -> None:
        """A first packet is to come in a slot."""
        self._awaited.add(slot)
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_AGAIN, self._look)

    def expect_no_more(self, slot: int) -> None:
        """It came, or nobody waits for it."""
        self._awaited.discard(slot)

    def drain(self) -> None:
        """Tell of all that is in the ring. What is called may change channels, but never in the middle of a read."""
        while self._read():
            heard, self._heard[:] = list(self._heard), []
            for each in heard:
                self._take(each)

    def close(self) -> None:
        """Listen no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._awaited.clear()
        self._loop.remove_reader(self._events.fileno())
        self._events.close()

    def _read(self) -> int:
        try:
            return self._events.drain()
        except OSError as error:  # the counters still tell
            _log.warning("events of the fast data plane cannot be read: %s", error)
            self._loop.remove_reader(self._events.fileno())
            return 0

    def _take(self, octets: bytes) -> None:
        if len(octets) >= EVENT.size:
            kind, slot, _tunnel, _reserved = EVENT.unpack_from(octets)
            if kind == FIRST_PACKET:
                self._on_packet(slot)

    def _look(self) -> None:
        self._timer = None
        self.drain()
        for slot in self._counted(self._awaited):
            if slot in self._awaited:
                self.lost += 1
                self._on_packet(slot)
        if self._awaited and self._timer is None:
            self._timer = self._loop.call_later(LOOK_AGAIN, self._look)
