"""Downstream per-interface state machines as tables (RFC 7761 §4.5.1-§4.5.3): what is not in them cannot happen.

One machine for (*,G) and (S,G), which are joined; one for (S,G,rpt), a source pruned off the shared tree:

    NO_INFO --join--> JOIN --prune--> PRUNE_PENDING --pending over--> NO_INFO
    NO_INFO --prune--> PRUNE_PENDING --pending over--> PRUNE --(*,G) join--> PRUNE_TEMPORARY --end of message--> NO_INFO

The temporary states last from the Join(*,G) of a message to its end: a Join(*,G) takes back every prune of a source
that the same message does not repeat.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple, TypeAlias


class DownstreamState(Enum):
    """State of one (*,G), (S,G) or (S,G,rpt) on one interface."""

    NO_INFO = "no_info"
    JOIN = "join"
    PRUNE = "prune"  # (S,G,rpt) only
    PRUNE_PENDING = "prune_pending"
    PRUNE_TEMPORARY = "prune_temporary"  # P'
    PRUNE_PENDING_TEMPORARY = "prune_pending_temporary"  # PP'

    __hash__ = object.__hash__  # members are single; an Enum hashes their names, which the tables would feel


class DownstreamEvent(Enum):
    """What happens to a state."""

    JOIN = "join"
    PRUNE = "prune"
    GROUP_JOIN = "group_join"  # Join(*,G) of the group, for (S,G,rpt)
    END_OF_MESSAGE = "end_of_message"
    PENDING_OVER = "pending_over"  # Prune-Pending Timer
    EXPIRED = "expired"  # Expiry Timer

    __hash__ = object.__hash__


class Row(NamedTuple):
    """What follows from an event.

    Attributes:
        state: state after it.
        restart_expiry: the Expiry Timer runs to the greater of what is left of it and the message's holdtime.
        start_pending: the Prune-Pending Timer runs for the J/P override interval, which is 0 with a single neighbour.
        echo: a PruneEcho is due (§4.5.1, §4.5.2).
    """

    state: DownstreamState
    restart_expiry: bool = False
    start_pending: bool = False
    echo: bool = False


class ImpossibleEvent(Exception):
    """An event in a state for which the tables have no row: a defect of ours, never of a message."""


Rules: TypeAlias = dict[DownstreamState, dict[DownstreamEvent, Row]]

_S, _E = DownstreamState, DownstreamEvent

JOIN_RULES: Final[Rules] = {
    _S.NO_INFO: {
        _E.JOIN: Row(_S.JOIN, restart_expiry=True),
        _E.PRUNE: Row(_S.NO_INFO),
    },
    _S.JOIN: {
        _E.JOIN: Row(_S.JOIN, restart_expiry=True),
        _E.PRUNE: Row(_S.PRUNE_PENDING, start_pending=True),
        _E.EXPIRED: Row(_S.NO_INFO),
    },
    _S.PRUNE_PENDING: {
        _E.JOIN: Row(_S.JOIN, restart_expiry=True),
        _E.PRUNE: Row(_S.PRUNE_PENDING),
        _E.PENDING_OVER: Row(_S.NO_INFO, echo=True),
        _E.EXPIRED: Row(_S.NO_INFO),
    },
}
"""(*,G) and (S,G)."""

RPT_RULES: Final[Rules] = {
    _S.NO_INFO: {
        _E.JOIN: Row(_S.NO_INFO),
        _E.PRUNE: Row(_S.PRUNE_PENDING, restart_expiry=True, start_pending=True),
    },
    _S.PRUNE: {
        _E.GROUP_JOIN: Row(_S.PRUNE_TEMPORARY),
        _E.JOIN: Row(_S.NO_INFO),
        _E.PRUNE: Row(_S.PRUNE, restart_expiry=True),
        _E.END_OF_MESSAGE: Row(_S.PRUNE),
        _E.EXPIRED: Row(_S.NO_INFO),
    },
    _S.PRUNE_PENDING: {
        _E.GROUP_JOIN: Row(_S.PRUNE_PENDING_TEMPORARY),
        _E.JOIN: Row(_S.NO_INFO),
        _E.PRUNE: Row(_S.PRUNE_PENDING),
        _E.END_OF_MESSAGE: Row(_S.PRUNE_PENDING),
        _E.PENDING_OVER: Row(_S.PRUNE),
        _E.EXPIRED: Row(_S.NO_INFO),  # a holdtime below the override interval
    },
    _S.PRUNE_TEMPORARY: {
        _E.GROUP_JOIN: Row(_S.PRUNE_TEMPORARY),
        _E.JOIN: Row(_S.PRUNE_TEMPORARY),
        _E.PRUNE: Row(_S.PRUNE, restart_expiry=True),
        _E.END_OF_MESSAGE: Row(_S.NO_INFO),
    },
    _S.PRUNE_PENDING_TEMPORARY: {
        _E.GROUP_JOIN: Row(_S.PRUNE_PENDING_TEMPORARY),
        _E.JOIN: Row(_S.PRUNE_PENDING_TEMPORARY),
        _E.PRUNE: Row(_S.PRUNE_PENDING, restart_expiry=True),
        _E.END_OF_MESSAGE: Row(_S.NO_INFO),
    },
}
"""(S,G,rpt)."""


def transition(rules: Rules, state: DownstreamState, event: DownstreamEvent) -> Row:
    """The row of `event` in `state`.

    Raises:
        ImpossibleEvent: there is none.
    """
    try:
        return rules[state][event]
    except KeyError:
        raise ImpossibleEvent(f"{event.value} in {state.value}") from None
