"""What the relay directory shows of tunnels and candidates."""

from __future__ import annotations

from dataclasses import dataclass

from agent.protocol.channels import Channel
from agent.protocol.relay_selection import RelaySelection


@dataclass(frozen=True, slots=True)
class RelayView:
    """What is known of a tunnel's relay beside the tunnel itself.

    Attributes:
        origin: `configured`, `driad`, `dns-sd` or `anycast`.
        held_until: end of its hold-down on the loop's clock in seconds, None when it is not held down.
        reason: why it is held down.
        live_live: whether it brings a channel that another relay brings too.
    """

    origin: str
    held_until: float | None
    reason: str | None
    live_live: bool


@dataclass(frozen=True, slots=True)
class CandidateView:
    """One relay that serves a channel.

    Attributes:
        name: of its first tunnel.
        origin: as in `RelayView`.
        preference: less is better.
        established: whether it answers.
        held: whether it is held down.
        used: whether it brings the channel.
    """

    name: str
    origin: str
    preference: int
    established: bool
    held: bool
    used: bool


def view_relay(selection: RelaySelection, name: str, now: float) -> RelayView:
    """A tunnel's relay as the selection knows it."""
    health = selection.health.get(name)
    is_held = health.is_held(now)
    candidate = selection.candidate(name)
    return RelayView(
        origin="configured" if candidate is None else candidate.origin,
        held_until=health.held_until if is_held else None,
        reason=health.reason if is_held else None,
        live_live=selection.is_live_live(name),
    )


def view_candidates(selection: RelaySelection, channel: Channel, now: float) -> tuple[CandidateView, ...]:
    """Relays that serve a channel, most preferred first."""
    used = selection.assigned.get(channel) or ()
    return tuple(
        CandidateView(
            name=item.name,
            origin=item.origin,
            preference=item.preference,
            established=selection.health.established_since(item.tunnel_names) is not None,
            held=selection.health.is_held(item.tunnel_names, now),
            used=not set(used).isdisjoint(item.tunnel_names),
        )
        for item in selection.candidates(channel)
    )
