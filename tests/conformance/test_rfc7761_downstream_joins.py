"""Downstream (*,G) and (S,G) machines (RFC 7761 §4.5.1, §4.5.2): every cell of their two tables, and who may move them.

Both tables have the same cells, so each test runs for (*,G) and (S,G), of both families.
"""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scripted.pim_peer import (
    FOREVER,
    HIGHER,
    LOWER,
    OURS,
    THIRD,
    beside_neighbors,
    both_families,
    family_of,
    greet,
    group,
    hear,
    join,
    listed,
    messages,
    plain,
    prune,
    router,
    run,
    secondary,
    sent,
    shared,
    source,
    star,
    wanted,
)

from agent.protocol.channels import NOTHING, Channel, Family, Filter
from agent.protocol.pim import PimInterface
from agent.protocol.pim_downstream import DownstreamView
from agent.protocol.pim_rules import DownstreamState
from agent.protocol.wire.pim import Hello, JoinPrune, LanPruneDelay

NO_INFO, JOIN, PRUNE_PENDING = DownstreamState.NO_INFO, DownstreamState.JOIN, DownstreamState.PRUNE_PENDING
STATES = (NO_INFO, JOIN, PRUNE_PENDING)
JOINED_AT, PRUNED_AT, EVENT_AT = 10.0, 11.0, 12.0
HOLDTIME = 210
EXPIRES = JOINED_AT + HOLDTIME
PENDING_OVER = PRUNED_AT + 3.0  # J/P_Override_Interval: 0.5 s propagation + 2.5 s override (§4.11)

both_kinds = pytest.mark.parametrize("kind", ["(*,G)", "(S,G)"])


def channel_of(kind: str, family: Family) -> Channel:
    return Channel(None, shared(1, family)) if kind == "(*,G)" else Channel(source(1, family), group(1, family))


def in_state(state: DownstreamState, channel: Channel, *, holdtime: int = HOLDTIME) -> PimInterface:
    """A machine beside two neighbours whose state of `channel` is `state`; nothing is left to drain."""
    machine = beside_neighbors(LOWER, HIGHER, family=channel.family)
    if state is not NO_INFO:
        hear(machine, join(channel, holdtime=holdtime), now=JOINED_AT)
    if state is PRUNE_PENDING:
        hear(machine, prune(channel), now=PRUNED_AT)
    run(machine, EVENT_AT)
    wanted(machine)
    assert state_of(machine) is state
    return machine


def the_view(machine: PimInterface) -> DownstreamView | None:
    views = machine.channels()
    assert len(views) <= 1
    return views[0] if views else None


def state_of(machine: PimInterface) -> DownstreamState:
    view = the_view(machine)
    return NO_INFO if view is None else view.state


def expiry_of(machine: PimInterface) -> float | None:
    view = the_view(machine)
    assert view is not None
    return view.expires


def interest(channel: Channel) -> dict:
    return {channel.group: Filter.exclude() if channel.source is None else Filter.include([channel.source])}


def no_interest(channel: Channel) -> dict:
    return {channel.group: NOTHING}


def prunes_sent(packets: list) -> list[JoinPrune]:
    return [packet.message for _, packet in packets if isinstance(packet.message, JoinPrune)]


# --- Receive Join


@both_families
@both_kinds
def test_join_in_no_info_starts_join_and_its_expiry_timer(kind, family) -> None:
    channel = channel_of(kind, family)
    machine = in_state(NO_INFO, channel)
    hear(machine, join(channel, holdtime=100), now=EVENT_AT)
    assert state_of(machine) is JOIN
    assert expiry_of(machine) == EVENT_AT + 100
    assert wanted(machine) == interest(channel)


@both_families
@both_kinds
@pytest.mark.parametrize("state", [JOIN, PRUNE_PENDING])
@pytest.mark.parametrize(("holdtime", "expires"), [(300, EVENT_AT + 300), (20, EXPIRES), (210, EVENT_AT + 210)])
def test_join_restarts_the_expiry_timer_to_the_greater_of_its_rest_and_the_holdtime(
    kind, family, state, holdtime, expires
) -> None:
    channel = channel_of(kind, family)
    machine = in_state(state, channel)
    hear(machine, join(channel, holdtime=holdtime), router(HIGHER, family), EVENT_AT)
    assert state_of(machine) is JOIN
    assert expiry_of(machine) == expires
    assert the_view(machine).neighbor == router(HIGHER, family)
    assert wanted(machine) == {}


@both_kinds
def test_join_in_prune_pending_cancels_the_prune_pending_timer(kind) -> None:
    channel = channel_of(kind, Family.IPV4)
    machine = in_state(PRUNE_PENDING, channel)
    hear(machine, join(channel), router(HIGHER), EVENT_AT)
    assert prunes_sent(run(machine, EXPIRES - 1)) == []
    assert state_of(machine) is JOIN


