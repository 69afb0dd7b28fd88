"""RFC 3376 §6 written down as plainly as it reads, to be compared with the real thing; slow, IGMPv3 records only."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.protocol.channels import Address, Filter
from agent.protocol.wire.groups import GroupRecord, RecordType

GMI = 260.0
LMQT = 2.0


@dataclass
class NaiveGroup:
    """State of one group: `running` are A or X with their ends, `blocked` is Y, `group_end` the group timer."""

    exclude: bool = False
    running: dict[Address, float] = field(default_factory=dict)
    blocked: set[Address] = field(default_factory=set)
    group_end: float = 0.0

    def filter(self) -> Filter:
        """What is forwarded (§6.3)."""
        return Filter.exclude(self.blocked) if self.exclude else Filter.include(self.running)

    def expire(self, now: float) -> None:
        """Act on every timer that has run out, earliest first (§6.3, §6.5)."""
        while True:
            ends = [(end, source) for source, end in self.running.items()]
            first = min(ends, default=None, key=lambda item: item[0])
            if first is not None and first[0] <= now and not (self.exclude and self.group_end < first[0]):
                del self.running[first[1]]
                if self.exclude:
                    self.blocked.add(first[1])
            elif self.exclude and self.group_end <= now:
                self.exclude = False
                self.blocked.clear()
            else:
                return

    def receive(self, kind: RecordType, listed: set[Address], now: float) -> None:
        """One row of §6.4."""
        (self._receive_excluding if self.exclude else self._receive_including)(kind, listed, now)

    def _receive_including(self, kind: RecordType, listed: set[Address], now: float) -> None:
        before = set(self.running)
        if kind in {RecordType.MODE_IS_INCLUDE, RecordType.ALLOW_NEW_SOURCES, RecordType.CHANGE_TO_INCLUDE}:
            self.running |= dict.fromkeys(listed, now + GMI)
            if kind is RecordType.CHANGE_TO_INCLUDE:
                self._query(before - listed, now)
        elif kind is RecordType.BLOCK_OLD_SOURCES:
            self._query(before & listed, now)
        else:
            self.exclude = True
            self.blocked = listed - before
            self.running = {source: end for source, end in self.running.items() if source in listed}
            self.group_end = now + GMI
            if kind is RecordType.CHANGE_TO_EXCLUDE:
                self._query(before & listed, now)

    def _receive_excluding(self, kind: RecordType, listed: set[Address], now: float) -> None:
        running, blocked = set(self.running), set(self.blocked)
        if kind in {RecordType.MODE_IS_INCLUDE, RecordType.ALLOW_NEW_SOURCES, RecordType.CHANGE_TO_INCLUDE}:
            self.running |= dict.fromkeys(listed, now + GMI)
            self.blocked -= listed
            if kind is RecordType.CHANGE_TO_INCLUDE:
                self._query(running - listed, now)
                self.group_end = min(self.group_end, now + LMQT)
            return
        fresh = now + GMI if kind is RecordType.MODE_IS_EXCLUDE else self.group_end
        new = dict.fromkeys(listed - running - blocked, fresh)
        if kind is RecordType.BLOCK_OLD_SOURCES:
            self.running |= new
        else:
            kept = {source: end for source, end in self.running.items() if source in listed}
            self.running = kept | new
            self.blocked &= listed
            self.group_end = now + GMI
        if kind is not RecordType.MODE_IS_EXCLUDE:
            self._query(listed - blocked, now)

    def _query(self, sources: set[Address], now: float) -> None:
        for source in sources:
            self.running[source] = min(self.running[source], now + LMQT)


@dataclass
class NaiveRouter:
    """Every group of a link."""

    groups: dict[Address, NaiveGroup] = field(default_factory=dict)

    def advance(self, now: float) -> None:
        """Let timers run out."""
        for group in self.groups.values():
            group.expire(now)

    def receive(self, record: GroupRecord, now: float) -> None:
        """Take a record."""
        group = self.groups.setdefault(record.group, NaiveGroup())
        group.receive(record.type, set(record.sources), now)

    def filters(self) -> dict[Address, Filter]:
        """What is forwarded, groups nobody wants left out."""
        return {address: state.filter() for address, state in self.groups.items() if not state.filter().wants_nothing}
