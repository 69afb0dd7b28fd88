"""Upstream (S,G) machine (RFC 7761 §4.5.5): every cell of its table, for channels joined from the link natively.

The timer values are those of §4.11: t_periodic 60 s, t_suppressed 1.1 to 1.4 times that, t_override 0 to the effective
override interval. With randomness at 0.4 they are 60 s, 73.2 s and 1 s.
"""

from __future__ import annotations

import pytest
from scripted.pim_peer import (
    FOREVER,
    HIGHER,
    LOWER,
    OTHER_GENERATION,
    THIRD,
    beside_neighbors,
    both_families,
    family_of,
    greet,
    hear,
    interface,
    join,
    listed,
    plain,
    prune,
    router,
    rpt,
    run,
    sent,
    shared,
    source,
    star,
)

from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim import PimInterface
from agent.protocol.wire.pim import Assert, Hello, JoinPrune, LanPruneDelay

JOINED_AT, PERIOD, SUPPRESSED, OVERRIDE = 10.0, 60.0, 73.2, 1.0
UNSUPPRESSED = LanPruneDelay(500, 2500, tracking=True)


def the_channel(family: Family = Family.IPV4) -> Channel:
    """In a group of any source, so that messages about its shared tree make sense."""
    return Channel(source(1, family), shared(1, family))


def joined(*, family: Family = Family.IPV4, random: float = 0.4) -> PimInterface:
    """A machine that joined from LOWER at 10 s and has HIGHER and THIRD beside it; nothing is left to drain."""
    machine = beside_neighbors(LOWER, HIGHER, THIRD, family=family, random=random)
    run(machine, JOINED_AT)
    machine.join_upstream(the_channel(family), router(LOWER, family), JOINED_AT)
    said = join_prunes([(JOINED_AT, packet) for packet in sent(machine)])
    assert said == [(JOINED_AT, "join", router(LOWER, family))]
    return machine


def join_prunes(packets: list) -> list[tuple[float, str, Address]]:
    """When, what and to whom, of each Join and Prune of the channel; other packets are passed over."""
    said = []
    for now, packet in packets:
        if isinstance(packet.message, JoinPrune):
            wanted = the_channel(Family.of(packet.source))
            for item in packet.message.groups:
                assert item.group == wanted.group
                said += [
                    (now, "join", packet.message.upstream) for entry in item.joins if entry == plain(wanted.source)
                ]
                said += [
                    (now, "prune", packet.message.upstream) for entry in item.prunes if entry == plain(wanted.source)
                ]
    return said


def next_join(machine: PimInterface, *, after: float) -> float:
    """When the Join Timer expires."""
    said = join_prunes(run(machine, after + 200.0))
    assert said[0][1] == "join"
    return said[0][0]


# --- Not Joined


@both_families
def test_join_desired_sends_a_join_and_starts_the_join_timer(family) -> None:
    machine = joined(family=family)
    assert next_join(machine, after=JOINED_AT) == JOINED_AT + PERIOD


@both_families
@pytest.mark.parametrize("what", [join, prune])
def test_what_others_say_of_a_channel_not_joined_means_nothing(family, what) -> None:
    machine = beside_neighbors(LOWER, HIGHER, family=family)
    hear(machine, what(the_channel(family), upstream=router(LOWER, family)), router(HIGHER, family), JOINED_AT)
    assert join_prunes(run(machine, 200.0)) == []


@both_families
def test_nothing_is_sent_to_who_never_said_hello(family) -> None:
    machine = beside_neighbors(HIGHER, family=family)
    machine.join_upstream(the_channel(family), router(LOWER, family), JOINED_AT)
    assert join_prunes(run(machine, 100.0)) == []
    greet(machine, LOWER, 101.0, holdtime=FOREVER)
    assert [said[1:] for said in join_prunes(run(machine, 110.0))] == [("join", router(LOWER, family))]


def test_a_hello_goes_before_the_first_join() -> None:
    """§4.3.1: a router that has not said Hello yet does so before its first Join."""
    machine = interface(random=0.9)
    greet(machine, LOWER, 0.1)
    machine.join_upstream(the_channel(), router(LOWER), 0.2)
    assert [type(packet.message) for packet in sent(machine)][:2] == [Hello, JoinPrune]


# --- Joined: our own wish and timer


@both_families
def test_join_not_desired_sends_a_prune_and_stops_the_join_timer(family) -> None:
    machine = joined(family=family)
    machine.prune_upstream(the_channel(family), 20.0)
    assert [what[1:] for what in join_prunes(run(machine, 300.0))] == [("prune", router(LOWER, family))]


