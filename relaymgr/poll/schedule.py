"""When each relay is due. Pure: time is passed in, seconds of a monotonic clock."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Due:
    """A poll that is due."""

    relay_id: str
    at: float
    """When it was due."""
    interval: float
    missed: int
    """Polls in between that were left out because nobody came in time."""


def phase(relay_id: str) -> float:
    """Where in its interval a relay is polled, 0..1: spread by its identifier, the same after every restart."""
    return int.from_bytes(hashlib.sha256(relay_id.encode()).digest()[:4], "big") / 2**32


def shard_of(relay_id: str, shards: int) -> int:
    """The shard a relay belongs to; every process agrees."""
    return int.from_bytes(hashlib.sha256(relay_id.encode()).digest()[4:8], "big") % shards


class Schedule:
    """A heap of due times; at most one poll of a relay is out at any time."""

    def __init__(self) -> None:
        self._intervals: dict[str, float] = {}
        self._out: set[str] = set()
        self._heap: list[tuple[float, str]] = []
        self._entries: dict[str, float] = {}
        """Valid due time of each relay that is not out; other heap entries are leftovers."""

    def __len__(self) -> int:
        return len(self._intervals)

    def replace(self, intervals: Mapping[str, float], now: float) -> None:
        """The relays to poll and their intervals; known ones keep their rhythm, new ones start within one interval."""
        for relay_id in self._intervals.keys() - intervals.keys():
            self._entries.pop(relay_id, None)
        for relay_id, interval in intervals.items():
            known = self._intervals.get(relay_id)
            if known == interval or relay_id in self._out:
                continue
            first = now + phase(relay_id) * interval
            if known is not None:
                first = min(first, self._entries.get(relay_id, first))
            self._enter(relay_id, first)
        self._intervals = dict(intervals)

    def next_at(self) -> float | None:
        """When the next poll is due; None when nothing is waiting."""
        while self._heap and self._entries.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> Due | None:
        """The poll that is due longest, now out until `done`; None when none is due."""
        at = self.next_at()
        if at is None or at > now:
            return None
        _, relay_id = heapq.heappop(self._heap)
        del self._entries[relay_id]
        self._out.add(relay_id)
        interval = self._intervals[relay_id]
        return Due(relay_id, at, interval, int((now - at) // interval))

    def done(self, due: Due, now: float) -> None:
        """The poll ended; the next one is due on the relay's own beat, never in a burst to catch up."""
        self._out.discard(due.relay_id)
        interval = self._intervals.get(due.relay_id)
        if interval is None:
            return
        behind = max(0.0, now - due.at)
        self._enter(due.relay_id, due.at + interval * (int(behind // interval) + 1))

    def soon(self, relay_id: str, now: float) -> None:
        """Poll this one at once, unless it is out."""
        if relay_id in self._entries:
            self._enter(relay_id, now)

    def _enter(self, relay_id: str, at: float) -> None:
        self._entries[relay_id] = at
        heapq.heappush(self._heap, (at, relay_id))
