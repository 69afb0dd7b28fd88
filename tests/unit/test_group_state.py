"""Timers, limits, older hosts and fast leave of the groups of one link (RFC 3376 §6, §7.3; RFC 3810 §7, §8.3)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.channels import NOTHING, Filter
from agent.protocol.group_state import GroupLimits, GroupTable, InterestChanged
from agent.protocol.group_timing import GroupTiming
from agent.protocol.wire.groups import AnySourceReport, GroupRecord, GroupVersion, Leave, Query, RecordType, Report

IS_IN, IS_EX = RecordType.MODE_IS_INCLUDE, RecordType.MODE_IS_EXCLUDE
TO_IN, TO_EX = RecordType.CHANGE_TO_INCLUDE, RecordType.CHANGE_TO_EXCLUDE
ALLOW, BLOCK = RecordType.ALLOW_NEW_SOURCES, RecordType.BLOCK_OLD_SOURCES

ASM, OTHER, SSM, ASM6 = (ip_address(g) for g in ("239.1.1.1", "239.1.1.2", "232.1.1.1", "ff1e::1"))
S1, S2, S3, S4 = (ip_address(f"10.0.0.{number}") for number in range(1, 5))
GMI = 260.0
V1, V2, V3 = GroupVersion.ANY_SOURCE_BASIC, GroupVersion.ANY_SOURCE, GroupVersion.SOURCE_SPECIFIC


def report(kind, *sources, group=ASM):
    return Report((GroupRecord(kind, group, sources),))


def change(wanted, group=ASM):
    return InterestChanged(group, wanted)


def run_until(table, now):
    """Fire every timer due up to `now`, each at its own time."""
    while (deadline := table.next_deadline()) is not None and deadline <= now:
        table.handle_timer(deadline)


def test_allowed_source_is_forwarded_and_told_once():
    table = GroupTable()
    table.receive(report(ALLOW, S1), 0)
    assert table.events() == [change(Filter.include([S1]))]
    table.receive(report(IS_IN, S1), 10)
    assert table.events() == []
    assert table.filter(ASM) == Filter.include([S1])
    assert len(table) == 1


def test_source_ends_a_group_membership_interval_after_its_last_report():
    table = GroupTable()
    table.receive(report(ALLOW, S1), 0)
    table.receive(report(IS_IN, S1), 100)
    table.events()
    assert table.next_deadline() == 100 + GMI
    table.handle_timer(359.9)
    assert table.events() == []
    table.handle_timer(360)
    assert table.events() == [change(NOTHING)]
    assert table.next_deadline() is None
    assert len(table) == 0


def test_exclude_mode_ends_with_its_group_timer_and_leaves_running_sources():
    """RFC 3376 §6.5."""
    table = GroupTable()
    table.receive(report(TO_EX, S1), 0)
    table.receive(report(ALLOW, S2), 100)
    assert table.events() == [change(Filter.exclude([S1]))]
    table.handle_timer(GMI)
    assert table.events() == [change(Filter.include([S2]))]
    table.handle_timer(100 + GMI)
    assert table.events() == [change(NOTHING)]


def test_source_that_runs_out_in_exclude_mode_is_excluded():
    """RFC 3376 §6.3."""
    table = GroupTable()
    table.receive(report(ALLOW, S1), 0)
    table.receive(report(IS_EX, S1), 100)
    assert table.filter(ASM) == Filter.exclude()
    table.handle_timer(GMI)
    assert table.filter(ASM) == Filter.exclude([S1])


def test_blocked_new_source_inherits_the_group_timer():
    """EXCLUDE(X,Y), BLOCK(A): (A-X-Y)=Group Timer; a router that is not querier waits for the querier's query."""
    table = GroupTable(querier=False)
    table.receive(report(TO_EX), 0)
    table.receive(report(BLOCK, S1), 50)
    (view,) = table.views()
    assert view.sources == {S1: GMI}
    assert view.expires == GMI


def test_records_of_one_report_make_one_change():
    table = GroupTable(fast_leave=True)
    table.receive(report(ALLOW, S1), 0)
    table.events()
    table.receive(Report((GroupRecord(ALLOW, ASM, (S2,)), GroupRecord(BLOCK, ASM, (S1,)))), 1)
    assert table.events() == [change(Filter.include([S2]))]


def test_change_that_is_taken_back_in_the_same_report_is_not_told():
    table = GroupTable(fast_leave=True)
    table.receive(Report((GroupRecord(ALLOW, ASM, (S2,)), GroupRecord(BLOCK, ASM, (S2,)))), 1)
    assert table.events() == []
    assert table.next_deadline() is None


