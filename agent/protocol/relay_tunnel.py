"""One tunnel of a relay: a gateway's address and port, and what it wants."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from agent.protocol.channels import Address, Endpoint, Family
from agent.protocol.group_state import GroupLimits, GroupTable
from agent.protocol.relay_config import RelayConfig
from agent.protocol.relay_events import TunnelView
from agent.protocol.relay_limiter import Bucket

REQUEST_BURST: Final = 8
"""Requests a tunnel may send at once besides those of its address."""


@dataclass(slots=True)
class Tunnel:
    """State of one gateway endpoint; both families of groups live in one table.

    Attributes:
        endpoint: gateway's address and port.
        local: relay's address the gateway talks to.
        since: when the tunnel opened.
        table: its groups. One host is at the other end, so leaves are fast.
        last_update: when the last valid Update came.
        expires: when the tunnel ends unless another comes.
        updates: valid Updates received.
        macs: nonce and MAC of the last valid Update, by family of the group it was about.
        requests: bucket for the Requests of this endpoint alone.
    """

    endpoint: Endpoint
    local: Address
    since: float
    table: GroupTable
    last_update: float
    expires: float
    requests: Bucket
    updates: int = 0
    macs: dict[Family, tuple[int, bytes]] = field(default_factory=dict)

    @classmethod
    def open(cls, endpoint: Endpoint, local: Address, config: RelayConfig, refused: Counter[str], now: float) -> Tunnel:
        """A tunnel with no groups yet; `refused` counts what is wrong with its records."""
        return cls(
            endpoint,
            local,
            since=now,
            table=GroupTable(config.timing, limits(config), fast_leave=True, querier=False, refused=refused),
            last_update=now,
            expires=now + config.tunnel_lifetime,
            requests=Bucket(REQUEST_BURST, now),
        )

    def configure(self, config: RelayConfig) -> None:
        """Take new timers and limits; groups stay."""
        self.table.timing = config.timing
        self.table.limits = limits(config)

    def refresh(self, family: Family, nonce: int, mac: bytes, lifetime: float, now: float) -> None:
        """Note a valid Update."""
        self.last_update = now
        self.expires = now + lifetime
        self.updates += 1
        self.macs[family] = (nonce, mac)

    def next_deadline(self) -> float:
        """When a group's timer or the tunnel itself ends."""
        deadline = self.table.next_deadline()
        return self.expires if deadline is None else min(deadline, self.expires)

    def view(self) -> TunnelView:
        """The tunnel as `status` shows it."""
        return TunnelView(
            self.endpoint,
            self.local,
            since=self.since,
            last_update=self.last_update,
            expires=self.expires,
            updates=self.updates,
            groups=self.table.filters(),
        )


def limits(config: RelayConfig) -> GroupLimits:
    """Bounds of one tunnel's groups."""
    channels = config.channels_per_tunnel
    return GroupLimits(max_groups=channels, max_sources=channels, max_channels=channels)
