"""Timers and counters of group membership, by their RFC names (RFC 3376 §8, RFC 3810 §9).

MLD says "listener" and "multicast address" where IGMP says "member" and "group"; the names here are IGMP's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEFAULT_ROBUSTNESS: Final = 2
MAXIMUM_ROBUSTNESS: Final = 7
"""QRV has three bits (RFC 3376 §4.1.6)."""

MAXIMUM_QUERY_INTERVAL: Final = 31744
"""Largest value of QQIC, in seconds (RFC 3376 §4.1.7)."""


@dataclass(frozen=True, slots=True)
class GroupTiming:
    """What is configured, and the intervals that follow from it. All times in seconds.

    Attributes:
        robustness_variable: 1..7; 0 means the default of 2 (RFC 3376 §8.1).
        query_interval: between general queries (§8.2).
        query_response_interval: time hosts have to answer a general query (§8.3); shorter than the query interval.
        last_member_query_interval: time hosts have to answer a specific query (§8.8).
        last_member_query_count: specific queries sent before nobody is left, None for the robustness (§8.9).
        startup_query_interval: between the first general queries, None for a quarter of the query interval (§8.6).
        startup_query_count: number of these first queries, None for the robustness (§8.7).

    Raises:
        ValueError: a value outside its bounds.
    """

    robustness_variable: int = DEFAULT_ROBUSTNESS
    query_interval: float = 125
    query_response_interval: float = 10
    last_member_query_interval: float = 1
    last_member_query_count: int | None = None
    startup_query_interval: float | None = None
    startup_query_count: int | None = None

    def __post_init__(self) -> None:
        _check(0 <= self.robustness_variable <= MAXIMUM_ROBUSTNESS, "robustness_variable is 0..7")
        _check(0 < self.query_interval <= MAXIMUM_QUERY_INTERVAL, "query_interval is above 0 and up to 31744 s")
        _check(
            0 < self.query_response_interval < self.query_interval,
            "query_response_interval is above 0 and below query_interval",
        )
        _check(self.last_member_query_interval > 0, "last_member_query_interval is above 0")
        _check(_is_positive(self.last_member_query_count), "last_member_query_count is at least 1")
        _check(_is_positive(self.startup_query_interval), "startup_query_interval is above 0")
        _check(_is_positive(self.startup_query_count), "startup_query_count is at least 1")

    @property
    def robustness(self) -> int:
        """Robustness Variable in effect: 0 means 2 (RFC 3376 §4.1.6)."""
        return self.robustness_variable or DEFAULT_ROBUSTNESS

    @property
    def group_membership_interval(self) -> float:
        """How long a report keeps its group or source (§8.4)."""
        return self.robustness * self.query_interval + self.query_response_interval

    @property
    def other_querier_present_interval(self) -> float:
        """How long an elected querier may stay silent (§8.5)."""
        return self.robustness * self.query_interval + self.query_response_interval / 2

    @property
    def startup_interval(self) -> float:
        """Time between startup queries in effect (§8.6)."""
        return self.query_interval / 4 if self.startup_query_interval is None else self.startup_query_interval

    @property
    def startup_count(self) -> int:
        """Number of startup queries in effect (§8.7)."""
        return self.startup_query_count or self.robustness

    @property
    def last_member_count(self) -> int:
        """Number of specific queries in effect (§8.9)."""
        return self.last_member_query_count or self.robustness

    @property
    def last_member_query_time(self) -> float:
        """LMQT: time from the first specific query until nobody is left (§8.10)."""
        return self.last_member_query_interval * self.last_member_count

    @property
    def older_version_host_present_interval(self) -> float:
        """How long a group stays in the mode of an older host heard (§8.13)."""
        return self.robustness * self.query_interval + self.query_response_interval


def _check(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)


def _is_positive(value: float | None) -> bool:
    return value is None or value > 0