@both_families
def test_join_timer_repeats_the_join_each_period(family) -> None:
    machine = joined(family=family)
    times = [now for now, what, _ in join_prunes(run(machine, 200.0)) if what == "join"]
    assert times == [70.0, 130.0, 190.0]


def test_joins_ask_for_three_and_a_half_periods() -> None:
    machine = joined()
    holdtimes = [packet.message.holdtime for _, packet in run(machine, 80.0) if isinstance(packet.message, JoinPrune)]
    assert holdtimes == [210]


# --- Joined: See Join(S,G) to RPF'(S,G)


@both_families
@pytest.mark.parametrize("holdtime", [210, FOREVER])
def test_a_join_of_another_to_the_same_neighbour_suppresses_ours(family, holdtime) -> None:
    machine = joined(family=family)
    seen = join(the_channel(family), upstream=router(LOWER, family), holdtime=holdtime)
    hear(machine, seen, router(HIGHER, family), 20.0)
    assert next_join(machine, after=20.0) == pytest.approx(20.0 + SUPPRESSED)


@pytest.mark.parametrize(
    ("seen_at", "holdtime", "expires"),
    [
        (20.0, 30, 70.0),  # 50 s are left, more than the 30 s suppression would last: nothing changes
        (50.0, 30, 80.0),  # 20 s are left: increased to 30 s, the lesser of t_suppressed and the holdtime
        (69.0, 210, 69.0 + SUPPRESSED),
    ],
)
def test_suppression_lasts_the_lesser_of_t_suppressed_and_the_holdtime(seen_at, holdtime, expires) -> None:
    machine = joined()
    run(machine, seen_at)
    hear(machine, join(the_channel(), upstream=router(LOWER), holdtime=holdtime), router(HIGHER), seen_at)
    assert next_join(machine, after=seen_at) == pytest.approx(expires)


@pytest.mark.parametrize(("random", "suppressed"), [(0.0, 66.0), (0.5, 75.0)])
def test_t_suppressed_lies_between_1_1_and_1_4_periods(random, suppressed) -> None:
    machine = joined(random=random)
    hear(machine, join(the_channel(), upstream=router(LOWER)), router(HIGHER), 20.0)
    assert next_join(machine, after=20.0) == pytest.approx(20.0 + suppressed)


def test_joins_to_another_neighbour_or_of_another_channel_suppress_nothing() -> None:
    machine = joined()
    hear(machine, join(the_channel(), upstream=router(THIRD)), router(HIGHER), 60.0)
    hear(machine, join(Channel(source(2), shared(1)), upstream=router(LOWER)), router(HIGHER), 60.0)
    rpt_join = listed(shared(1), joins=(rpt(source(1)),))
    hear(machine, JoinPrune(router(LOWER), 210, (rpt_join,)), router(HIGHER), 60.0)
    assert next_join(machine, after=60.0) == 70.0


def test_joins_are_not_suppressed_where_every_neighbour_can_track_them() -> None:
    """Suppression_Enabled(I) of §4.3.3."""
    machine = beside_neighbors(random=0.4)
    for number in (LOWER, HIGHER):
        greet(machine, number, holdtime=FOREVER, lan_prune_delay=UNSUPPRESSED)
    machine.join_upstream(the_channel(), router(LOWER), JOINED_AT)
    run(machine, 60.0)
    hear(machine, join(the_channel(), upstream=router(LOWER)), router(HIGHER), 60.0)
    assert next_join(machine, after=60.0) == 70.0


# --- Joined: See Prune to RPF'(S,G)


def prunes_of(family: Family) -> dict[str, JoinPrune]:
    channel = the_channel(family)
    entries = {"(S,G)": plain(channel.source), "(S,G,rpt)": rpt(channel.source), "(*,G)": star(router(THIRD, family))}
    return {
        name: JoinPrune(router(LOWER, family), 210, (listed(channel.group, prunes=(entry,)),))
        for name, entry in entries.items()
    }


@both_families
@pytest.mark.parametrize("kind", ["(S,G)", "(S,G,rpt)", "(*,G)"])
def test_a_prune_of_another_to_the_same_neighbour_is_overridden(family, kind) -> None:
    machine = joined(family=family)
    hear(machine, prunes_of(family)[kind], router(HIGHER, family), 20.0)
    said = join_prunes(run(machine, 100.0))
    assert said[0] == (20.0 + OVERRIDE, "join", router(LOWER, family))
    # The neighbour's next round of Joins comes no later than t_periodic after the override; sooner is allowed.
    assert said[1][0] <= 20.0 + OVERRIDE + PERIOD


@pytest.mark.parametrize("kind", ["(S,G)", "(S,G,rpt)", "(*,G)"])
def test_an_override_never_delays_a_join_that_is_due_sooner(kind) -> None:
    machine = joined()
    run(machine, 69.5)
    hear(machine, prunes_of(Family.IPV4)[kind], router(HIGHER), 69.5)
    assert next_join(machine, after=69.5) == 70.0


