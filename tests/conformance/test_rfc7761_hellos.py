"""Neighbours (RFC 7761 §4.3): sending and receiving Hellos, DR election, LAN prune delay, secondary addresses.

Intervals and holdtimes are those of §4.11: Hello_Period 30 s, Triggered_Hello_Delay 5 s, holdtime 3.5 periods.
"""

from __future__ import annotations

import pytest
from scripted.pim_peer import (
    DELAY,
    FOREVER,
    GENERATION,
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
    interface,
    join,
    messages,
    router,
    run,
    secondary,
    sent,
    source,
    tell,
)

from agent.protocol.channels import Channel, Family
from agent.protocol.pim import PimInterface
from agent.protocol.pim_events import DesignatedRouterChanged, NeighborDown, NeighborLostReason, NeighborUp
from agent.protocol.pim_packet import ALL_PIM_ROUTERS
from agent.protocol.wire.pim import Hello, JoinPrune, LanPruneDelay


def hellos(machine: PimInterface, until: float) -> list[float]:
    return [now for now, packet in run(machine, until) if isinstance(packet.message, Hello)]


def alone(family: Family = Family.IPV4, **options: object) -> PimInterface:
    """A machine without neighbours that said its first Hello at 0."""
    return beside_neighbors(family=family, **options)


# --- §4.3.1: sending Hellos


@pytest.mark.parametrize(("random", "first"), [(0.0, 0.0), (0.5, 2.5), (0.9, 4.5)])
def test_the_first_hello_comes_at_random_within_the_triggered_hello_delay(random, first) -> None:
    assert hellos(interface(random=random), 10.0) == [first]


def test_hellos_come_every_period() -> None:
    assert hellos(interface(), 100.0) == [0.0, 30.0, 60.0, 90.0]


@both_families
def test_a_hello_carries_the_options_of_the_specification(family) -> None:
    machine = interface(family, dr_priority=7, propagation_delay=0.7, override_interval=3.0)
    machine.set_address(router(OURS, family), [secondary(1, family)], 0)
    (said,) = [packet for _, packet in run(machine, 1.0)]
    assert said.message == Hello(105, LanPruneDelay(700, 3000), 7, GENERATION, (secondary(1, family),))
    assert (said.source, said.destination) == (router(OURS, family), ALL_PIM_ROUTERS[family])
    assert said.ttl == 1


@pytest.mark.parametrize(("interval", "holdtime"), [(30.0, 105), (10.0, 35), (1.0, 3)])
def test_the_holdtime_told_is_three_and_a_half_periods(interval, holdtime) -> None:
    machine = interface(hello_interval=interval)
    machine.handle_timer(0)
    assert messages(machine, Hello)[0].holdtime == holdtime


@pytest.mark.parametrize(("random", "delay"), [(0.0, 0.0), (0.5, 2.5)])
@pytest.mark.parametrize("why", ["new", "restarted"])
def test_a_new_or_restarted_neighbour_is_answered_within_the_triggered_hello_delay(random, delay, why) -> None:
    machine = beside_neighbors(*([LOWER] if why == "restarted" else []), random=random)
    run(machine, 10.0)
    greet(machine, LOWER, 10.0, holdtime=FOREVER, generation_id=OTHER_GENERATION)
    assert hellos(machine, 20.0)[0] == 10.0 + delay


def test_a_known_neighbour_triggers_no_hello() -> None:
    machine = beside_neighbors(LOWER)
    greet(machine, LOWER, 10.0, holdtime=FOREVER)
    assert hellos(machine, 29.0) == []


def test_a_join_after_a_new_neighbour_waits_for_no_delay_but_follows_a_hello() -> None:
    """A neighbour that restarted drops Joins until it knows us; the Hello goes out at once before the Join."""
    machine = beside_neighbors(random=0.9)
    run(machine, 10.0)
    greet(machine, LOWER, 10.0)
    machine.join_upstream(Channel(source(1), group(1)), router(LOWER), 11.0)
    assert [type(packet.message) for packet in sent(machine)] == [Hello, JoinPrune]


def test_the_generation_id_stays_until_a_restart() -> None:
    machine = interface()
    ids = {packet.message.generation_id for _, packet in run(machine, 100.0)}
    machine.stop(100.0)
    sent(machine)
    machine.start(101.0)
    again = {packet.message.generation_id for _, packet in run(machine, 200.0)}
    assert len(ids) == len(again) == 1
    assert ids != again


