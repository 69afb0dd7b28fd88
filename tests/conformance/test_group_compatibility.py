"""Older hosts among newer ones (RFC 3376 §7.3, RFC 3810 §8.3), and following another querier (§6.6)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from agent.protocol.channels import Filter
from agent.protocol.group_state import GroupTable
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

GROUP = ip_address("239.1.2.3")
ONE, TWO, THREE = (ip_address(f"192.0.2.{digit}") for digit in (1, 2, 3))
OLDER_HOST_PRESENT = 260
"""Older Host Present Interval: 2 x 125 + 10 (RFC 3376 §8.13)."""


def report(kind: RecordType, *sources: object, group: object = GROUP) -> Report:
    return Report((GroupRecord(kind, group, sources),))


def older(version: int, group: object = GROUP) -> AnySourceReport:
    return AnySourceReport(group, GroupVersion(version))


@pytest.fixture
def table() -> GroupTable:
    return GroupTable(timing=GroupTiming())


@pytest.mark.parametrize("version", [1, 2])
def test_older_report_means_exclude_nothing(table: GroupTable, version: int) -> None:
    """RFC 3376 §7.3.2: an IGMPv1 or v2 report is IS_EX({})."""
    table.receive(older(version), 0)
    (view,) = table.views()
    assert (view.filter, view.expires, view.version) == (Filter.exclude(), 260, GroupVersion(version))


def test_version_two_leave_means_to_include_nothing(table: GroupTable) -> None:
    """RFC 3376 §7.3.2: an IGMPv2 Leave is TO_IN({}): the group is queried, and over if nobody answers."""
    table.receive(older(2), 0)
    table.receive(Leave(GROUP), 10)
    (query,) = table.queries()
    assert (query.group, query.sources, query.version) in {
        (GROUP, (), GroupVersion.SOURCE_SPECIFIC),
        (GROUP, (), GroupVersion.ANY_SOURCE),
    }
    table.handle_timer(11)
    table.handle_timer(12)
    assert table.filter(GROUP).wants_nothing


@pytest.mark.parametrize("version", [1, 2])
def test_older_mode_ignores_block(table: GroupTable, version: int) -> None:
    """RFC 3376 §7.3.2: BLOCK is ignored in IGMPv1 and v2 mode."""
    table.receive(older(version), 0)
    table.receive(report(RecordType.BLOCK_OLD_SOURCES, ONE), 10)
    assert table.queries() == []
    assert table.filter(GROUP) == Filter.exclude()


@pytest.mark.parametrize("version", [1, 2])
def test_older_mode_ignores_the_sources_of_to_exclude(table: GroupTable, version: int) -> None:
    """RFC 3376 §7.3.2: any TO_EX is TO_EX({}) in IGMPv1 and v2 mode."""
    table.receive(older(version), 0)
    table.receive(report(RecordType.CHANGE_TO_EXCLUDE, ONE, TWO), 10)
    (view,) = table.views()
    assert (view.filter, view.expires) == (Filter.exclude(), 270)
    assert table.queries() == []


def test_version_one_mode_ignores_leaves(table: GroupTable) -> None:
    """RFC 3376 §7.3.2: IGMPv2 Leaves and TO_IN are ignored while a version 1 host is present: it cannot answer."""
    table.receive(older(1), 0)
    table.receive(Leave(GROUP), 10)
    table.receive(report(RecordType.CHANGE_TO_INCLUDE), 10)
    assert table.queries() == []
    (view,) = table.views()
    assert (view.filter, view.expires) == (Filter.exclude(), 260)


def test_version_two_mode_heeds_to_include(table: GroupTable) -> None:
    """RFC 3376 §7.3.2: TO_IN is not among what IGMPv2 mode ignores."""
    table.receive(older(2), 0)
    table.receive(report(RecordType.CHANGE_TO_INCLUDE), 10)
    assert len(table.queries()) == 1


def test_older_mode_ends_with_its_timer(table: GroupTable) -> None:
    """RFC 3376 §7.3.1, §8.13: after the Older Host Present Interval the group is in IGMPv3 mode again."""
    table.receive(older(1), 0)
    for now in (100, 200, 259):
        table.receive(report(RecordType.MODE_IS_EXCLUDE), now)
    (view,) = table.views()
    assert view.version is GroupVersion.ANY_SOURCE_BASIC
    table.handle_timer(OLDER_HOST_PRESENT)
    (view,) = table.views()
    assert view.version is GroupVersion.SOURCE_SPECIFIC
    table.receive(report(RecordType.CHANGE_TO_EXCLUDE, ONE), OLDER_HOST_PRESENT + 1)
    assert [query.sources for query in table.queries()] == [(ONE,)]


def test_oldest_host_decides(table: GroupTable) -> None:
    """RFC 3376 §7.3.1: IGMPv1 mode while the v1 timer runs, then v2 mode while the v2 timer runs."""
    table.receive(older(1), 0)
    table.receive(older(2), 100)
    (view,) = table.views()
    assert view.version is GroupVersion.ANY_SOURCE_BASIC
    table.handle_timer(OLDER_HOST_PRESENT)
    (view,) = table.views()
    assert view.version is GroupVersion.ANY_SOURCE


def test_older_host_concerns_its_group_only(table: GroupTable) -> None:
    """RFC 3376 §7.3.1: the compatibility mode is kept per group."""
    other = ip_address("239.1.2.4")
    table.receive(older(2), 0)
    table.receive(report(RecordType.CHANGE_TO_EXCLUDE, ONE, group=other), 0)
    versions = {view.group: view.version for view in table.views()}
    assert versions == {GROUP: GroupVersion.ANY_SOURCE, other: GroupVersion.SOURCE_SPECIFIC}
    assert table.filter(other) == Filter.exclude([ONE])


def test_mldv1_report_and_done() -> None:
    """RFC 3810 §8.3.2: MLDv1 Report is IS_EX({}), Done is TO_IN({})."""
    table = GroupTable(timing=GroupTiming())
    group = ip_address("ff1e::5")
    table.receive(AnySourceReport(group, GroupVersion.ANY_SOURCE), 0)
    assert table.filter(group) == Filter.exclude()
    table.receive(Leave(group), 10)
    assert len(table.queries()) == 1
    table.handle_timer(11)
    table.handle_timer(12)
    assert table.filter(group).wants_nothing


def specific(group: object = GROUP, *sources: object, suppress: bool = False) -> Query:
    return Query(group=group, sources=sources, max_response_time=1, suppress=suppress)


def test_other_querier_lowers_the_group_timer(table: GroupTable) -> None:
    """RFC 3376 §6.6.1: Q(G) sets the group timer to the Last Member Query Time, here as told with the query."""
    table.set_querier(querier=False)
    table.receive(report(RecordType.CHANGE_TO_EXCLUDE), 0)
    table.receive_query(specific(), 100)
    (view,) = table.views()
    assert view.expires == 102
    assert table.queries() == []


def test_other_querier_lowers_source_timers(table: GroupTable) -> None:
    """RFC 3376 §6.6.1: Q(G,A) sets the timers of A."""
    table.set_querier(querier=False)
    table.receive(report(RecordType.ALLOW_NEW_SOURCES, ONE, TWO), 0)
    table.receive_query(specific(GROUP, ONE, THREE), 100)
    (view,) = table.views()
    assert view.sources == {ONE: 102, TWO: 260}


def test_suppressed_query_changes_no_timer(table: GroupTable) -> None:
    """RFC 3376 §4.1.5, §6.6.1: the S flag suppresses the timer updates of hearing a query."""
    table.set_querier(querier=False)
    table.receive(report(RecordType.CHANGE_TO_EXCLUDE), 0)
    table.receive_query(specific(suppress=True), 100)
    (view,) = table.views()
    assert view.expires == 260


def test_query_never_puts_a_timer_off(table: GroupTable) -> None:
    """RFC 3376 §6.6.1: timers are lowered, never raised."""
    table.set_querier(querier=False)
    table.receive(report(RecordType.CHANGE_TO_EXCLUDE), 0)
    table.receive_query(specific(), 259)
    (view,) = table.views()
    assert view.expires == 260


def test_general_query_changes_no_timer(table: GroupTable) -> None:
    """RFC 3376 §6.6.1 names specific queries only."""
    table.set_querier(querier=False)
    table.receive(report(RecordType.CHANGE_TO_EXCLUDE), 0)
    table.receive_query(Query(), 100)
    (view,) = table.views()
    assert view.expires == 260


def test_non_querier_sends_no_specific_queries(table: GroupTable) -> None:
    """RFC 3376 §6.6.3: specific queries are the querier's; the others lower their timers when they hear them."""
    table.set_querier(querier=False)
    table.receive(report(RecordType.ALLOW_NEW_SOURCES, ONE), 0)
    table.receive(report(RecordType.BLOCK_OLD_SOURCES, ONE), 100)
    assert table.queries() == []
    (view,) = table.views()
    assert view.sources == {ONE: 260}


