"""Last-member queries: about a group, or about sources of it, and repeated (RFC 3376 §6.6.3, RFC 3810 §7.6.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.protocol.channels import Address
from agent.protocol.group_timers import GroupTimer, GroupTimers
from agent.protocol.group_timing import GroupTiming
from agent.protocol.wire.groups import Query

SOURCES_PER_QUERY: Final = {4: 366, 6: 89}
"""Sources that fit a query in 1500 bytes by IP version, options included (RFC 3376 §4.1.8, RFC 3810 §5.1.10)."""


@dataclass(slots=True)
class _Pending:
    """Copies still to send about one group and about sources of it."""

    group: int = 0
    sources: dict[Address, int] = field(default_factory=dict)


class SpecificQueries:
    """Queries about groups whose timers live in `timers`."""

    def __init__(self, timers: GroupTimers) -> None:
        self._timers = timers
        self._pending: dict[Address, _Pending] = {}
        self._queries: list[Query] = []

    def ask(
        self, group: Address, sources: Iterable[Address], timing: GroupTiming, now: float, *, whole_group: bool
    ) -> None:
        """Do "Send Q(G,sources)" and, with `whole_group`, "Send Q(G)": lower timers, send, and schedule the copies.

        What is being asked about already is not asked about anew, so that a flood of leaves makes no flood of queries.
        """
        end = now + timing.last_member_query_time
        pending = self._pending.get(group, _Pending())
        fresh = [source for source in sources if self._timers.at((GroupTimer.SOURCE, group, source)) > end]
        group_key = (GroupTimer.GROUP, group, None)
        ask_group = whole_group and not (pending.group and self._timers.at(group_key) <= end)
        if not fresh and not ask_group:
            return
        self._pending[group] = pending
        for source in fresh:
            self._timers.set((GroupTimer.SOURCE, group, source), end)
            pending.sources[source] = timing.last_member_count
        if ask_group:
            self._timers.lower(group_key, end)
            pending.group = timing.last_member_count
        self.transmit(group, timing, now)

    def transmit(self, group: Address, timing: GroupTiming, now: float) -> None:
        """Send one copy of what is pending for `group`, and arm the next.

        The S flag goes on what was refreshed since: other routers are not to lower their timers again (§6.6.3.1). Of
        sources, the refreshed ones are left out when the whole group is asked in the same moment (§6.6.3.2).
        """
        pending = self._pending[group]
        end = now + timing.last_member_query_time
        refreshed: list[Address] = []
        lowered: list[Address] = []
        for source in pending.sources:
            later = self._timers.at((GroupTimer.SOURCE, group, source)) > end
            (refreshed if later else lowered).append(source)
        if pending.group:
            deadline = self._timers.at((GroupTimer.GROUP, group, None))
            self._queries.append(_query(group, (), timing, suppress=deadline > end))
        else:
            self._send_sources(group, refreshed, timing, suppress=True)
        self._send_sources(group, lowered, timing, suppress=False)
        pending.group = max(pending.group - 1, 0)
        pending.sources = {source: left - 1 for source, left in pending.sources.items() if left > 1}
        if pending.group or pending.sources:
            self._timers.set((GroupTimer.RETRANSMIT, group, None), now + timing.last_member_query_interval)
        else:
            self.forget(group)

    def forget_source(self, group: Address, source: Address) -> None:
        """Ask no more about a source."""
        pending = self._pending.get(group)
        if pending is not None and pending.sources.pop(source, None) is not None:
            self._drop_if_done(group, pending)

    def forget_group(self, group: Address) -> None:
        """Ask no more about a whole group, but go on about its sources."""
        pending = self._pending.get(group)
        if pending is not None:
            pending.group = 0
            self._drop_if_done(group, pending)

    def forget(self, group: Address) -> None:
        """Ask no more about a group and its sources."""
        if self._pending.pop(group, None) is not None:
            self._timers.cancel((GroupTimer.RETRANSMIT, group, None))

    def clear(self) -> None:
        """Ask no more about anything."""
        for group in list(self._pending):
            self.forget(group)

    def drain(self) -> list[Query]:
        """Queries to send now."""
        queries, self._queries = self._queries, []
        return queries

    def _drop_if_done(self, group: Address, pending: _Pending) -> None:
        if not pending.group and not pending.sources:
            self.forget(group)

    def _send_sources(self, group: Address, sources: Sequence[Address], timing: GroupTiming, *, suppress: bool) -> None:
        size = SOURCES_PER_QUERY[group.version]
        for start in range(0, len(sources), size):
            self._queries.append(_query(group, tuple(sources[start : start + size]), timing, suppress=suppress))


def _query(group: Address, sources: tuple[Address, ...], timing: GroupTiming, *, suppress: bool) -> Query:
    return Query(
        group,
        sources,
        timing.last_member_query_interval,
        suppress=suppress,
        robustness=timing.robustness,
        interval=int(timing.query_interval),
    )
