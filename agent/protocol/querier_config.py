"""Configuration of the querier machine."""

from __future__ import annotations

from dataclasses import dataclass

from agent.protocol.group_timing import GroupTiming
from agent.protocol.wire.groups import GroupVersion


@dataclass(frozen=True, slots=True)
class QuerierConfig:
    """What the router side of IGMP or MLD on one interface is told; times in seconds, names of RFC 3376 §8.

    Attributes:
        robustness_variable: 0..7, 0 means 2.
        query_interval: between general queries.
        query_response_interval: time hosts have to answer a general query.
        startup_query_interval: None for a quarter of the query interval.
        startup_query_count: None for the robustness.
        last_member_query_interval: time hosts have to answer a specific query.
        last_member_query_count: None for the robustness.
        other_querier_present_interval: None for what follows from the timers of the elected querier.
        version: version of the queries sent; lower it by hand where an older querier is on the link (§7.3.1).
        fast_leave: end interest at once on a leave, without last-member queries: one host on the link.
        max_groups: groups remembered.
        max_sources: sources remembered per group.
        require_router_alert: refuse messages without Router Alert (RFC 3376 §4, RFC 3810 §5), IGMPv1 apart.
        check_source: refuse IPv4 messages from outside the interface's networks; 0.0.0.0 is inside.
        maximum_adopted_interval: bound on the query interval taken over from an elected querier.

    Raises:
        ValueError: a value outside its bounds.
    """

    robustness_variable: int = 2
    query_interval: float = 125
    query_response_interval: float = 10
    startup_query_interval: float | None = None
    startup_query_count: int | None = None
    last_member_query_interval: float = 1
    last_member_query_count: int | None = None
    other_querier_present_interval: float | None = None
    version: GroupVersion = GroupVersion.SOURCE_SPECIFIC
    fast_leave: bool = False
    max_groups: int = 10_000
    max_sources: int = 1_000
    require_router_alert: bool = True
    check_source: bool = True
    maximum_adopted_interval: float = 3600

    def __post_init__(self) -> None:
        if self.max_groups < 1 or self.max_sources < 1:
            raise ValueError("max_groups and max_sources are at least 1")
        if self.other_querier_present_interval is not None and self.other_querier_present_interval <= 0:
            raise ValueError("other_querier_present_interval is above 0")
        if self.maximum_adopted_interval <= 0:
            raise ValueError("maximum_adopted_interval is above 0")
        _ = self.timing  # refuses timers out of bounds here

    @property
    def timing(self) -> GroupTiming:
        """The timers among it."""
        return GroupTiming(
            robustness_variable=self.robustness_variable,
            query_interval=self.query_interval,
            query_response_interval=self.query_response_interval,
            last_member_query_interval=self.last_member_query_interval,
            last_member_query_count=self.last_member_query_count,
            startup_query_interval=self.startup_query_interval,
            startup_query_count=self.startup_query_count,
        )
