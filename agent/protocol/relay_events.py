"""What the relay machine tells, and the views it gives."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from agent.protocol.channels import Address, Endpoint, Filter


class CloseReason(Enum):
    """Why a tunnel ended; the value is the label in logs and views."""

    EXPIRED = "expired"
    TEARDOWN = "teardown"
    MOVED = "moved"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class TunnelOpened:
    """The first Update with interest came from a gateway; `local` is the relay's address it was sent to."""

    tunnel: Endpoint
    local: Address


@dataclass(frozen=True, slots=True)
class InterestChanged:
    """What a tunnel wants of a group is now `filter`; `filter.wants_nothing` ends it."""

    tunnel: Endpoint
    local: Address
    group: Address
    filter: Filter


@dataclass(frozen=True, slots=True)
class TunnelClosed:
    """A tunnel ended. An InterestChanged to nothing came before for each of its groups."""

    tunnel: Endpoint
    reason: CloseReason


RelayEvent: TypeAlias = TunnelOpened | InterestChanged | TunnelClosed


@dataclass(frozen=True, slots=True)
class TunnelView:
    """One tunnel as `status` shows it.

    Attributes:
        tunnel: gateway's address and port as the relay sees them.
        local: relay's address the gateway talks to.
        since: when it opened, on the caller's clock.
        last_update: when the last valid Update came.
        expires: when it ends if no further Update comes.
        updates: valid Updates received.
        groups: what is forwarded, by group.
    """

    tunnel: Endpoint
    local: Address
    since: float
    last_update: float
    expires: float
    updates: int
    groups: dict[Address, Filter]


@dataclass(slots=True)
class RelayCounters:
    """Messages since the machine was made, by message type in snake case; refusals by reason."""

    received: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
