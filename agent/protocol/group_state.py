"""Router-side state of every group of one link: a network interface, or the inside of one tunnel.

Reports go in; changes of what is to be forwarded, and the queries the RFC's tables ask for, come out. The rows are in
`group_rules`; this module keeps their timers (RFC 3376 §6.2, §6.5, RFC 3810 §7.2, §7.5), the older hosts (§7.3, §8.3)
and the limits, and leaves the specific queries to `group_queries`. A table serves both families: a group knows its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from agent.protocol.channels import (
    NOTHING,
    Address,
    Filter,
    FilterMode,
    is_forwardable_group,
    is_ssm_group,
    is_unicast,
)
from agent.protocol.group_queries import SpecificQueries
from agent.protocol.group_rules import (
    EXCLUDE_RECORDS,
    INITIAL,
    RouterState,
    Transition,
    as_older_version,
    transition,
)
from agent.protocol.group_timers import GroupTimer, GroupTimers
from agent.protocol.group_timing import GroupTiming
from agent.protocol.wire.groups import (
    AnySourceReport,
    GroupRecord,
    GroupVersion,
    Leave,
    Query,
    RecordType,
    Report,
)


@dataclass(frozen=True, slots=True)
class InterestChanged:
    """What is to be forwarded of `group` is now `filter`; `filter.wants_nothing` ends it."""

    group: Address
    filter: Filter


@dataclass(frozen=True, slots=True)
class GroupView:
    """One group as `status` shows it.

    Attributes:
        group: its address.
        filter: what is forwarded.
        version: lowest version of the hosts heard lately.
        expires: end of EXCLUDE mode unless refreshed, None in INCLUDE mode.
        sources: requested sources and when each ends unless refreshed.
    """

    group: Address
    filter: Filter
    version: GroupVersion
    expires: float | None
    sources: dict[Address, float]


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """Bounds on what one link can make us remember.

    Attributes:
        max_groups: groups.
        max_sources: sources per group.
        max_channels: sources of all groups, a group without any counting as one; None for no such bound.
    """

    max_groups: int = 10_000
    max_sources: int = 1_000
    max_channels: int | None = None


@dataclass(slots=True)
class GroupTable:
    """Groups of one link.

    Attributes:
        timing: timers in effect.
        limits: bounds in effect.
        fast_leave: one host is on the link, so what it leaves is over at once: wherever a row asks for a query, the
            table takes silence for the answer without asking.
        querier: we are the link's querier, so the queries of the rows are ours to send (RFC 3376 §6.6.3).
        refused: records, or parts of them, that were not applied, by reason.
    """

    timing: GroupTiming = field(default_factory=GroupTiming)
    limits: GroupLimits = field(default_factory=GroupLimits)
    fast_leave: bool = False
    querier: bool = True
    refused: Counter[str] = field(default_factory=Counter)
    _states: dict[Address, RouterState] = field(default_factory=dict)
    _timers: GroupTimers = field(default_factory=GroupTimers)
    _queries: SpecificQueries = field(init=False)
    _before: dict[Address, Filter] = field(default_factory=dict)
    _events: list[InterestChanged] = field(default_factory=list)
    _channels: int = 0

    def __post_init__(self) -> None:
        self._queries = SpecificQueries(self._timers)

    def __len__(self) -> int:
        return len(self._states)

    def receive(self, message: Report | AnySourceReport | Leave, now: float) -> None:
        """Apply a message; a report's records count as one change."""
        match message:
            case Report(records):
                for record in records:
                    self._apply(record, now)
            case AnySourceReport(group, version):  # RFC 3376 §7.3.2: as IS_EX({})
                if self._apply(GroupRecord(RecordType.MODE_IS_EXCLUDE, group), now):
                    host = GroupTimer.V1_HOST if version is GroupVersion.ANY_SOURCE_BASIC else GroupTimer.V2_HOST
                    self._timers.set((host, group, None), now + self.timing.older_version_host_present_interval)
            case Leave(group):  # as TO_IN({})
                self._apply(GroupRecord(RecordType.CHANGE_TO_INCLUDE, group), now)
        self._settle()

    def receive_query(self, query: Query, now: float) -> None:
        """Follow the elected querier's specific query: lower the timers it asks about (RFC 3376 §6.6.1)."""
        state = self._states.get(query.group) if query.group is not None else None
        if query.group is None or state is None or query.suppress:
            return
        count = query.robustness or self.timing.robustness
        deadline = now + query.max_response_time * count
        if not query.sources:
            if state.mode is FilterMode.EXCLUDE:
                self._timers.lower((GroupTimer.GROUP, query.group, None), deadline)
            return
        for source in state.requested.intersection(query.sources):
            self._timers.lower((GroupTimer.SOURCE, query.group, source), deadline)

    def set_querier(self, querier: bool) -> None:
        """Take or give up the queries of the rows; retransmissions under way end with the role."""
        if self.querier and not querier:
            self._queries.clear()
        self.querier = querier

    def clear(self) -> None:
        """Forget every group."""
        for group in list(self._states):
            self._store(group, INITIAL)
        self._settle()

    def handle_timer(self, now: float) -> None:
        """Act on what is due at `now`."""
        ended: dict[Address, list[Address]] = {}  # sources of a group end together, as they were reported
        for timer, group, source in self._timers.expired(now):
            if source is not None:
                ended.setdefault(group, []).append(source)
                continue
            self._end_sources(group, ended.pop(group, ()))
            if timer is GroupTimer.GROUP:
                self._end_exclude(group)
            elif timer is GroupTimer.RETRANSMIT:
                self._queries.transmit(group, self.timing, now)
        for group, sources in ended.items():
            self._end_sources(group, sources)
        self._settle()

    def next_deadline(self) -> float | None:
        """When `handle_timer` has something to do, or None."""
        return self._timers.next_deadline()

    def events(self) -> list[InterestChanged]:
        """Changes since the last call, in order."""
        events, self._events = self._events, []
        return events

    def queries(self) -> list[Query]:
        """Specific queries to send now, drained."""
        return self._queries.drain()

    def filter(self, group: Address) -> Filter:
        """What is forwarded of `group`."""
        state = self._states.get(group)
        return NOTHING if state is None else state.filter

    def filters(self) -> dict[Address, Filter]:
        """What is forwarded, by group."""
        return {group: state.filter for group, state in self._states.items()}

    def views(self) -> Iterator[GroupView]:
        """Every group with its timers."""
        for group, state in self._states.items():
            yield GroupView(
                group,
                state.filter,
                self._version(group),
                self._timers.deadline((GroupTimer.GROUP, group, None)),
                {source: self._timers.at((GroupTimer.SOURCE, group, source)) for source in state.requested},
            )

    def _apply(self, record: GroupRecord, now: float) -> bool:
        """Apply a record; False when it was refused."""
        group = record.group
        accepted = self._accept(record)
        if accepted is None:
            return False
        before = self._states.get(group, INITIAL)
        step = self._within_limits(before, accepted)
        if step is None:
            return False
        membership = now + self.timing.group_membership_interval
        inherited = self._timers.deadline((GroupTimer.GROUP, group, None)) or membership
        self._store(group, step.state)
        for source in step.refreshed:
            self._timers.set((GroupTimer.SOURCE, group, source), membership)
        for source in step.inherited:
            self._timers.set((GroupTimer.SOURCE, group, source), inherited)
        if step.refreshes_group:
            self._timers.set((GroupTimer.GROUP, group, None), membership)
        if self.fast_leave:
            self._take_silence(group, step)
        elif self.querier:
            self._queries.ask(group, step.queried, self.timing, now, whole_group=step.queries_group)
        return True

    def _accept(self, record: GroupRecord) -> GroupRecord | None:
        """The record as it is to be applied, None when it is to be ignored."""
        if not is_forwardable_group(record.group):
            self.refused["group_not_forwardable"] += 1
            return None
        if record.type in EXCLUDE_RECORDS and is_ssm_group(record.group):
            self.refused["any_source_in_ssm_range"] += 1  # RFC 4604 §2.2
            return None
        if not all(is_unicast(source) for source in record.sources):
            self.refused["source_not_unicast"] += 1
            kept = tuple(source for source in record.sources if is_unicast(source))
            record = GroupRecord(record.type, record.group, kept)
        meant = as_older_version(record, self._version(record.group))
        if meant is None:
            self.refused["older_host_present"] += 1
        return meant

    def _within_limits(self, before: RouterState, record: GroupRecord) -> Transition | None:
        """The transition, with no more new sources than there is room for; None when there is no room at all."""
        listed = frozenset(record.sources)
        step = transition(before, record.type, listed)
        if before.is_empty and not step.state.is_empty and len(self._states) >= self.limits.max_groups:
            self.refused["too_many_groups"] += 1
            return None
        room, reason = self._room(before)
        replaces = record.type in EXCLUDE_RECORDS or (self.fast_leave and record.type is RecordType.CHANGE_TO_INCLUDE)
        size = len(listed) if replaces else step.state.size
        if step.state.is_empty or max(size, 1) <= max(room, _weight(before)):
            return step
        self.refused[reason] += 1
        if room < 1:
            return None
        known = listed & before.requested | listed & before.excluded
        kept = len(known) if replaces else before.size
        added = [source for source in dict.fromkeys(record.sources) if source not in known]
        return transition(before, record.type, known.union(added[: max(room - kept, 0)]))

    def _room(self, before: RouterState) -> tuple[int, str]:
        """Sources a group in state `before` may have, and the reason it may not have more."""
        if self.limits.max_channels is not None:
            room = self.limits.max_channels - self._channels + _weight(before)
            if room < self.limits.max_sources:
                return room, "too_many_channels"
        return self.limits.max_sources, "too_many_sources"

    def _take_silence(self, group: Address, step: Transition) -> None:
        """End what a query would have been sent for, as if nobody had answered it."""
        self._end_sources(group, step.queried)
        if step.queries_group:
            self._end_exclude(group)

    def _end_exclude(self, group: Address) -> None:
        """Group timer ran out (RFC 3376 §6.5): on to INCLUDE mode with the sources whose timers run."""
        self._queries.forget_group(group)
        self._store(group, RouterState(FilterMode.INCLUDE, self._states[group].requested))

    def _end_sources(self, group: Address, sources: Collection[Address]) -> None:
        """Source timers ran out (RFC 3376 §6.3): delete the sources, or exclude them."""
        if not sources:
            return
        state = self._states[group]
        excluded = state.excluded.union(sources) if state.mode is FilterMode.EXCLUDE else state.excluded
        self._store(group, RouterState(state.mode, state.requested.difference(sources), excluded))

    def _store(self, group: Address, state: RouterState) -> None:
        """Replace a group's state, and disarm the timers of what is not in it any more."""
        before = self._states.get(group, INITIAL)
        if state == before:
            return
        self._before.setdefault(group, before.filter)
        self._channels += _weight(state) - _weight(before)
        for source in before.requested - state.requested:
            self._timers.cancel((GroupTimer.SOURCE, group, source))
            self._queries.forget_source(group, source)
        if state.mode is FilterMode.INCLUDE:
            self._timers.cancel((GroupTimer.GROUP, group, None))
        if not state.is_empty:
            self._states[group] = state
            return
        del self._states[group]
        self._queries.forget(group)
        for timer in (GroupTimer.V1_HOST, GroupTimer.V2_HOST):
            self._timers.cancel((timer, group, None))

    def _version(self, group: Address) -> GroupVersion:
        """Group compatibility mode (RFC 3376 §7.3.2)."""
        if (GroupTimer.V1_HOST, group, None) in self._timers:
            return GroupVersion.ANY_SOURCE_BASIC
        if (GroupTimer.V2_HOST, group, None) in self._timers:
            return GroupVersion.ANY_SOURCE
        return GroupVersion.SOURCE_SPECIFIC

    def _settle(self) -> None:
        """Tell what changed since the last time, and nothing of what changed and changed back."""
        for group, before in self._before.items():
            after = self.filter(group)
            if after != before:
                self._events.append(InterestChanged(group, after))
        self._before.clear()


def _weight(state: RouterState) -> int:
    return 0 if state.is_empty else max(1, state.size)
