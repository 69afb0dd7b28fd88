"""Router-side filter state: every row of the tables of RFC 3376 §6.4, which RFC 3810 §7.4 repeats for MLD.

The rows are checked twice: as sets, and by the timers, events and queries of a whole table of groups. Sources are
written as digits. Before: INCLUDE(A) with A = 12, or EXCLUDE(X,Y) with X = 12 and Y = 34. The record's list is 23 in
the first case and 235 in the second, so that every set difference of the rows is met by a source of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from agent.protocol.channels import Address, Filter, FilterMode
from agent.protocol.group_rules import RouterState, transition
from agent.protocol.group_state import GroupLimits, GroupTable, GroupView, InterestChanged
from agent.protocol.group_timing import GroupTiming
from agent.protocol.wire.groups import GroupRecord, Query, RecordType, Report

BASES = {4: ("239.1.2.3", "192.0.2."), 6: ("ff1e::5", "2001:db8::")}
"""Group and prefix of the sources, by IP version."""

GMI = 260
"""Group Membership Interval with default timers: 2 x 125 + 10 (RFC 3376 §8.4)."""
LATER = 100
"""When the record arrives; what came before came at 0."""
OLD, NEW, LMQT = GMI, LATER + GMI, LATER + 2
"""Ends of timers: as before, set to the GMI, lowered to the Last Member Query Time (2 x 1 s, §8.10)."""


@dataclass(frozen=True)
class Row:
    """One row for the sets above.

    `requested` are A or X afterwards with the end of each timer; `excluded` is Y; `expires` is the end of the group
    timer; `queried` the sources of Send Q(G,...); `group_queried` stands for Send Q(G).
    """

    before: str
    record: str
    mode: str
    requested: dict[str, int]
    excluded: str = ""
    expires: int | None = None
    queried: str = ""
    group_queried: bool = False


ROWS = [
    # RFC 3376 §6.4.1: Current-State Records
    Row("INCLUDE", "MODE_IS_INCLUDE", "INCLUDE", {"1": OLD, "2": NEW, "3": NEW}),
    Row("INCLUDE", "MODE_IS_EXCLUDE", "EXCLUDE", {"2": OLD}, "3", NEW),
    Row("EXCLUDE", "MODE_IS_INCLUDE", "EXCLUDE", {"1": OLD, "2": NEW, "3": NEW, "5": NEW}, "4", OLD),
    Row("EXCLUDE", "MODE_IS_EXCLUDE", "EXCLUDE", {"2": OLD, "5": NEW}, "3", NEW),
    # RFC 3376 §6.4.2: Filter-Mode-Change and Source-List-Change Records
    Row("INCLUDE", "ALLOW_NEW_SOURCES", "INCLUDE", {"1": OLD, "2": NEW, "3": NEW}),
    Row("INCLUDE", "BLOCK_OLD_SOURCES", "INCLUDE", {"1": OLD, "2": LMQT}, queried="2"),
    Row("INCLUDE", "CHANGE_TO_EXCLUDE", "EXCLUDE", {"2": LMQT}, "3", NEW, queried="2"),
    Row("INCLUDE", "CHANGE_TO_INCLUDE", "INCLUDE", {"1": LMQT, "2": NEW, "3": NEW}, queried="1"),
    Row("EXCLUDE", "ALLOW_NEW_SOURCES", "EXCLUDE", {"1": OLD, "2": NEW, "3": NEW, "5": NEW}, "4", OLD),
    Row("EXCLUDE", "BLOCK_OLD_SOURCES", "EXCLUDE", {"1": OLD, "2": LMQT, "5": LMQT}, "34", OLD, queried="25"),
    Row("EXCLUDE", "CHANGE_TO_EXCLUDE", "EXCLUDE", {"2": LMQT, "5": LMQT}, "3", NEW, queried="25"),
    Row(
        "EXCLUDE",
        "CHANGE_TO_INCLUDE",
        "EXCLUDE",
        {"1": LMQT, "2": NEW, "3": NEW, "5": NEW},
        "4",
        LMQT,
        queried="1",
        group_queried=True,
    ),
]


def named(row: Row) -> str:
    return f"{row.before}-{row.record}"


def addresses(digits: str, version: int = 4) -> tuple[Address, ...]:
    return tuple(ip_address(BASES[version][1] + digit) for digit in digits)


def record(kind: str, digits: str = "", version: int = 4) -> Report:
    group = ip_address(BASES[version][0])
    return Report((GroupRecord(RecordType[kind], group, addresses(digits, version)),))


def table_with(before: str, version: int = 4, **options: object) -> GroupTable:
    """A table in INCLUDE(12) or EXCLUDE(12,34) since 0, its events drained."""
    table = GroupTable(timing=GroupTiming(), **options)
    if before == "EXCLUDE":
        table.receive(record("CHANGE_TO_EXCLUDE", "34", version), 0)
    table.receive(record("ALLOW_NEW_SOURCES", "12", version), 0)
    table.events()
    assert table.queries() == []
    return table


def only_view(table: GroupTable) -> GroupView:
    (view,) = table.views()
    return view


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_row_as_sets(row: Row) -> None:
    """RFC 3376 §6.4.1, §6.4.2."""
    before = RouterState(FilterMode[row.before], frozenset("12"), frozenset("34" if row.before == "EXCLUDE" else ""))
    listed = frozenset("23" if row.before == "INCLUDE" else "235")
    after = transition(before, RecordType[row.record], listed)
    assert after.state == RouterState(FilterMode[row.mode], frozenset(row.requested), frozenset(row.excluded))
    assert after.queried == frozenset(row.queried)
    assert after.queries_group == row.group_queried
    assert after.refreshes_group == (row.expires == NEW)
    assert after.refreshed == {source for source, end in row.requested.items() if end == NEW}
    # "(A-X-Y)=Group Timer" stands in the two rows that block sources never heard of.
    inherits = row.before == "EXCLUDE" and row.record in {"BLOCK_OLD_SOURCES", "CHANGE_TO_EXCLUDE"}
    assert after.inherited == frozenset("5" if inherits else "")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("row", ROWS, ids=named)
def test_row_with_timers_and_queries(row: Row, version: int) -> None:
    """RFC 3376 §6.4.1, §6.4.2; RFC 3810 §7.4.1, §7.4.2."""
    table = table_with(row.before, version)
    table.receive(record(row.record, "23" if row.before == "INCLUDE" else "235", version), LATER)
    view = only_view(table)
    expected = (
        Filter.include(addresses("".join(row.requested), version))
        if row.mode == "INCLUDE"
        else Filter.exclude(addresses(row.excluded, version))
    )
    assert view.filter == expected
    assert view.expires == row.expires
    prefix = BASES[version][1]
    assert view.sources == {ip_address(prefix + digit): end for digit, end in row.requested.items()}
    queries = table.queries()
    assert sum(not query.sources for query in queries) == row.group_queried
    asked = [query for query in queries if query.sources]
    assert [set(query.sources) for query in asked] == ([set(addresses(row.queried, version))] if row.queried else [])
    for query in queries:
        assert query.group == ip_address(BASES[version][0])
        assert not query.suppress
        assert query.max_response_time == 1, "Max Resp Time is the Last Member Query Interval (§6.6.3.1)"
        assert query.robustness == 2
        assert query.interval == 125


@pytest.mark.parametrize("row", [row for row in ROWS if row.queried or row.group_queried], ids=named)
def test_row_with_a_query_nobody_answers(row: Row) -> None:
    """RFC 3376 §6.3, §6.5: queried sources and groups are over after the Last Member Query Time, not before."""
    table = table_with(row.before)
    table.receive(record(row.record, "23" if row.before == "INCLUDE" else "235"), LATER)
    advance(table, LATER + 1.9)
    kept = {digit for digit, end in row.requested.items() if end != LMQT}
    before = only_view(table)
    assert set(before.sources) == set(addresses("".join(row.requested)))
    advance(table, LATER + 2)
    group_ended = row.expires == LMQT
    if row.mode == "INCLUDE" or group_ended:
        # A source of INCLUDE mode is deleted; at the end of EXCLUDE mode sources with running timers stay (§6.5).
        assert table.filter(ip_address(BASES[4][0])) == Filter.include(addresses("".join(kept)))
    else:
        # A source of EXCLUDE mode is blocked from now on.
        expired = {digit for digit, end in row.requested.items() if end == LMQT}
        assert only_view(table).filter == Filter.exclude(addresses("".join(expired | set(row.excluded))))


@pytest.mark.parametrize("row", [row for row in ROWS if row.queried or row.group_queried], ids=named)
def test_row_with_fast_leave_asks_nobody(row: Row) -> None:
    """With one host on the link (a tunnel) a leave needs no query: its outcome is that of a query nobody answered."""
    asked, told = table_with(row.before), table_with(row.before, fast_leave=True)
    message = record(row.record, "23" if row.before == "INCLUDE" else "235")
    asked.receive(message, LATER)
    advance(asked, LATER + 2)
    told.receive(message, LATER)
    assert told.queries() == []
    assert told.filters() == asked.filters()


def advance(table: GroupTable, until: float) -> list[Query]:
    """Run the table's timers up to `until`; returns the queries of that time."""
    queries = table.queries()
    while (deadline := table.next_deadline()) is not None and deadline <= until:
        table.handle_timer(deadline)
        queries += table.queries()
    return queries


