"""(S,G) Assert machine (RFC 7761 §4.6.1): every cell of its table that shows outside.

Ours is 192.0.2.5 with preference 100 and metric 10; LOWER and HIGHER have a lower and a higher address. The timers are
those of §4.11: Assert_Time 180 s, which the winner anticipates by Assert_Override_Interval, 3 s.
"""

from __future__ import annotations

import pytest
from scripted.pim_peer import (
    FOREVER,
    HIGHER,
    LOWER,
    OTHER_GENERATION,
    OURS,
    THIRD,
    beside_neighbors,
    both_families,
    greet,
    group,
    hear,
    join,
    messages,
    router,
    run,
    sent,
    shared,
    source,
    tell,
)

from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim import PimInterface
from agent.protocol.pim_events import AssertChanged, AssertOutcome
from agent.protocol.wire.pim import Assert, Hello

NO_INFO, WINNER, LOSER = AssertOutcome.NO_INFO, AssertOutcome.WINNER, AssertOutcome.LOSER
OUR_METRIC = (100, 10)
INFERIOR, BETTER, BEST = (100, 11), (100, 9), (90, 900)
INFINITE = (0x7FFF_FFFF, 0xFFFF_FFFF)
SETTLED_AT, EVENT_AT = 10.0, 20.0
ASSERT_TIME, WINNER_TIME = 180.0, 177.0


def the_channel(family: Family = Family.IPV4) -> Channel:
    return Channel(source(1, family), group(1, family))


def says(metric: tuple[int, int], *, family: Family = Family.IPV4, rpt: bool = False) -> Assert:
    channel = the_channel(family)
    return Assert(channel.group, channel.source, *metric, rpt=rpt)


def tracking(family: Family = Family.IPV4, metric: tuple[int, int] | None = OUR_METRIC) -> PimInterface:
    """A machine that forwards the channel onto its link for a neighbour, beside three; nothing is left to drain."""
    machine = beside_neighbors(LOWER, HIGHER, THIRD, family=family)
    hear(machine, join(the_channel(family), holdtime=FOREVER), now=5.0)
    machine.set_forwarding(the_channel(family), metric, 5.0)
    drain(machine)
    return machine


def in_state(state: AssertOutcome, family: Family = Family.IPV4) -> PimInterface:
    """Settled at 10 s: won against LOWER, or lost to HIGHER, whose metric is BETTER."""
    machine = tracking(family)
    if state is not NO_INFO:
        number, metric = (LOWER, INFERIOR) if state is WINNER else (HIGHER, BETTER)
        hear(machine, says(metric, family=family), router(number, family), SETTLED_AT)
    drain(machine)
    assert machine.lost_assert(the_channel(family)) is (state is LOSER)
    return machine


def drain(machine: PimInterface) -> None:
    sent(machine)
    machine.events()


def told(machine: PimInterface, channel: Channel | None = None) -> list[tuple[AssertOutcome, Address | None]]:
    """What the owner was told of the channel since the last drain."""
    changes = tell(machine, AssertChanged)
    return [(change.outcome, change.winner) for change in changes if channel is None or change.channel == channel]


def asserts_until(machine: PimInterface, until: float) -> list[tuple[float, Assert]]:
    return [(now, packet.message) for now, packet in run(machine, until) if isinstance(packet.message, Assert)]


def our_assert(family: Family = Family.IPV4, metric: tuple[int, int] = OUR_METRIC) -> Assert:
    return says(metric, family=family)


# --- NoInfo


@both_families
@pytest.mark.parametrize("number", [LOWER, HIGHER])
@pytest.mark.parametrize("metric", [INFERIOR, (101, 0)])
def test_an_inferior_assert_in_no_info_makes_us_winner(family, number, metric) -> None:
    """A1: send an Assert, timer to Assert_Time less the override interval, we are the winner."""
    machine = in_state(NO_INFO, family)
    hear(machine, says(metric, family=family), router(number, family), EVENT_AT)
    assert messages(machine, Assert) == [our_assert(family)]
    assert told(machine) == [(WINNER, router(OURS, family))]
    assert asserts_until(machine, EVENT_AT + WINNER_TIME) == [(EVENT_AT + WINNER_TIME, our_assert(family))]


