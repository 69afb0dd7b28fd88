"""How fresh what is known of a relay is, and why it is not. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from relaymgr.store.observations import PARTS
from relaymgr.store.tables import Relay

INTERVALS = 2.5
"""Poll intervals after which data is old though nothing failed."""


class State(StrEnum):
    """Whether data can be relied on."""

    FRESH = "fresh"
    STALE = "stale"
    UNKNOWN = "unknown"
    """It never was known."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """Of one part of what is known of a relay."""

    state: State
    reason: str | None
    """Why it is not fresh."""
    polled_at: datetime | None
    """Last poll that succeeded."""


def freshness(relay: Relay, now: datetime) -> dict[str, Freshness]:
    """Freshness of tunnels, channels, pim_neighbors and statistics."""
    return {part: _of(relay, part, now) for part in PARTS}


def _of(relay: Relay, part: str, now: datetime) -> Freshness:
    reason: str | None = relay.stale.get(part)
    if relay.polled_at is None:
        return Freshness(State.UNKNOWN, reason or relay.reachability_reason or "never polled", None)
    if reason is None and not relay.enabled:
        reason = "the relay is disabled"
    age = (now - relay.polled_at).total_seconds()
    if reason is None and age > INTERVALS * relay.poll_interval_seconds:
        reason = f"not polled for {age:.0f} s"
    return Freshness(State.FRESH if reason is None else State.STALE, reason, relay.polled_at)
