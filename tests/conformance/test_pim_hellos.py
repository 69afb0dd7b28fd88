"""PIM neighbours: Hellos said and heard, the DR, and what a link agrees on (RFC 7761 §4.3, §4.9.2)."""

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
    prune,
    router,
    run,
    secondary,
    sent,
    source,
    tell,
    wanted,
)

from agent.protocol.channels import NOTHING, Channel, Family, Filter
from agent.protocol.pim_events import DesignatedRouterChanged, NeighborDown, NeighborLostReason, NeighborUp
from agent.protocol.pim_packet import ALL_PIM_ROUTERS
from agent.protocol.wire import ip
from agent.protocol.wire.pim import Hello, JoinPrune, LanPruneDelay


def hellos(packets):
    return [(when, packet.message) for when, packet in packets if isinstance(packet.message, Hello)]


# --- Hellos we say


@both_families
def test_first_hello_comes_within_the_triggered_delay_then_every_period(family: Family) -> None:
    """§4.3.1: a random part of Triggered_Hello_Delay first, then Hello_Period."""
    machine = interface(family, random=0.0)
    assert [when for when, _ in hellos(run(machine, 95))] == [0, 30, 60, 90]
    late = interface(family, random=0.5, triggered_hello_delay=4)
    assert [when for when, _ in hellos(run(late, 32))] == [2, 2 + 30 * 0.95]


@both_families
def test_hello_says_all_a_router_has_to_say(family: Family) -> None:
    """§4.3.1, §4.9.2: holdtime of 3.5 periods, LAN Prune Delay, DR priority, Generation ID, Address List."""
    machine = interface(family, dr_priority=7)
    machine.set_address(router(OURS, family), (secondary(1, family), router(OURS, family)), 0)
    machine.handle_timer(0)
    packet = sent(machine)[-1]
    assert packet.message == Hello(105, LanPruneDelay(500, 2500), 7, GENERATION, (secondary(1, family),))
    assert (packet.source, packet.destination) == (router(OURS, family), ALL_PIM_ROUTERS[family])
    assert packet.ttl == 1


def test_hello_travels_as_network_control() -> None:
    machine = interface()
    machine.handle_timer(0)
    (packet,) = machine.packets_to_send()
    assert ip.decode(packet).traffic_class == 0xC0


def test_configured_holdtime_stands_in_the_hello() -> None:
    machine = interface(hello_interval=10, hello_holdtime=FOREVER)
    machine.handle_timer(0)
    assert messages(machine, Hello)[0].holdtime == FOREVER
    machine = interface(hello_interval=10)
    machine.handle_timer(0)
    assert messages(machine, Hello)[0].holdtime == 35


def test_holdtime_below_a_second_is_no_goodbye() -> None:
    """§4.9.2: 0 would say that we are gone."""
    machine = interface(hello_interval=0.2)
    machine.handle_timer(0)
    assert messages(machine, Hello)[0].holdtime == 1


def test_long_address_list_still_fits_every_link() -> None:
    machine = interface(Family.IPV6)
    machine.set_address(router(OURS, Family.IPV6), [secondary(number, Family.IPV6) for number in range(1, 300)], 0)
    machine.handle_timer(0)
    (packet,) = machine.packets_to_send()
    assert len(packet) <= 1280


@both_families
def test_newcomer_gets_a_hello_within_the_triggered_delay(family: Family) -> None:
    """§4.3.1: and the periodic ones keep their times."""
    machine = interface(family, random=0.5, triggered_hello_delay=4)
    run(machine, 10)
    greet(machine, now=10)
    assert [when for when, _ in hellos(run(machine, 31))] == [12, 30.5]


def test_known_neighbor_triggers_no_hello_but_a_restarted_one_does() -> None:
    """§4.3.1: a new Generation ID is a new neighbour."""
    machine = beside_neighbors(LOWER)
    greet(machine, now=10)
    assert hellos(run(machine, 29)) == []
    greet(machine, now=29, generation_id=OTHER_GENERATION)
    assert [when for when, _ in hellos(run(machine, 29))] == [29]


def test_hello_goes_before_the_first_join() -> None:
    """§4.3.1: at once when a Join/Prune or Assert is to be sent, without waiting for the Hello timer."""
    machine = interface(random=0.9)
    neighbor = greet(machine, now=1)
    machine.join_upstream(Channel(source(1), group(1)), neighbor, 1)
    assert [type(packet.message) for packet in sent(machine)] == [Hello, JoinPrune]
    assert [when for when, _ in hellos(run(machine, 29))] == [1 + 30 * 0.91]