def test_leave_of_an_unknown_group_is_nothing():
    table = GroupTable()
    table.receive(report(TO_IN), 0)
    table.receive(Leave(ASM), 0)
    table.receive(report(BLOCK, S1), 0)
    assert (table.events(), table.queries(), table.next_deadline(), len(table)) == ([], [], None, 0)


def test_clear_ends_every_group():
    table = GroupTable()
    table.receive(report(ALLOW, S1), 0)
    table.receive(AnySourceReport(OTHER), 0)
    table.events()
    table.clear()
    assert table.events() == [change(NOTHING), change(NOTHING, OTHER)]
    assert table.next_deadline() is None


# Fast leave


@pytest.mark.parametrize(
    ("before", "message", "after"),
    [
        ([report(ALLOW, S1, S2)], report(BLOCK, S1), Filter.include([S2])),
        ([report(ALLOW, S1)], report(BLOCK, S1), NOTHING),
        ([report(ALLOW, S1, S2)], report(TO_IN, S2, S3), Filter.include([S2, S3])),
        ([report(ALLOW, S1)], report(TO_IN), NOTHING),
        ([report(ALLOW, S1, S2)], report(TO_EX, S1, S3), Filter.exclude([S1, S3])),
        ([report(TO_EX)], report(TO_IN), NOTHING),
        ([report(TO_EX, S1)], report(TO_IN, S1), Filter.include([S1])),
        ([report(TO_EX), report(ALLOW, S1)], report(TO_IN, S2), Filter.include([S2])),
        ([report(TO_EX, S1)], report(BLOCK, S2), Filter.exclude([S1, S2])),
        ([report(TO_EX, S1)], report(TO_EX, S2), Filter.exclude([S2])),
        ([AnySourceReport(ASM)], Leave(ASM), NOTHING),
    ],
)
def test_fast_leave_acts_at_once_and_never_asks(before, message, after):
    table = GroupTable(fast_leave=True)
    for earlier in before:
        table.receive(earlier, 0)
    table.events()
    table.receive(message, 1)
    assert table.events() == [change(after)]
    assert table.queries() == []
    if after == NOTHING:
        assert table.next_deadline() is None


# Last-member queries


def test_leave_asks_the_group_and_ends_after_the_last_member_query_time():
    """RFC 3376 §6.6.3.1: LMQC copies, LMQI apart, the group timer lowered to LMQT."""
    table = GroupTable()
    table.receive(AnySourceReport(ASM), 0)
    table.receive(Leave(ASM), 100)
    expected = Query(ASM, (), 1.0, robustness=2, interval=125)
    assert table.queries() == [expected]
    run_until(table, 101)
    assert table.queries() == [expected]
    assert table.filter(ASM) == Filter.exclude()
    table.events()
    run_until(table, 102)
    assert table.events() == [change(NOTHING)]
    assert (table.queries(), table.next_deadline()) == ([], None)


def test_answer_keeps_the_group_and_suppresses_other_routers():
    """The S flag goes on copies sent after an answer."""
    table = GroupTable()
    table.receive(report(TO_EX), 0)
    table.receive(report(TO_IN), 100)
    table.receive(report(IS_EX), 100.5)
    assert [query.suppress for query in table.queries()] == [False]
    run_until(table, 101)
    assert [query.suppress for query in table.queries()] == [True]
    run_until(table, 300)
    assert table.filter(ASM) == Filter.exclude()
    assert table.next_deadline() == 100.5 + GMI


def test_block_asks_about_the_sources_of_the_group():
    """RFC 3376 §6.6.3.2; the source that is answered for stays and is asked about with the S flag."""
    table = GroupTable()
    table.receive(report(ALLOW, S1, S2, S3), 0)
    table.events()
    table.receive(report(BLOCK, S1, S2), 100)
    (query,) = table.queries()
    assert (query.group, set(query.sources), query.suppress) == (ASM, {S1, S2}, False)
    table.receive(report(IS_IN, S2), 100.5)
    run_until(table, 101)
    assert [(q.sources, q.suppress) for q in table.queries()] == [((S2,), True), ((S1,), False)]
    run_until(table, 102)
    assert table.events() == [change(Filter.include([S2, S3]))]
    assert table.queries() == []


