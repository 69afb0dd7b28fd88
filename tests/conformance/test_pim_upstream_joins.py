"""Our own Joins to native neighbours (RFC 7761 §4.5.5: upstream state machine, §4.11: its timers)."""

from __future__ import annotations

from dataclasses import replace

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
    listed,
    messages,
    plain,
    prune,
    router,
    rpt,
    run,
    secondary,
    sent,
    shared,
    source,
    star,
)

from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim import PimInterface
from agent.protocol.pim_events import AssertChanged, AssertOutcome
from agent.protocol.wire.pim import Assert, JoinPrune, LanPruneDelay

SG = Channel(source(1), group(1))
UPSTREAM = router(LOWER)
TRACKING = LanPruneDelay(500, 2500, tracking=True)


def joining(*numbers: int, **options: object) -> PimInterface:
    """A machine that joins SG from router 4 since 0, its Join sent."""
    machine = beside_neighbors(LOWER, *numbers, **options)
    machine.join_upstream(SG, UPSTREAM, 0)
    machine.packets_to_send()
    return machine


def said(machine: PimInterface, until: float) -> list[tuple[float, JoinPrune]]:
    """Join/Prunes up to `until`."""
    return [(when, packet.message) for when, packet in run(machine, until) if isinstance(packet.message, JoinPrune)]


def spoken_to(machine: PimInterface) -> list[tuple[Address, int, int]]:
    """Whom the Join/Prunes are meant for that wait to be sent, with their numbers of joins and prunes."""
    return [
        (
            message.upstream,
            sum(len(each.joins) for each in message.groups),
            sum(len(each.prunes) for each in message.groups),
        )
        for message in messages(machine, JoinPrune)
    ]


# --- asking


@both_families
def test_join_is_sent_at_once_and_every_period(family: Family) -> None:
    """NotJoined to Joined: Join(S,G), Join Timer to t_periodic; holdtime 3.5 times that."""
    machine = beside_neighbors(LOWER, family=family)
    channel = Channel(source(1, family), group(1, family))
    machine.join_upstream(channel, router(LOWER, family), 0)
    expected = join(channel, upstream=router(LOWER, family), holdtime=210)
    assert said(machine, 150) == [(0, expected), (60, expected), (120, expected)]


def test_configured_period_sets_the_holdtime() -> None:
    machine = joining(join_prune_interval=20)
    assert said(machine, 40) == [
        (20, join(SG, upstream=UPSTREAM, holdtime=70)),
        (40, join(SG, upstream=UPSTREAM, holdtime=70)),
    ]


def test_prune_is_sent_when_it_is_no_longer_wanted() -> None:
    """Joined to NotJoined: Prune(S,G)."""
    machine = joining()
    machine.prune_upstream(SG, 10)
    assert said(machine, 100) == [(0, prune(SG, upstream=UPSTREAM))]
    machine.prune_upstream(SG, 100)
    assert sent(machine) == []


def test_channels_of_a_neighbor_share_messages() -> None:
    """§4.5: one Join/Prune carries as many as fit, whenever they came in."""
    machine = beside_neighbors(LOWER)
    for number in range(1, 101):
        machine.join_upstream(Channel(source(number), group(1)), UPSTREAM, number / 10)
    assert spoken_to(machine) == [(UPSTREAM, 100, 0)]
    assert [when for when, _ in said(machine, 130)] == [60.1, 120.1]


def test_channels_of_several_neighbors_go_in_messages_of_their_own() -> None:
    machine = beside_neighbors(LOWER, HIGHER)
    machine.join_upstream(SG, UPSTREAM, 0)
    machine.join_upstream(Channel(source(2), group(1)), router(HIGHER), 0)
    assert spoken_to(machine) == [(UPSTREAM, 1, 0), (router(HIGHER), 1, 0)]


def test_channel_that_was_taken_back_before_it_was_said_is_only_pruned() -> None:
    machine = beside_neighbors(LOWER)
    machine.join_upstream(SG, UPSTREAM, 0)
    machine.prune_upstream(SG, 0)
    assert spoken_to(machine) == [(UPSTREAM, 0, 1)]


def test_other_channels_of_a_group_go_on() -> None:
    machine = joining()
    machine.join_upstream(Channel(source(2), group(1)), UPSTREAM, 10)
    machine.prune_upstream(SG, 10)
    assert spoken_to(machine) == [(UPSTREAM, 1, 1)]
    ((_, message),) = said(machine, 60)
    assert message.groups == (listed(group(1), joins=(plain(source(2)),)),)


def test_shared_tree_of_others_is_not_joined() -> None:
    machine = beside_neighbors(LOWER)
    with pytest.raises(ValueError, match="no source"):
        machine.join_upstream(Channel(None, shared(1)), UPSTREAM, 0)
    machine.prune_upstream(Channel(None, shared(1)), 0)


# --- whom


def test_nobody_is_asked_before_its_hello() -> None:
    """§4.3.1, §4.1.6: without a neighbour RPF'(S,G) is nobody."""
    machine = beside_neighbors()
    machine.join_upstream(SG, UPSTREAM, 0)
    assert said(machine, 100) == []
    greet(machine, now=100)
    assert spoken_to(machine) == [(UPSTREAM, 1, 0)]


