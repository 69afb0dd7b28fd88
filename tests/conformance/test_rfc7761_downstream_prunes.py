"""Downstream (S,G,rpt) machine (RFC 7761 §4.5.3): every cell of its table, from outside.

The temporary states P' and PP' last from a Join(*,G) to the end of its message, so they show in what the whole message
comes to. Events of one message are the entries of one group list: its Joins, its Prunes, then End of Message.
"""

from __future__ import annotations

import pytest
from scripted.pim_peer import (
    HIGHER,
    LOWER,
    OURS,
    THIRD,
    beside_neighbors,
    both_families,
    group,
    hear,
    join,
    listed,
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

from agent.protocol.channels import Channel, Family, Filter
from agent.protocol.pim import PimInterface
from agent.protocol.pim_downstream import DownstreamView
from agent.protocol.pim_rules import DownstreamState
from agent.protocol.wire.pim import JoinPrune

NO_INFO, PRUNE, PRUNE_PENDING = DownstreamState.NO_INFO, DownstreamState.PRUNE, DownstreamState.PRUNE_PENDING
STATES = (NO_INFO, PRUNE, PRUNE_PENDING)
TREE_AT, PRUNED_AT, EVENT_AT = 10.0, 11.0, 12.0
HOLDTIME = 210
EXPIRES = PRUNED_AT + HOLDTIME
PENDING_OVER = PRUNED_AT + 3.0


def star_join(family: Family):
    return star(router(OURS, family))


def say(family: Family, joins=(), prunes=(), *, holdtime: int = HOLDTIME, upstream: int = OURS) -> JoinPrune:
    return JoinPrune(router(upstream, family), holdtime, (listed(shared(1, family), tuple(joins), tuple(prunes)),))


def in_state(state: DownstreamState, family: Family, *, holdtime: int = HOLDTIME) -> PimInterface:
    """The shared tree is joined; of source 1 the (S,G,rpt) machine is in `state`. Nothing is left to drain."""
    machine = beside_neighbors(LOWER, HIGHER, family=family)
    hear(machine, say(family, [star_join(family)], holdtime=1000), now=TREE_AT)
    event_at = EVENT_AT
    if state is not NO_INFO:
        hear(machine, say(family, prunes=[rpt(source(1, family))], holdtime=holdtime), now=PRUNED_AT)
    if state is PRUNE:
        event_at = PENDING_OVER
    run(machine, event_at)
    wanted(machine)
    assert state_of(machine) is state
    return machine


def the_view(machine: PimInterface) -> DownstreamView | None:
    views = [view for view in machine.channels() if view.rpt]
    assert len(views) <= 1
    return views[0] if views else None


def state_of(machine: PimInterface) -> DownstreamState:
    view = the_view(machine)
    return NO_INFO if view is None else view.state


def everything(family: Family) -> dict:
    return {shared(1, family): Filter.exclude()}


def all_but_one(family: Family) -> dict:
    return {shared(1, family): Filter.exclude([source(1, family)])}


# --- Receive Prune(S,G,rpt)


@both_families
def test_prune_in_no_info_starts_both_timers_and_still_forwards(family) -> None:
    machine = in_state(NO_INFO, family)
    hear(machine, say(family, prunes=[rpt(source(1, family))], holdtime=100), now=EVENT_AT)
    assert state_of(machine) is PRUNE_PENDING
    assert the_view(machine).expires == EVENT_AT + 100
    run(machine, EVENT_AT + 2.99)
    assert wanted(machine) == {}
    run(machine, EVENT_AT + 3.0)
    assert state_of(machine) is PRUNE
    assert wanted(machine) == all_but_one(family)


@both_families
@pytest.mark.parametrize(("holdtime", "expires"), [(300, 314.0), (20, EXPIRES)])
def test_prune_in_prune_restarts_the_expiry_timer_to_the_greater(family, holdtime, expires) -> None:
    machine = in_state(PRUNE, family)
    hear(machine, say(family, prunes=[rpt(source(1, family))], holdtime=holdtime), router(HIGHER, family), 14.0)
    assert state_of(machine) is PRUNE
    assert the_view(machine).expires == expires
    assert wanted(machine) == {}


@both_families
def test_prune_in_prune_pending_does_not_restart_the_prune_pending_timer(family) -> None:
    machine = in_state(PRUNE_PENDING, family)
    hear(machine, say(family, prunes=[rpt(source(1, family))]), router(HIGHER, family), EVENT_AT)
    assert state_of(machine) is PRUNE_PENDING
    run(machine, PENDING_OVER)
    assert state_of(machine) is PRUNE


@both_families
def test_prune_on_a_link_with_one_neighbour_takes_effect_at_once(family) -> None:
    machine = beside_neighbors(LOWER, family=family)
    hear(machine, say(family, [star_join(family)]), now=TREE_AT)
    hear(machine, say(family, prunes=[rpt(source(1, family))]), now=EVENT_AT)
    run(machine, EVENT_AT)
    assert state_of(machine) is PRUNE
    assert wanted(machine) == all_but_one(family)


# --- Receive Join(S,G,rpt)


@both_families
@pytest.mark.parametrize("state", STATES)
def test_join_of_the_source_ends_the_prune(family, state) -> None:
    machine = in_state(state, family)
    hear(machine, say(family, [rpt(source(1, family))]), router(HIGHER, family), 14.0)
    assert state_of(machine) is NO_INFO
    assert wanted(machine) == (everything(family) if state is PRUNE else {})
    run(machine, 30.0)
    assert state_of(machine) is NO_INFO
    assert wanted(machine) == {}


# --- Receive Join(*,G), then End of Message: P' and PP'


@both_families
@pytest.mark.parametrize("state", STATES)
def test_join_of_the_tree_alone_ends_the_prune_at_the_end_of_its_message(family, state) -> None:
    machine = in_state(state, family)
    hear(machine, say(family, [star_join(family)]), router(HIGHER, family), 14.0)
    assert state_of(machine) is NO_INFO
    assert wanted(machine) == (everything(family) if state is PRUNE else {})
    run(machine, 30.0)
    assert state_of(machine) is NO_INFO


@both_families
@pytest.mark.parametrize(("holdtime", "expires"), [(300, 314.0), (20, EXPIRES)])
def test_join_of_the_tree_that_repeats_the_prune_keeps_it_without_a_gap(family, holdtime, expires) -> None:
    """P -> P' -> P: the Expiry Timer is restarted to the greater."""
    machine = in_state(PRUNE, family)
    both = say(family, [star_join(family)], [rpt(source(1, family))], holdtime=holdtime)
    hear(machine, both, router(HIGHER, family), 14.0)
    assert state_of(machine) is PRUNE
    assert the_view(machine).expires == expires
    assert wanted(machine) == {}


@both_families
@pytest.mark.parametrize(("holdtime", "expires"), [(300, EVENT_AT + 300), (20, EXPIRES)])
def test_join_of_the_tree_that_repeats_a_pending_prune_keeps_it_pending(family, holdtime, expires) -> None:
    """PP -> PP' -> PP: the Expiry Timer is restarted, the Prune-Pending Timer is not."""
    machine = in_state(PRUNE_PENDING, family)
    both = say(family, [star_join(family)], [rpt(source(1, family))], holdtime=holdtime)
    hear(machine, both, router(HIGHER, family), EVENT_AT)
    assert state_of(machine) is PRUNE_PENDING
    assert the_view(machine).expires == expires
    run(machine, PENDING_OVER)
    assert state_of(machine) is PRUNE


@both_families
def test_join_of_the_tree_with_a_first_prune_waits_for_an_override(family) -> None:
    machine = in_state(NO_INFO, family)
    hear(machine, say(family, [star_join(family)], [rpt(source(1, family))]), now=EVENT_AT)
    assert state_of(machine) is PRUNE_PENDING


@both_families
def test_join_of_the_tree_ends_only_prunes_its_message_does_not_repeat(family) -> None:
    machine = in_state(PRUNE, family)
    hear(machine, say(family, prunes=[rpt(source(2, family))]), now=14.0)
    run(machine, 17.0)
    assert wanted(machine) == {shared(1, family): Filter.exclude([source(1, family), source(2, family)])}
    hear(machine, say(family, [star_join(family)], [rpt(source(2, family))]), now=18.0)
    assert wanted(machine) == {shared(1, family): Filter.exclude([source(2, family)])}


@both_families
@pytest.mark.parametrize("state", [PRUNE, PRUNE_PENDING])
def test_end_of_a_message_without_a_join_of_the_tree_changes_nothing(family, state) -> None:
    machine = in_state(state, family)
    before = the_view(machine)
    hear(machine, say(family, prunes=[rpt(source(2, family))]), now=EVENT_AT if state is PRUNE_PENDING else 14.0)
    assert before in machine.channels()


@both_families
@pytest.mark.parametrize("state", [PRUNE, PRUNE_PENDING])
def test_a_dropped_join_of_the_tree_ends_no_prune(family, state) -> None:
    """A Join(*,G) for another RP is dropped; other entries beside it still count (§4.5.1)."""
    machine = in_state(state, family)
    before = the_view(machine)
    other = [star(secondary(9, family)), plain(source(3, family))]
    hear(machine, say(family, other), now=EVENT_AT if state is PRUNE_PENDING else 14.0)
    assert the_view(machine) == before
    assert Channel(source(3, family), shared(1, family)) in [view.channel for view in machine.channels()]


# --- Timers


@both_families
def test_expiry_timer_ends_prune(family) -> None:
    machine = in_state(PRUNE, family)
    run(machine, EXPIRES - 0.01)
    assert state_of(machine) is PRUNE
    run(machine, EXPIRES)
    assert state_of(machine) is NO_INFO
    assert wanted(machine) == everything(family)


@both_families
def test_prune_pending_timer_ends_pending_and_sends_no_echo(family) -> None:
    machine = in_state(PRUNE_PENDING, family)
    packets = run(machine, PENDING_OVER)
    assert state_of(machine) is PRUNE
    assert the_view(machine).expires == EXPIRES
    assert [packet for _, packet in packets if isinstance(packet.message, JoinPrune)] == []


# --- Whose messages count (§4.5)


@both_families
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("what", ["join", "prune", "tree"])
@pytest.mark.parametrize(("upstream", "sender"), [(HIGHER, LOWER), (OURS, THIRD)])
def test_messages_to_others_or_of_strangers_change_no_state(family, state, what, upstream, sender) -> None:
    machine = in_state(state, family)
    before = machine.channels()
    joins = {"join": [rpt(source(1, family))], "tree": [star_join(family)], "prune": []}[what]
    prunes = [rpt(source(1, family))] if what == "prune" else []
    hear(machine, say(family, joins, prunes, upstream=upstream), router(sender, family), 14.0)
    assert machine.channels() == before
    assert wanted(machine) == {}


# --- What (S,G,rpt) means beside (*,G) and (S,G) (§4.1.6)


@both_families
def test_a_prune_off_the_tree_does_not_stop_a_source_that_is_joined_itself(family) -> None:
    machine = in_state(PRUNE, family)
    hear(machine, join(Channel(source(1, family), shared(1, family))), now=14.0)
    assert wanted(machine) == everything(family)
    hear(machine, prune(Channel(source(1, family), shared(1, family))), now=15.0)
    run(machine, 18.0)
    assert wanted(machine) == all_but_one(family)


@both_families
def test_a_prune_off_a_tree_nobody_joined_wants_nothing(family) -> None:
    machine = beside_neighbors(LOWER, family=family)
    hear(machine, say(family, prunes=[rpt(source(1, family))]), now=EVENT_AT)
    run(machine, EVENT_AT)
    assert state_of(machine) is PRUNE
    assert all(told.wants_nothing for told in wanted(machine).values())


@both_families
def test_a_prune_of_the_tree_leaves_joined_sources(family) -> None:
    machine = in_state(NO_INFO, family)
    hear(machine, join(Channel(source(2, family), shared(1, family)), holdtime=1000), now=EVENT_AT)
    hear(machine, say(family, prunes=[star_join(family)]), now=EVENT_AT)
    run(machine, EVENT_AT + 3)
    assert wanted(machine) == {shared(1, family): Filter.include([source(2, family)])}


# --- The source-specific range (§4.8.1)


@both_families
@pytest.mark.parametrize("what", ["joins", "prunes"])
@pytest.mark.parametrize("kind", ["(*,G)", "(S,G,rpt)"])
def test_source_specific_groups_have_no_shared_tree_state(family, what, kind) -> None:
    machine = beside_neighbors(LOWER, family=family)
    entry = star_join(family) if kind == "(*,G)" else rpt(source(1, family))
    lists = {what: (entry,)}
    hear(machine, JoinPrune(router(OURS, family), HOLDTIME, (listed(group(1, family), **lists),)), now=EVENT_AT)
    run(machine, EVENT_AT)
    assert machine.channels() == []
    assert wanted(machine) == {}


@both_families
def test_source_specific_joins_in_the_same_message_count(family) -> None:
    machine = beside_neighbors(LOWER, family=family)
    mixed = listed(group(1, family), (star_join(family), rpt(source(2, family)), plain(source(1, family))))
    hear(machine, JoinPrune(router(OURS, family), HOLDTIME, (mixed,)), now=EVENT_AT)
    assert wanted(machine) == {group(1, family): Filter.include([source(1, family)])}
