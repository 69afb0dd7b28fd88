"""Numbers of counters in the kernel: who has which, and when one may be given to somebody else.

Counters are never set back. What stood in one when it was handed out is remembered instead, so that nothing the
programs count in between can be lost, and the sum over all of them is what was counted since the programs were loaded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from operator import sub
from typing import Final

from agent.dataplane.engine import Traffic
from agent.dataplane.fast.counters import CounterArray

GRACE: Final = 0.25
"""Seconds for which a program may still use what an entry said before it was changed; a packet takes microseconds."""

FinalCount = Callable[[Traffic], None]
"""Called with all that was counted in a slot, once nothing counts there any more."""


class NoRoomError(Exception):
    """A map of the kernel is full; the message says which."""


class Slots:
    """Hands out the elements of one counter array.

    Args:
        loop: the event loop.
        counters: the array.
        most: how many elements it has.
        what: what they count, for messages.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, counters: CounterArray, most: int, what: str) -> None:
        self._loop = loop
        self._counters = counters
        self._most = most
        self._what = what
        self._free: list[int] = []
        self._bases: tuple[list[int], list[int]] = ([], [])
        self._retiring: deque[tuple[float, int, FinalCount]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.before_reuse: Callable[[], None] = lambda: None
        """Called before slots are free again: whatever still speaks of their former owners is to be heard first."""

    @property
    def in_use(self) -> int:
        """Slots that are taken, retiring ones included."""
        return self._counters.used - len(self._free)

    def allocate(self) -> int:
        """A slot that counts from zero, the lowest there is: what is read at once stays short.

        Raises:
            NoRoomError: all are in use.
        """
        if self._free:
            return heappop(self._free)
        if self._counters.used >= self._most:
            raise NoRoomError(f"no counter is left for another {self._what}, there are {self._most}")
        for base in self._bases:
            base.append(0)
        self._counters.used += 1
        return self._counters.used - 1

    def retire(self, slot: int, done: FinalCount) -> None:
        """Nothing names a slot any more; `done` gets what it counted when the last packet is through."""
        self._retiring.append((self._loop.time() + GRACE, slot, done))
        if self._timer is None:
            self._timer = self._loop.call_later(GRACE, self._release)

    def restart(self, slot: int) -> None:
        """Count from zero in a slot that stays with its owner."""
        self._bases[0][slot], self._bases[1][slot] = self._counters.now(slot)

    def read(self, slot: int) -> Traffic:
        """What a slot counted since it was handed out; a tenth of a second old at most for one who asks for many."""
        return self._since(slot, self._counters.soon(slot))

    def read_all(self) -> tuple[list[int], list[int]]:
        """Packets and octets by slot, out of one reading of all of them; for slots handed out, and for no others."""
        packets, octets = self._counters.all()
        return _differences(packets, self._bases[0]), _differences(octets, self._bases[1])

    def counted(self, slots: Iterable[int]) -> list[int]:
        """Those of some slots in which anything was counted."""
        packets, _ = self.read_all()
        return [slot for slot in slots if packets[slot]]

    def total(self) -> Traffic:
        """What all slots ever counted."""
        packets, octets = self._counters.all()
        return Traffic(sum(packets), sum(octets))

    def close(self) -> None:
        """Wait for nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._retiring.clear()

    def _since(self, slot: int, counted: tuple[int, ...]) -> Traffic:
        """An older snapshot may say less than what stood there when the slot was handed out."""
        packets, octets = counted[0] - self._bases[0][slot], counted[1] - self._bases[1][slot]
        return Traffic(max(0, packets), max(0, octets))

    def _release(self) -> None:
        self._timer = None
        now = self._loop.time()
        self.before_reuse()
        while self._retiring and self._retiring[0][0] <= now:
            _, slot, done = self._retiring.popleft()
            counted = self._counters.now(slot)
            done(self._since(slot, counted))
            self._bases[0][slot], self._bases[1][slot] = counted[0], counted[1]
            heappush(self._free, slot)
        if self._retiring and self._timer is None:  # what was heard may have retired others, and set it
            self._timer = self._loop.call_at(self._retiring[0][0], self._release)


def _differences(counted: list[int], bases: list[int]) -> list[int]:
    """An older snapshot may say less than what stood there when a slot was handed out, and lack the last slots."""
    if len(counted) < len(bases):
        counted = counted + [0] * (len(bases) - len(counted))
    found = list(map(sub, counted, bases))
    return found if min(found, default=0) >= 0 else [max(0, each) for each in found]
