"""Host side of IGMPv3 and MLDv2: merging (RFC 3376 §3.2, RFC 4605 §4.1) and the reports of changes (§5)."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import product

import pytest

from agent.protocol.channels import NOTHING, Address, Channel, Family, Filter, is_forwardable_group, merge_filters
from agent.protocol.membership import Membership
from agent.protocol.wire.group_packet import encode
from agent.protocol.wire.groups import GroupRecord, RecordType, Report

GROUPS = {Family.IPV4: "239.1.2.3", Family.IPV6: "ff1e::5"}
PREFIXES = {Family.IPV4: "192.0.2.", Family.IPV6: "2001:db8::"}
SENDERS = {Family.IPV4: "192.0.2.100", Family.IPV6: "fe80::2"}


def sources(digits: str, family: Family = Family.IPV4) -> list[Address]:
    return [ip_address(PREFIXES[family] + digit) for digit in digits]


def wanted(text: str, family: Family = Family.IPV4) -> Filter:
    """`in:12` is INCLUDE(1,2), `ex:` is EXCLUDE of nothing."""
    mode, _, digits = text.partition(":")
    return (Filter.include if mode == "in" else Filter.exclude)(sources(digits, family))


# --- merging


@pytest.mark.parametrize(
    ("parts", "merged"),
    [
        ([], "in:"),
        (["in:1", "in:2"], "in:12"),
        (["ex:12", "ex:23"], "ex:2"),
        (["ex:12", "in:2"], "ex:1"),
        (["ex:", "in:1"], "ex:"),
        (["ex:123", "ex:234", "in:3"], "ex:2"),  # the example of RFC 3376 §3.2
        (["in:12", "in:"], "in:12"),
    ],
)
def test_filters_merge_by_the_rules(parts: list[str], merged: str) -> None:
    """RFC 3376 §3.2: any EXCLUDE wins; its list is the intersection of the excludes less the includes."""
    assert merge_filters(map(wanted, parts)) == wanted(merged)


def test_merged_filter_admits_exactly_what_some_listener_admits() -> None:
    """RFC 4605 §4.1, over every pair of filters of three sources."""
    lists = ["", "1", "2", "12", "3", "13", "23", "123"]
    filters = [wanted(f"{mode}:{digits}") for mode in ("in", "ex") for digits in lists]
    for one, other in product(filters, filters):
        merged = merge_filters([one, other])
        for source in sources("1234"):
            assert merged.admits(source) == (one.admits(source) or other.admits(source)), (one, other, source)


# --- state changes


def membership(family: Family = Family.IPV4, size: int = 1400, robustness: int = 2) -> Membership:
    member = Membership(family, size, robustness)
    member.begin()
    while member.next_change_report():
        pass
    return member


def drain(member: Membership) -> list[GroupRecord]:
    """All records of changes that are to be told now; no report is empty."""
    records: list[GroupRecord] = []
    while member.has_changes:
        report = member.next_change_report()
        assert report
        records += report
    assert member.next_change_report() == ()
    return records


def settle(member: Membership, state: Filter, family: Family = Family.IPV4) -> None:
    """Set a filter, and tell it as often as it takes."""
    member.set(ip_address(GROUPS[family]), state)
    drain(member)
    while member.has_repeats:
        member.repeat()
        drain(member)


def as_sets(records: list[GroupRecord]) -> set[tuple[str, frozenset[Address]]]:
    assert len({record.type for record in records}) == len(records)
    return {(record.type.name, frozenset(record.sources)) for record in records}


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("in:12", "in:23", {("ALLOW_NEW_SOURCES", "3"), ("BLOCK_OLD_SOURCES", "1")}),
        ("ex:12", "ex:23", {("ALLOW_NEW_SOURCES", "1"), ("BLOCK_OLD_SOURCES", "3")}),
        ("in:12", "ex:23", {("CHANGE_TO_EXCLUDE", "23")}),
        ("ex:12", "in:23", {("CHANGE_TO_INCLUDE", "23")}),
        ("in:", "in:1", {("ALLOW_NEW_SOURCES", "1")}),
        ("in:1", "in:", {("BLOCK_OLD_SOURCES", "1")}),
        ("in:", "ex:", {("CHANGE_TO_EXCLUDE", "")}),
        ("ex:", "in:", {("CHANGE_TO_INCLUDE", "")}),
        ("in:1", "in:1", set()),
    ],
)
def test_change_is_told_with_its_records(before: str, after: str, expected: set, family: Family) -> None:
    """RFC 3376 §5.1, RFC 3810 §6.1: the table of filter-mode changes and source-list changes."""
    member = membership(family)
    settle(member, wanted(before, family), family)
    assert member.set(ip_address(GROUPS[family]), wanted(after, family)) == bool(expected)
    told = as_sets(drain(member))
    assert told == {(kind, frozenset(sources(digits, family))) for kind, digits in expected}


@pytest.mark.parametrize("robustness", [1, 2, 3])
def test_change_is_told_robustness_times(robustness: int) -> None:
    """RFC 3376 §5.1: [Robustness Variable] - 1 retransmissions."""
    member = membership(robustness=robustness)
    member.set(ip_address(GROUPS[Family.IPV4]), wanted("in:1"))
    times = 0
    while told := drain(member):
        assert as_sets(told) == {("ALLOW_NEW_SOURCES", frozenset(sources("1")))}
        times += 1
        member.repeat()
    assert times == robustness
    assert not member.has_repeats


def test_change_before_the_repetition_merges_with_it() -> None:
    """RFC 3376 §5.1: each source of a list change is told robustness times, the newest truth with it."""
    member = membership()
    group = ip_address(GROUPS[Family.IPV4])
    member.set(group, wanted("in:1"))
    assert as_sets(drain(member)) == {("ALLOW_NEW_SOURCES", frozenset(sources("1")))}
    member.set(group, wanted("in:2"))
    assert as_sets(drain(member)) == {
        ("ALLOW_NEW_SOURCES", frozenset(sources("2"))),
        ("BLOCK_OLD_SOURCES", frozenset(sources("1"))),
    }
    member.repeat()
    assert as_sets(drain(member)) == {
        ("ALLOW_NEW_SOURCES", frozenset(sources("2"))),
        ("BLOCK_OLD_SOURCES", frozenset(sources("1"))),
    }
    member.repeat()
    assert drain(member) == []


def test_mode_change_is_repeated_as_a_mode_change() -> None:
    """RFC 3376 §5.1: while a filter-mode change is to be repeated, changes of the list go out as mode changes."""
    member = membership()
    group = ip_address(GROUPS[Family.IPV4])
    member.set(group, wanted("ex:1"))
    drain(member)
    member.set(group, wanted("ex:12"))
    assert as_sets(drain(member)) == {("CHANGE_TO_EXCLUDE", frozenset(sources("12")))}


def test_query_is_answered_with_current_state() -> None:
    """RFC 3376 §5.2: one IS_IN or IS_EX for each group, none for a group nobody wants."""
    member = membership()
    one, other, gone = (ip_address(f"239.0.0.{number}") for number in (1, 2, 3))
    member.set(one, wanted("in:12"))
    member.set(other, wanted("ex:3"))
    member.set(gone, wanted("in:1"))
    member.set(gone, NOTHING)
    member.answer()
    records: list[GroupRecord] = []
    while report := member.next_answer_report():
        records += report
    assert {(record.type, record.group, frozenset(record.sources)) for record in records} == {
        (RecordType.MODE_IS_INCLUDE, one, frozenset(sources("12"))),
        (RecordType.MODE_IS_EXCLUDE, other, frozenset(sources("3"))),
    }
    assert not member.has_answers


@pytest.mark.parametrize(("family", "size"), [(Family.IPV4, 576), (Family.IPV4, 1400), (Family.IPV6, 1280)])
def test_long_source_list_is_split_over_reports_that_fit(family: Family, size: int) -> None:
    """RFC 3376 §4.2.16, RFC 3810 §5.2.15: several reports, each of them a whole record, none larger than the MTU."""
    member = membership(family, size)
    first = int(ip_address(PREFIXES[family] + "1"))
    kind = type(ip_address(PREFIXES[family] + "1"))
    many = frozenset(kind(first + number) for number in range(1000))
    group = ip_address(GROUPS[family])
    member.set(group, Filter.include(many))
    told: list[Address] = []
    while report := member.next_change_report():
        assert len(encode(Report(report), ip_address(SENDERS[family]))) <= size
        for record in report:
            assert (record.type, record.group) == (RecordType.ALLOW_NEW_SOURCES, group)
            told += record.sources
    assert sorted(told) == sorted(many)


def test_long_exclude_list_fits_one_report_by_excluding_less() -> None:
    """RFC 3376 §4.2.16: an IS_EX or TO_EX that does not fit is cut, what is left out is simply received."""
    member = membership(size=576)
    first = int(ip_address("192.0.2.1"))
    many = frozenset(type(ip_address("192.0.2.1"))(first + number) for number in range(1000))
    group = ip_address(GROUPS[Family.IPV4])
    member.set(group, Filter.exclude(many))
    reports = []
    while report := member.next_change_report():
        reports.append(report)
        assert len(encode(Report(report), ip_address(SENDERS[Family.IPV4]))) <= 576
    changes = [record for report in reports for record in report if record.type is RecordType.CHANGE_TO_EXCLUDE]
    assert len(changes) == 1
    assert set(changes[0].sources) <= many


def test_leave_reports_leave_every_group() -> None:
    """RFC 3376 §5.1: BLOCK of the sources of INCLUDE mode, TO_IN({}) out of EXCLUDE mode."""
    member = membership()
    member.set(ip_address("239.0.0.1"), wanted("in:12"))
    member.set(ip_address("239.0.0.2"), wanted("ex:3"))
    drain(member)
    told = {
        (record.type, record.group, frozenset(record.sources)) for report in member.leave_reports() for record in report
    }
    assert told == {
        (RecordType.BLOCK_OLD_SOURCES, ip_address("239.0.0.1"), frozenset(sources("12"))),
        (RecordType.CHANGE_TO_INCLUDE, ip_address("239.0.0.2"), frozenset()),
    }
    assert set(member.filters) == {ip_address("239.0.0.1"), ip_address("239.0.0.2")}


def test_nothing_is_told_while_nobody_listens() -> None:
    """RFC 7450 §5.2.3.6: no Update without a Query's MAC; the state is told with the first one."""
    member = Membership(Family.IPV4, 1400)
    group = ip_address(GROUPS[Family.IPV4])
    member.set(group, wanted("in:1"))
    assert not member.has_changes
    member.begin()
    assert [(record.group, set(record.sources)) for record in told(member)] == [(group, set(sources("1")))]
    member.repeat()
    assert [(record.group, set(record.sources)) for record in told(member)] == [(group, set(sources("1")))]
    member.end()
    member.set(group, wanted("in:2"))
    assert told(member) == []