@both_families
@pytest.mark.parametrize("metric", [BEST, INFERIOR])
def test_an_assert_with_the_rpt_bit_in_no_info_makes_us_winner(family, metric) -> None:
    """Whatever its metric: the RPT bit compares first."""
    machine = in_state(NO_INFO, family)
    hear(machine, says(metric, family=family, rpt=True), router(HIGHER, family), EVENT_AT)
    assert messages(machine, Assert) == [our_assert(family)]
    assert told(machine) == [(WINNER, router(OURS, family))]


@both_families
def test_data_on_the_link_in_no_info_makes_us_winner(family) -> None:
    machine = in_state(NO_INFO, family)
    machine.data_received(the_channel(family), EVENT_AT)
    assert messages(machine, Assert) == [our_assert(family)]
    assert told(machine) == [(WINNER, router(OURS, family))]
    assert asserts_until(machine, EVENT_AT + WINNER_TIME) == [(EVENT_AT + WINNER_TIME, our_assert(family))]


def test_data_on_the_link_we_do_not_forward_onto_says_nothing() -> None:
    machine = tracking(metric=None)
    machine.data_received(the_channel(), EVENT_AT)
    assert messages(machine, Assert) == []
    assert told(machine) == []


@both_families
@pytest.mark.parametrize("metric", [BETTER, BEST])
def test_an_acceptable_assert_in_no_info_makes_us_loser(family, metric) -> None:
    """A6: remember the winner for Assert_Time."""
    machine = in_state(NO_INFO, family)
    hear(machine, says(metric, family=family), router(LOWER, family), EVENT_AT)
    assert messages(machine, Assert) == []
    assert told(machine) == [(LOSER, router(LOWER, family))]
    run(machine, EVENT_AT + ASSERT_TIME - 0.01)
    assert machine.lost_assert(the_channel(family))
    run(machine, EVENT_AT + ASSERT_TIME)
    assert not machine.lost_assert(the_channel(family))


@pytest.mark.parametrize(("number", "outcome"), [(LOWER, WINNER), (HIGHER, LOSER)])
@both_families
def test_of_equal_metrics_the_higher_address_wins(family, number, outcome) -> None:
    """§4.6.3."""
    machine = in_state(NO_INFO, family)
    hear(machine, says(OUR_METRIC, family=family), router(number, family), EVENT_AT)
    assert [what for what, _ in told(machine)] == [outcome]


def test_an_assert_for_a_channel_nobody_tracks_is_ignored() -> None:
    machine = beside_neighbors(LOWER)
    for metric in (BEST, INFERIOR, INFINITE):
        hear(machine, says(metric), now=EVENT_AT)
    assert messages(machine, Assert) == []
    assert told(machine) == []
    assert not machine.lost_assert(the_channel())


def test_a_joined_channel_we_cannot_forward_yet_tracks_a_winner() -> None:
    """AssertTrackingDesired without CouldAssert: our metric is infinite and every finite one acceptable."""
    machine = tracking(metric=None)
    hear(machine, says((0x7FFF_FFFE, 5)), now=EVENT_AT)
    assert told(machine) == [(LOSER, router(LOWER))]


def test_a_cancel_is_never_acceptable() -> None:
    machine = tracking(metric=None)
    hear(machine, says(INFINITE, rpt=True), now=EVENT_AT)
    assert told(machine) == []


# --- Winner


@both_families
@pytest.mark.parametrize("rpt", [False, True])
def test_an_inferior_assert_to_the_winner_is_answered(family, rpt) -> None:
    """A3: send an Assert, restart the timer. Any Assert with the RPT bit is inferior."""
    machine = in_state(WINNER, family)
    hear(machine, says(BEST if rpt else INFERIOR, family=family, rpt=rpt), router(HIGHER, family), EVENT_AT)
    assert messages(machine, Assert) == [our_assert(family)]
    assert told(machine) == []
    assert asserts_until(machine, EVENT_AT + WINNER_TIME) == [(EVENT_AT + WINNER_TIME, our_assert(family))]


@both_families
def test_the_winner_repeats_its_assert_when_its_timer_expires(family) -> None:
    machine = in_state(WINNER, family)
    again = [(SETTLED_AT + count * WINNER_TIME, our_assert(family)) for count in (1, 2)]
    assert asserts_until(machine, SETTLED_AT + 400.0) == again
    assert told(machine) == []


