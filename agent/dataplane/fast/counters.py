"""Counters of the programs, read with as few system calls as their number allows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from agent.dataplane.fast.programs import Map

LATELY: Final = 0.1
"""Seconds a snapshot is good for to one who asks for many elements one by one."""

LONGEST_AGE: Final = 2.0
"""Seconds a snapshot is good for at most, to anybody."""

_SHARE: Final = 0.05
"""Of a processor, that snapshots may take however often they are asked for.

With 64 processors and 32 768 slots in use one takes some 60 ms, for which the loop stands still, and is good for more
than a second; with two processors one of 1 000 slots takes 0.2 ms. Those of more than 0.1 s take more than the share.
"""

_SINGLE_READS: Final = 64
"""Elements read one by one within `LATELY`; whoever asks for more looks at all of them."""

_log = logging.getLogger(__name__)


class CounterArray:
    """A per-CPU array, of which the first `used` elements are read.

    A reading that fails gives the former one: counters stand still, nobody gets an exception.

    Args:
        counters: the map.
        fields: numbers in an element.
        now: the clock.
        used: elements that are in use.
    """

    def __init__(self, counters: Map, fields: int, now: Callable[[], float], used: int = 0) -> None:
        self.used = used
        self._map = counters
        self._fields = fields
        self._now = now
        self._snapshot: tuple[list[int], ...] = tuple([] for _ in range(fields))
        self._taken = float("-inf")
        self._age = 0.0
        self._period = float("-inf")
        self._singles = 0
        self._failed = False

    def all(self) -> tuple[list[int], ...]:
        """All elements in use, a list for each number; the cheaper to read, the fresher. Not to be changed.

        Elements that were taken into use since the snapshot are not in it, and have counted next to nothing.
        """
        self._refresh(self._age)
        return self._snapshot

    def lately(self, index: int) -> tuple[int, ...]:
        """One element, as the last snapshot has it."""
        self._refresh(max(LATELY, self._age))
        if index >= len(self._snapshot[0]):
            return (0,) * self._fields
        return tuple([column[index] for column in self._snapshot])

    def now(self, index: int) -> tuple[int, ...]:
        """One element as it is."""
        try:
            return self._map.sums(index)
        except OSError as error:
            self._complain(error)
            return self.lately(index)

    def soon(self, index: int) -> tuple[int, ...]:
        """One element as it is, or as the last snapshot has it for one who asks for many."""
        now = self._now()
        if now - self._period > LATELY:
            self._period, self._singles = now, 0
        self._singles += 1
        return self.now(index) if self._singles <= _SINGLE_READS else self.lately(index)

    def _refresh(self, age: float) -> None:
        started = self._now()
        if started - self._taken < age:
            return
        self._taken = started
        if not self.used:
            return
        try:
            self._snapshot = self._map.columns(0, self.used)
        except OSError as error:
            self._complain(error)
        self._age = min(LONGEST_AGE, (self._now() - started) / _SHARE)

    def _complain(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            _log.warning("counters of the fast data plane cannot be read: %s", error)
