"""What drivers read from a relay, the same for every vendor. `None` is unknown, never zero.

Frozen dataclasses, not pydantic: a poller makes a hundred thousand of them in each interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address


class TunnelState(StrEnum):
    """State of a tunnel in neutral words; the vendor's own word stands beside it."""

    ACTIVE = "active"
    PENDING = "pending"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Facts:
    """Identity of a device as it tells it."""

    hostname: str | None = None
    model: str | None = None
    version: str | None = None
    serial: str | None = None
    uptime_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One gateway endpoint at this relay."""

    gateway_address: Address
    gateway_port: int
    state: TunnelState = TunnelState.UNKNOWN
    vendor_state: str | None = None
    interface: str | None = None
    """Logical interface of the tunnel on the relay."""
    local_address: Address | None = None
    inactivity_timeout_seconds: int | None = None
    uptime_seconds: int | None = None
    channels: int | None = None
    """(S,G) delivered into the tunnel."""
    packets: int | None = None
    """Multicast packets sent to the gateway since the tunnel exists."""
    bytes: int | None = None
    requests: int | None = None
    """Membership Requests received."""
    updates: int | None = None
    """Membership Updates received."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One (S,G) the relay knows; `source` is None for (*,G)."""

    group: Address
    source: Address | None
    upstream_interface: str | None = None
    downstream_interfaces: tuple[str, ...] = ()
    gateways: tuple[tuple[Address, int], ...] | None = None
    """Address and port of the gateways it goes to, where the device tells."""
    packets: int | None = None
    bytes: int | None = None
    packets_per_second: float | None = None
    kilobits_per_second: float | None = None
    state: str | None = None
    uptime_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class PimNeighbor:
    """A PIM neighbour of the relay."""

    address: Address
    interface: str
    uptime_seconds: int | None = None
    hold_time_seconds: int | None = None
    priority: int | None = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters of the relay as a whole, since the device's start or last clear, and gauges of its limits.

    `counters` and `errors` are keyed by neutral names; a vendor's counter without one is kept under its own name in
    lower case with underscores. Neutral names: discoveries_received advertisements_sent requests_received
    queries_sent updates_received draining (1 while somebody on the relay's host turns new gateways away); errors:
    incomplete_packets invalid_mac unexpected_type invalid_address incomplete_messages no_gateway invalid_checksum
    gateways_timed_out.
    """

    active_tunnels: int | None = None
    tunnel_limit: int | None = None
    active_streams: int | None = None
    stream_limit: int | None = None
    counters: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything one poll read. A part the device cannot tell, or that failed, is None and named in `missing`."""

    tunnels: tuple[Tunnel, ...] | None = None
    channels: tuple[Channel, ...] | None = None
    pim_neighbors: tuple[PimNeighbor, ...] | None = None
    statistics: Statistics | None = None
    missing: dict[str, str] = field(default_factory=dict)
    """Part (tunnels, channels, pim_neighbors, statistics) -> why it is missing."""


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """Who changed the device's configuration last, where the device tells."""

    user: str | None = None
    at: datetime | None = None
    client: str | None = None
    comment: str | None = None