def test_sources_answered_for_are_left_out_when_the_group_is_asked_as_well():
    """RFC 3376 §6.6.3.2, last paragraph."""
    table = GroupTable()
    table.receive(report(TO_EX), 0)
    table.receive(report(ALLOW, S1), 0)
    table.receive(report(TO_IN), 100)
    assert [q.sources for q in table.queries()] == [(), (S1,)]
    table.receive(report(IS_IN, S1), 100.5)
    run_until(table, 101)
    assert [q.sources for q in table.queries()] == [()]
    run_until(table, 102)
    assert table.filter(ASM) == Filter.include([S1])


def test_flood_of_leaves_makes_no_flood_of_queries():
    table = GroupTable()
    table.receive(report(TO_EX), 0)
    for _ in range(100):
        table.receive(report(TO_IN), 100)
    assert len(table.queries()) == 1
    table.receive(report(ALLOW, S1, group=OTHER), 100)
    for _ in range(100):
        table.receive(report(BLOCK, S1, group=OTHER), 101)
    assert len(table.queries()) == 1


def test_group_asked_about_again_after_its_answer():
    table = GroupTable(GroupTiming(last_member_query_count=3))
    table.receive(report(TO_EX), 0)
    table.receive(report(TO_IN), 100)
    table.receive(report(IS_EX), 100.5)
    table.receive(report(TO_IN), 100.7)
    assert [query.suppress for query in table.queries()] == [False, False]
    run_until(table, 104)
    assert table.filter(ASM) == NOTHING


def test_source_deleted_while_asked_about_is_asked_about_no_more():
    table = GroupTable()
    table.receive(report(TO_EX), 0)
    table.receive(report(BLOCK, S1), 1)
    assert len(table.queries()) == 1
    table.receive(report(IS_EX), 1.5)
    run_until(table, 10)
    assert table.queries() == []
    assert table.filter(ASM) == Filter.exclude()


def test_group_that_leaves_exclude_mode_keeps_asking_about_its_sources():
    timing = GroupTiming(last_member_query_count=3)
    table = GroupTable(timing)
    table.receive(report(TO_EX), 0)
    table.receive(report(ALLOW, S1, S2), 100)
    table.receive(report(TO_IN), 100)
    table.queries()
    run_until(table, 102.5)
    table.receive(report(IS_IN, S1), 102.6)
    table.receive(report(BLOCK, S1), 102.7)
    table.queries()
    run_until(table, 103)  # the group timer ends here, S2's as well, and S1 is asked about until 105.7
    assert table.filter(ASM) == Filter.include([S1])
    run_until(table, 104)
    assert [q.sources for q in table.queries()] == [(S1,)]


def test_timers_that_are_handled_late_end_everything_overdue():
    table = GroupTable(GroupTiming(last_member_query_count=3))
    table.receive(report(TO_EX), 0)
    table.receive(report(TO_IN), 100)
    table.receive(report(ALLOW, S1), 101)
    table.queries()
    table.handle_timer(150)
    assert table.filter(ASM) == Filter.include([S1])
    table.queries()
    run_until(table, 200)
    assert table.queries() == []
    assert table.next_deadline() == 101 + GMI


def test_long_source_lists_are_split_over_queries_that_fit_a_link():
    many = [ip_address(0x0A010000 + number) for number in range(1, 501)]
    many6 = [ip_address((0x20010DB8 << 96) + number) for number in range(1, 101)]
    table = GroupTable()
    table.receive(report(ALLOW, *many), 0)
    table.receive(report(BLOCK, *many), 1)
    assert sorted(len(query.sources) for query in table.queries()) == [134, 366]
    table.receive(report(ALLOW, *many6, group=ASM6), 1)
    table.receive(report(BLOCK, *many6, group=ASM6), 2)
    assert sorted(len(query.sources) for query in table.queries()) == [11, 89]


def test_router_that_is_not_querier_asks_nothing():
    table = GroupTable(querier=False)
    table.receive(report(TO_EX), 0)
    table.receive(report(TO_IN), 1)
    assert table.queries() == []
    assert table.next_deadline() == GMI


def test_querier_that_steps_down_stops_its_copies():
    table = GroupTable()
    table.receive(report(TO_EX), 0)
    table.receive(report(TO_IN), 1)
    table.queries()
    table.set_querier(querier=False)
    run_until(table, 2.5)
    assert table.queries() == []


# The elected querier's specific queries


def test_query_of_the_elected_querier_lowers_the_group_timer():
    """RFC 3376 §6.6.1, with the querier's own robustness and response time."""
    table = GroupTable(querier=False)
    table.receive(report(TO_EX), 0)
    table.receive_query(Query(ASM, (), 2.0, robustness=3), 10)
    assert table.next_deadline() == 16
    table.receive_query(Query(ASM, (), 200.0, robustness=0), 10)
    assert table.next_deadline() == 16


