"""One heap of deadlines: no thread and no event-loop handle per group."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Timers(Generic[Key]):
    """Named deadlines in seconds of the caller's monotonic clock.

    Setting a key again moves its deadline; cancelled and moved entries are dropped lazily, and the heap is rebuilt once
    stale entries outnumber live ones, so memory stays proportional to the number of live keys.
    """

    def __init__(self) -> None:
        self._deadlines: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, key: Key) -> bool:
        return key in self._deadlines

    def set(self, key: Key, deadline: float) -> None:
        """Arm `key` to expire at `deadline`."""
        self._deadlines[key] = deadline
        self._sequence += 1
        heapq.heappush(self._heap, (deadline, self._sequence, key))
        if len(self._heap) > 2 * len(self._deadlines) + 16:
            self._rebuild()

    def cancel(self, key: Key) -> None:
        """Disarm `key`; nothing happens when it is not armed."""
        self._deadlines.pop(key, None)

    def clear(self) -> None:
        """Disarm everything."""
        self._deadlines.clear()
        self._heap.clear()

    def deadline(self, key: Key) -> float | None:
        """Deadline of `key`, or None when it is not armed."""
        return self._deadlines.get(key)

    def next_deadline(self) -> float | None:
        """Earliest deadline, or None when nothing is armed."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def expired(self, now: float) -> Iterator[Key]:
        """Disarm and yield every key whose deadline is not after `now`, earliest first."""
        while True:
            self._drop_stale()
            if not self._heap or self._heap[0][0] > now:
                return
            _, _, key = heapq.heappop(self._heap)
            del self._deadlines[key]
            yield key

    def _drop_stale(self) -> None:
        while self._heap and self._deadlines.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    def _rebuild(self) -> None:
        self._heap = [(deadline, index, key) for index, (key, deadline) in enumerate(self._deadlines.items())]
        self._sequence = len(self._heap)
        heapq.heapify(self._heap)
