"""What a gateway machine tells its owner."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from agent.protocol.channels import Endpoint, Family
from agent.protocol.gateway_state import State


class LostReason(Enum):
    """Why a relay is given up."""

    DISCOVERY_UNANSWERED = "discovery_unanswered"
    REQUEST_UNANSWERED = "request_unanswered"


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The machine moved."""

    old: State
    new: State


@dataclass(frozen=True, slots=True)
class RelayFound:
    """The relay's unicast endpoint is known: by Advertisement, or by configuration. Data may come from it."""

    relay: Endpoint


@dataclass(frozen=True, slots=True)
class RelayLimit:
    """The relay takes no new tunnel (L flag, RFC 7450 §5.1.4.4) and there was none: try another relay."""

    relay: Endpoint


@dataclass(frozen=True, slots=True)
class LimitSet:
    """The relay takes no new tunnels from now on (L flag); the one we have goes on (RFC 7450 §5.1.4.4)."""

    relay: Endpoint


@dataclass(frozen=True, slots=True)
class RelayLost:
    """Nobody answers; told once an outage. `relay` is None when no relay was found. The machine keeps trying."""

    relay: Endpoint | None
    reason: LostReason


@dataclass(frozen=True, slots=True)
class GatewayAddressChanged:
    """The relay sees us at another address or port (G flag), or tells it for the first time (`old` is None)."""

    old: Endpoint | None
    new: Endpoint


@dataclass(frozen=True, slots=True)
class FamilyUnanswered:
    """The relay answers Requests for the other family but not for this one: it probably does not serve it."""

    family: Family


Event: TypeAlias = (
    StateChanged | RelayFound | RelayLimit | LimitSet | RelayLost | GatewayAddressChanged | FamilyUnanswered
)
