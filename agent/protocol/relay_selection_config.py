"""What the selection of relays is told."""

from __future__ import annotations

from dataclasses import dataclass

from agent.protocol.channels import Network


@dataclass(frozen=True, slots=True)
class SelectionConfig:
    """When channels move; times in seconds.

    Attributes:
        hold_down: how long a relay that failed is passed over, the first time.
        failback_delay: how long a preferred relay must have answered before channels move back.
        move_on_limit: leave a relay that sets the L flag on a tunnel we have.
        patience: how long an answer is waited for before the next candidate is asked too.
        live_live: groups taken from two relays at once.
    """

    hold_down: float = 120.0
    failback_delay: float = 30.0
    move_on_limit: bool = False
    patience: float = 0.25
    live_live: tuple[Network, ...] = ()
