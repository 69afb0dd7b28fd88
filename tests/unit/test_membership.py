"""Host-side reports: what is told on a change, again, on a query, and how it is cut to packets."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scripted.call_count import count_calls

from agent.protocol.channels import NOTHING, Family, Filter
from agent.protocol.membership import Membership
from agent.protocol.wire import group_packet
from agent.protocol.wire.groups import GroupRecord, RecordType, Report

GROUP = ip_address("232.1.1.1")
ANY_SOURCE_GROUP = ip_address("239.1.1.1")
A, B, C = (ip_address(f"198.51.100.{last}") for last in (1, 2, 3))
ALLOW, BLOCK = RecordType.ALLOW_NEW_SOURCES, RecordType.BLOCK_OLD_SOURCES
TO_IN, TO_EX = RecordType.CHANGE_TO_INCLUDE, RecordType.CHANGE_TO_EXCLUDE
IS_IN, IS_EX = RecordType.MODE_IS_INCLUDE, RecordType.MODE_IS_EXCLUDE


def changes(membership):
    return [record for report in iter(membership.next_change_report, ()) for record in report]


def answers(membership):
    return [record for report in iter(membership.next_answer_report, ()) for record in report]


@pytest.fixture
def membership():
    heard = Membership(Family.IPV4, 1460)
    heard.begin()
    return heard


def settled(membership, group, state):
    membership.set(group, state)
    while membership.has_repeats:
        membership.repeat()
        changes(membership)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (NOTHING, Filter.include([A]), [(ALLOW, (A,))]),
        (Filter.include([A]), NOTHING, [(BLOCK, (A,))]),
        (Filter.include([A, B]), Filter.include([B, C]), [(ALLOW, (C,)), (BLOCK, (A,))]),
        (NOTHING, Filter.exclude([A]), [(TO_EX, (A,))]),
        (Filter.exclude(), NOTHING, [(TO_IN, ())]),
        (Filter.exclude([A]), Filter.include([B, A]), [(TO_IN, (A, B))]),
        (Filter.include([A]), Filter.exclude([B]), [(TO_EX, (B,))]),
        (Filter.exclude([A, B]), Filter.exclude([B, C]), [(ALLOW, (A,)), (BLOCK, (C,))]),
    ],
)
def test_rfc3376_5_1_a_change_is_told_robustness_times(membership, old, new, told):
    settled(membership, ANY_SOURCE_GROUP, old)
    membership.set(ANY_SOURCE_GROUP, new)
    expected = [GroupRecord(kind, ANY_SOURCE_GROUP, sources) for kind, sources in told]
    assert changes(membership) == expected
    assert not membership.has_changes
    membership.repeat()
    assert changes(membership) == expected
    assert not membership.has_repeats
    membership.repeat()
    assert changes(membership) == []


def test_a_later_change_is_merged_with_what_is_still_to_be_repeated(membership):
    membership.set(GROUP, Filter.include([A]))
    assert changes(membership) == [GroupRecord(ALLOW, GROUP, (A,))]
    membership.set(GROUP, Filter.include([A, B]))
    assert changes(membership) == [GroupRecord(ALLOW, GROUP, (A, B))]  # A for the last time, B for the first
    membership.repeat()
    assert changes(membership) == [GroupRecord(ALLOW, GROUP, (B,))]
    assert not membership.has_repeats


def test_a_source_change_during_a_mode_change_rides_on_the_mode_record(membership):
    membership.set(ANY_SOURCE_GROUP, Filter.exclude([A]))
    membership.set(ANY_SOURCE_GROUP, Filter.exclude([A, B]))
    assert changes(membership) == [GroupRecord(TO_EX, ANY_SOURCE_GROUP, (A, B))]
    membership.set(ANY_SOURCE_GROUP, Filter.exclude([A, B, C]))
    membership.repeat()
    assert changes(membership) == [GroupRecord(TO_EX, ANY_SOURCE_GROUP, (A, B, C))]
    membership.repeat()
    assert changes(membership) == [GroupRecord(BLOCK, ANY_SOURCE_GROUP, (C,))]
    assert not membership.has_repeats


def test_a_join_taken_back_before_it_was_told_ends_as_a_leave(membership):
    membership.set(GROUP, Filter.include([A]))
    membership.set(GROUP, NOTHING)
    assert changes(membership) == [GroupRecord(BLOCK, GROUP, (A,))]


def test_rfc3376_5_2_a_query_is_answered_with_the_state_of_every_group(membership):
    settled(membership, GROUP, Filter.include([B, A]))
    settled(membership, ANY_SOURCE_GROUP, Filter.exclude([C]))
    answers(membership)
    membership.answer()
    assert answers(membership) == [
        GroupRecord(IS_IN, GROUP, (A, B)),
        GroupRecord(IS_EX, ANY_SOURCE_GROUP, (C,)),
    ]


def test_an_answer_says_what_is_true_when_it_leaves(membership):
    settled(membership, GROUP, Filter.include([A]))
    membership.answer()
    membership.set(GROUP, NOTHING)
    assert answers(membership) == []
    assert changes(membership) == [GroupRecord(BLOCK, GROUP, (A,))]


def test_the_rest_of_a_split_answer_never_revives_a_source_that_was_left():
    membership = Membership(Family.IPV4, 32 + 8 + 4 * 10)  # ten sources a report
    sources = [ip_address(f"198.51.100.{last}") for last in range(1, 26)]
    membership.begin()
    settled(membership, GROUP, Filter.include(sources))
    membership.answer()
    (first,) = membership.next_answer_report()
    assert first.sources == tuple(sources[:10])
    membership.set(GROUP, Filter.include(sources[:20]))
    assert {source for record in answers(membership) for source in record.sources} == set(sources[:20])


def test_while_nobody_listens_a_change_is_state_only():
    membership = Membership(Family.IPV4, 1460)
    assert membership.set(GROUP, Filter.include([A]))
    assert not membership.has_changes
    membership.repeat()
    assert changes(membership) == []
    assert membership.filters == {GROUP: Filter.include([A])}


def test_a_new_router_hears_the_state_and_hears_it_again_as_changes():
    membership = Membership(Family.IPV4, 1460, robustness=3)
    membership.set(GROUP, Filter.include([A]))
    membership.set(ANY_SOURCE_GROUP, Filter.exclude())
    membership.begin()
    assert answers(membership) == [GroupRecord(IS_IN, GROUP, (A,)), GroupRecord(IS_EX, ANY_SOURCE_GROUP, ())]
    for _ in range(2):
        membership.repeat()
        assert changes(membership) == [GroupRecord(ALLOW, GROUP, (A,)), GroupRecord(TO_EX, ANY_SOURCE_GROUP, ())]
    assert not membership.has_repeats


def test_with_robustness_one_nothing_is_told_twice():
    membership = Membership(Family.IPV4, 1460, robustness=1)
    membership.set(GROUP, Filter.include([A]))
    membership.begin()
    assert not membership.has_repeats
    membership.set(GROUP, NOTHING)
    assert changes(membership) == [GroupRecord(BLOCK, GROUP, (A,))]
    assert not membership.has_repeats


def test_end_forgets_what_was_to_be_told_but_not_what_is_wanted(membership):
    membership.set(GROUP, Filter.include([A]))
    membership.end()
    assert not membership.listening
    assert not membership.has_changes
    assert not membership.has_answers
    assert not membership.has_repeats
    assert membership.filters == {GROUP: Filter.include([A])}


def test_leave_reports_leave_every_group_and_repeat_leaves_not_settled(membership):
    left, mode_left = ip_address("232.1.1.9"), ip_address("239.1.1.9")
    for group, state in [
        (GROUP, Filter.include([A])),
        (ANY_SOURCE_GROUP, Filter.exclude([B])),
        (left, Filter.include([C])),
        (mode_left, Filter.exclude()),
    ]:
        settled(membership, group, state)
    membership.set(left, NOTHING)
    membership.set(mode_left, NOTHING)
    told = {record for report in membership.leave_reports() for record in report}
    assert told == {
        GroupRecord(BLOCK, GROUP, (A,)),
        GroupRecord(TO_IN, ANY_SOURCE_GROUP, ()),
        GroupRecord(BLOCK, left, (C,)),
        GroupRecord(TO_IN, mode_left, ()),
    }
    assert set(membership.filters) == {GROUP, ANY_SOURCE_GROUP}


@pytest.mark.parametrize(
    ("group", "state"),
    [
        ("192.0.2.1", Filter.include([A])),
        ("224.0.0.5", Filter.include([A])),
        ("232.1.1.1", Filter.exclude()),
        ("232.1.1.1", Filter.exclude([A])),
        ("232.1.1.1", Filter.include([ip_address("2001:db8::1")])),
        ("232.1.1.1", Filter.include([ip_address("232.1.1.2")])),
        ("ff3e::1", Filter.include([ip_address("2001:db8::1")])),
    ],
)
def test_what_must_not_be_joined_is_refused_and_changes_nothing(membership, group, state):
    with pytest.raises(ValueError):
        membership.set(ip_address(group), state)
    assert not membership.filters
    assert not membership.has_changes


@pytest.mark.parametrize(
    ("group", "state"),
    [
        ("ff02::5", Filter.include([ip_address("2001:db8::1")])),
        ("ff01::5", Filter.exclude()),
        ("ff3e::8000:1", Filter.exclude()),
    ],
)
def test_mld_refuses_link_local_groups_and_any_source_joins_in_the_ssm_range(group, state):
    with pytest.raises(ValueError):
        Membership(Family.IPV6, 1440).set(ip_address(group), state)


@pytest.mark.parametrize("family", Family)
def test_many_groups_are_split_into_reports_that_fit_and_lose_nothing(family):
    base, source = {
        Family.IPV4: ("232.0.0.0", A),
        Family.IPV6: ("ff3e::8000:0", ip_address("2001:db8::1")),
    }[family]
    size = 1440
    membership = Membership(family, size)
    groups = [ip_address(base) + offset for offset in range(1, 1001)]
    for group in groups:
        membership.set(group, Filter.include([source]))
    membership.begin()
    reporter = ip_address("0.0.0.0" if family is Family.IPV4 else "fe80::2")
    told, sizes = [], []
    for records in iter(membership.next_answer_report, ()):
        told += [record.group for record in records]
        sizes.append(len(group_packet.encode(Report(records), reporter)))
    assert told == groups
    assert max(sizes) <= size
    assert min(sizes[:-1]) > size - 4 - 2 * 16  # all but the last are full: one more record would not have fitted


def test_rfc3376_4_2_16_a_long_include_list_is_split_and_a_long_exclude_list_truncated():
    membership = Membership(Family.IPV4, 32 + 8 + 4 * 100)
    sources = tuple(ip_address("198.51.0.0") + offset for offset in range(1, 251))
    membership.begin()
    membership.set(GROUP, Filter.include(sources))
    membership.set(ANY_SOURCE_GROUP, Filter.exclude(sources))
    reports = list(iter(membership.next_change_report, ()))
    assert reports == [
        (GroupRecord(ALLOW, GROUP, sources[:100]),),
        (GroupRecord(ALLOW, GROUP, sources[100:200]),),
        (GroupRecord(ALLOW, GROUP, sources[200:]),),
        (GroupRecord(TO_EX, ANY_SOURCE_GROUP, sources[:100]),),
    ]


def test_the_rest_of_a_split_change_to_include_does_not_take_back_its_beginning():
    membership = Membership(Family.IPV4, 32 + 8 + 4 * 100)
    sources = tuple(ip_address("198.51.0.0") + offset for offset in range(1, 151))
    membership.begin()
    settled(membership, ANY_SOURCE_GROUP, Filter.exclude())
    membership.set(ANY_SOURCE_GROUP, Filter.include(sources))
    assert changes(membership) == [
        GroupRecord(TO_IN, ANY_SOURCE_GROUP, sources[:100]),
        GroupRecord(ALLOW, ANY_SOURCE_GROUP, sources[100:]),
    ]


def test_setting_a_group_costs_the_same_among_twenty_thousand_others(membership):
    groups = [ip_address("232.0.0.0") + offset for offset in range(1, 20001)]

    def cost(part):
        return count_calls(lambda: [membership.set(group, Filter.include([A])) for group in part])

    first = cost(groups[:200])
    cost(groups[200:19800])
    assert cost(groups[19800:]) == first


def test_telling_ten_times_the_groups_costs_ten_times_as_much():
    def cost(count):
        membership = Membership(Family.IPV4, 1400)
        membership.begin()
        for offset in range(1, count + 1):
            membership.set(ip_address("232.0.0.0") + offset, Filter.include([A]))
        told = []
        calls = count_calls(lambda: told.extend(changes(membership)))
        assert len(told) == count
        return calls

    assert cost(20_000) < 11 * cost(2000)
