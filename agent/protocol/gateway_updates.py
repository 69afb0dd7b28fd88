"""Membership of both families turned into reports at a bounded pace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from agent.protocol.channels import Address, Family, Filter
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.membership import DEFAULT_ROBUSTNESS, Membership
from agent.protocol.wire import group_packet
from agent.protocol.wire.groups import GroupRecord, Report

_ALMOST: Final = 1e-6  # a deadline computed from the rate may fall short of a whole packet by rounding


class Pace:
    """A token bucket: `burst` packets at once, `rate` a second after that."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._batch = max(1, burst // 4)  # one wake-up for several packets
        self._tokens = float(burst)
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether one more packet may leave."""
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)
        if self._tokens + _ALMOST < 1:
            return False
        self._tokens -= 1
        return True

    def ready_at(self) -> float:
        """When packets may leave again."""
        if self._tokens + _ALMOST >= 1:
            return self._at
        return self._at + (self._batch - self._tokens) / self._rate


class GatewayUpdates:
    """The reports of one gateway.

    Changes and answers have a budget each, so that a join never queues behind the answer to a query for thousands of
    channels.
    """

    def __init__(self, config: GatewayConfig, fraction: Callable[[], float]) -> None:
        """`fraction` draws from 0..1."""
        self.memberships: Final = {family: Membership(family, config.report_size) for family in Family}
        self._sources: Final[dict[Family, Address]] = {
            Family.IPV4: config.ipv4_source,
            Family.IPV6: config.ipv6_source,
        }
        self._fraction = fraction
        self._report_interval = config.report_interval
        self._change_pace = Pace(config.update_rate, config.update_burst)
        self._answer_pace = Pace(config.update_rate, config.update_burst)
        self._repeat_at: dict[Family, float] = {}

    @property
    def families(self) -> set[Family]:
        """Families with a group wanted, or with a leave still to be repeated."""
        return {
            family for family, membership in self.memberships.items() if membership.filters or membership.has_repeats
        }

    def set(self, group: Address, state: Filter) -> bool:
        """Set the filter of a group; True when it changed. Raises as `Membership.set`."""
        return self.memberships[Family.of(group)].set(group, state)

    def begin(self, family: Family) -> None:
        """A relay listens that knows nothing of this family yet."""
        self._repeat_at.pop(family, None)
        self.memberships[family].begin()

    def answer(self, family: Family, robustness: int) -> None:
        """A query came: report everything, as news if the relay did not listen before."""
        membership = self.memberships[family]
        membership.robustness = robustness or DEFAULT_ROBUSTNESS
        if membership.listening:
            membership.answer()
        else:
            self.begin(family)

    def end(self) -> None:
        """No relay listens."""
        self._repeat_at.clear()
        for membership in self.memberships.values():
            membership.end()

    def packets(self, now: float) -> Iterator[tuple[Family, bytes]]:
        """Reports that may leave now, each an IP packet."""
        for family, membership in self.memberships.items():
            while membership.has_changes and self._change_pace.take(now):
                yield from self._packet(family, membership.next_change_report())
        for family, membership in self.memberships.items():
            while membership.has_answers and self._answer_pace.take(now):
                yield from self._packet(family, membership.next_answer_report())
            if membership.has_repeats and not membership.has_changes and family not in self._repeat_at:
                self._repeat_at[family] = now + self._fraction() * self._report_interval

    def farewell(self) -> Iterator[tuple[Family, bytes]]:
        """Reports that leave every group, all at once."""
        for family, membership in self.memberships.items():
            for records in membership.leave_reports():
                yield from self._packet(family, records)

    def handle_timer(self, now: float) -> None:
        """Repeat the changes that are due."""
        for family in [family for family, deadline in self._repeat_at.items() if deadline <= now]:
            del self._repeat_at[family]
            self.memberships[family].repeat()

    def next_deadline(self) -> float | None:
        """When `handle_timer` or `packets` has something to do, or None."""
        deadlines = list(self._repeat_at.values())
        if any(membership.has_changes for membership in self.memberships.values()):
            deadlines.append(self._change_pace.ready_at())
        if any(membership.has_answers for membership in self.memberships.values()):
            deadlines.append(self._answer_pace.ready_at())
        return min(deadlines, default=None)

    def _packet(self, family: Family, records: tuple[GroupRecord, ...]) -> Iterator[tuple[Family, bytes]]:
        if records:
            yield family, group_packet.encode(Report(records), self._sources[family])
