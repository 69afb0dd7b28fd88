"""What PIM neighbours want of us: downstream state machines (RFC 7761 §4.5.1-§4.5.3, §4.9.5)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from scripted.pim_peer import (
    FOREVER,
    HIGHER,
    LOWER,
    OURS,
    beside_neighbors,
    both_families,
    greet,
    group,
    hear,
    interface,
    join,
    listed,
    messages,
    plain,
    prune,
    router,
    rpt,
    run,
    secondary,
    shared,
    source,
    star,
    wanted,
)

from agent.protocol.channels import NOTHING, Channel, Family, Filter
from agent.protocol.pim import PimInterface
from agent.protocol.pim_rules import DownstreamState
from agent.protocol.wire.pim import JoinPrune, JoinPruneGroup

SG = Channel(source(1), group(1))
ANY = Channel(None, shared(1))
OVERRIDE = 3.0  # propagation delay and override interval of the RFC together
WANTED = {group(1): Filter.include([source(1)])}
ENDED = {group(1): NOTHING}


def say(machine: PimInterface, *groups: JoinPruneGroup, now: float = 1.0, holdtime: int = 210, **options) -> None:
    hear(machine, JoinPrune(options.pop("upstream", router(OURS)), holdtime, groups), now=now, **options)


def on_shared_tree(machine: PimInterface, *pruned: int, now: float = 1.0, holdtime: int = 210) -> None:
    """One message that joins (*,G) and prunes sources of it."""
    prunes = tuple(rpt(source(number)) for number in pruned)
    say(machine, listed(shared(1), joins=(star(router(OURS)),), prunes=prunes), now=now, holdtime=holdtime)


def states(machine: PimInterface) -> dict[str, DownstreamState]:
    return {f"{view.channel}{'rpt' if view.rpt else ''}": view.state for view in machine.channels()}


# --- (S,G), and (*,G) like it


@both_families
def test_join_lasts_for_its_holdtime(family: Family) -> None:
    """§4.5.2: NoInfo to Join; the Expiry Timer ends it."""
    machine = beside_neighbors(LOWER, family=family)
    channel = Channel(source(1, family), group(1, family))
    hear(machine, join(channel, holdtime=210), now=1)
    assert wanted(machine) == {channel.group: Filter.include([source(1, family)])}
    assert machine.joined_by(channel) == router(LOWER, family)
    run(machine, 210.9)
    assert wanted(machine) == {}
    run(machine, 211)
    assert wanted(machine) == {channel.group: NOTHING}
    assert machine.channel_count == 0


def test_join_of_the_shared_tree_wants_every_source() -> None:
    """§4.5.1."""
    machine = beside_neighbors(LOWER)
    hear(machine, join(ANY, holdtime=100), now=0)
    assert wanted(machine) == {shared(1): Filter.exclude()}
    assert machine.joined_by(ANY) == router(LOWER)
    run(machine, 100)
    assert wanted(machine) == {shared(1): NOTHING}


def test_refreshed_join_keeps_the_longer_of_its_ends() -> None:
    """§4.5.2: the Expiry Timer is set to the maximum of its value and the holdtime."""
    machine = beside_neighbors(LOWER)
    hear(machine, join(SG, holdtime=100), now=0)
    hear(machine, join(SG, holdtime=10), now=50)
    assert machine.channels()[0].expires == 100
    hear(machine, join(SG, holdtime=100), now=60)
    run(machine, 159)
    assert machine.channel_count == 1
    run(machine, 160)
    assert machine.channel_count == 0


def test_join_without_end_stays_until_it_is_pruned() -> None:
    """§4.9.5: holdtime 0xffff."""
    machine = beside_neighbors(LOWER)
    hear(machine, join(SG, holdtime=FOREVER))
    (view,) = machine.channels()
    assert view.expires is None
    run(machine, 1e5)
    assert machine.channel_count == 1
    hear(machine, prune(SG), now=1e5)
    assert machine.channel_count == 0


def test_holdtime_zero_joins_nothing_and_ends_nothing() -> None:
    """§4.9.5: what it says is over at once."""
    machine = beside_neighbors(LOWER)
    hear(machine, join(SG, holdtime=0))
    on_shared_tree(machine, 1, holdtime=0)
    assert wanted(machine) == {}
    hear(machine, join(SG, holdtime=50), now=1)
    hear(machine, join(SG, holdtime=0), now=2)
    assert wanted(machine) == WANTED
    assert machine.channels()[0].expires == 51


@pytest.mark.parametrize("channel", [SG, ANY])
def test_prune_takes_effect_at_once_with_a_single_neighbor(channel: Channel) -> None:
    """§4.5.1, §4.5.2: the Prune-Pending Timer is 0, and no PruneEcho is sent."""
    machine = beside_neighbors(LOWER)
    hear(machine, join(channel))
    machine.events()
    hear(machine, prune(channel))
    assert wanted(machine) == {channel.group: NOTHING}
    assert messages(machine, JoinPrune) == []


@pytest.mark.parametrize("channel", [SG, ANY])
def test_prune_waits_for_others_and_is_echoed(channel: Channel) -> None:
    """§4.5.1, §4.5.2: J/P_Override_Interval, then a PruneEcho addressed to ourselves."""
    machine = beside_neighbors(LOWER, HIGHER)
    hear(machine, join(channel), now=0)
    machine.events()
    hear(machine, prune(channel), now=10)
    assert [view.state for view in machine.channels()] == [DownstreamState.PRUNE_PENDING]
    assert run(machine, 10 + OVERRIDE - 0.1) == []
    assert wanted(machine) == {}
    ((when, echo),) = run(machine, 10 + OVERRIDE)
    assert (when, echo.message) == (13, prune(channel))
    assert wanted(machine) == {channel.group: NOTHING}


def test_join_of_another_overrides_a_prune() -> None:
    """§4.5.2: PrunePending back to Join."""
    machine = beside_neighbors(LOWER, HIGHER)
    hear(machine, join(SG, holdtime=FOREVER), now=0)
    hear(machine, prune(SG), now=10)
    hear(machine, join(SG), router(HIGHER), now=12)
    assert machine.joined_by(SG) == router(HIGHER)
    machine.events()
    run(machine, 29)
    assert wanted(machine) == {}
    assert states(machine) == {str(SG): DownstreamState.JOIN}


def test_repeated_prune_does_not_put_the_end_off() -> None:
    machine = beside_neighbors(LOWER, HIGHER)
    hear(machine, join(SG), now=0)
    hear(machine, prune(SG), now=10)
    hear(machine, prune(SG), now=12)
    run(machine, 13)
    assert machine.channel_count == 0


def test_expiry_ends_a_pending_prune_too() -> None:
    machine = beside_neighbors(LOWER, HIGHER)
    hear(machine, join(SG, holdtime=11), now=0)
    hear(machine, prune(SG), now=10)
    run(machine, 11)
    assert machine.channel_count == 0
    assert messages(machine, JoinPrune) == []


def test_prune_of_what_nobody_joined_changes_nothing() -> None:
    machine = beside_neighbors(LOWER, HIGHER)
    hear(machine, prune(SG))
    hear(machine, prune(ANY))
    assert (machine.channel_count, machine.next_deadline()) == (0, 30)
    assert wanted(machine) == {}


def test_many_echoes_share_messages() -> None:
    machine = beside_neighbors(LOWER, HIGHER)
    sources = tuple(plain(source(number)) for number in range(1, 41))
    say(machine, listed(group(1), joins=sources), now=0)
    say(machine, listed(group(1), prunes=sources), now=0)
    machine.handle_timer(OVERRIDE)
    (echo,) = messages(machine, JoinPrune)
    assert set(echo.groups[0].prunes) == set(sources)


# --- who is meant


@both_families
def test_join_to_another_router_is_not_for_us(family: Family) -> None:
    """§4.5.2: the upstream neighbour field has to be our address."""
    machine = beside_neighbors(LOWER, HIGHER, family=family)
    hear(machine, join(Channel(source(1, family), group(1, family)), upstream=router(HIGHER, family)))
    assert machine.channel_count == 0
    assert machine.received["join_prune"] == 1


def test_join_to_our_secondary_address_is_for_us() -> None:
    """§4.5.1 means the primary one; who says a next hop of the Address List (§4.3.4) is understood all the same."""
    machine = beside_neighbors(LOWER)
    machine.set_address(router(OURS), (secondary(1),), 0)
    hear(machine, join(SG, upstream=secondary(1)))
    assert list(wanted(machine)) == [SG.group]


def test_stranger_is_not_believed() -> None:
    """§4.3.1: no Join/Prune from a router that said no Hello."""
    machine = beside_neighbors(LOWER)
    hear(machine, join(SG), router(HIGHER))
    assert machine.refused == {"not_a_neighbor": 1}
    greet(machine, HIGHER)
    hear(machine, join(SG), router(HIGHER))
    assert machine.channel_count == 1


# --- what may be asked for


@pytest.mark.parametrize(
    ("address", "family"),
    [("224.0.0.13", Family.IPV4), ("ff02::5", Family.IPV6), ("ff01::5", Family.IPV6)],
)
def test_groups_that_stay_on_the_link_are_refused(address: str, family: Family) -> None:
    machine = beside_neighbors(LOWER, family=family)
    wanted_group = ip_address(address)
    say(machine, listed(wanted_group, joins=(plain(source(1, family)),)), upstream=router(OURS, family))
    assert machine.refused == {"group_not_forwardable": 1}


@both_families
def test_group_ranges_are_refused(family: Family) -> None:
    """§4.9.5: (*,*,RP) of old is one of them."""
    machine = beside_neighbors(LOWER, family=family)
    ranged = replace(listed(group(0, family), joins=(plain(source(1, family)),)), mask_length=24)
    say(machine, ranged, upstream=router(OURS, family))
    assert machine.refused == {"group_range": 1}


@pytest.mark.parametrize("address", ["239.1.1.1", "0.0.0.0", "127.0.0.1", "255.255.255.255", "169.254.1.1"])
def test_sources_that_no_router_carries_are_refused(address: str) -> None:
    machine = beside_neighbors(LOWER)
    say(machine, listed(group(1), joins=(plain(ip_address(address)), plain(source(1)))))
    assert machine.refused == {"source_not_unicast": 1}
    assert wanted(machine) == WANTED


def test_shared_tree_is_ignored_in_the_source_specific_range() -> None:
    """§4.8.1; RFC 4607 §4.1: (*,G) and (S,G,rpt) of 232/8 mean nothing, whatever is configured."""
    machine = beside_neighbors(LOWER, rendezvous_groups=(ip_network("0.0.0.0/0"),))
    say(machine, listed(group(1), joins=(star(router(OURS)), plain(source(1))), prunes=(rpt(source(1)),)))
    assert wanted(machine) == WANTED
    assert machine.refused == {"any_source_in_ssm_range": 2}


def test_shared_tree_of_other_groups_is_refused() -> None:
    machine = beside_neighbors(LOWER, rendezvous_groups=(ip_network("239.1.0.0/16"),))
    elsewhere = ip_address("239.2.0.1")
    say(machine, listed(elsewhere, joins=(star(router(OURS)),), prunes=(rpt(source(1)),)))
    assert machine.refused == {"not_rendezvous_group": 2}
    assert machine.channel_count == 0


def test_shared_tree_of_another_rendezvous_is_refused() -> None:
    """§4.5.1: the RP in a Join(*,G) has to be RP(G); in a Prune(*,G) it need not."""
    machine = beside_neighbors(LOWER)
    other = star(router(HIGHER))
    say(machine, listed(shared(1), joins=(other,)))
    assert machine.refused == {"other_rendezvous": 1}
    hear(machine, join(ANY))
    say(machine, listed(shared(1), joins=(other,)), now=5)
    assert machine.refused == {"other_rendezvous": 2}
    assert machine.channels()[0].expires == 211
    say(machine, listed(shared(1), prunes=(other,)), now=5)
    assert machine.channel_count == 0


def test_rendezvous_may_have_its_address_elsewhere() -> None:
    machine = beside_neighbors(LOWER)
    loopback = ip_address("192.0.2.255")
    machine.set_rendezvous_addresses([loopback])
    say(machine, listed(shared(1), joins=(star(loopback),)))
    assert wanted(machine) == {shared(1): Filter.exclude()}
    greet(machine, HIGHER)
    say(machine, listed(shared(1), prunes=(star(loopback),)), now=0)
    machine.handle_timer(OVERRIDE)
    (echo,) = messages(machine, JoinPrune)
    assert echo.groups == (listed(shared(1), prunes=(star(loopback),)),)


def test_several_groups_in_one_message() -> None:
    machine = beside_neighbors(LOWER)
    say(
        machine,
        listed(group(1), joins=(plain(source(1)), plain(source(2)))),
        listed(ip_address("224.0.0.5"), joins=(plain(source(1)),)),
        listed(group(2), joins=(plain(source(3)),), prunes=(plain(source(4)),)),
        listed(group(1), joins=(plain(source(5)),), prunes=(plain(source(2)),)),
    )
    assert wanted(machine) == {
        group(1): Filter.include([source(1), source(5)]),
        group(2): Filter.include([source(3)]),
    }
    assert machine.refused == {"group_not_forwardable": 1}


def test_channels_have_a_limit() -> None:
    machine = beside_neighbors(LOWER, max_channels=2)
    on_shared_tree(machine, 1, 2)
    hear(machine, join(SG))
    assert machine.channel_count == 2
    assert machine.refused == {"too_many_channels": 2}
    hear(machine, prune(ANY))
    hear(machine, join(SG))
    assert wanted(machine)[group(1)] == WANTED[group(1)]


# --- sources pruned off the shared tree: (S,G,rpt)


def test_compound_message_wants_all_but_the_pruned() -> None:
    """§4.5.3: Join(*,G) and Prune(S,G,rpt) in one message."""
    machine = beside_neighbors(LOWER)
    on_shared_tree(machine, 1, 2)
    assert wanted(machine) == {shared(1): Filter.exclude([source(1), source(2)])}
    on_shared_tree(machine, 2, now=5)
    assert wanted(machine) == {shared(1): Filter.exclude([source(2)])}
    on_shared_tree(machine, now=6)
    assert wanted(machine) == {shared(1): Filter.exclude()}


def test_prunes_repeated_with_the_join_stay_without_a_word() -> None:
    """§4.5.3: PruneTmp back to Prune, refreshed."""
    machine = beside_neighbors(LOWER)
    on_shared_tree(machine, 1)
    machine.events()
    on_shared_tree(machine, 1, now=101)
    assert wanted(machine) == {}
    run(machine, 310)
    assert wanted(machine) == {}
    run(machine, 311)
    assert wanted(machine) == {shared(1): NOTHING}


def test_order_within_the_message_does_not_matter() -> None:
    """§4.5.3: the Join(*,G) of a message counts first, even from a later group list."""
    machine = beside_neighbors(LOWER)
    say(
        machine,
        listed(shared(1), prunes=(rpt(source(1)),)),
        listed(shared(1), joins=(star(router(OURS)),)),
    )
    assert wanted(machine) == {shared(1): Filter.exclude([source(1)])}


def test_pruned_source_waits_for_others() -> None:
    """§4.5.3: NoInfo, PrunePending, Prune; nothing is echoed."""
    machine = beside_neighbors(LOWER, HIGHER)
    on_shared_tree(machine, 1, now=0)
    assert wanted(machine) == {shared(1): Filter.exclude()}
    assert run(machine, OVERRIDE - 0.1) == []
    on_shared_tree(machine, 1, now=2)
    assert run(machine, OVERRIDE) == []
    assert wanted(machine) == {shared(1): Filter.exclude([source(1)])}


def test_join_of_another_without_the_prune_overrides_it() -> None:
    """§4.5.3: PrunePendingTmp to NoInfo at the end of a message that does not repeat the prune."""
    machine = beside_neighbors(LOWER, HIGHER)
    on_shared_tree(machine, 1, now=0)
    hear(machine, join(ANY), router(HIGHER), now=1)
    run(machine, 20)
    assert wanted(machine) == {shared(1): Filter.exclude()}
    assert [view.rpt for view in machine.channels()] == [False]


@pytest.mark.parametrize("numbers", [(LOWER,), (LOWER, HIGHER)])
def test_join_of_the_source_on_the_shared_tree_takes_its_prune_back(numbers: tuple[int, ...]) -> None:
    """§4.5.3: Join(S,G,rpt)."""
    machine = beside_neighbors(*numbers)
    on_shared_tree(machine, 1, now=0)
    say(machine, listed(shared(1), joins=(rpt(source(1)), rpt(source(2)))), now=1)
    assert wanted(machine) == {shared(1): Filter.exclude()}
    assert machine.channel_count == 1


def test_prune_off_the_shared_tree_expires() -> None:
    """§4.5.3: Prune to NoInfo with the Expiry Timer; a longer (*,G) goes on."""
    machine = beside_neighbors(LOWER)
    say(machine, listed(shared(1), prunes=(rpt(source(1)),)), now=0, holdtime=50)
    hear(machine, join(ANY, holdtime=100), now=0)
    say(machine, listed(shared(1), prunes=(rpt(source(1)),)), now=0, holdtime=20)
    assert wanted(machine) == {shared(1): Filter.exclude([source(1)])}
    run(machine, 19)
    assert wanted(machine) == {}
    run(machine, 20)
    assert wanted(machine) == {shared(1): Filter.exclude()}


def test_short_prune_ends_before_it_takes_effect() -> None:
    machine = beside_neighbors(LOWER, HIGHER)
    hear(machine, join(ANY), now=0)
    say(machine, listed(shared(1), prunes=(rpt(source(1)),)), holdtime=1, now=0)
    run(machine, 10)
    assert wanted(machine) == {shared(1): Filter.exclude()}
    assert machine.channel_count == 1


def test_joined_source_is_wanted_whatever_is_pruned() -> None:
    """§4.1.6: inherited_olist(S,G) has joins(S,G) even where prunes(S,G,rpt) takes it off the shared tree."""
    machine = beside_neighbors(LOWER)
    on_shared_tree(machine, 1, 2)
    say(machine, listed(shared(1), joins=(plain(source(1)),)))
    assert wanted(machine) == {shared(1): Filter.exclude([source(2)])}
    hear(machine, prune(ANY))
    assert wanted(machine) == {shared(1): Filter.include([source(1)])}


def test_prunes_of_one_group_have_a_limit() -> None:
    """§4.5.3: more than a message holds cannot be meant, for every Join(*,G) has to repeat them."""
    machine = beside_neighbors(LOWER)
    sources = [ip_address(0x0A00_0000 + number) for number in range(8200)]
    for start in range(0, 8200, 100):
        say(machine, listed(shared(1), prunes=tuple(rpt(address) for address in sources[start : start + 100])))
    assert machine.channel_count == 8192
    assert machine.refused == {"too_many_channels": 8}


# --- what the owner is told


def test_interest_is_told_once_a_group() -> None:
    machine = beside_neighbors(LOWER)
    for number in range(1, 31):
        hear(machine, join(Channel(source(number), group(1))))
    events = machine.events()
    assert len(events) == 1
    assert events[0].filter == Filter.include(source(number) for number in range(1, 31))


def test_wish_that_came_and_went_is_not_told() -> None:
    machine = beside_neighbors(LOWER)
    hear(machine, join(SG))
    hear(machine, prune(SG))
    hear(machine, join(SG))
    hear(machine, prune(SG))
    assert machine.events() == []


def test_nobody_joined_what_is_not_wanted() -> None:
    machine = interface()
    assert machine.joined_by(SG) is None
    greet(machine, LOWER)
    hear(machine, join(SG))
    assert machine.joined_by(Channel(source(2), group(1))) is None
    assert machine.joined_by(Channel(None, group(1))) is None