def test_prunes_to_another_neighbour_or_of_another_source_are_not_overridden() -> None:
    machine = joined()
    hear(machine, prune(the_channel(), upstream=router(THIRD)), router(HIGHER), 20.0)
    hear(machine, prune(Channel(source(2), shared(1)), upstream=router(LOWER)), router(HIGHER), 20.0)
    assert next_join(machine, after=20.0) == 70.0


def test_a_prune_echo_of_the_neighbour_itself_is_overridden() -> None:
    """§4.5.2: the upstream router repeats a Prune under its own address, so that a lost one is overridden yet."""
    machine = joined()
    hear(machine, prunes_of(Family.IPV4)["(S,G)"], router(LOWER), 20.0)
    assert next_join(machine, after=20.0) == 20.0 + OVERRIDE


def test_a_suppressed_join_is_still_in_time_to_override() -> None:
    machine = joined()
    hear(machine, join(the_channel(), upstream=router(LOWER)), router(HIGHER), 20.0)
    hear(machine, prune(the_channel(), upstream=router(LOWER)), router(HIGHER), 30.0)
    assert next_join(machine, after=30.0) == 30.0 + OVERRIDE


def test_t_override_follows_the_effective_override_interval_of_the_link() -> None:
    machine = joined()
    greet(machine, THIRD, 15.0, holdtime=FOREVER, lan_prune_delay=LanPruneDelay(500, 5000))
    hear(machine, prune(the_channel(), upstream=router(LOWER)), router(HIGHER), 20.0)
    assert next_join(machine, after=20.0) == 22.0


# --- Joined: RPF'(S,G) changes


@both_families
def test_another_neighbour_is_joined_and_the_old_one_pruned(family) -> None:
    machine = joined(family=family)
    run(machine, 20.0)
    machine.join_upstream(the_channel(family), router(HIGHER, family), 20.0)
    said = join_prunes([(20.0, packet) for packet in sent(machine)])
    assert sorted(said) == [(20.0, "join", router(HIGHER, family)), (20.0, "prune", router(LOWER, family))]
    assert join_prunes(run(machine, 90.0)) == [(80.0, "join", router(HIGHER, family))]


@both_families
def test_a_restarted_neighbour_is_joined_again_soon(family) -> None:
    machine = joined(family=family)
    greet(machine, LOWER, 20.0, holdtime=FOREVER, generation_id=OTHER_GENERATION)
    assert next_join(machine, after=20.0) == 20.0 + OVERRIDE


def test_a_restart_of_another_router_does_not_hasten_the_join() -> None:
    machine = joined()
    greet(machine, HIGHER, 20.0, holdtime=FOREVER, generation_id=OTHER_GENERATION)
    assert next_join(machine, after=20.0) == 70.0


@both_families
def test_a_join_goes_to_the_winner_of_an_assert_soon(family) -> None:
    """RPF'(S,G) is the Assert winner (§4.1.6); the change is due to an Assert, so no Prune and only t_override."""
    machine = joined(family=family)
    channel = the_channel(family)
    hear(machine, Assert(channel.group, channel.source, 10, 10), router(HIGHER, family), 20.0)
    said = join_prunes(run(machine, 100.0))
    assert [(what, to) for _, what, to in said] == [("join", router(HIGHER, family))] * 2
    assert said[0][0] == 20.0 + OVERRIDE
    assert said[1][0] == 20.0 + OVERRIDE + PERIOD


def test_joins_go_back_to_the_neighbour_when_the_assert_is_over() -> None:
    """AT(S,G,I) expires after Assert_Time, 180 s (§4.6.1, §4.11)."""
    machine = joined()
    hear(machine, Assert(the_channel().group, the_channel().source, 10, 10), router(HIGHER), 20.0)
    said = join_prunes(run(machine, 270.0))
    assert {to for now, _, to in said if now < 200.0} == {router(HIGHER)}
    assert {to for now, _, to in said if now >= 200.0} == {router(LOWER)}
    assert min(now for now, _, to in said if to == router(LOWER)) == 200.0 + OVERRIDE


def test_a_join_of_another_to_the_winner_suppresses_ours() -> None:
    machine = joined()
    hear(machine, Assert(the_channel().group, the_channel().source, 10, 10), router(HIGHER), 20.0)
    run(machine, 30.0)
    hear(machine, join(the_channel(), upstream=router(HIGHER)), router(THIRD), 30.0)
    assert next_join(machine, after=30.0) == pytest.approx(30.0 + SUPPRESSED)
    assert family_of(machine) is Family.IPV4
