"""The downstream tables against the figures of RFC 7761, copied out as text."""

from __future__ import annotations

import pytest

from agent.protocol.pim_rules import (
    JOIN_RULES,
    RPT_RULES,
    DownstreamEvent,
    DownstreamState,
    ImpossibleEvent,
    transition,
)

STATES = {
    "NI": DownstreamState.NO_INFO,
    "J": DownstreamState.JOIN,
    "P": DownstreamState.PRUNE,
    "PP": DownstreamState.PRUNE_PENDING,
    "P'": DownstreamState.PRUNE_TEMPORARY,
    "PP'": DownstreamState.PRUNE_PENDING_TEMPORARY,
}

# Figures of §4.5.1 and §4.5.2: state, then what follows from Join, Prune, Prune-Pending Timer, Expiry Timer.
JOIN_FIGURE = """
NI  J   NI  .   .
J   J   PP  .   NI
PP  J   PP  NI  NI
"""
JOIN_EVENTS = (
    DownstreamEvent.JOIN,
    DownstreamEvent.PRUNE,
    DownstreamEvent.PENDING_OVER,
    DownstreamEvent.EXPIRED,
)

# Figure of §4.5.3: Join(*,G), Join(S,G,rpt), Prune(S,G,rpt), end of message, Prune-Pending Timer, Expiry Timer.
# Two cells say more than it: PP expires where the holdtime is below the override interval, NI is not kept to be told.
RPT_FIGURE = """
NI  .   NI  PP  .   .   .
P   P'  NI  P   P   .   NI
PP  PP' NI  PP  PP  P   NI
P'  P'  P'  P   NI  .   .
PP' PP' PP' PP  NI  .   .
"""
RPT_EVENTS = (
    DownstreamEvent.GROUP_JOIN,
    DownstreamEvent.JOIN,
    DownstreamEvent.PRUNE,
    DownstreamEvent.END_OF_MESSAGE,
    DownstreamEvent.PENDING_OVER,
    DownstreamEvent.EXPIRED,
)


def cells(figure, events):
    for line in figure.split("\n"):
        if line:
            state, *following = line.split()
            yield from ((STATES[state], event, cell) for event, cell in zip(events, following, strict=True))


@pytest.mark.parametrize(
    ("rules", "figure", "events"), [(JOIN_RULES, JOIN_FIGURE, JOIN_EVENTS), (RPT_RULES, RPT_FIGURE, RPT_EVENTS)]
)
def test_tables_are_the_figures(rules, figure, events):
    for state, event, cell in cells(figure, events):
        if cell == ".":
            with pytest.raises(ImpossibleEvent, match=f"{event.value} in {state.value}"):
                transition(rules, state, event)
        else:
            assert transition(rules, state, event).state is STATES[cell], (state, event)


@pytest.mark.parametrize(("rules", "foreign"), [(JOIN_RULES, DownstreamState.PRUNE), (RPT_RULES, DownstreamState.JOIN)])
def test_state_of_the_other_machine_has_no_rows(rules, foreign):
    with pytest.raises(ImpossibleEvent):
        transition(rules, foreign, DownstreamEvent.JOIN)


def test_only_a_join_that_ends_by_its_prune_is_echoed():
    """§4.5.1, §4.5.2; a source pruned off the shared tree is not (§4.5.3)."""
    rows = [(state, event) for state, row in JOIN_RULES.items() for event, found in row.items() if found.echo]
    assert rows == [(DownstreamState.PRUNE_PENDING, DownstreamEvent.PENDING_OVER)]
    assert not any(found.echo for row in RPT_RULES.values() for found in row.values())


def test_holdtimes_count_where_the_figures_say_so():
    """§4.5.1-§4.5.3: a Prune repeated while it is pending restarts the Expiry Timer only after a Join(*,G)."""

    def restarted(rules):
        return {(state, event) for state, row in rules.items() for event, found in row.items() if found.restart_expiry}

    joined = (DownstreamState.NO_INFO, DownstreamState.JOIN, DownstreamState.PRUNE_PENDING)
    assert restarted(JOIN_RULES) == {(state, DownstreamEvent.JOIN) for state in joined}
    pruned = set(DownstreamState) - {DownstreamState.JOIN, DownstreamState.PRUNE_PENDING}
    assert restarted(RPT_RULES) == {(state, DownstreamEvent.PRUNE) for state in pruned}


def test_prune_waits_where_the_figures_say_so():
    waiting = [
        (state, event) for state, row in JOIN_RULES.items() for event, found in row.items() if found.start_pending
    ]
    assert waiting == [(DownstreamState.JOIN, DownstreamEvent.PRUNE)]
    waiting = [
        (state, event) for state, row in RPT_RULES.items() for event, found in row.items() if found.start_pending
    ]
    assert waiting == [(DownstreamState.NO_INFO, DownstreamEvent.PRUNE)]