# --- Receive Prune


@both_families
@both_kinds
def test_prune_in_no_info_changes_nothing(kind, family) -> None:
    channel = channel_of(kind, family)
    machine = in_state(NO_INFO, channel)
    hear(machine, prune(channel), now=EVENT_AT)
    assert state_of(machine) is NO_INFO
    assert prunes_sent(run(machine, EVENT_AT + 10)) == []
    assert wanted(machine) == {}


@both_families
@both_kinds
def test_prune_in_join_waits_the_override_interval_and_forwards_meanwhile(kind, family) -> None:
    channel = channel_of(kind, family)
    machine = in_state(JOIN, channel)
    hear(machine, prune(channel), now=EVENT_AT)
    assert state_of(machine) is PRUNE_PENDING
    assert expiry_of(machine) == EXPIRES
    run(machine, EVENT_AT + 2.99)
    assert state_of(machine) is PRUNE_PENDING
    assert wanted(machine) == {}
    run(machine, EVENT_AT + 3.0)
    assert state_of(machine) is NO_INFO
    assert wanted(machine) == no_interest(channel)


@both_families
@both_kinds
def test_prune_in_prune_pending_does_not_restart_the_timer(kind, family) -> None:
    channel = channel_of(kind, family)
    machine = in_state(PRUNE_PENDING, channel)
    hear(machine, prune(channel), router(HIGHER, family), EVENT_AT)
    assert state_of(machine) is PRUNE_PENDING
    run(machine, PENDING_OVER)
    assert state_of(machine) is NO_INFO


@both_families
@both_kinds
def test_prune_on_a_link_with_one_neighbour_takes_effect_at_once_without_echo(kind, family) -> None:
    channel = channel_of(kind, family)
    machine = beside_neighbors(LOWER, family=family)
    hear(machine, join(channel), now=JOINED_AT)
    wanted(machine)
    hear(machine, prune(channel), now=EVENT_AT)
    assert prunes_sent(run(machine, EVENT_AT)) == []
    assert state_of(machine) is NO_INFO
    assert wanted(machine) == no_interest(channel)


# --- Prune-Pending Timer expires


@both_families
@both_kinds
def test_prune_pending_timer_ends_the_state_and_sends_a_prune_echo(kind, family) -> None:
    channel = channel_of(kind, family)
    machine = in_state(PRUNE_PENDING, channel)
    echoes = prunes_sent(run(machine, PENDING_OVER))
    assert state_of(machine) is NO_INFO
    assert wanted(machine) == no_interest(channel)
    ours = router(OURS, family)
    pruned = star(ours) if channel.source is None else plain(channel.source)
    assert [(echo.upstream, echo.groups) for echo in echoes] == [(ours, (listed(channel.group, prunes=(pruned,)),))]


# --- Expiry Timer expires


@both_families
@both_kinds
def test_expiry_timer_ends_join(kind, family) -> None:
    channel = channel_of(kind, family)
    machine = in_state(JOIN, channel)
    assert prunes_sent(run(machine, EXPIRES - 0.01)) == []
    assert state_of(machine) is JOIN
    assert prunes_sent(run(machine, EXPIRES)) == []
    assert state_of(machine) is NO_INFO
    assert wanted(machine) == no_interest(channel)


@both_families
@both_kinds
def test_expiry_timer_ends_prune_pending_without_echo(kind, family) -> None:
    channel = channel_of(kind, family)
    machine = in_state(PRUNE_PENDING, channel, holdtime=3)  # until 13, the Prune-Pending Timer until 14
    assert prunes_sent(run(machine, 13.0)) == []
    assert state_of(machine) is NO_INFO
    assert wanted(machine) == no_interest(channel)
    assert prunes_sent(run(machine, 20.0)) == []


# --- Holdtimes (§4.9.5)


@both_kinds
def test_holdtime_ffff_holds_until_pruned(kind) -> None:
    channel = channel_of(kind, Family.IPV4)
    machine = in_state(NO_INFO, channel)
    hear(machine, join(channel, holdtime=FOREVER), now=EVENT_AT)
    assert expiry_of(machine) is None
    hear(machine, join(channel, holdtime=10), now=EVENT_AT)
    assert expiry_of(machine) is None
    hear(machine, prune(channel), now=100.0)
    run(machine, 103.0)
    assert state_of(machine) is NO_INFO


@both_kinds
def test_holdtime_0_times_out_at_once(kind) -> None:
    channel = channel_of(kind, Family.IPV4)
    machine = in_state(NO_INFO, channel)
    hear(machine, join(channel, holdtime=0), now=EVENT_AT)
    run(machine, EVENT_AT)
    assert state_of(machine) is NO_INFO
    assert wanted(machine).get(channel.group, NOTHING) == NOTHING


