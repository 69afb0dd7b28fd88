"""Asserts: one router of a link forwards, and another takes over when it cannot."""

from __future__ import annotations

import itertools
from ipaddress import ip_address

import pytest

from agent.protocol.channels import Channel, Family
from agent.protocol.gateway_state import NoTransition
from agent.protocol.pim_assert import AssertTable
from agent.protocol.pim_assert_state import (
    INFINITE_METRIC,
    INFINITE_PREFERENCE,
    TRANSITIONS,
    AssertMetric,
    AssertTrigger,
    transition,
)
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_events import AssertChanged, AssertOutcome
from agent.protocol.wire.pim import Assert

NO_INFO, WINNER, LOSER = AssertOutcome
CONFIG = PimConfig(assert_time=180.0, assert_override_interval=3.0)
OURS, LOWER, HIGHER = (ip_address(f"192.0.2.{number}") for number in (10, 5, 20))
GROUP = ip_address("239.1.1.1")
SOURCE = ip_address("203.0.113.5")
CHANNEL = Channel(SOURCE, GROUP)
SHARED = Channel(None, GROUP)


def table(*channels: Channel, metric: tuple[int, int] = (200, 10)) -> AssertTable:
    """A table at 192.0.2.10 that can forward these channels."""
    asserts = AssertTable(CONFIG, Family.IPV4, OURS)
    for channel in channels:
        asserts.set_forwarding(channel, metric, 0.0)
    return asserts


def claim(preference: int, metric: int = 10, *, channel: Channel = CHANNEL, rpt: bool | None = None) -> Assert:
    return Assert(channel.group, channel.source, preference, metric, channel.source is None if rpt is None else rpt)


CANCEL = Assert(GROUP, SOURCE, INFINITE_PREFERENCE, INFINITE_METRIC, rpt=True)


def won(*channels: Channel) -> AssertTable:
    asserts = table(*channels)
    asserts.data_received(CHANNEL, 0.0)
    asserts.messages()
    asserts.events()
    return asserts


def lost(*channels: Channel) -> AssertTable:
    """Lost to 192.0.2.20 at time 0."""
    asserts = table(*channels)
    asserts.receive(claim(100, channel=channels[0]), HIGHER, 0.0)
    asserts.messages()
    asserts.events()
    return asserts


# --- metrics


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ((False, 200, 50, LOWER), (True, 1, 1, HIGHER)),
        ((False, 100, 50, LOWER), (False, 101, 1, HIGHER)),
        ((False, 100, 49, LOWER), (False, 100, 50, HIGHER)),
        ((False, 100, 50, HIGHER), (False, 100, 50, LOWER)),
        ((True, 100, 50, LOWER), (True, INFINITE_PREFERENCE, 1, HIGHER)),
    ],
)
def test_metrics_compare_bit_preference_metric_and_address(better: tuple, worse: tuple) -> None:
    """RFC 7761 §4.6.3."""
    first, second = AssertMetric(*better), AssertMetric(*worse)
    assert first.is_better_than(second)
    assert not second.is_better_than(first)
    assert first.is_better_than(None)
    assert not first.is_better_than(first)


def test_infinite_metric_is_never_better() -> None:
    infinite = AssertMetric(True, INFINITE_PREFERENCE, INFINITE_METRIC, HIGHER)
    assert not infinite.is_better_than(None)
    assert not infinite.is_better_than(infinite)


# --- the table


def test_moves_outside_the_table_are_refused() -> None:
    moves = set(itertools.product(AssertOutcome, AssertTrigger))
    for state, trigger in moves - set(TRANSITIONS):
        with pytest.raises(NoTransition):
            transition(state, trigger)
    assert len(moves - set(TRANSITIONS)) == 18


def test_every_state_and_trigger_of_the_table_is_used() -> None:
    assert {state for state, _ in TRANSITIONS} == set(AssertOutcome)
    assert {trigger for _, trigger in TRANSITIONS} == set(AssertTrigger)


# --- winning


