"""What a PIM interface machine tells its owner."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from agent.protocol.channels import Address, Channel
from agent.protocol.group_state import InterestChanged


class NeighborLostReason(Enum):
    """Why a neighbour is no longer one."""

    EXPIRED = "expired"
    GOODBYE = "goodbye"  # Hello with holdtime 0
    RESTARTED = "restarted"  # its Generation ID changed; it is up again at once


@dataclass(frozen=True, slots=True)
class NeighborUp:
    """A neighbour said Hello for the first time, or again after a restart."""

    address: Address


@dataclass(frozen=True, slots=True)
class NeighborDown:
    """A neighbour is gone."""

    address: Address
    reason: NeighborLostReason


@dataclass(frozen=True, slots=True)
class DesignatedRouterChanged:
    """The link's DR is now `address`, which may be ours; None while we have no address (RFC 7761 §4.3.2)."""

    address: Address | None
    is_ours: bool


class AssertOutcome(Enum):
    """Where an assert stands for one channel on one interface (RFC 7761 §4.6)."""

    NO_INFO = "no_info"
    WINNER = "winner"
    LOSER = "loser"


@dataclass(frozen=True, slots=True)
class AssertChanged:
    """Who forwards `channel` ((*,G) with no source) on this link was settled anew."""

    channel: Channel
    outcome: AssertOutcome
    winner: Address | None


@dataclass(frozen=True, slots=True)
class SourceRegistered:
    """A DR of the domain told us, its RP, of an active source (RFC 7761 §4.4.2)."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class BootstrapReceived:
    """A Bootstrap message to hand on: the whole PIM message, to be sent out of the other interfaces (RFC 5059 §3.4)."""

    bsr: Address
    sender: Address
    message: bytes


PimEvent: TypeAlias = (
    NeighborUp
    | NeighborDown
    | DesignatedRouterChanged
    | InterestChanged
    | AssertChanged
    | SourceRegistered
    | BootstrapReceived
)
"""`InterestChanged.filter` is what the link's PIM neighbours want of a group: INCLUDE for (S,G), EXCLUDE for (*,G)."""