@both_families
def test_a_preferred_assert_makes_the_winner_loser(family) -> None:
    """A2."""
    machine = in_state(WINNER, family)
    hear(machine, says(BETTER, family=family), router(LOWER, family), EVENT_AT)
    assert told(machine) == [(LOSER, router(LOWER, family))]
    assert asserts_until(machine, EVENT_AT + ASSERT_TIME) == []
    assert told(machine) == [(NO_INFO, None)]


@both_families
def test_the_winner_that_stops_forwarding_cancels_its_assert(family) -> None:
    """A4: an infinite metric with the RPT bit that names the source (§4.6.4)."""
    machine = in_state(WINNER, family)
    machine.set_forwarding(the_channel(family), None, EVENT_AT)
    assert messages(machine, Assert) == [says(INFINITE, family=family, rpt=True)]
    assert told(machine) == [(NO_INFO, None)]
    assert asserts_until(machine, EVENT_AT + 400.0) == []


def test_data_on_the_link_after_the_win_leaves_the_state_alone() -> None:
    """No event of the table; the Assert may be repeated, at most once in Assert_Override_Interval."""
    machine = in_state(WINNER)
    said = []
    for tenth in range(100):
        machine.data_received(the_channel(), EVENT_AT + tenth / 10)
        said += messages(machine, Assert)
    assert told(machine) == []
    assert len(said) <= 4


# --- Loser


@both_families
def test_a_preferred_assert_of_another_replaces_the_winner(family) -> None:
    machine = in_state(LOSER, family)
    hear(machine, says(BEST, family=family), router(LOWER, family), EVENT_AT)
    assert told(machine) == [(LOSER, router(LOWER, family))]
    run(machine, EVENT_AT + ASSERT_TIME - 0.01)
    assert machine.lost_assert(the_channel(family))
    run(machine, EVENT_AT + ASSERT_TIME)
    assert not machine.lost_assert(the_channel(family))


@both_families
@pytest.mark.parametrize("metric", [BETTER, (100, 10), BEST])
def test_an_acceptable_assert_of_the_winner_restarts_the_timer(family, metric) -> None:
    """Even when its metric got worse but is still better than ours; HIGHER wins at equal metrics."""
    machine = in_state(LOSER, family)
    hear(machine, says(metric, family=family), router(HIGHER, family), EVENT_AT)
    run(machine, EVENT_AT + ASSERT_TIME - 0.01)
    assert machine.lost_assert(the_channel(family))
    run(machine, EVENT_AT + ASSERT_TIME)
    assert not machine.lost_assert(the_channel(family))


@pytest.mark.parametrize("metric", [INFERIOR, OUR_METRIC, (100, 9)])
def test_an_assert_of_another_that_is_not_preferred_changes_nothing(metric) -> None:
    machine = in_state(LOSER)
    hear(machine, says(metric), router(LOWER), EVENT_AT)
    assert told(machine) == []
    assert messages(machine, Assert) == []
    run(machine, SETTLED_AT + ASSERT_TIME)
    assert not machine.lost_assert(the_channel())


@pytest.mark.parametrize("number", [LOWER, THIRD])
def test_an_rpt_assert_of_another_never_moves_the_loser(number) -> None:
    machine = in_state(LOSER)
    hear(machine, says(BEST, rpt=True), router(number), EVENT_AT)
    assert told(machine) == []


@both_families
@pytest.mark.parametrize(("metric", "rpt"), [(INFERIOR, False), (BEST, True), (INFINITE, True)])
def test_an_inferior_assert_or_cancel_of_the_winner_ends_the_state(family, metric, rpt) -> None:
    """A5."""
    machine = in_state(LOSER, family)
    hear(machine, says(metric, family=family, rpt=rpt), router(HIGHER, family), EVENT_AT)
    assert told(machine) == [(NO_INFO, None)]
    assert not machine.lost_assert(the_channel(family))


@both_families
def test_the_timer_ends_loser(family) -> None:
    machine = in_state(LOSER, family)
    run(machine, SETTLED_AT + ASSERT_TIME - 0.01)
    assert told(machine) == []
    run(machine, SETTLED_AT + ASSERT_TIME)
    assert told(machine) == [(NO_INFO, None)]


