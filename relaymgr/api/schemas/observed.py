"""What relays were last seen doing. Null is unknown, never zero."""

from __future__ import annotations

from pydantic import Field

from relaymgr.api.schemas.common import Identifier, Moment, Output, Page


class Observed(Output):
    """What every observed row carries: whose it is and how fresh."""

    relay_id: Identifier
    """The relay it was read from."""
    relay_name: str = Field(examples=["mx1"])
    """Its name."""
    polled_at: Moment | None
    """Last poll of the relay that succeeded, UTC."""
    age_seconds: float | None = Field(examples=[12.5])
    """Seconds since this row was read."""
    stale: str | None = Field(examples=["the device did not answer in time"])
    """Why the row is not fresh; null: it is."""


class Tunnel(Observed):
    """One gateway endpoint at one relay."""

    id: int = Field(examples=[4711])
    """Stable while the tunnel is known."""
    ad_id: Identifier | None
    """AD of the gateway by longest prefix; null: none holds it."""
    gateway_address: str = Field(examples=["203.0.113.9"])
    """Outer address of the gateway."""
    gateway_port: int = Field(examples=[49152])
    """Its UDP port."""
    state: str = Field(examples=["active"])
    """active, pending, down or unknown."""
    vendor_state: str | None = Field(examples=["Active"])
    """The device's own word for it."""
    interface: str | None = Field(examples=["ud-0/0/0.1120256"])
    """Logical interface on the relay."""
    local_address: str | None = Field(examples=["198.51.100.7"])
    """Relay's end of the tunnel."""
    inactivity_timeout_seconds: int | None = Field(examples=[215])
    """Seconds until the relay gives it up without a sign of life."""
    uptime_seconds: int | None = Field(examples=[86400])
    """Seconds since it came up."""
    channels: int | None = Field(examples=[3])
    """(S,G) delivered into it."""
    packets: int | None = Field(examples=[123456])
    """Multicast packets sent to the gateway since it came up."""
    bytes: int | None = Field(examples=[162468096])
    """Their bytes."""
    requests: int | None = Field(examples=[120])
    """Membership Requests received."""
    updates: int | None = Field(examples=[118])
    """Membership Updates received."""
    packets_per_second: float | None = Field(examples=[412.5])
    """Packets a second between the last two polls; null until there were two."""
    first_seen_at: Moment
    """Poll that saw it first, UTC."""
    seen_at: Moment
    """Poll that saw it last, UTC."""


class TunnelPage(Page[Tunnel]):
    """Tunnels."""


class Channel(Observed):
    """One (S,G) at one relay."""

    id: int = Field(examples=[815])
    """Stable while the channel is known."""
    group_address: str = Field(examples=["232.1.1.1"])
    """G."""
    source_address: str | None = Field(examples=["192.0.2.10"])
    """S; null: any source."""
    upstream_interface: str | None = Field(examples=["ge-1/0/0.0"])
    """Where it comes in."""
    downstream_interfaces: list[str] = Field(examples=[["ud-0/0/0.1120256"]])
    """Where it goes out."""
    gateways: int | None = Field(examples=[12])
    """Gateways it goes to, where the device tells."""
    packets: int | None = Field(examples=[123456])
    """Packets forwarded."""
    bytes: int | None = Field(examples=[162468096])
    """Bytes forwarded."""
    packets_per_second: float | None = Field(examples=[412.5])
    """Packets a second."""
    kilobits_per_second: float | None = Field(examples=[4336.2])
    """kbit/s."""
    state: str | None = Field(examples=["Active"])
    """The device's own word for it."""
    uptime_seconds: int | None = Field(examples=[86400])
    """Seconds since it came up."""
    seen_at: Moment
    """Poll that saw it last, UTC."""


class ChannelPage(Page[Channel]):
    """Channels."""


class PimNeighbor(Observed):
    """A PIM neighbour of a relay."""

    id: int = Field(examples=[12])
    """Stable while the neighbour is known."""
    address: str = Field(examples=["192.0.2.1"])
    """Its address."""
    interface: str = Field(examples=["ge-1/0/0.0"])
    """Where it is heard."""
    uptime_seconds: int | None = Field(examples=[86400])
    """Seconds since it was first heard."""
    hold_time_seconds: int | None = Field(examples=[105])
    """Seconds until it is given up."""
    priority: int | None = Field(examples=[1])
    """DR priority."""
    pim_version: int | None = Field(examples=[2])
    """Version of PIM."""
    seen_at: Moment
    """Poll that saw it last, UTC."""


class PimNeighborPage(Page[PimNeighbor]):
    """PIM neighbours."""


class StatisticsSample(Output):
    """Counters of one relay at one time."""

    id: int = Field(examples=[12])
    """Grows with time."""
    relay_id: Identifier
    """The relay."""
    relay_name: str = Field(examples=["mx1"])
    """Its name."""
    at: Moment
    """When they were read, UTC."""
    active_tunnels: int | None = Field(examples=[118])
    """Tunnels then."""
    tunnel_limit: int | None = Field(examples=[5000])
    """Tunnels at most."""
    active_streams: int | None = Field(examples=[340])
    """Unicast copies of channels then."""
    stream_limit: int | None = Field(examples=[20000])
    """Copies at most."""
    counters: dict[str, int] = Field(examples=[{"requests_received": 1200, "queries_sent": 1200}])
    """Messages since the device's start or last clear, by neutral name."""
    errors: dict[str, int] = Field(examples=[{"invalid_mac": 0}])
    """Errors since then, by neutral name."""


class StatisticsPage(Page[StatisticsSample]):
    """Samples, newest first unless sorted otherwise."""


class Drift(Output):
    """What the last drift check of a relay found."""

    relay_id: Identifier
    """The relay."""
    relay_name: str = Field(examples=["mx1"])
    """Its name."""
    state: str = Field(examples=["drifted"])
    """none, drifted or unknown."""
    diff: str = Field(examples=["-  tunnel-limit 5000;\n+  tunnel-limit 100;\n"])
    """From intended to actual, unified, secrets masked."""
    reason: str | None = Field(examples=["connection refused"])
    """Why it is unknown."""
    changed_by: str | None = Field(examples=["netops"])
    """Who committed last, where the device tells."""
    changed_at: Moment | None
    """When that was, UTC."""
    checked_at: Moment
    """When it was looked for, UTC."""
    age_seconds: float = Field(examples=[300.0])
    """Seconds since then."""
    since: Moment | None
    """Check that saw this drift first, UTC."""


class DriftPage(Page[Drift]):
    """Results of drift checks."""