def test_data_where_we_forward_claims_the_channel() -> None:
    asserts = table(CHANNEL)
    asserts.data_received(CHANNEL, 5.0)
    assert asserts.messages() == [Assert(GROUP, SOURCE, 200, 10)]
    assert asserts.events() == [AssertChanged(CHANNEL, WINNER, OURS)]
    assert asserts.next_deadline() == 5.0 + 180 - 3
    asserts.data_received(CHANNEL, 6.0)
    assert asserts.messages() == [], "said once, not for every packet"
    assert not asserts.lost(CHANNEL)


def test_data_although_we_won_makes_us_say_so_again_but_not_for_every_packet() -> None:
    asserts = won(CHANNEL)
    for tenth in range(1, 100):
        asserts.data_received(CHANNEL, tenth / 10)
        if tenth % 30:
            assert asserts.messages() == []
        else:
            assert asserts.messages() == [Assert(GROUP, SOURCE, 200, 10)]
    assert asserts.next_deadline() == 9.0 + 177.0


def test_data_we_do_not_forward_claims_nothing() -> None:
    asserts = table()
    asserts.data_received(CHANNEL, 5.0)
    assert asserts.messages() == []
    assert asserts.next_deadline() is None


def test_data_of_the_shared_tree_claims_the_group() -> None:
    asserts = table(SHARED)
    asserts.data_received(CHANNEL, 5.0)
    assert asserts.messages() == [Assert(GROUP, None, 200, 10, rpt=True)]
    assert asserts.outcome(SHARED) is WINNER
    assert asserts.outcome(CHANNEL) is NO_INFO


def test_winner_repeats_its_assert_before_losers_forget() -> None:
    asserts = won(CHANNEL)
    asserts.handle_timer(177.0)
    assert asserts.messages() == [Assert(GROUP, SOURCE, 200, 10)]
    assert asserts.next_deadline() == 177.0 + 177.0
    assert asserts.events() == []


def test_winner_answers_an_inferior_assert() -> None:
    asserts = won(CHANNEL)
    asserts.receive(claim(201), HIGHER, 10.0)
    assert asserts.messages() == [Assert(GROUP, SOURCE, 200, 10)]
    assert asserts.next_deadline() == 187.0
    assert asserts.outcome(CHANNEL) is WINNER


def test_inferior_assert_is_answered_although_nothing_was_known() -> None:
    asserts = table(CHANNEL)
    asserts.receive(claim(200), LOWER, 10.0)
    assert asserts.messages() == [Assert(GROUP, SOURCE, 200, 10)]
    assert asserts.winner(CHANNEL) == OURS


def test_group_claim_is_answered_for_a_source_we_have() -> None:
    """RFC 7761 §4.6.1: an Assert with the RPT bit, whatever its metric."""
    asserts = table(CHANNEL)
    asserts.receive(claim(1, rpt=True), HIGHER, 10.0)
    assert asserts.messages() == [Assert(GROUP, SOURCE, 200, 10)]


def test_winner_that_cannot_forward_cancels() -> None:
    asserts = won(CHANNEL)
    asserts.set_forwarding(CHANNEL, None, 10.0)
    assert asserts.messages() == [CANCEL]
    assert asserts.events() == [AssertChanged(CHANNEL, NO_INFO, None)]
    assert asserts.next_deadline() is None


def test_winner_says_its_new_metric() -> None:
    asserts = won(CHANNEL)
    asserts.set_forwarding(CHANNEL, (50, 1), 10.0)
    assert asserts.messages() == [Assert(GROUP, SOURCE, 50, 1)]
    assert asserts.events() == []


def test_winner_says_it_again_from_a_new_address() -> None:
    asserts = won(CHANNEL)
    asserts.set_address(LOWER, 10.0)
    assert asserts.messages() == [Assert(GROUP, SOURCE, 200, 10)]
    assert asserts.events() == [AssertChanged(CHANNEL, WINNER, LOWER)]