@both_families
def test_goodbye_is_said_with_holdtime_0(family) -> None:
    machine = alone(family)
    machine.stop(10.0)
    assert [packet.message.holdtime for packet in sent(machine)] == [0]
    assert machine.next_deadline() is None


@both_families
def test_a_new_primary_address_says_goodbye_from_the_old_one(family) -> None:
    machine = alone(family)
    machine.set_address(router(9, family), (), 10.0)
    said = [packet for _, packet in run(machine, 16.0)]
    assert [(packet.source, packet.message.holdtime) for packet in said] == [
        (router(OURS, family), 0),
        (router(9, family), 105),
    ]


def test_other_secondary_addresses_are_told_at_once() -> None:
    machine = alone()
    machine.set_address(router(OURS), [secondary(1)], 10.0)
    assert [hello.addresses for hello in messages(machine, Hello)] == [(secondary(1),)]


# --- §4.3.1: receiving Hellos


@both_families
def test_a_hello_makes_a_neighbour_for_its_holdtime(family) -> None:
    machine = alone(family)
    greet(machine, LOWER, 10.0, holdtime=40)
    assert tell(machine, NeighborUp) == [NeighborUp(router(LOWER, family))]
    run(machine, 49.99)
    assert [view.address for view in machine.neighbors()] == [router(LOWER, family)]
    run(machine, 50.0)
    assert machine.neighbors() == []
    assert tell(machine, NeighborDown) == [NeighborDown(router(LOWER, family), NeighborLostReason.EXPIRED)]


@pytest.mark.parametrize("holdtime", [200, 20])
def test_each_hello_restarts_the_liveness_timer_to_its_own_holdtime(holdtime) -> None:
    machine = alone()
    greet(machine, LOWER, 10.0, holdtime=100)
    greet(machine, LOWER, 20.0, holdtime=holdtime)
    (view,) = machine.neighbors()
    assert view.expires == 20.0 + holdtime


def test_a_hello_without_holdtime_is_good_for_the_default() -> None:
    machine = alone()
    greet(machine, LOWER, 10.0, holdtime=None)
    assert machine.neighbors()[0].expires == 10.0 + 105


def test_holdtime_ffff_never_expires() -> None:
    machine = alone()
    greet(machine, LOWER, 10.0, holdtime=FOREVER)
    run(machine, 100_000.0)
    assert machine.neighbors()[0].expires is None


def test_holdtime_0_ends_the_neighbour_at_once() -> None:
    machine = beside_neighbors(LOWER)
    hear(machine, Hello(holdtime=0), router(LOWER), 10.0)
    assert machine.neighbors() == []
    assert tell(machine, NeighborDown) == [NeighborDown(router(LOWER), NeighborLostReason.GOODBYE)]


def test_a_goodbye_of_a_stranger_makes_no_neighbour() -> None:
    machine = alone()
    hear(machine, Hello(holdtime=0), router(LOWER), 10.0)
    assert machine.neighbors() == []
    assert machine.events() == []


def test_another_generation_id_is_a_restart_whose_options_replace_the_old_ones() -> None:
    machine = alone()
    greet(machine, LOWER, 10.0, dr_priority=9, addresses=(secondary(1),))
    machine.events()
    greet(machine, LOWER, 20.0, generation_id=OTHER_GENERATION, dr_priority=None, lan_prune_delay=None)
    (view,) = machine.neighbors()
    assert (view.dr_priority, view.lan_prune_delay, view.secondaries) == (None, None, ())
    assert view.generation_id == OTHER_GENERATION
    assert tell(machine, NeighborDown) == [NeighborDown(router(LOWER), NeighborLostReason.RESTARTED)]


def test_options_of_every_hello_replace_the_old_ones() -> None:
    machine = beside_neighbors(LOWER)
    greet(machine, LOWER, 10.0, dr_priority=200, lan_prune_delay=LanPruneDelay(1, 2), addresses=(secondary(2),))
    (view,) = machine.neighbors()
    assert (view.dr_priority, view.lan_prune_delay, view.secondaries) == (200, LanPruneDelay(1, 2), (secondary(2),))


def test_what_a_lost_neighbour_joined_stays_until_it_expires() -> None:
    """Join state is of the interface, not of a neighbour (§4.5)."""
    machine = beside_neighbors(LOWER)
    hear(machine, join(Channel(source(1), group(1)), holdtime=210), now=5.0)
    hear(machine, Hello(holdtime=0), router(LOWER), 10.0)
    assert [view.expires for view in machine.channels()] == [215.0]