def told(member: Membership) -> list[GroupRecord]:
    """Whatever is to be told now, as answer or as change."""
    records = drain(member)
    while report := member.next_answer_report():
        records += report
    return records


# --- what must not be joined


@pytest.mark.parametrize("group", ["224.0.0.5", "224.0.0.251", "224.0.0.1", "192.0.2.1", "0.0.0.0"])
def test_link_local_and_unicast_ipv4_groups_are_not_joined(group: str) -> None:
    """RFC 5771 §4 (224.0.0/24 is never forwarded); RFC 3376 §5 (224.0.0.1 is never reported)."""
    with pytest.raises(ValueError, match=r"."):
        Membership(Family.IPV4, 1400).set(ip_address(group), Filter.exclude())


@pytest.mark.parametrize("group", ["ff02::1", "ff01::1234", "ff12::5", "ff00::1", "2001:db8::1", "ff32::1"])
def test_link_local_and_narrower_ipv6_groups_are_not_joined(group: str) -> None:
    """RFC 4291 §2.7: scopes 0 (reserved), 1 (interface) and 2 (link), whatever the flags."""
    with pytest.raises(ValueError, match=r"."):
        Membership(Family.IPV6, 1400).set(ip_address(group), Filter.include(sources("1", Family.IPV6)))


