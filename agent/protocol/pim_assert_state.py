"""The Assert state machine of one channel on one interface, as an enforced table (RFC 7761 §4.6.1, §4.6.2).

    NO_INFO --data, inferior--> WINNER (says it again) --cannot assert--> NO_INFO, and cancels
       |                          | preferred
       +-----acceptable-------> LOSER (preferred, acceptable: follows) --anything that frees it--> NO_INFO

(S,G) and (*,G) share the table; which event a message is to each of them is decided in `pim_assert`. One move is ours:
data that comes in although we won makes us say so again, for a router that forwards by (*,G) alone claims (*,G), which
says nothing to the (S,G) of RFC 7761 §4.6.1, and would send duplicates until our timer. A pair that is not in the table
is a bug of this program, never of the peer, and raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.protocol.channels import Address
from agent.protocol.gateway_state import NoTransition
from agent.protocol.pim_events import AssertOutcome
from agent.protocol.wire.pim_messages import Assert

INFINITE_PREFERENCE: Final = 0x7FFF_FFFF
INFINITE_METRIC: Final = 0xFFFF_FFFF


class AssertTrigger(Enum):
    """What moves an assert."""

    DATA = "data"  # a packet of the channel came in where we send it out
    INFERIOR = "inferior"  # an Assert that needs our answer, or the winner's that we beat or that cancels
    PREFERRED = "preferred"  # an Assert better than the winner's
    ACCEPTABLE = "acceptable"  # an Assert better than ours would be
    TIMER = "timer"  # the Assert Timer expired
    CANNOT_ASSERT = "cannot_assert"  # CouldAssert became false
    METRIC_CHANGED = "metric_changed"  # what we say as winner, or the address we say it from, is another now
    METRIC_BETTER = "metric_better"  # what we could say became better than what the winner said
    WINNER_GONE = "winner_gone"  # the winner's liveness expired, or it restarted
    UNTRACKED = "untracked"  # AssertTrackingDesired became false
    RPF_MOVED = "rpf_moved"  # the interface is no longer the one towards the source or RP
    JOIN = "join"  # a Join for the channel came to us on the interface


class AssertAction(Enum):
    """What a move does; A1 to A6 of RFC 7761 §4.6.1, where A6 is A2 to us."""

    CLAIM = "A1"
    FOLLOW = "A2"
    REPEAT = "A3"
    CANCEL = "A4"
    FORGET = "A5"


_FREEING: Final = (
    AssertTrigger.INFERIOR,
    AssertTrigger.TIMER,
    AssertTrigger.METRIC_BETTER,
    AssertTrigger.WINNER_GONE,
    AssertTrigger.UNTRACKED,
    AssertTrigger.RPF_MOVED,
    AssertTrigger.JOIN,
)

TRANSITIONS: Final[dict[tuple[AssertOutcome, AssertTrigger], tuple[AssertOutcome, AssertAction]]] = {
    (AssertOutcome.NO_INFO, AssertTrigger.DATA): (AssertOutcome.WINNER, AssertAction.CLAIM),
    (AssertOutcome.NO_INFO, AssertTrigger.INFERIOR): (AssertOutcome.WINNER, AssertAction.CLAIM),
    (AssertOutcome.NO_INFO, AssertTrigger.ACCEPTABLE): (AssertOutcome.LOSER, AssertAction.FOLLOW),
    (AssertOutcome.WINNER, AssertTrigger.DATA): (AssertOutcome.WINNER, AssertAction.REPEAT),
    (AssertOutcome.WINNER, AssertTrigger.TIMER): (AssertOutcome.WINNER, AssertAction.REPEAT),
    (AssertOutcome.WINNER, AssertTrigger.INFERIOR): (AssertOutcome.WINNER, AssertAction.REPEAT),
    (AssertOutcome.WINNER, AssertTrigger.METRIC_CHANGED): (AssertOutcome.WINNER, AssertAction.REPEAT),
    (AssertOutcome.WINNER, AssertTrigger.PREFERRED): (AssertOutcome.LOSER, AssertAction.FOLLOW),
    (AssertOutcome.WINNER, AssertTrigger.CANNOT_ASSERT): (AssertOutcome.NO_INFO, AssertAction.CANCEL),
    (AssertOutcome.LOSER, AssertTrigger.PREFERRED): (AssertOutcome.LOSER, AssertAction.FOLLOW),
    (AssertOutcome.LOSER, AssertTrigger.ACCEPTABLE): (AssertOutcome.LOSER, AssertAction.FOLLOW),
    **{(AssertOutcome.LOSER, trigger): (AssertOutcome.NO_INFO, AssertAction.FORGET) for trigger in _FREEING},
}


def transition(state: AssertOutcome, trigger: AssertTrigger) -> tuple[AssertOutcome, AssertAction]:
    """State after `trigger`, and what to do on the way.

    Raises:
        NoTransition: the table has no such move.
    """
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        raise NoTransition(f"{trigger.name} in {state.name}") from None


@dataclass(frozen=True, slots=True)
class AssertMetric:
    """What an Assert claims, and who (RFC 7761 §4.6.3)."""

    rpt: bool
    preference: int
    metric: int
    address: Address

    @classmethod
    def of(cls, message: Assert, sender: Address) -> AssertMetric:
        """Metric a message from `sender` claims."""
        return cls(message.rpt, message.preference, message.metric, sender)

    @property
    def is_infinite(self) -> bool:
        """Whether it loses to everything, as that of an AssertCancel does (RFC 7761 §4.6.4)."""
        return self.preference >= INFINITE_PREFERENCE

    def is_better_than(self, other: AssertMetric | None) -> bool:
        """Lower bit, preference and metric win, in this order; then the higher address. None is infinite."""
        if self.is_infinite:
            return False
        if other is None or other.is_infinite:
            return True
        mine, others = (self.rpt, self.preference, self.metric), (other.rpt, other.preference, other.metric)
        return mine < others if mine != others else int(self.address) > int(other.address)
