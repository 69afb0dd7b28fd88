"""Host side of IGMPv3 and MLDv2: what is wanted, and the reports that say so.

A gateway or proxy reports the merged state of everything behind it (RFC 4605 §4.1); merging is `merge_filters`, the
result comes here. Reports follow RFC 3376 §5 and RFC 3810 §6 with the terms of the former:

    change of the filter          state-change record
    INCLUDE(A) to INCLUDE(B)      ALLOW(B-A), BLOCK(A-B)      a source-specific leave is a BLOCK
    EXCLUDE(A) to EXCLUDE(B)      ALLOW(A-B), BLOCK(B-A)
    INCLUDE(A) to EXCLUDE(B)      TO_EX(B)
    EXCLUDE(A) to INCLUDE(B)      TO_IN(B)
    a general query               IS_IN(A) or IS_EX(A)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from agent.protocol.channels import (
    NOTHING,
    Address,
    Family,
    Filter,
    FilterMode,
    is_forwardable_group,
    is_ssm_group,
    is_unicast,
)
from agent.protocol.report_packing import RecordPacker
from agent.protocol.wire.groups import GroupRecord, RecordType

DEFAULT_ROBUSTNESS: Final = 2
"""RFC 3376 §8.1, RFC 3810 §9.1."""


@dataclass(slots=True)
class _Change:
    """What is still to be told of one group: reports left for its mode, and for each source (RFC 3376 §5.1)."""

    mode_reports: int = 0
    source_reports: dict[Address, int] = field(default_factory=dict)


class Membership:
    """Wanted groups of one family, and what the router has yet to hear of them.

    Changes are told when `changes` is drained and again each time `repeat` was called, until each was told
    `robustness` times; answers to a query when `answers` is drained. While no router listens (before `begin`, after
    `end`) changes are only remembered as state.
    """

    def __init__(self, family: Family, packet_size: int, robustness: int = DEFAULT_ROBUSTNESS) -> None:
        """`packet_size` is the largest IP packet of a report, in bytes."""
        self.family = family
        self.robustness = robustness
        self._filters: dict[Address, Filter] = {}
        self._changes: dict[Address, _Change] = {}
        self._listening = False
        self._changed = RecordPacker(family, packet_size, self._tell_change)
        self._asked = RecordPacker(family, packet_size, self._tell_state)
        self._packet_size = packet_size

    @property
    def filters(self) -> Mapping[Address, Filter]:
        """Wanted groups, read-only."""
        return MappingProxyType(self._filters)

    @property
    def listening(self) -> bool:
        """Whether a router listens."""
        return self._listening

    @property
    def has_changes(self) -> bool:
        """Whether `next_change_report` has something."""
        return bool(self._changed)

    @property
    def has_answers(self) -> bool:
        """Whether `next_answer_report` has something."""
        return bool(self._asked)

    @property
    def has_repeats(self) -> bool:
        """Whether some change is to be told again."""
        return bool(self._changes)

    def set(self, group: Address, state: Filter) -> bool:
        """Set the filter of a group; True when it is another than before.

        Raises:
            ValueError: see `check_join`, or a group of the other family.
        """
        if Family.of(group) is not self.family:
            raise ValueError(f"{group} is not of IPv{self.family}")
        check_join(group, state)
        old = self._filters.get(group, NOTHING)
        if old == state:
            return False
        if state.wants_nothing:
            del self._filters[group]
        else:
            self._filters[group] = state
        if self._listening:
            self._note_change(group, old, state)
            self._asked.requeue(group)
        return True

    def begin(self) -> None:
        """A router listens that knows nothing of us: everything is told, and told again by `repeat`."""
        self.end()
        self._listening = True
        for group, state in self._filters.items():
            if self.robustness > 1:
                self._changes[group] = _first_report(state, self.robustness - 1)
        self.answer()

    def end(self) -> None:
        """Nobody listens any more: forget what was to be told."""
        self._listening = False
        self._changes.clear()
        self._changed.clear()
        self._asked.clear()

    def answer(self) -> None:
        """Queue the current state of every group (RFC 3376 §5.2)."""
        self._asked.queue(self._filters)

    def repeat(self) -> None:
        """Queue every change that was not told often enough."""
        self._changed.queue(self._changes)

    def next_change_report(self) -> tuple[GroupRecord, ...]:
        """Records of one report of changes; none when all was told for now."""
        return self._changed.fill()

    def next_answer_report(self) -> tuple[GroupRecord, ...]:
        """Records of one report of current state; none when the last query is answered."""
        return self._asked.fill()

    def leave_reports(self) -> Iterator[tuple[GroupRecord, ...]]:
        """Reports that leave every group, those included whose leave is not told yet; the filters stay untouched."""
        packer = RecordPacker(self.family, self._packet_size, self._tell_leave)
        packer.queue(self._filters)
        packer.queue(self._changes)
        while records := packer.fill():
            yield records

    def _note_change(self, group: Address, old: Filter, new: Filter) -> None:
        change = self._changes.setdefault(group, _Change())
        if old.mode is not new.mode:
            change.mode_reports = self.robustness
            change.source_reports.clear()
        else:
            change.source_reports.update(dict.fromkeys(old.sources ^ new.sources, self.robustness))
        self._changed.queue((group,))

    def _tell_change(self, group: Address) -> Iterable[GroupRecord]:
        """Records for what is pending of a group; counts them as told once."""
        change = self._changes[group]
        state = self._filters.get(group, NOTHING)
        if change.mode_reports:
            change.mode_reports -= 1
            include = state.mode is FilterMode.INCLUDE
            yield _record(
                RecordType.CHANGE_TO_INCLUDE if include else RecordType.CHANGE_TO_EXCLUDE, group, state.sources
            )
        else:
            admitted = {source for source in change.source_reports if state.admits(source)}
            blocked = change.source_reports.keys() - admitted
            if admitted:
                yield _record(RecordType.ALLOW_NEW_SOURCES, group, admitted)
            if blocked:
                yield _record(RecordType.BLOCK_OLD_SOURCES, group, blocked)
        change.source_reports = {source: left - 1 for source, left in change.source_reports.items() if left > 1}
        if not change.mode_reports and not change.source_reports:
            del self._changes[group]

    def _tell_state(self, group: Address) -> Iterable[GroupRecord]:
        state = self._filters.get(group)
        return () if state is None else (GroupRecord.current_state(group, state),)

    def _tell_leave(self, group: Address) -> Iterable[GroupRecord]:
        state, change = self._filters.get(group, NOTHING), self._changes.get(group, _Change())
        if state.mode is FilterMode.EXCLUDE or change.mode_reports:
            return (GroupRecord(RecordType.CHANGE_TO_INCLUDE, group),)
        return (_record(RecordType.BLOCK_OLD_SOURCES, group, state.sources | change.source_reports.keys()),)


def check_join(group: Address, state: Filter) -> None:
    """Refuse a membership that must not be reported.

    Raises:
        ValueError: not a multicast group beyond link-local scope; a source that is not unicast or of another family;
            EXCLUDE inside the source-specific range, where there is no any-source join (RFC 4604 §2.2.1).
    """
    if not is_forwardable_group(group):
        raise ValueError(f"{group} is not a multicast group that crosses routers")
    for source in state.sources:
        if source.version != group.version:
            raise ValueError(f"{source} and {group} are of different families")
        if not is_unicast(source):
            raise ValueError(f"{source} is not a unicast source")
    if state.mode is FilterMode.EXCLUDE and is_ssm_group(group):
        raise ValueError(f"{group} is source-specific: name the sources to join")


def _first_report(state: Filter, reports: int) -> _Change:
    """The change from nothing to `state`."""
    if state.mode is FilterMode.EXCLUDE:
        return _Change(reports)
    return _Change(0, dict.fromkeys(state.sources, reports))


def _record(kind: RecordType, group: Address, sources: Iterable[Address]) -> GroupRecord:
    return GroupRecord(kind, group, tuple(sorted(sources, key=int)))
