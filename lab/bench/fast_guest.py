"""The kernel's own AMT gateway beside native multicast routing, both in the User Mode Linux guest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GuestRatio:
    """Seconds a packet takes there.

    Attributes:
        release: of the guest's kernel.
        native: to route a packet.
        gateway: to take it out of a tunnel and route it.
    """

    release: str
    native: float
    gateway: float

    @property
    def ratio(self) -> float:
        """What the gateway takes to what routing alone takes."""
        return self.gateway / self.native