def test_specific_queries_are_repeated_last_member_query_count_times() -> None:
    """RFC 3376 §6.6.3.1, §8.9: one each Last Member Query Interval, the timers are not lowered again."""
    table = table_with("INCLUDE")
    table.receive(record("BLOCK_OLD_SOURCES", "2"), LATER)
    assert [query.sources for query in table.queries()] == [addresses("2")]
    table.handle_timer(LATER + 0.9)
    assert table.queries() == []
    assert table.next_deadline() == LATER + 1
    table.handle_timer(LATER + 1)
    assert [query.sources for query in table.queries()] == [addresses("2")]
    assert only_view(table).sources[addresses("2")[0]] == LMQT
    assert advance(table, LATER + 50) == []


def test_answered_source_is_kept_and_its_repeated_query_suppresses() -> None:
    """RFC 3376 §6.6.3.2: a source whose timer is above LMQT again goes out with the S flag set."""
    table = table_with("INCLUDE")
    table.receive(record("BLOCK_OLD_SOURCES", "12"), LATER)
    table.queries()
    table.receive(record("MODE_IS_INCLUDE", "2"), LATER + 0.5)
    table.handle_timer(LATER + 1)
    flags = {query.sources: query.suppress for query in table.queries()}
    assert flags == {addresses("1"): False, addresses("2"): True}
    advance(table, LATER + 2)
    assert table.filter(ip_address(BASES[4][0])) == Filter.include(addresses("2"))