def test_hello_goes_before_a_join_that_a_newcomer_has_to_believe() -> None:
    machine = beside_neighbors(LOWER, random=0.9)
    neighbor = greet(machine, HIGHER, now=1)
    machine.join_upstream(Channel(source(1), group(1)), neighbor, 1)
    assert [type(packet.message) for packet in sent(machine)] == [Hello, JoinPrune]
    machine.join_upstream(Channel(source(2), group(1)), neighbor, 1)
    assert [type(packet.message) for packet in sent(machine)] == [JoinPrune]


@both_families
def test_stop_says_goodbye(family: Family) -> None:
    """§4.3.1: holdtime 0 before the interface goes down."""
    machine = beside_neighbors(LOWER, family=family)
    machine.stop(1)
    assert [message.holdtime for message in messages(machine, Hello)] == [0]
    assert machine.next_deadline() is None
    assert machine.neighbors() == []


def test_stop_takes_joins_back_and_ends_interest() -> None:
    machine = beside_neighbors(LOWER)
    channel = Channel(source(1), group(1))
    machine.join_upstream(channel, router(LOWER), 1)
    hear(machine, join(Channel(source(2), group(2))))
    sent(machine), machine.events()
    machine.stop(2)
    pruned, goodbye = sent(machine)
    assert pruned.message == prune(channel, upstream=router(LOWER))
    assert goodbye.message.holdtime == 0
    assert wanted(machine) == {group(2): NOTHING}
    machine.stop(3)
    assert sent(machine) == []


def test_another_address_says_goodbye_from_the_old_one_and_hello_from_the_new() -> None:
    """§4.3.1: and nothing else is said before that Hello."""
    machine = beside_neighbors(LOWER)
    machine.join_upstream(Channel(source(1), group(1)), router(LOWER), 1)
    sent(machine)
    machine.set_address(router(THIRD), (), 2)
    machine.join_upstream(Channel(source(2), group(1)), router(LOWER), 2)
    packets = sent(machine)
    assert [(packet.source, type(packet.message)) for packet in packets] == [
        (router(OURS), Hello),
        (router(THIRD), Hello),
        (router(THIRD), JoinPrune),
    ]
    assert [packet.message.holdtime for packet in packets] == [0, 105, 210]


def test_another_address_repeats_our_joins_from_it() -> None:
    machine = beside_neighbors(LOWER)
    machine.join_upstream(Channel(source(1), group(1)), router(LOWER), 1)
    sent(machine)
    machine.set_address(router(THIRD), (), 2)
    assert [type(packet.message) for _, packet in run(machine, 2.5)] == [Hello, Hello, JoinPrune]


def test_other_secondary_addresses_are_told_at_once() -> None:
    """§4.3.1: an updated Address List."""
    machine = beside_neighbors()
    machine.set_address(router(OURS), (secondary(1),), 1)
    assert [message.addresses for message in messages(machine, Hello)] == [(secondary(1),)]
    machine.set_address(router(OURS), (secondary(1),), 2)
    assert sent(machine) == []


def test_without_an_address_nothing_is_said() -> None:
    machine = beside_neighbors()
    machine.set_address(None, (), 1)
    assert [message.holdtime for message in messages(machine, Hello)] == [0]
    assert run(machine, 200) == []
    assert machine.designated_router is None
    machine.set_address(router(OURS), (), 201)
    assert [when for when, _ in hellos(run(machine, 202))] == [201]


def test_each_start_is_a_new_generation() -> None:
    """§4.3.1: chosen anew when forwarding starts on the interface."""
    machine = beside_neighbors()
    machine.stop(1)
    machine.start(2)
    machine.start(2)
    machine.handle_timer(2)
    generations = [message.generation_id for message in messages(machine, Hello)]
    assert generations == [GENERATION, GENERATION + 1]


# --- Hellos we hear


@both_families
def test_hello_makes_a_neighbor_until_its_holdtime(family: Family) -> None:
    machine = interface(family)
    address = greet(machine, holdtime=40, now=1)
    assert NeighborUp(address) in machine.events()
    (view,) = machine.neighbors()
    assert (view.address, view.since, view.expires, view.holdtime) == (address, 1, 41, 40)
    greet(machine, holdtime=40, now=11)
    run(machine, 50.9)
    assert [view.since for view in machine.neighbors()] == [1]
    run(machine, 51)
    assert machine.neighbors() == []
    assert NeighborDown(address, NeighborLostReason.EXPIRED) in machine.events()


