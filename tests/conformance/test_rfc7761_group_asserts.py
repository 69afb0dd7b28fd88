"""(*,G) Assert machine, and which of the two machines an Assert is for (RFC 7761 §4.6.2), from outside.

We are the RP of the group and forward its shared tree with preference 100 and metric 10 onto a link with other routers.
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


def tree(family: Family = Family.IPV4) -> Channel:
    return Channel(None, shared(1, family))


def leaf(family: Family = Family.IPV4) -> Channel:
    return Channel(source(1, family), shared(1, family))


def says(metric: tuple[int, int], channel: Channel, *, rpt: bool = True) -> Assert:
    return Assert(channel.group, channel.source, *metric, rpt=rpt)


def tracking(*channels: Channel) -> PimInterface:
    """A machine that forwards these onto its link for a neighbour, beside three; nothing is left to drain."""
    machine = beside_neighbors(LOWER, HIGHER, THIRD, family=channels[0].family)
    for channel in channels:
        hear(machine, join(channel, holdtime=FOREVER), now=5.0)
        machine.set_forwarding(channel, OUR_METRIC, 5.0)
    drain(machine)
    return machine


def in_state(state: AssertOutcome, family: Family = Family.IPV4) -> PimInterface:
    """Of the tree: won against LOWER, or lost to HIGHER whose metric is BETTER, at 10 s."""
    machine = tracking(tree(family))
    if state is not NO_INFO:
        number, metric = (LOWER, INFERIOR) if state is WINNER else (HIGHER, BETTER)
        hear(machine, says(metric, tree(family)), router(number, family), SETTLED_AT)
    drain(machine)
    assert machine.lost_assert(tree(family)) is (state is LOSER)
    return machine


def drain(machine: PimInterface) -> None:
    sent(machine)
    machine.events()


def told(machine: PimInterface) -> list[tuple[Channel, AssertOutcome, Address | None]]:
    return [(change.channel, change.outcome, change.winner) for change in tell(machine, AssertChanged)]


def asserts_until(machine: PimInterface, until: float) -> list[tuple[float, Assert]]:
    return [(now, packet.message) for now, packet in run(machine, until) if isinstance(packet.message, Assert)]


def settled_on(number: int, outcome: AssertOutcome, family: Family, channel: Channel | None = None) -> list:
    return [(channel or tree(family), outcome, router(number, family))]


# --- NoInfo


@both_families
def test_an_inferior_assert_in_no_info_makes_us_winner(family) -> None:
    """A1."""
    machine = in_state(NO_INFO, family)
    hear(machine, says(INFERIOR, tree(family)), router(HIGHER, family), EVENT_AT)
    ours = says(OUR_METRIC, tree(family))
    assert messages(machine, Assert) == [ours]
    assert told(machine) == settled_on(OURS, WINNER, family)
    assert asserts_until(machine, EVENT_AT + WINNER_TIME) == [(EVENT_AT + WINNER_TIME, ours)]


@both_families
def test_data_on_the_link_in_no_info_makes_us_winner(family) -> None:
    """The source may be that of the packet that triggered it, or zero (§4.9.6); the RPT bit is set."""
    machine = in_state(NO_INFO, family)
    machine.data_received(leaf(family), EVENT_AT)
    (said,) = messages(machine, Assert)
    assert said in {says(OUR_METRIC, tree(family)), says(OUR_METRIC, leaf(family))}
    assert told(machine) == settled_on(OURS, WINNER, family)


@both_families
@pytest.mark.parametrize("metric", [BETTER, BEST])
def test_an_acceptable_assert_in_no_info_makes_us_loser(family, metric) -> None:
    """A2."""
    machine = in_state(NO_INFO, family)
    hear(machine, says(metric, tree(family)), router(LOWER, family), EVENT_AT)
    assert messages(machine, Assert) == []
    assert told(machine) == settled_on(LOWER, LOSER, family)
    run(machine, EVENT_AT + ASSERT_TIME - 0.01)
    assert machine.lost_assert(tree(family))
    run(machine, EVENT_AT + ASSERT_TIME)
    assert not machine.lost_assert(tree(family))


def test_asserts_for_a_tree_nobody_tracks_are_ignored() -> None:
    machine = beside_neighbors(LOWER)
    for metric in (BEST, INFERIOR, INFINITE):
        hear(machine, says(metric, tree()), now=EVENT_AT)
    assert messages(machine, Assert) == []
    assert told(machine) == []


# --- Winner


@both_families
def test_an_inferior_assert_to_the_winner_is_answered(family) -> None:
    """A3."""
    machine = in_state(WINNER, family)
    hear(machine, says(INFERIOR, tree(family)), router(HIGHER, family), EVENT_AT)
    ours = says(OUR_METRIC, tree(family))
    assert messages(machine, Assert) == [ours]
    assert told(machine) == []
    assert asserts_until(machine, EVENT_AT + WINNER_TIME) == [(EVENT_AT + WINNER_TIME, ours)]


@both_families
def test_the_winner_repeats_its_assert_when_its_timer_expires(family) -> None:
    machine = in_state(WINNER, family)
    again = [(SETTLED_AT + count * WINNER_TIME, says(OUR_METRIC, tree(family))) for count in (1, 2)]
    assert asserts_until(machine, SETTLED_AT + 400.0) == again


@both_families
def test_a_preferred_assert_makes_the_winner_loser(family) -> None:
    machine = in_state(WINNER, family)
    hear(machine, says(BETTER, tree(family)), router(LOWER, family), EVENT_AT)
    assert told(machine) == settled_on(LOWER, LOSER, family)
    assert asserts_until(machine, EVENT_AT + ASSERT_TIME) == []
    assert told(machine) == [(tree(family), NO_INFO, None)]


@both_families
def test_the_winner_that_stops_forwarding_cancels_its_assert(family) -> None:
    """A4: infinite metric, RPT bit, and zero for a source (§4.6.4)."""
    machine = in_state(WINNER, family)
    machine.set_forwarding(tree(family), None, EVENT_AT)
    assert messages(machine, Assert) == [says(INFINITE, tree(family))]
    assert told(machine) == [(tree(family), NO_INFO, None)]


# --- Loser


@both_families
def test_a_preferred_assert_of_another_replaces_the_winner(family) -> None:
    machine = in_state(LOSER, family)
    hear(machine, says(BEST, tree(family)), router(LOWER, family), EVENT_AT)
    assert told(machine) == settled_on(LOWER, LOSER, family)
    run(machine, EVENT_AT + ASSERT_TIME - 0.01)
    assert machine.lost_assert(tree(family))


@both_families
def test_an_acceptable_assert_of_the_winner_restarts_the_timer(family) -> None:
    machine = in_state(LOSER, family)
    hear(machine, says(OUR_METRIC, tree(family)), router(HIGHER, family), EVENT_AT)
    run(machine, EVENT_AT + ASSERT_TIME - 0.01)
    assert machine.lost_assert(tree(family))
    run(machine, EVENT_AT + ASSERT_TIME)
    assert not machine.lost_assert(tree(family))


@pytest.mark.parametrize("metric", [INFERIOR, OUR_METRIC])
def test_an_assert_of_another_that_is_not_preferred_changes_nothing(metric) -> None:
    machine = in_state(LOSER)
    hear(machine, says(metric, tree()), router(LOWER), EVENT_AT)
    assert told(machine) == []
    run(machine, SETTLED_AT + ASSERT_TIME)
    assert not machine.lost_assert(tree())


@both_families
@pytest.mark.parametrize("metric", [INFERIOR, INFINITE])
def test_an_inferior_assert_or_cancel_of_the_winner_ends_the_state(family, metric) -> None:
    machine = in_state(LOSER, family)
    hear(machine, says(metric, tree(family)), router(HIGHER, family), EVENT_AT)
    assert told(machine) == [(tree(family), NO_INFO, None)]


@pytest.mark.parametrize("how", ["restart", "goodbye", "timer"])
def test_a_winner_that_goes_or_a_timer_ends_the_state(how) -> None:
    machine = in_state(LOSER)
    if how == "restart":
        greet(machine, HIGHER, EVENT_AT, holdtime=FOREVER, generation_id=OTHER_GENERATION)
    elif how == "goodbye":
        hear(machine, Hello(holdtime=0), router(HIGHER), EVENT_AT)
    else:
        run(machine, SETTLED_AT + ASSERT_TIME)
    assert told(machine) == [(tree(), NO_INFO, None)]


@both_families
def test_a_metric_that_becomes_better_than_the_winners_ends_loser(family) -> None:
    machine = in_state(LOSER, family)
    machine.set_forwarding(tree(family), (100, 8), EVENT_AT)
    assert told(machine) == [(tree(family), NO_INFO, None)]


def test_assert_tracking_no_longer_desired_ends_loser() -> None:
    machine = beside_neighbors(LOWER, HIGHER)
    hear(machine, join(tree(), holdtime=100), now=0.0)
    machine.set_forwarding(tree(), OUR_METRIC, 0.0)
    hear(machine, says(BETTER, tree()), router(HIGHER), SETTLED_AT)
    drain(machine)
    run(machine, 100.0)
    machine.set_forwarding(tree(), None, 100.0)
    assert told(machine) == [(tree(), NO_INFO, None)]


@both_families
def test_a_join_of_the_tree_to_us_ends_loser(family) -> None:
    machine = in_state(LOSER, family)
    hear(machine, join(tree(family)), router(LOWER, family), EVENT_AT)
    assert told(machine) == [(tree(family), NO_INFO, None)]


def test_a_join_of_the_tree_to_another_or_of_a_source_does_not_end_loser() -> None:
    machine = in_state(LOSER)
    hear(machine, join(tree(), upstream=router(HIGHER)), router(LOWER), EVENT_AT)
    hear(machine, join(leaf()), router(LOWER), EVENT_AT)
    assert machine.lost_assert(tree())


# --- Which machine an Assert is for (§4.6.2)


@both_families
def test_an_rpt_assert_that_names_a_source_moves_the_tree_when_nothing_is_known_of_the_source(family) -> None:
    machine = in_state(NO_INFO, family)
    hear(machine, says(BETTER, leaf(family)), router(LOWER, family), EVENT_AT)
    assert told(machine) == settled_on(LOWER, LOSER, family)


@both_families
def test_an_assert_for_a_source_beats_our_tree(family) -> None:
    """§4.6.3: without the RPT bit it is better than any (*,G) metric; AssertTrackingDesired(S,G) holds by the tree."""
    machine = in_state(NO_INFO, family)
    hear(machine, says(INFERIOR, leaf(family), rpt=False), router(LOWER, family), EVENT_AT)
    assert told(machine) == settled_on(LOWER, LOSER, family, leaf(family))
    assert machine.lost_assert(leaf(family))
    assert not machine.lost_assert(tree(family))


@both_families
@pytest.mark.parametrize("metric", [BEST, INFERIOR])
def test_an_rpt_assert_that_moves_the_source_does_not_move_the_tree(family, metric) -> None:
    machine = tracking(tree(family), leaf(family))
    hear(machine, says(metric, leaf(family)), router(HIGHER, family), EVENT_AT)
    assert told(machine) == settled_on(OURS, WINNER, family, leaf(family))


@both_families
def test_an_assert_for_a_source_that_is_settled_does_not_move_the_tree(family) -> None:
    machine = tracking(tree(family), leaf(family))
    hear(machine, says(BETTER, leaf(family), rpt=False), router(HIGHER, family), SETTLED_AT)
    drain(machine)
    hear(machine, says(BEST, leaf(family)), router(LOWER, family), EVENT_AT)
    assert told(machine) == []


@both_families
def test_an_assert_for_the_tree_leaves_the_source_alone(family) -> None:
    machine = tracking(tree(family), leaf(family))
    hear(machine, says(BEST, tree(family)), router(LOWER, family), EVENT_AT)
    assert told(machine) == settled_on(LOWER, LOSER, family)
    assert not machine.lost_assert(leaf(family))


@pytest.mark.parametrize("state", [NO_INFO, WINNER, LOSER])
def test_an_assert_without_the_rpt_bit_never_moves_the_tree(state) -> None:
    machine = in_state(state)
    hear(machine, says(BEST, leaf(), rpt=False), router(LOWER), EVENT_AT)
    assert [channel for channel, _, _ in told(machine)] == [leaf()]