def test_without_an_address_everything_is_forgotten_and_nothing_claimed() -> None:
    asserts = won(CHANNEL)
    asserts.set_address(None, 10.0)
    assert asserts.events() == [AssertChanged(CHANNEL, NO_INFO, None)]
    asserts.data_received(CHANNEL, 11.0)
    assert asserts.messages() == []
    assert asserts.next_deadline() is None


# --- losing


def test_preferred_assert_takes_the_channel_from_the_winner() -> None:
    asserts = won(CHANNEL)
    asserts.receive(claim(100), LOWER, 10.0)
    assert asserts.events() == [AssertChanged(CHANNEL, LOSER, LOWER)]
    assert asserts.messages() == []
    assert asserts.lost(CHANNEL)
    assert asserts.next_deadline() == 190.0


def test_equal_metrics_are_settled_by_the_higher_address() -> None:
    asserts = won(CHANNEL)
    asserts.receive(claim(200), LOWER, 10.0)
    assert asserts.outcome(CHANNEL) is WINNER
    asserts.receive(claim(200), HIGHER, 11.0)
    assert asserts.outcome(CHANNEL) is LOSER


def test_equal_metrics_on_ipv6_are_settled_by_the_higher_address() -> None:
    channel = Channel(ip_address("2001:db8::5"), ip_address("ff3e::1"))
    asserts = AssertTable(CONFIG, Family.IPV6, ip_address("fe80::10"))
    asserts.set_forwarding(channel, (200, 10), 0.0)
    asserts.receive(claim(200, channel=channel), ip_address("fe80::9"), 1.0)
    assert asserts.outcome(channel) is WINNER
    asserts.receive(claim(200, channel=channel), ip_address("fe80::11"), 1.0)
    assert asserts.outcome(channel) is LOSER


def test_pending_claim_is_not_sent_once_it_is_lost() -> None:
    asserts = table(CHANNEL)
    asserts.data_received(CHANNEL, 0.0)
    asserts.receive(claim(100), LOWER, 0.0)
    assert asserts.messages() == []


def test_loser_follows_a_better_winner_and_its_repeats() -> None:
    asserts = lost(CHANNEL)
    asserts.receive(claim(99), LOWER, 10.0)
    assert asserts.events() == [AssertChanged(CHANNEL, LOSER, LOWER)]
    asserts.receive(claim(120), LOWER, 20.0)
    assert asserts.next_deadline() == 200.0, "the winner's metric became worse, but is still better than ours"
    asserts.receive(claim(130), HIGHER, 21.0)
    assert asserts.winner(CHANNEL) == LOWER
    assert asserts.events() == []


@pytest.mark.parametrize(
    ("name", "free"),
    [
        ("its winner is no longer heard", lambda asserts: asserts.handle_timer(180.0)),
        ("its winner is gone", lambda asserts: asserts.neighbor_gone(HIGHER, 10.0)),
        ("its winner cancels", lambda asserts: asserts.receive(CANCEL, HIGHER, 10.0)),
        ("its winner became worse than us", lambda asserts: asserts.receive(claim(201), HIGHER, 10.0)),
        ("our metric became better", lambda asserts: asserts.set_forwarding(CHANNEL, (99, 0), 10.0)),
        ("we cannot forward", lambda asserts: asserts.set_forwarding(CHANNEL, None, 10.0)),
        ("somebody joins with us", lambda asserts: asserts.join_received(CHANNEL, 10.0)),
        ("we have no address", lambda asserts: asserts.set_address(None, 10.0)),
    ],
)
def test_loser_is_free_again_when(name: str, free) -> None:
    asserts = lost(CHANNEL)
    free(asserts)
    assert asserts.events() == [AssertChanged(CHANNEL, NO_INFO, None)], name
    assert asserts.messages() == []
    assert asserts.next_deadline() is None
    assert len(asserts) == 0