def test_holdtime_zero_is_a_goodbye() -> None:
    machine = beside_neighbors(LOWER)
    greet(machine, holdtime=0)
    assert machine.neighbors() == []
    assert NeighborDown(router(LOWER), NeighborLostReason.GOODBYE) in machine.events()
    greet(machine, holdtime=0)
    assert tell(machine, NeighborDown) == []


def test_holdtime_without_end_never_expires() -> None:
    """§4.9.2: 0xffff; a later Hello with an end ends it."""
    machine = interface()
    greet(machine, holdtime=FOREVER)
    (view,) = machine.neighbors()
    assert view.expires is None
    run(machine, 1e5)
    assert len(machine.neighbors()) == 1
    greet(machine, holdtime=10, now=1e5)
    run(machine, 1e5 + 10)
    assert machine.neighbors() == []


def test_hello_without_options_is_a_hello() -> None:
    """§4.3.2: Default_Hello_Holdtime; no DR priority, no Generation ID."""
    machine = interface()
    hear(machine, Hello(), now=0)
    (view,) = machine.neighbors()
    assert (view.expires, view.dr_priority, view.generation_id, view.lan_prune_delay) == (105, None, None, None)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (None, 1), (1, None)])
def test_another_generation_is_another_neighbor_whose_wishes_stay(before: int | None, after: int | None) -> None:
    """§4.3.1, §4.5: what it joined is kept until it expires."""
    machine = interface()
    greet(machine, generation_id=before, dr_priority=9)
    hear(machine, join(Channel(source(1), group(1))), now=1)
    machine.events()
    greet(machine, generation_id=after, dr_priority=2, now=2)
    address = router(LOWER)
    events = [event for event in machine.events() if isinstance(event, NeighborDown | NeighborUp)]
    assert events == [NeighborDown(address, NeighborLostReason.RESTARTED), NeighborUp(address)]
    (view,) = machine.neighbors()
    assert (view.since, view.dr_priority) == (2, 2)
    assert machine.channel_count == 1


def test_secondary_addresses_name_the_neighbor() -> None:
    """§4.3.4: Address List; a later Hello replaces it."""
    machine = interface(Family.IPV6)
    address = greet(machine, addresses=(secondary(1, Family.IPV6), secondary(2, Family.IPV6)))
    assert machine.find_neighbor(secondary(2, Family.IPV6)) == address
    assert machine.find_neighbor(address) == address
    greet(machine, addresses=(secondary(1, Family.IPV6),), now=1)
    assert machine.find_neighbor(secondary(2, Family.IPV6)) is None
    assert machine.find_neighbor(secondary(1, Family.IPV6)) == address
    greet(machine, holdtime=0, now=2)
    assert machine.find_neighbor(secondary(1, Family.IPV6)) is None


def test_addresses_of_somebody_else_are_refused() -> None:
    """§4.3.4: ours, and those other neighbours speak from."""
    machine = beside_neighbors(HIGHER)
    machine.set_address(router(OURS), (secondary(9),), 0)
    greet(machine, LOWER, addresses=(secondary(1),))
    own_primary = router(THIRD)
    listed = (secondary(2), secondary(2), router(OURS), secondary(9), router(HIGHER), own_primary)
    greet(machine, THIRD, addresses=listed)
    views = {view.address: view.secondaries for view in machine.neighbors()}
    assert views == {router(LOWER): (secondary(1),), router(HIGHER): (), router(THIRD): (secondary(2),)}
    assert machine.refused == {"address_list_conflict": 3}


def test_of_a_secondary_address_two_neighbors_name_the_latest_word_counts() -> None:
    """§4.3.4."""
    machine = interface()
    greet(machine, LOWER, addresses=(secondary(1), secondary(2)))
    greet(machine, HIGHER, addresses=(secondary(1),))
    views = {view.address: view.secondaries for view in machine.neighbors()}
    assert views == {router(LOWER): (secondary(2),), router(HIGHER): (secondary(1),)}
    assert machine.refused == {"address_list_conflict": 1}


def test_primary_address_overrules_a_secondary_one() -> None:
    """§4.3.4: who speaks from an address has it."""
    machine = interface()
    greet(machine, LOWER, addresses=(router(THIRD), secondary(1)))
    assert machine.find_neighbor(router(THIRD)) == router(LOWER)
    greet(machine, THIRD)
    assert machine.find_neighbor(router(THIRD)) == router(THIRD)
    assert machine.neighbors()[0].secondaries == (secondary(1),)
    greet(machine, LOWER, holdtime=0)
    assert machine.find_neighbor(router(THIRD)) == router(THIRD)