@pytest.mark.parametrize(
    ("family", "group"),
    [(Family.IPV4, "232.0.0.1"), (Family.IPV4, "232.255.255.255"), (Family.IPV6, "ff3e::1"), (Family.IPV6, "ff35::1")],
)
def test_any_source_join_in_the_source_specific_range_is_refused(family: Family, group: str) -> None:
    """RFC 4607 §1, RFC 4604 §2.2: 232/8 and ff3x::/32 know no EXCLUDE mode."""
    member = membership(family)
    with pytest.raises(ValueError, match=r"."):
        member.set(ip_address(group), Filter.exclude())
    assert member.set(ip_address(group), Filter.include(sources("1", family)))


@pytest.mark.parametrize("source", ["224.0.0.1", "0.0.0.0", "127.0.0.1", "255.255.255.255", "2001:db8::1"])
def test_source_that_cannot_send_is_refused(source: str) -> None:
    """RFC 1122 §3.2.1.3: not the source of a routed packet; or of the other family."""
    with pytest.raises(ValueError, match=r"."):
        membership().set(ip_address("232.1.2.3"), Filter.include([ip_address(source)]))


@pytest.mark.parametrize(
    ("group", "forwardable"),
    [
        ("224.0.0.255", False),
        ("224.0.1.0", True),
        ("239.255.255.255", True),
        ("223.255.255.255", False),
        ("240.0.0.1", False),
        ("ff05::2", True),
        ("ff02::16", False),
        ("ff08::1", True),
        ("fe80::1", False),
    ],
)
def test_forwardable_groups(group: str, forwardable: bool) -> None:
    """RFC 5771 §3, §4; RFC 4291 §2.7."""
    assert is_forwardable_group(ip_address(group)) == forwardable


def test_channel_text() -> None:
    """RFC 4607 §2: a channel is a source and a group of one family."""
    assert Channel.parse("*", "239.1.2.3") == Channel(None, ip_address("239.1.2.3"))
    assert str(Channel.parse("192.0.2.1", "232.1.2.3")) != str(Channel.parse("*", "232.1.2.3"))
    for source, group in (("192.0.2.1", "ff3e::1"), ("192.0.2.1", "192.0.2.2"), ("x", "232.1.1.1"), ("1.2.3.4", "y")):
        with pytest.raises(ValueError, match=r"."):
            Channel.parse(source, group)