def test_query_of_the_elected_querier_lowers_source_timers():
    table = GroupTable(querier=False)
    table.receive(report(ALLOW, S1, S2), 0)
    table.receive_query(Query(ASM, (S1, S3), 1.0, robustness=2), 10)
    assert table.next_deadline() == 12
    run_until(table, 12)
    assert table.filter(ASM) == Filter.include([S2])


@pytest.mark.parametrize(
    "query",
    [
        Query(),
        Query(OTHER, (), 1.0),
        Query(ASM, (), 1.0, suppress=True),
        Query(ASM, (), 1.0),  # INCLUDE mode has no group timer
    ],
)
def test_query_that_concerns_no_timer_changes_none(query):
    table = GroupTable(querier=False)
    table.receive(report(ALLOW, S1), 0)
    table.receive_query(query, 10)
    assert table.next_deadline() == GMI


# Older versions


@pytest.mark.parametrize("version", [V1, V2])
def test_older_report_means_exclude_nothing_and_sets_the_compatibility_mode(version):
    table = GroupTable()
    table.receive(AnySourceReport(ASM, version), 0)
    (view,) = table.views()
    assert (view.filter, view.version) == (Filter.exclude(), version)


def test_block_and_exclude_lists_are_ignored_while_a_version_2_host_is_present():
    table = GroupTable()
    table.receive(AnySourceReport(ASM, V2), 0)
    table.receive(report(BLOCK, S1), 1)
    table.receive(report(TO_EX, S1), 1)
    assert table.filter(ASM) == Filter.exclude()
    assert table.refused == {"older_host_present": 1}
    assert table.queries() == []


def test_leaves_are_ignored_while_a_version_1_host_is_present():
    table = GroupTable()
    table.receive(AnySourceReport(ASM, V1), 0)
    table.receive(Leave(ASM), 1)
    table.receive(report(TO_IN), 1)
    assert table.queries() == []
    assert table.filter(ASM) == Filter.exclude()


def test_older_host_is_forgotten_after_its_interval():
    table = GroupTable(GroupTiming(query_interval=100, query_response_interval=10))
    table.receive(AnySourceReport(ASM, V2), 0)
    table.receive(report(IS_EX), 200)
    table.handle_timer(209)
    table.receive(report(BLOCK, S1), 209)
    assert table.queries() == []
    table.handle_timer(210)
    table.receive(report(BLOCK, S1), 210)
    assert len(table.queries()) == 1


def test_older_hosts_end_with_their_group():
    table = GroupTable(fast_leave=True)
    table.receive(AnySourceReport(ASM, V2), 0)
    table.receive(Leave(ASM), 1)
    table.receive(report(ALLOW, S1), 2)
    (view,) = table.views()
    assert view.version is V3


# What is not believed, and limits


@pytest.mark.parametrize("group", ["224.0.0.251", "ff02::fb", "10.0.0.1"])
def test_group_that_may_not_cross_a_router_is_ignored(group):
    table = GroupTable()
    table.receive(report(TO_EX, group=ip_address(group)), 0)
    table.receive(AnySourceReport(ip_address(group)), 0)
    assert (table.events(), len(table)) == ([], 0)
    assert table.refused == {"group_not_forwardable": 2}


def test_any_source_interest_in_the_ssm_range_is_ignored():
    """RFC 4604 §2.2: EXCLUDE records and older reports in 232/8 and ff3x::/32."""
    table = GroupTable()
    table.receive(report(TO_EX, group=SSM), 0)
    table.receive(report(IS_EX, S1, group=ip_address("ff3e::1")), 0)
    table.receive(AnySourceReport(SSM), 0)
    table.receive(report(ALLOW, S1, group=SSM), 0)
    assert table.filters() == {SSM: Filter.include([S1])}
    assert table.refused == {"any_source_in_ssm_range": 3}


def test_older_report_in_the_ssm_range_does_not_make_the_group_older():
    table = GroupTable(fast_leave=True)
    table.receive(report(ALLOW, S1, group=SSM), 0)
    table.receive(AnySourceReport(SSM, V2), 1)
    table.receive(report(BLOCK, S1, group=SSM), 2)
    assert len(table) == 0


def test_sources_that_are_not_unicast_are_left_out():
    table = GroupTable()
    table.receive(report(ALLOW, S1, ip_address("239.9.9.9"), ip_address("255.255.255.255")), 0)
    assert table.filter(ASM) == Filter.include([S1])
    assert table.refused == {"source_not_unicast": 1}