def test_neighbors_have_a_limit() -> None:
    machine = interface(max_neighbors=2)
    for number in (1, 2, 3):
        greet(machine, number)
    assert [view.address for view in machine.neighbors()] == [router(1), router(2)]
    assert machine.refused == {"too_many_neighbors": 1}
    greet(machine, 2, now=5)
    assert machine.refused["too_many_neighbors"] == 1


# --- designated router


def test_alone_we_are_the_designated_router() -> None:
    machine = interface()
    assert machine.events() == [DesignatedRouterChanged(router(OURS), is_ours=True)]
    assert machine.is_designated


@both_families
@pytest.mark.parametrize(("number", "ours"), [(LOWER, True), (HIGHER, False)])
def test_equal_priorities_elect_the_highest_address(family: Family, number: int, *, ours: bool) -> None:
    """§4.3.2."""
    machine = interface(family)
    greet(machine, number)
    assert machine.is_designated is ours


@pytest.mark.parametrize(("priority", "ours"), [(0, True), (11, False), (0xFFFF_FFFF, False)])
def test_priority_counts_before_the_address(priority: int, *, ours: bool) -> None:
    machine = interface(dr_priority=10)
    greet(machine, LOWER if priority else HIGHER, dr_priority=priority)
    assert machine.is_designated is ours


def test_one_neighbor_without_priority_takes_it_from_all() -> None:
    """§4.3.2: dr_is_better goes by the address alone then."""
    machine = interface(dr_priority=1)
    greet(machine, LOWER, dr_priority=100)
    assert machine.designated_router == router(LOWER)
    greet(machine, 3, dr_priority=None)
    assert machine.is_designated
    greet(machine, 3, holdtime=0)
    assert machine.designated_router == router(LOWER)


def test_designated_router_that_dies_is_replaced() -> None:
    machine = interface()
    greet(machine, HIGHER, holdtime=40)
    machine.events()
    run(machine, 40)
    assert tell(machine, DesignatedRouterChanged) == [DesignatedRouterChanged(router(OURS), is_ours=True)]


# --- LAN Prune Delay


def pending(machine) -> float | None:
    """Seconds until a Prune of a joined channel takes effect."""
    channel = Channel(source(1), group(1))
    hear(machine, join(channel, holdtime=FOREVER), now=100)
    hear(machine, prune(channel), now=100)
    machine.events()
    machine.packets_to_send()
    for tenths in range(2000):
        machine.handle_timer(100 + tenths / 10)
        if wanted(machine):
            return tenths / 10
    return None


def test_delays_of_a_link_are_the_longest_that_anybody_tells() -> None:
    """§4.3.3: Effective_Propagation_Delay and Effective_Override_Interval."""
    machine = beside_neighbors()
    greet(machine, LOWER, holdtime=FOREVER, lan_prune_delay=LanPruneDelay(2000, 1000))
    greet(machine, HIGHER, holdtime=FOREVER, lan_prune_delay=LanPruneDelay(100, 4000))
    assert pending(machine) == 6


def test_delays_are_the_defaults_when_somebody_tells_none() -> None:
    machine = beside_neighbors(propagation_delay=5, override_interval=5)
    greet(machine, LOWER, holdtime=FOREVER, lan_prune_delay=LanPruneDelay(9000, 9000))
    greet(machine, HIGHER, holdtime=FOREVER, lan_prune_delay=None)
    assert pending(machine) == 3


def test_our_own_delays_count_too() -> None:
    machine = beside_neighbors(propagation_delay=1, override_interval=3)
    greet(machine, LOWER, holdtime=FOREVER, lan_prune_delay=DELAY)
    greet(machine, HIGHER, holdtime=FOREVER, lan_prune_delay=DELAY)
    assert pending(machine) == 4


def test_interest_survives_the_neighbor_that_told_it() -> None:
    """§4.5.2: only its holdtime ends it."""
    machine = beside_neighbors(LOWER, HIGHER)
    hear(machine, join(Channel(source(1), group(1)), holdtime=50), now=0)
    assert wanted(machine) == {group(1): Filter.include([source(1)])}
    greet(machine, LOWER, holdtime=0)
    assert wanted(machine) == {}
    run(machine, 50)
    assert wanted(machine) == {group(1): NOTHING}