def test_neighbor_may_be_named_by_a_secondary_address() -> None:
    """§4.3.4: NBR() looks up every address; the message names the primary one."""
    machine = beside_neighbors(LOWER)
    machine.join_upstream(SG, secondary(1), 0)
    assert spoken_to(machine) == []
    greet(machine, holdtime=FOREVER, addresses=(secondary(1),), now=1)
    assert spoken_to(machine) == [(UPSTREAM, 1, 0)]
    greet(machine, HIGHER, now=2)
    assert spoken_to(machine) == []


def test_another_neighbor_gets_the_channel_moved() -> None:
    """RPF'(S,G) changes: Join to the new one, Prune to the old one."""
    machine = joining(HIGHER)
    machine.join_upstream(SG, UPSTREAM, 5)
    assert spoken_to(machine) == []
    machine.join_upstream(SG, router(HIGHER), 10)
    assert spoken_to(machine) == [(UPSTREAM, 0, 1), (router(HIGHER), 1, 0)]
    assert [(when, message.upstream) for when, message in said(machine, 70)] == [(70, router(HIGHER))]


@pytest.mark.parametrize("restart", [False, True])
def test_neighbor_that_is_gone_is_asked_again_when_it_is_back(*, restart: bool) -> None:
    machine = joining()
    greet(machine, holdtime=0, now=10)
    assert said(machine, 200) == []
    if restart:
        machine.prune_upstream(SG, 200)
        assert spoken_to(machine) == []
        machine.join_upstream(SG, UPSTREAM, 200)
    greet(machine, holdtime=FOREVER, now=200)
    assert said(machine, 260) == [(0, join(SG, upstream=UPSTREAM)), (260, join(SG, upstream=UPSTREAM))]


def test_what_waits_for_a_neighbor_that_went_is_dropped() -> None:
    machine = beside_neighbors(LOWER)
    machine.join_upstream(SG, UPSTREAM, 0)
    greet(machine, holdtime=0, now=0)
    assert spoken_to(machine) == []


def test_restarted_neighbor_hears_every_join_within_the_override_interval() -> None:
    """§4.5.5: RPF'(S,G) GenID changes: the Join Timer is decreased to t_override."""
    machine = joining(random=0.5)
    greet(machine, holdtime=FOREVER, generation_id=OTHER_GENERATION, now=10)
    assert [when for when, _ in said(machine, 20)] == [11.25]


def test_other_neighbors_restart_does_not_matter() -> None:
    machine = joining(HIGHER)
    greet(machine, HIGHER, generation_id=OTHER_GENERATION, now=10)
    assert said(machine, 59) == []


def test_other_address_of_ours_asks_nobody_who_is_gone() -> None:
    machine = joining()
    greet(machine, holdtime=0, now=10)
    machine.set_address(router(THIRD), (), 11)
    assert said(machine, 100) == []


# --- suppression and override


@pytest.mark.parametrize(("random", "expected"), [(0.0, 10 + 66), (0.999, 10 + 84)])
def test_join_of_another_suppresses_ours(random: float, expected: float) -> None:
    """See Join(S,G) to RPF'(S,G): the Join Timer is increased to t_joinsuppress, 1.1 to 1.4 times t_periodic."""
    machine = joining(HIGHER, random=random)
    hear(machine, join(SG, upstream=UPSTREAM), router(HIGHER), now=10)
    ((when, message),) = said(machine, 100)
    assert when == pytest.approx(expected, abs=0.1)
    assert message == join(SG, upstream=UPSTREAM)


def test_suppression_lasts_no_longer_than_the_other_join() -> None:
    """t_joinsuppress is the minimum of t_suppressed and the holdtime; it only ever increases the Join Timer."""
    machine = joining(HIGHER)
    hear(machine, join(SG, upstream=UPSTREAM, holdtime=55), router(HIGHER), now=10)
    hear(machine, join(SG, upstream=UPSTREAM, holdtime=5), router(HIGHER), now=11)
    assert [when for when, _ in said(machine, 100)] == [65]


@pytest.mark.parametrize(
    ("tracking", "expected"), [((TRACKING, TRACKING), 60), ((TRACKING, LanPruneDelay(500, 2500)), 76)]
)
def test_suppression_is_off_where_everybody_tracks(tracking: tuple[LanPruneDelay, ...], expected: float) -> None:
    """§4.3.3: Suppression_Enabled."""
    machine = beside_neighbors()
    for number, delay in zip((LOWER, HIGHER), tracking, strict=True):
        greet(machine, number, holdtime=FOREVER, lan_prune_delay=delay)
    machine.join_upstream(SG, UPSTREAM, 0)
    sent(machine)
    hear(machine, join(SG, upstream=UPSTREAM), router(HIGHER), now=10)
    assert [when for when, _ in said(machine, 80)] == [expected]