def test_groups_beyond_the_limit_are_refused_and_others_go_on():
    table = GroupTable(limits=GroupLimits(max_groups=1))
    table.receive(report(ALLOW, S1), 0)
    table.receive(report(ALLOW, S1, group=OTHER), 0)
    table.receive(AnySourceReport(OTHER), 0)
    table.receive(report(ALLOW, S2), 0)
    assert table.filters() == {ASM: Filter.include([S1, S2])}
    assert table.refused == {"too_many_groups": 2}


def test_sources_beyond_the_limit_are_left_out_in_the_order_of_the_record():
    table = GroupTable(limits=GroupLimits(max_sources=2))
    table.receive(report(ALLOW, S1), 0)
    table.receive(report(ALLOW, S3, S1, S2), 0)
    assert table.filter(ASM) == Filter.include([S1, S3])
    table.receive(report(TO_EX, S4, S3, S2), 0)
    assert table.filter(ASM) == Filter.exclude([S4])
    assert table.refused == {"too_many_sources": 2}


def test_full_group_still_takes_refreshes_and_leaves():
    table = GroupTable(limits=GroupLimits(max_sources=2), fast_leave=True)
    table.receive(report(ALLOW, S1, S2), 0)
    table.receive(report(IS_IN, S1, S2), 50)
    assert table.next_deadline() == 50 + GMI
    table.receive(report(TO_IN, S3, S4), 51)
    assert table.filter(ASM) == Filter.include([S3, S4])
    table.receive(report(BLOCK, S3, S4, S1), 52)
    assert len(table) == 0
    assert not table.refused


def test_channels_of_all_groups_are_bounded_together():
    table = GroupTable(limits=GroupLimits(max_channels=3), fast_leave=True)
    table.receive(report(ALLOW, S1, S2), 0)
    table.receive(AnySourceReport(OTHER), 0)
    table.receive(report(ALLOW, S1, group=SSM), 0)
    table.receive(report(ALLOW, S3), 0)
    assert table.filters() == {ASM: Filter.include([S1, S2]), OTHER: Filter.exclude()}
    assert table.refused == {"too_many_channels": 2}
    table.receive(Leave(OTHER), 1)
    table.receive(report(ALLOW, S1, group=SSM), 1)
    assert table.filter(SSM) == Filter.include([S1])


def test_lowered_limit_keeps_what_is_there():
    table = GroupTable()
    table.receive(report(ALLOW, S1, S2, S3), 0)
    table.limits = GroupLimits(max_sources=1, max_channels=1)
    table.receive(report(IS_IN, S1, S2, S3), 10)
    table.receive(report(ALLOW, S4), 10)
    assert table.filter(ASM) == Filter.include([S1, S2, S3])
    assert table.next_deadline() == 10 + GMI


GROUPS = st.sampled_from([ASM, OTHER, SSM])
SOURCES = st.lists(st.sampled_from([S1, S2, S3, S4]), max_size=4).map(tuple)
RECORDS = st.builds(GroupRecord, st.sampled_from(RecordType), GROUPS, SOURCES)
MESSAGES = st.one_of(
    st.builds(Report, st.lists(RECORDS, max_size=3).map(tuple)),
    st.builds(AnySourceReport, GROUPS, st.sampled_from([V1, V2])),
    st.builds(Leave, GROUPS),
    st.builds(Query, st.none() | GROUPS, SOURCES, st.sampled_from([0.0, 1.0, 30.0]), st.booleans()),
)


@given(
    st.lists(st.tuples(MESSAGES, st.sampled_from([0.0, 0.4, 1.0, 50.0, 300.0])), max_size=30),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 2, 5, None]),
)
def test_any_course_of_messages_keeps_events_state_and_timers_together(course, fast_leave, querier, most):
    table = GroupTable(limits=GroupLimits(2, 3, most), fast_leave=fast_leave, querier=querier)
    followed, now = {}, 0.0
    for message, wait in course:
        now += wait
        run_until(table, now)
        if isinstance(message, Query):
            table.receive_query(message, now)
        else:
            table.receive(message, now)
        table.queries()
        for event in table.events():
            assert followed.get(event.group, NOTHING) != event.filter
            followed[event.group] = event.filter
        assert {group: f for group, f in followed.items() if f != NOTHING} == table.filters()
        views = list(table.views())
        assert len(views) <= 2
        sizes = [max(1, len(view.sources | dict.fromkeys(view.filter.sources))) for view in views]
        assert all(size <= 3 for size in sizes)
        assert most is None or sum(sizes) <= most
    run_until(table, now + 1000)
    assert (table.filters(), table.next_deadline()) == ({}, None)
