"""What the PIM neighbours of one interface want: the downstream per-interface state machines (RFC 7761 §4.5.1-§4.5.3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from agent.protocol.channels import Address, Channel


class DownstreamState(Enum):
    """State of one (*,G), (S,G) or (S,G,rpt) on one interface; the last two live within one message only."""

    NO_INFO = "no_info"
    JOIN = "join"
    PRUNE = "prune"  # (S,G,rpt) only
    PRUNE_PENDING = "prune_pending"
    PRUNE_TEMPORARY = "prune_temporary"  # P'
    PRUNE_PENDING_TEMPORARY = "prune_pending_temporary"  # PP'


@dataclass(frozen=True, slots=True)
class DownstreamView:
    """One state as `status` shows it.

    Attributes:
        channel: (S,G), or (*,G) with no source.
        rpt: the state is (S,G,rpt): a source pruned off the shared tree.
        state: where its machine stands.
        expires: when it ends unless refreshed, None for never.
        neighbor: who refreshed it last.
    """

    channel: Channel
    rpt: bool
    state: DownstreamState
    expires: float | None
    neighbor: Address