def test_other_joins_suppress_nothing() -> None:
    """Of another source or group, to another neighbour, of the source on the shared tree, to a stranger, of a range."""
    machine = joining(HIGHER, THIRD)
    others = [
        join(Channel(source(2), group(1)), upstream=UPSTREAM),
        join(Channel(source(1), group(2)), upstream=UPSTREAM),
        join(SG, upstream=router(HIGHER)),
        join(SG, upstream=router(9)),
        JoinPrune(UPSTREAM, 210, (listed(group(1), joins=(rpt(source(1)), star(router(9)))),)),
    ]
    others.append(JoinPrune(UPSTREAM, 210, (replace(listed(group(1), joins=(plain(source(1)),)), mask_length=24),)))
    for message in others:
        hear(machine, message, router(THIRD), now=10)
    assert [when for when, _ in said(machine, 60)] == [60]


@pytest.mark.parametrize("unwanted", [plain(source(1)), rpt(source(1)), star(router(9))])
def test_prune_of_another_is_overridden(unwanted) -> None:
    """See Prune(S,G), Prune(S,G,rpt) or Prune(*,G) to RPF'(S,G): the Join Timer is decreased to t_override."""
    machine = joining(HIGHER, random=0.5)
    hear(machine, JoinPrune(UPSTREAM, 210, (listed(group(1), prunes=(unwanted,)),)), router(HIGHER), now=10)
    assert [when for when, _ in said(machine, 20)] == [11.25]


def test_echo_of_the_neighbor_itself_is_overridden() -> None:
    """§4.5.2: that is what PruneEcho is for."""
    machine = joining(HIGHER, random=0.5)
    hear(machine, prune(SG, upstream=UPSTREAM), UPSTREAM, now=10)
    assert [when for when, _ in said(machine, 20)] == [11.25]


def test_prune_does_not_put_a_join_off() -> None:
    machine = joining(HIGHER, random=0.5)
    hear(machine, prune(SG, upstream=UPSTREAM), router(HIGHER), now=59.5)
    assert [when for when, _ in said(machine, 62)] == [60]


def test_other_prunes_are_not_ours_to_override() -> None:
    machine = joining(HIGHER)
    hear(machine, prune(SG, upstream=router(HIGHER)), router(THIRD), now=10)
    hear(machine, prune(Channel(source(2), group(1)), upstream=UPSTREAM), router(HIGHER), now=10)
    assert said(machine, 59) == []


# --- asserts


def test_winner_of_an_assert_is_asked_in_place_of_the_routing_neighbor() -> None:
    """§4.1.6, §4.5.5: RPF'(S,G) is the assert's winner; it changes by Assert: Join within t_override, no Prune."""
    machine = joining(HIGHER, random=0.5)
    hear(machine, Assert(SG.group, SG.source, 10, 10), router(HIGHER), now=10)
    assert AssertChanged(SG, AssertOutcome.LOSER, router(HIGHER)) in machine.events()
    assert said(machine, 20) == [(11.25, join(SG, upstream=router(HIGHER)))]
    greet(machine, HIGHER, holdtime=0, now=30)
    assert [message.upstream for _, message in said(machine, 40)] == [UPSTREAM]


def test_winner_is_asked_for_a_channel_that_was_lost_before() -> None:
    machine = beside_neighbors(LOWER, HIGHER)
    machine.set_forwarding(SG, (200, 0), 0)
    hear(machine, Assert(SG.group, SG.source, 10, 10), router(HIGHER), now=1)
    assert machine.lost_assert(SG)
    machine.join_upstream(SG, UPSTREAM, 2)
    assert {message.upstream for _, message in said(machine, 10)} >= {router(HIGHER)}


def test_channel_no_longer_asked_for_follows_no_winner() -> None:
    machine = joining(HIGHER)
    hear(machine, Assert(SG.group, SG.source, 10, 10), router(HIGHER), now=10)
    machine.prune_upstream(SG, 11)
    sent(machine)
    assert not machine.lost_assert(SG)
    assert said(machine, 100) == []


# --- timers under load


def test_a_round_is_said_in_shares() -> None:
    """A call of `handle_timer` says some hundred Joins; the deadline stays due until all are said."""
    machine = beside_neighbors(LOWER)
    channels = [Channel(source(1 + number % 250), group(1 + number // 250)) for number in range(1200)]
    for channel in channels:
        machine.join_upstream(channel, UPSTREAM, 0)
    machine.packets_to_send()
    shares = []
    machine.handle_timer(60)
    while (deadline := machine.next_deadline()) is not None and deadline <= 60:
        shares.append(sum(len(each.joins) for message in messages(machine, JoinPrune) for each in message.groups))
        machine.handle_timer(60)
    shares.append(sum(len(each.joins) for message in messages(machine, JoinPrune) for each in message.groups))
    assert sum(shares) == 1200
    assert max(shares) <= 500
    assert machine.next_deadline() > 60


def test_our_own_packets_are_not_overheard() -> None:
    machine = joining(HIGHER)
    hear(machine, join(SG, upstream=UPSTREAM), router(OURS), now=10)
    assert machine.refused == {"own_packet": 1}
    assert [when for when, _ in said(machine, 60)] == [60]
