"""What the relay directory shows of tunnels and candidates."""

from __future__ import annotations

from dataclasses import dataclass


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