def test_answered_group_is_kept_and_its_repeated_query_suppresses() -> None:
    """RFC 3376 §6.6.3.1."""
    table = GroupTable(timing=GroupTiming())
    table.receive(record("CHANGE_TO_EXCLUDE"), 0)
    table.receive(record("CHANGE_TO_INCLUDE"), LATER)
    (first,) = table.queries()
    assert first.sources == ()
    assert not first.suppress
    table.receive(record("MODE_IS_EXCLUDE"), LATER + 0.5)
    table.handle_timer(LATER + 1)
    assert [query.suppress for query in table.queries()] == [True]
    advance(table, LATER + 2)
    assert only_view(table).expires == LATER + 0.5 + GMI


def test_group_timer_end_keeps_sources_whose_timers_run() -> None:
    """RFC 3376 §6.5: EXCLUDE(X,Y) becomes INCLUDE(X); an empty X ends the group."""
    table = table_with("EXCLUDE")
    table.receive(record("MODE_IS_INCLUDE", "1"), 50)
    table.events()
    advance(table, GMI)
    view = only_view(table)
    assert (view.filter, view.expires) == (Filter.include(addresses("1")), None)
    advance(table, 50 + GMI)
    assert list(table.views()) == []
    assert [event.filter.wants_nothing for event in table.events()] == [False, True]


def test_source_timer_end_in_exclude_mode_blocks_the_source() -> None:
    """RFC 3376 §6.3: the source moves from X to Y and is not forwarded any more."""
    table = table_with("EXCLUDE")
    table.receive(record("MODE_IS_EXCLUDE", "1234"), 50)
    table.events()
    advance(table, GMI)
    assert only_view(table).filter == Filter.exclude(addresses("1234"))
    assert table.events() == [InterestChanged(ip_address(BASES[4][0]), Filter.exclude(addresses("1234")))]


def test_refreshed_state_makes_no_event() -> None:
    """RFC 3376 §6.2: a Current-State Record that changes nothing changes nothing."""
    table = table_with("INCLUDE")
    table.receive(record("MODE_IS_INCLUDE", "12"), LATER)
    assert table.events() == []
    assert set(only_view(table).sources.values()) == {NEW}


def test_leave_of_an_unknown_group_is_nothing() -> None:
    """RFC 3376 §6.4.2: TO_IN({}) and BLOCK in INCLUDE({}) send Q(G,{}), which is no query."""
    table = GroupTable(timing=GroupTiming())
    table.receive(record("CHANGE_TO_INCLUDE"), 0)
    table.receive(record("BLOCK_OLD_SOURCES", "1"), 0)
    assert table.queries() == []
    assert list(table.views()) == []
    assert table.next_deadline() is None
    assert table.events() == []


def test_group_without_sources_in_include_mode_is_deleted() -> None:
    """RFC 3376 §6.2.3: no source timer left, no group left, nothing left in memory."""
    table = table_with("INCLUDE")
    advance(table, GMI)
    assert list(table.views()) == []
    assert table.next_deadline() is None
    assert table.events() == [InterestChanged(ip_address(BASES[4][0]), Filter.include())]


def test_limits_are_kept_and_refusals_counted() -> None:
    """Memory is bounded against hosts that report without end."""
    table = GroupTable(timing=GroupTiming(), limits=GroupLimits(max_groups=2, max_sources=3))
    for number in range(1, 6):
        group = ip_address(f"239.0.0.{number}")
        sources = tuple(ip_address(f"192.0.2.{digit}") for digit in range(1, 10))
        table.receive(Report((GroupRecord(RecordType.ALLOW_NEW_SOURCES, group, sources),)), 0)
    assert len(list(table.views())) == 2
    assert all(len(view.sources) <= 3 for view in table.views())
    assert sum(table.refused.values()) > 0