def test_robustness_zero_means_two() -> None:
    """RFC 3376 §4.1.6, §8.1."""
    timing = GroupTiming(robustness_variable=0)
    assert timing.robustness == 2
    assert timing.group_membership_interval == 260


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("group_membership_interval", 3 * 60 + 4),  # §8.4: RV x QI + QRI
        ("other_querier_present_interval", 3 * 60 + 2),  # §8.5: RV x QI + QRI / 2
        ("startup_interval", 15),  # §8.6: QI / 4
        ("startup_count", 3),  # §8.7: RV
        ("last_member_count", 3),  # §8.9: RV
        ("last_member_query_time", 1.5),  # §8.10: LMQI x LMQC
        ("older_version_host_present_interval", 3 * 60 + 4),  # §8.13: RV x QI + QRI
    ],
)
def test_derived_intervals(name: str, value: float) -> None:
    """RFC 3376 §8, RFC 3810 §9."""
    timing = GroupTiming(
        robustness_variable=3, query_interval=60, query_response_interval=4, last_member_query_interval=0.5
    )
    assert getattr(timing, name) == value


@pytest.mark.parametrize(
    "wrong",
    [
        {"robustness_variable": -1},
        {"query_interval": 0},
        {"query_interval": 10, "query_response_interval": 10},
        {"last_member_query_interval": 0},
    ],
)
def test_impossible_timing_is_refused(wrong: dict[str, float]) -> None:
    """RFC 3376 §8.1 (never 0 and so never below), §8.3 (less than the query interval)."""
    with pytest.raises(ValueError, match=r"."):
        GroupTiming(**wrong)