@pytest.mark.parametrize(
    ("name", "happens"),
    [
        ("another neighbour is gone", lambda asserts: asserts.neighbor_gone(LOWER, 10.0)),
        ("a cancel of another", lambda asserts: asserts.receive(CANCEL, LOWER, 10.0)),
        ("a worse assert of another", lambda asserts: asserts.receive(claim(150), LOWER, 10.0)),
        ("our metric became worse", lambda asserts: asserts.set_forwarding(CHANNEL, (250, 0), 10.0)),
        ("data", lambda asserts: asserts.data_received(CHANNEL, 10.0)),
        ("a join of the group", lambda asserts: asserts.join_received(SHARED, 10.0)),
        ("another address of ours", lambda asserts: asserts.set_address(ip_address("192.0.2.200"), 10.0)),
        ("our own assert", lambda asserts: asserts.receive(claim(1), OURS, 10.0)),
        ("an assert of another family", lambda asserts: asserts.receive(
            Assert(ip_address("ff3e::1"), ip_address("2001:db8::5"), 1, 1), HIGHER, 10.0)),
    ],
)  # fmt: skip
def test_loser_stays_one_after(name: str, happens) -> None:
    asserts = lost(CHANNEL)
    happens(asserts)
    assert asserts.winner(CHANNEL) == HIGHER, name
    assert asserts.messages() == []


def test_higher_address_of_ours_takes_over_from_an_equal_winner() -> None:
    asserts = table(CHANNEL)
    asserts.receive(claim(200), HIGHER, 0.0)
    assert asserts.outcome(CHANNEL) is LOSER
    asserts.set_address(ip_address("192.0.2.200"), 10.0)
    assert asserts.outcome(CHANNEL) is NO_INFO


# --- where the channel comes from


def test_upstream_assert_tells_whom_to_join() -> None:
    asserts = AssertTable(CONFIG, Family.IPV4, OURS)
    asserts.receive(claim(100), LOWER, 0.0)
    assert asserts.events() == [], "nobody asked for it"
    asserts.set_tracking(CHANNEL, True, 0.0)
    asserts.receive(CANCEL, LOWER, 1.0)
    assert asserts.events() == []
    asserts.receive(claim(100), LOWER, 1.0)
    asserts.receive(claim(90), HIGHER, 1.0)
    assert [event.winner for event in asserts.events()] == [LOWER, HIGHER]
    asserts.set_tracking(CHANNEL, False, 2.0)
    assert asserts.events() == [AssertChanged(CHANNEL, NO_INFO, None)]


def test_loser_stays_one_while_either_reason_to_track_holds() -> None:
    asserts = lost(CHANNEL)
    asserts.set_tracking(CHANNEL, True, 1.0)
    asserts.set_forwarding(CHANNEL, None, 2.0)
    assert asserts.outcome(CHANNEL) is LOSER


def test_end_of_tracking_leaves_what_we_won() -> None:
    asserts = won(CHANNEL)
    asserts.set_tracking(CHANNEL, True, 1.0)
    asserts.set_tracking(CHANNEL, True, 1.0)
    asserts.set_tracking(CHANNEL, False, 2.0)
    assert asserts.outcome(CHANNEL) is WINNER


def test_without_an_address_others_are_followed_all_the_same() -> None:
    asserts = AssertTable(CONFIG, Family.IPV4)
    asserts.set_address(None, 0.0)
    asserts.set_forwarding(CHANNEL, (1, 1), 0.0)
    asserts.receive(claim(100), LOWER, 1.0)
    assert asserts.winner(CHANNEL) == LOWER


# --- (*,G) beside (S,G)


def test_source_claim_of_another_takes_that_source_off_our_shared_tree() -> None:
    """RFC 7761 §4.6.1: AssertTrackingDesired(S,G) holds by (*,G) alone."""
    asserts = table(SHARED)
    asserts.receive(claim(250), LOWER, 0.0)
    assert asserts.events() == [AssertChanged(CHANNEL, LOSER, LOWER)]
    assert not asserts.lost(SHARED)
    asserts.set_forwarding(SHARED, None, 1.0)
    assert asserts.events() == [AssertChanged(CHANNEL, NO_INFO, None)]