@pytest.mark.parametrize("how", ["restart", "goodbye", "expiry"])
def test_a_winner_that_restarts_or_goes_ends_the_state(how) -> None:
    machine = in_state(LOSER)
    if how == "restart":
        greet(machine, HIGHER, EVENT_AT, holdtime=FOREVER, generation_id=OTHER_GENERATION)
    elif how == "goodbye":
        hear(machine, Hello(holdtime=0), router(HIGHER), EVENT_AT)
    else:
        greet(machine, HIGHER, 15.0, holdtime=5)
        run(machine, EVENT_AT)
    assert told(machine) == [(NO_INFO, None)]


def test_another_router_that_restarts_does_not_end_the_state() -> None:
    machine = in_state(LOSER)
    greet(machine, LOWER, EVENT_AT, holdtime=FOREVER, generation_id=OTHER_GENERATION)
    assert told(machine) == []
    assert machine.lost_assert(the_channel())


def test_a_loser_keeps_tracking_while_a_neighbour_asks_for_the_channel() -> None:
    """CouldAssert became false, AssertTrackingDesired did not; its end is that of the Join."""
    machine = beside_neighbors(LOWER, HIGHER)
    hear(machine, join(the_channel(), holdtime=100), now=0.0)
    machine.set_forwarding(the_channel(), OUR_METRIC, 0.0)
    hear(machine, says(BETTER), router(HIGHER), SETTLED_AT)
    drain(machine)
    machine.set_forwarding(the_channel(), None, EVENT_AT)
    assert told(machine) == []
    run(machine, 100.0)
    assert told(machine) == [(NO_INFO, None)]


def test_an_interface_that_no_longer_leads_to_the_source_ends_loser() -> None:
    machine = beside_neighbors(LOWER, HIGHER)
    machine.join_upstream(the_channel(), router(LOWER), 5.0)
    hear(machine, says(BETTER), router(HIGHER), SETTLED_AT)
    assert told(machine) == [(LOSER, router(HIGHER))]
    machine.prune_upstream(the_channel(), EVENT_AT)
    assert told(machine) == [(NO_INFO, None)]


def test_assert_tracking_no_longer_desired_ends_loser() -> None:
    machine = beside_neighbors(LOWER, HIGHER)
    hear(machine, join(the_channel(), holdtime=100), now=0.0)
    machine.set_forwarding(the_channel(), OUR_METRIC, 0.0)
    hear(machine, says(BETTER), router(HIGHER), SETTLED_AT)
    drain(machine)
    run(machine, 100.0)  # the Join expires
    machine.set_forwarding(the_channel(), None, 100.0)
    assert told(machine) == [(NO_INFO, None)]


@both_families
def test_a_metric_that_becomes_better_than_the_winners_ends_loser(family) -> None:
    machine = in_state(LOSER, family)
    machine.set_forwarding(the_channel(family), (100, 9), EVENT_AT)  # equal, and the winner's address is higher
    assert told(machine) == []
    machine.set_forwarding(the_channel(family), (100, 8), EVENT_AT)
    assert told(machine) == [(NO_INFO, None)]


@both_families
def test_a_join_to_us_ends_loser(family) -> None:
    """A downstream router that asks us, not the winner, has not heard who won."""
    machine = in_state(LOSER, family)
    hear(machine, join(the_channel(family)), router(LOWER, family), EVENT_AT)
    assert told(machine) == [(NO_INFO, None)]


def test_a_join_to_another_does_not_end_loser() -> None:
    machine = in_state(LOSER)
    hear(machine, join(the_channel(), upstream=router(HIGHER)), router(LOWER), EVENT_AT)
    hear(machine, join(Channel(source(1), shared(1))), router(LOWER), EVENT_AT)
    assert told(machine, the_channel()) == []


# --- Whose Asserts count (§4.6)


@pytest.mark.parametrize("state", [NO_INFO, WINNER, LOSER])
@pytest.mark.parametrize("metric", [INFERIOR, BEST])
def test_asserts_of_who_never_said_hello_are_dropped(state, metric) -> None:
    machine = in_state(state)
    hear(machine, says(metric), router(9), EVENT_AT)
    assert told(machine) == []
    assert messages(machine, Assert) == []
    assert machine.refused.total() == 1