# --- §4.3.2: DR election


@both_families
@pytest.mark.parametrize(
    ("ours", "neighbours", "elected"),
    [
        (1, {}, OURS),
        (1, {LOWER: 1}, OURS),  # equal priorities: the higher address
        (1, {HIGHER: 1}, HIGHER),
        (2, {HIGHER: 1}, OURS),
        (1, {LOWER: 2, HIGHER: 1}, LOWER),
        (1, {LOWER: 0xFFFF_FFFF, THIRD: 0x8000_0000}, LOWER),
        (0, {LOWER: 0}, OURS),
        (9, {LOWER: None}, OURS),  # one without the option: addresses alone decide
        (9, {HIGHER: None}, HIGHER),
        (1, {LOWER: 9, HIGHER: None}, HIGHER),
        (9, {LOWER: None, HIGHER: 1}, HIGHER),
    ],
)
def test_the_designated_router_is_the_best_of_all(family, ours, neighbours, elected) -> None:
    machine = alone(family, dr_priority=ours)
    for number, priority in neighbours.items():
        greet(machine, number, 10.0, dr_priority=priority)
    assert machine.designated_router == router(elected, family)
    assert machine.is_designated is (elected == OURS)


def test_the_election_is_held_again_when_a_neighbour_changes_expires_or_leaves() -> None:
    machine = alone()
    greet(machine, HIGHER, 10.0, holdtime=50)
    greet(machine, HIGHER, 20.0, holdtime=50, dr_priority=0)
    greet(machine, HIGHER, 30.0, holdtime=50, dr_priority=1)
    run(machine, 80.0)
    greet(machine, HIGHER, 90.0)
    hear(machine, Hello(holdtime=0), router(HIGHER), 91.0)
    changes = [event.is_ours for event in tell(machine, DesignatedRouterChanged)]
    assert changes[-1] is True
    assert machine.is_designated


def test_changes_of_the_designated_router_are_told() -> None:
    machine = alone()
    greet(machine, HIGHER, 10.0)
    assert tell(machine, DesignatedRouterChanged) == [DesignatedRouterChanged(router(HIGHER), is_ours=False)]
    hear(machine, Hello(holdtime=0), router(HIGHER), 11.0)
    assert tell(machine, DesignatedRouterChanged) == [DesignatedRouterChanged(router(OURS), is_ours=True)]


# --- §4.3.4: secondary addresses


@both_families
def test_a_neighbour_is_found_by_its_secondary_addresses(family) -> None:
    machine = alone(family)
    greet(machine, LOWER, 10.0, addresses=(secondary(1, family), secondary(2, family)))
    assert machine.find_neighbor(secondary(2, family)) == router(LOWER, family)
    assert machine.find_neighbor(router(LOWER, family)) == router(LOWER, family)
    assert machine.find_neighbor(secondary(3, family)) is None


def test_each_hello_replaces_the_list_and_none_empties_it() -> None:
    machine = alone()
    greet(machine, LOWER, 10.0, addresses=(secondary(1), secondary(2)))
    greet(machine, LOWER, 20.0, addresses=(secondary(2), secondary(3)))
    assert [machine.find_neighbor(secondary(number)) for number in (1, 2, 3)] == [None, router(LOWER), router(LOWER)]
    greet(machine, LOWER, 30.0)
    assert machine.find_neighbor(secondary(2)) is None


def test_of_a_secondary_address_two_neighbours_claim_the_latest_mapping_counts() -> None:
    machine = alone()
    greet(machine, LOWER, 10.0, addresses=(secondary(1),))
    greet(machine, HIGHER, 20.0, addresses=(secondary(1),))
    assert machine.find_neighbor(secondary(1)) == router(HIGHER)
    greet(machine, LOWER, 30.0, addresses=(secondary(1),))
    assert machine.find_neighbor(secondary(1)) == router(LOWER)


def test_a_join_to_a_neighbour_named_by_a_secondary_address_says_its_primary_one() -> None:
    machine = alone()
    greet(machine, LOWER, 10.0, addresses=(secondary(1),), lan_prune_delay=DELAY)
    machine.join_upstream(Channel(source(1), group(1)), secondary(1), 20.0)
    assert [message.upstream for message in messages(machine, JoinPrune)] == [router(LOWER)]