# --- Whose messages count (§4.5)


@both_families
@both_kinds
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("say", [join, prune])
def test_messages_to_another_upstream_neighbour_change_no_state(kind, family, state, say) -> None:
    channel = channel_of(kind, family)
    machine = in_state(state, channel)
    before = the_view(machine)
    hear(machine, say(channel, upstream=router(HIGHER, family)), now=EVENT_AT)
    assert the_view(machine) == before
    assert wanted(machine) == {}


@both_families
@both_kinds
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("say", [join, prune])
def test_messages_of_who_never_said_hello_change_no_state(kind, family, state, say) -> None:
    channel = channel_of(kind, family)
    machine = in_state(state, channel)
    before = the_view(machine)
    hear(machine, say(channel), router(THIRD, family), EVENT_AT)
    assert the_view(machine) == before
    assert wanted(machine) == {}
    assert machine.refused.total() == 1


@both_kinds
def test_a_prune_of_one_neighbour_is_overridden_by_the_join_of_another(kind) -> None:
    """One state per link, not per neighbour: whoever still wants the channel says so (§3.4 and §4.5.1)."""
    channel = channel_of(kind, Family.IPV4)
    machine = in_state(JOIN, channel)
    hear(machine, join(channel), router(HIGHER), EVENT_AT)
    hear(machine, prune(channel), router(LOWER), EVENT_AT + 1)
    hear(machine, join(channel), router(HIGHER), EVENT_AT + 3)
    run(machine, EVENT_AT + 10)
    assert state_of(machine) is JOIN
    assert wanted(machine) == {}


# --- The RP of a (*,G) (§4.5.1)


@both_families
def test_join_of_a_shared_tree_with_another_rp_is_dropped_in_silence(family) -> None:
    machine = beside_neighbors(LOWER, HIGHER, family=family)
    other = listed(shared(1, family), joins=(star(secondary(9, family)),))
    hear(machine, JoinPrune(router(OURS, family), HOLDTIME, (other,)))
    assert machine.channels() == []
    assert wanted(machine) == {}
    assert messages(machine, JoinPrune) == []


@both_families
def test_prune_of_a_shared_tree_counts_whatever_rp_it_names(family) -> None:
    channel = channel_of("(*,G)", family)
    machine = in_state(JOIN, channel)
    other = listed(channel.group, prunes=(star(secondary(9, family)),))
    hear(machine, JoinPrune(router(OURS, family), HOLDTIME, (other,)), now=EVENT_AT)
    assert state_of(machine) is PRUNE_PENDING


def test_an_rp_at_another_of_our_addresses_is_ours() -> None:
    machine = beside_neighbors(LOWER)
    machine.set_rendezvous_addresses([ip_address("198.51.100.50")])
    joined = listed(shared(1), joins=(star(ip_address("198.51.100.50")),))
    hear(machine, JoinPrune(router(OURS), HOLDTIME, (joined,)))
    assert wanted(machine) == {shared(1): Filter.exclude()}


# --- J/P_Override_Interval(I) (§4.3.3)


@pytest.mark.parametrize(
    ("lower", "higher", "interval"),
    [
        (LanPruneDelay(500, 2500), LanPruneDelay(500, 2500), 3.0),
        (LanPruneDelay(700, 2500), LanPruneDelay(500, 4000), 4.7),  # the greatest of each, whoever told it
        (LanPruneDelay(100, 100), LanPruneDelay(100, 100), 3.0),  # ours are greater
        (LanPruneDelay(700, 9000), None, 3.0),  # one without the option: defaults for all
    ],
)
def test_override_interval_follows_what_the_neighbours_tell(lower, higher, interval) -> None:
    channel = channel_of("(S,G)", Family.IPV4)
    machine = beside_neighbors()
    greet(machine, LOWER, holdtime=FOREVER, lan_prune_delay=lower)
    greet(machine, HIGHER, holdtime=FOREVER, lan_prune_delay=higher)
    hear(machine, join(channel), now=JOINED_AT)
    hear(machine, prune(channel), now=EVENT_AT)
    run(machine, EVENT_AT + interval - 0.01)
    assert state_of(machine) is PRUNE_PENDING
    run(machine, EVENT_AT + interval)
    assert state_of(machine) is NO_INFO


def test_a_neighbour_that_left_no_longer_counts_for_the_override_interval() -> None:
    channel = channel_of("(S,G)", Family.IPV4)
    machine = in_state(JOIN, channel)
    hear(machine, Hello(holdtime=0), router(HIGHER), EVENT_AT)
    sent(machine)
    hear(machine, prune(channel), now=EVENT_AT)
    run(machine, EVENT_AT)
    assert state_of(machine) is NO_INFO
    assert family_of(machine) is Family.IPV4
