"""States of a gateway as an enforced table.

    STOPPED --start--> IDLE --discover--> DISCOVERING --request--> REQUESTING --query--> ESTABLISHED (query: again)
                        |                      ^                     ^    |                   |
                        +-----------request----|---------------------+    |                   |
                                               +--------discover----------+---- relay lost ---+

A gateway that wants nothing sinks to IDLE from anywhere; a Query with the L flag and no tunnel yet leads to LIMITED,
which leaves by asking again. `stop` leads to STOPPED from anywhere. A pair that is not in the table is a bug of this
program, never of the peer, and raises.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    """What a gateway is doing."""

    STOPPED = "stopped"  # not started, or stopped
    IDLE = "idle"  # nothing wanted, nothing sent
    DISCOVERING = "discovering"  # a Relay Discovery is unanswered
    REQUESTING = "requesting"  # a Request is unanswered and no response MAC is held
    ESTABLISHED = "established"  # a response MAC is held: joins go out at once
    LIMITED = "limited"  # the relay takes no new tunnel


class Trigger(Enum):
    """What moves a gateway."""

    START = "start"
    DISCOVER = "discover"  # a discovery exchange begins
    REQUEST = "request"  # a request exchange begins without a response MAC
    QUERY = "query"  # a valid Membership Query came
    LIMIT = "limit"  # a valid Membership Query refused a new tunnel
    UNWANTED = "unwanted"  # no group is wanted and none is kept warm
    STOP = "stop"


_RUNNING: Final = (State.IDLE, State.DISCOVERING, State.REQUESTING, State.ESTABLISHED, State.LIMITED)

TRANSITIONS: Final[dict[tuple[State, Trigger], State]] = {
    (State.STOPPED, Trigger.START): State.IDLE,
    (State.IDLE, Trigger.DISCOVER): State.DISCOVERING,
    (State.IDLE, Trigger.REQUEST): State.REQUESTING,
    (State.DISCOVERING, Trigger.DISCOVER): State.DISCOVERING,
    (State.DISCOVERING, Trigger.REQUEST): State.REQUESTING,
    (State.REQUESTING, Trigger.DISCOVER): State.DISCOVERING,
    (State.REQUESTING, Trigger.REQUEST): State.REQUESTING,
    (State.REQUESTING, Trigger.QUERY): State.ESTABLISHED,
    (State.REQUESTING, Trigger.LIMIT): State.LIMITED,
    (State.ESTABLISHED, Trigger.DISCOVER): State.DISCOVERING,
    (State.ESTABLISHED, Trigger.REQUEST): State.REQUESTING,
    (State.ESTABLISHED, Trigger.QUERY): State.ESTABLISHED,
    (State.ESTABLISHED, Trigger.LIMIT): State.LIMITED,
    (State.LIMITED, Trigger.DISCOVER): State.DISCOVERING,
    (State.LIMITED, Trigger.REQUEST): State.REQUESTING,
    **{(state, Trigger.UNWANTED): State.IDLE for state in _RUNNING},
    **{(state, Trigger.STOP): State.STOPPED for state in _RUNNING},
}


class NoTransition(RuntimeError):
    """The machine tried a move that its table does not know: a bug in this program."""


def transition(state: State, trigger: Trigger) -> State:
    """State after `trigger`.

    Raises:
        NoTransition: the table has no such move.
    """
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        raise NoTransition(f"{trigger.name} in {state.name}") from None