def test_group_claim_that_names_a_source_is_for_the_group_when_the_source_is_unknown() -> None:
    asserts = table(SHARED)
    asserts.receive(claim(100, rpt=True), LOWER, 0.0)
    assert asserts.events() == [AssertChanged(SHARED, LOSER, LOWER)]
    assert asserts.lost(CHANNEL), "lost_assert(*,G) stands for its sources"


def test_message_that_moved_the_source_does_not_move_the_group() -> None:
    """RFC 7761 §4.6.2."""
    asserts = table(CHANNEL, SHARED)
    asserts.receive(claim(100, rpt=True), LOWER, 0.0)
    assert asserts.outcome(CHANNEL) is WINNER
    assert asserts.outcome(SHARED) is NO_INFO


def test_source_claim_never_moves_the_group() -> None:
    asserts = won(SHARED)
    asserts.receive(claim(1, channel=Channel(ip_address("203.0.113.99"), GROUP)), HIGHER, 1.0)
    assert asserts.outcome(SHARED) is WINNER


def test_source_of_ours_is_not_lost_with_the_group() -> None:
    asserts = table(CHANNEL, SHARED)
    asserts.receive(claim(100, channel=SHARED), LOWER, 0.0)
    assert asserts.outcome(SHARED) is LOSER
    assert not asserts.lost(CHANNEL)


def test_group_is_cancelled_with_the_rpt_bit() -> None:
    asserts = won(SHARED)
    asserts.set_forwarding(SHARED, None, 1.0)
    assert asserts.messages() == [Assert(GROUP, None, INFINITE_PREFERENCE, INFINITE_METRIC, rpt=True)]


def test_winner_of_a_source_without_its_own_tree_any_more_cancels() -> None:
    asserts = won(CHANNEL, SHARED)
    asserts.set_forwarding(CHANNEL, None, 1.0)
    assert asserts.messages() == [CANCEL]


# --- bounds


def test_standings_are_bounded() -> None:
    asserts = AssertTable(PimConfig(max_channels=3), Family.IPV4, OURS)
    asserts.set_forwarding(SHARED, (200, 10), 0.0)
    for number in range(10):
        asserts.receive(claim(1, channel=Channel(SOURCE + number, GROUP)), HIGHER, 0.0)
    assert len(asserts) == 3
    assert asserts.refused == {"too_many_asserts": 7}


def test_asserts_of_what_nobody_wants_leave_no_trace() -> None:
    asserts = table()
    for number in range(10):
        asserts.receive(claim(1, channel=Channel(SOURCE + number, GROUP)), HIGHER, 0.0)
        asserts.receive(claim(1, channel=Channel(None, GROUP + number)), HIGHER, 0.0)
    assert len(asserts) == 0
    assert asserts.next_deadline() is None


def test_timers_are_run_a_share_at_a_time() -> None:
    asserts = table(*(Channel(SOURCE + number, GROUP) for number in range(10)))
    for number in range(10):
        asserts.data_received(Channel(SOURCE + number, GROUP), 0.0)
    asserts.messages()
    asserts.handle_timer(177.0, limit=4)
    assert len(asserts.messages()) == 4
    assert asserts.next_deadline() == 177.0
    asserts.handle_timer(177.0)
    assert len(asserts.messages()) == 6
    assert asserts.next_deadline() == 354.0


def test_many_words_of_one_channel_are_one_message() -> None:
    asserts = won(CHANNEL)
    for _ in range(100):
        asserts.receive(claim(250), LOWER, 1.0)
    assert len(asserts.messages()) == 1


def test_channel_of_another_family_is_not_forwarded() -> None:
    channel = Channel(ip_address("2001:db8::5"), ip_address("ff3e::1"))
    asserts = table(channel)
    asserts.set_tracking(channel, True, 0.0)
    asserts.data_received(channel, 0.0)
    assert asserts.messages() == []
