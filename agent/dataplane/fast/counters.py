"""Counters of the programs, read with as few system calls as their number allows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from agent.dataplane.fast.programs import Map

LONGEST_AGE: Final = 0.1
"""Seconds a snapshot is good for at most."""

_SHARE: Final = 0.05
"""Of a processor, that snapshots may take however often they are asked for."""

_SINGLE_READS: Final = 64
"""Elements read one by one in the time a snapshot is good for; whoever asks for more looks at all of them."""

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
        """All elements in use, a list for each number; the cheaper to read, the fresher. Not to be changed."""
        self._refresh(self._age)
        return self._snapshot

    def lately(self, index: int) -> tuple[int, ...]:
        """One element, as the last snapshot has it."""
        self._refresh(LONGEST_AGE)
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
        if now - self._period > LONGEST_AGE:
            self._period, self._singles = now, 0
        self._singles += 1
        return self.now(index) if self._singles <= _SINGLE_READS else self.lately(index)

    def _refresh(self, age: float) -> None:
        started = self._now()
        if started - self._taken < age and len(self._snapshot[0]) >= self.used:
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
