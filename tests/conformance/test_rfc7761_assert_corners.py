"""Asserts where the tables meet other rules (RFC 7761 §4.6, §4.3.1): cancels, the way to the source, Hellos."""

from __future__ import annotations

import pytest
from scripted.pim_peer import (
    FOREVER,
    HIGHER,
    LOWER,
    THIRD,
    beside_neighbors,
    both_families,
    family_of,
    greet,
    hear,
    join,
    messages,
    plain,
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
from agent.protocol.wire.pim import Assert, Hello, JoinPrune

INFINITE = (0x7FFF_FFFF, 0xFFFF_FFFF)
JOINED_AT, SETTLED_AT, EVENT_AT = 5.0, 10.0, 20.0


def leaf(family: Family = Family.IPV4) -> Channel:
    return Channel(source(1, family), shared(1, family))


def says(metric: tuple[int, int], channel: Channel, *, rpt: bool = False) -> Assert:
    return Assert(channel.group, channel.source, *metric, rpt=rpt)


def forwarding(*channels: Channel) -> PimInterface:
    """A machine that forwards these onto its link at (100, 10), beside three others; nothing is left to drain."""
    machine = beside_neighbors(LOWER, HIGHER, THIRD, family=channels[0].family)
    for channel in channels:
        hear(machine, join(channel, holdtime=FOREVER), now=JOINED_AT)
        machine.set_forwarding(channel, (100, 10), JOINED_AT)
    drain(machine)
    return machine


def towards_source(family: Family = Family.IPV4) -> PimInterface:
    """A machine that joined from LOWER, and heard HIGHER win an Assert at (100, 10); nothing is left to drain."""
    machine = beside_neighbors(LOWER, HIGHER, THIRD, family=family)
    machine.join_upstream(leaf(family), router(LOWER, family), JOINED_AT)
    hear(machine, says((100, 10), leaf(family)), router(HIGHER, family), SETTLED_AT)
    run(machine, SETTLED_AT)
    drain(machine)
    return machine


def drain(machine: PimInterface) -> None:
    sent(machine)
    machine.events()


def told(machine: PimInterface) -> list[tuple[AssertOutcome, Address | None]]:
    return [(change.outcome, change.winner) for change in tell(machine, AssertChanged)]


def asked(machine: PimInterface, until: float) -> set[Address]:
    """Whom the channel is joined from until then."""
    wanted = plain(leaf(family_of(machine)).source)
    joins = [packet.message for _, packet in run(machine, until) if isinstance(packet.message, JoinPrune)]
    return {message.upstream for message in joins if any(wanted in item.joins for item in message.groups)}


# --- §4.6.4: a cancel lets others take over


@both_families
@pytest.mark.parametrize("channel", ["(S,G)", "(*,G)"])
def test_who_forwards_too_takes_over_at_a_cancel(family, channel) -> None:
    asserted = leaf(family) if channel == "(S,G)" else Channel(None, shared(1, family))
    machine = forwarding(asserted)
    hear(machine, says(INFINITE, asserted, rpt=True), router(HIGHER, family), EVENT_AT)
    (said,) = messages(machine, Assert)
    assert (said.preference, said.metric, said.source) == (100, 10, asserted.source)
    assert [outcome for outcome, _ in told(machine)] == [AssertOutcome.WINNER]


def test_a_cancel_of_another_than_the_winner_frees_no_loser() -> None:
    machine = forwarding(leaf())
    hear(machine, says((90, 0), leaf()), router(HIGHER), SETTLED_AT)
    drain(machine)
    hear(machine, says(INFINITE, leaf(), rpt=True), router(LOWER), EVENT_AT)
    assert told(machine) == []
    assert machine.lost_assert(leaf())


# --- The interface towards the source: our metric is infinite there (§4.6.3)


@both_families
def test_a_cancel_of_the_winner_leads_the_join_back(family) -> None:
    machine = towards_source(family)
    hear(machine, says(INFINITE, leaf(family), rpt=True), router(HIGHER, family), EVENT_AT)
    assert told(machine) == [(AssertOutcome.NO_INFO, None)]
    assert asked(machine, 100.0) == {router(LOWER, family)}


@both_families
@pytest.mark.parametrize("metric", [(100, 9), (100, 11), (0x7FFF_FFFE, 0)])
def test_any_metric_of_the_winner_keeps_it(family, metric) -> None:
    """Nothing finite is inferior to infinity: the timer is restarted."""
    machine = towards_source(family)
    hear(machine, says(metric, leaf(family)), router(HIGHER, family), EVENT_AT)
    assert asked(machine, EVENT_AT + 179.9) == {router(HIGHER, family)}


def test_a_better_assert_of_another_moves_the_join() -> None:
    machine = towards_source()
    hear(machine, says((100, 9), leaf()), router(THIRD), EVENT_AT)
    assert asked(machine, 100.0) == {router(THIRD)}


def test_an_assert_worse_than_the_winners_moves_nothing() -> None:
    machine = towards_source()
    hear(machine, says((100, 11), leaf()), router(THIRD), EVENT_AT)
    assert asked(machine, 100.0) == {router(HIGHER)}


def test_a_finite_rpt_assert_of_the_winner_is_no_event_of_the_source() -> None:
    machine = towards_source()
    hear(machine, says((0, 0), leaf(), rpt=True), router(HIGHER), EVENT_AT)
    assert told(machine) == []
    assert asked(machine, 100.0) == {router(HIGHER)}


@pytest.mark.parametrize("how", ["goodbye", "restart"])
def test_a_winner_that_goes_or_restarts_leads_the_join_back(how) -> None:
    machine = towards_source()
    if how == "goodbye":
        hear(machine, Hello(holdtime=0), router(HIGHER), EVENT_AT)
    else:
        greet(machine, HIGHER, EVENT_AT, holdtime=FOREVER, generation_id=1)
    assert asked(machine, 100.0) == {router(LOWER)}


def test_data_towards_us_claims_nothing() -> None:
    machine = towards_source()
    machine.data_received(leaf(), EVENT_AT)
    assert messages(machine, Assert) == []


# --- §4.3.1: a Hello goes before the first Assert to somebody new


def test_an_assert_after_a_new_neighbour_waits_for_no_delay_but_follows_a_hello() -> None:
    machine = beside_neighbors(LOWER, random=0.9)
    hear(machine, join(leaf(), holdtime=FOREVER), now=JOINED_AT)
    machine.set_forwarding(leaf(), (100, 10), JOINED_AT)
    run(machine, SETTLED_AT)
    greet(machine, HIGHER, EVENT_AT)
    machine.data_received(leaf(), EVENT_AT)
    assert [type(packet.message) for packet in sent(machine)] == [Hello, Assert]


# --- §4.6.2: an Assert for a source of the tree we forward; the tree's own state stays


@both_families
def test_a_source_lost_to_its_own_tree_is_free_again_after_assert_time(family) -> None:
    tree = Channel(None, shared(1, family))
    machine = forwarding(tree)
    hear(machine, says((200, 200), leaf(family)), router(HIGHER, family), EVENT_AT)
    assert machine.lost_assert(leaf(family))
    run(machine, EVENT_AT + 180.0)
    assert not machine.lost_assert(leaf(family))
    assert not machine.lost_assert(tree)


@both_families
def test_a_join_of_the_source_frees_it_and_not_the_tree(family) -> None:
    tree = Channel(None, shared(1, family))
    machine = forwarding(tree)
    hear(machine, says((90, 0), tree, rpt=True), router(HIGHER, family), SETTLED_AT)
    hear(machine, says((90, 0), leaf(family)), router(HIGHER, family), SETTLED_AT)
    drain(machine)
    hear(machine, join(leaf(family)), router(LOWER, family), EVENT_AT)
    assert [(change.channel, change.outcome) for change in tell(machine, AssertChanged)] == [
        (leaf(family), AssertOutcome.NO_INFO)
    ]
    assert machine.lost_assert(tree)
