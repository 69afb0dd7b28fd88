"""Configuration of the relay machine."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.protocol.channels import Address, Family
from agent.protocol.group_timing import GroupTiming

UNSPECIFIED_IPV4: Final = IPv4Address(0)
DEFAULT_QUERY_SOURCE_IPV6: Final = IPv6Address("fe80::1")


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """What a relay is told; times in seconds.

    RFC 7450 leaves the inner source of the query to the relay. IGMP hosts accept any; it is the relay's own IPv4
    address as with other relays, 0.0.0.0 when it has none. MLD hosts drop a query that is not from a link-local address
    (RFC 3810 §5.1.14), so that one is link-local.

    Attributes:
        addresses: unicast addresses told in Advertisements; the first of the family asked is used.
        robustness_variable: as in GroupTiming; told in queries as QRV.
        query_interval: told in queries as QQIC. Above 127 the code is the exponent form, which VLC misreads.
        query_response_interval: told in queries.
        tunnel_limit: tunnels accepted; from then on new gateways are told the L flag.
        tunnels_per_address: tunnels accepted from one gateway address, None for no such limit.
        channels_per_tunnel: groups and sources remembered for one tunnel, both families together.
        requests_per_second: Discoveries and Requests answered per gateway address (/64 for IPv6), on average.
        request_burst: the same, at once.
        tunnel_requests_per_second: Requests answered per tunnel besides, so that neighbours of a gateway behind the
            same NAT never starve it. The Linux kernel's gateway sends one a second.
        rate_limited_addresses: addresses the limiter remembers at most.
        gateway_address_in_query: send the G flag and fields. The Linux kernel's gateway and VLC refuse such queries.
        secret_lifetime: time until the private secret is replaced; MACs of the one before stay valid as long again.
        tunnel_keeps_mac: accept the MAC of a tunnel's last valid Update for as long as the tunnel lives, for gateways
            that never send another Request (VLC).
        query_source_ipv4: inner source of IGMP queries, None for the relay's own.
        query_source_ipv6: inner source of MLD queries, link-local.
        families: families of multicast offered; Requests and Updates for others are refused.

    Raises:
        ValueError: a value outside its bounds.
    """

    addresses: tuple[Address, ...]
    robustness_variable: int = 2
    query_interval: float = 125
    query_response_interval: float = 10
    tunnel_limit: int = 10_000
    tunnels_per_address: int | None = None
    channels_per_tunnel: int = 1_000
    requests_per_second: float = 50
    request_burst: int = 200
    tunnel_requests_per_second: float = 4
    rate_limited_addresses: int = 65_536
    gateway_address_in_query: bool = False
    secret_lifetime: float = 7200
    tunnel_keeps_mac: bool = True
    query_source_ipv4: IPv4Address | None = None
    query_source_ipv6: IPv6Address = DEFAULT_QUERY_SOURCE_IPV6
    families: frozenset[Family] = frozenset(Family)

    def __post_init__(self) -> None:
        for name in ("channels_per_tunnel", "requests_per_second", "request_burst", "rate_limited_addresses"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is above 0")
        if self.tunnel_limit < 0 or self.tunnel_requests_per_second < 0:
            raise ValueError("tunnel_limit and tunnel_requests_per_second are not negative")
        if self.tunnels_per_address is not None and self.tunnels_per_address < 1:
            raise ValueError("tunnels_per_address is at least 1")
        if self.secret_lifetime <= 0:
            raise ValueError("secret_lifetime is above 0")
        if not self.query_source_ipv6.is_link_local:
            raise ValueError("query_source_ipv6 is link-local (RFC 3810 §5.1.14)")
        _ = self.timing  # refuses timers out of bounds here, not when the first tunnel opens

    @property
    def timing(self) -> GroupTiming:
        """Timers of the groups of every tunnel."""
        return GroupTiming(
            robustness_variable=self.robustness_variable,
            query_interval=self.query_interval,
            query_response_interval=self.query_response_interval,
        )

    @property
    def tunnel_lifetime(self) -> float:
        """Time a tunnel lives without a valid Update: as long as the groups reported in it."""
        return self.timing.group_membership_interval

    def address(self, family: Family) -> Address | None:
        """Unicast address to tell to gateways of a family."""
        return next((address for address in self.addresses if Family.of(address) is family), None)

    def query_source(self, family: Family) -> Address:
        """Inner source address of queries of a family."""
        if family is Family.IPV6:
            return self.query_source_ipv6
        return self.query_source_ipv4 or self.address(Family.IPV4) or UNSPECIFIED_IPV4
