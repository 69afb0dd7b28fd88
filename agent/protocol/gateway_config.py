"""What a gateway machine is told: where its relay is and how patient it is."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.protocol.channels import Address, Endpoint, Family, is_unicast
from agent.protocol.wire import amt

_IPV4_UNSPECIFIED: Final = IPv4Address("0.0.0.0")  # RFC 3376 §4.2.13 lets a host without an address report from it
_IPV6_LINK_LOCAL: Final = IPv6Address("fe80::2")  # RFC 3810 §5.2.13 wants a link-local source
_UPDATE_OVERHEAD: Final = {Family.IPV4: 20 + 8 + 12, Family.IPV6: 40 + 8 + 12}
_MINIMUM_MTU: Final = {Family.IPV4: 576, Family.IPV6: 1280}


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """One relay, or one relay discovery address, of one outer family.

    Times are seconds. The outer family is that of `address`.

    Attributes:
        address: relay discovery address (anycast or unicast), or the relay itself when `discover` is off.
        port: UDP port of discovery and of the relay (RFC 7450 §7.2).
        discover: ask `address` for a relay (RFC 7450 §5.2.3.4); off means `address` is the relay.
        ipv4_source: source of the IGMP reports inside Updates.
        ipv6_source: source of the MLD reports inside Updates, link-local.
        keep_warm: families whose Request cycle goes on without any group, so that a join costs no round trip. Empty:
            a gateway without groups is silent.
        initial_timeout: wait for the first answer of a Discovery or Request; doubles with each retransmission.
        maximum_timeout: cap of that wait; after a wait this long the exchange starts again with a fresh nonce.
        jitter: waits are drawn from `wait * (1 - jitter) .. wait * (1 + jitter)`.
        discovery_attempts: unanswered Discoveries before `RelayLost` tells the owner; discovery goes on.
        request_attempts: unanswered Requests before the relay counts as lost.
        relay_lifetime: how long a discovered relay is remembered while nothing is wanted; then discovery comes first.
        minimum_query_interval: lower bound of the interval a relay may ask for.
        maximum_query_interval: upper bound of it. The default lets through whatever a QQIC can say.
        default_query_interval: taken where a query's QQIC is 0.
        limit_retry: wait after a Query with the L flag before the relay is asked again; None waits for `refresh`.
        hint_interval: at most one hint (ICMP error, silence) starts a Request cycle in this time.
        probe_timeout: wait for the answer to each Request that a hint brought about, so that a relay that is gone is
            soon given up; a quarter of it after an ICMP error. None: as patient as with any Request.
        probe_attempts: unanswered ones of these before the relay counts as lost.
        report_interval: robustness retransmissions follow within this time (RFC 3376 §8.11).
        update_rate: Updates a second beyond a burst of `update_burst`.
        update_burst: Updates that may leave back to back.
        mtu: largest outer packet in bytes.
    """

    address: Address
    port: int = amt.PORT
    discover: bool = True
    ipv4_source: IPv4Address = _IPV4_UNSPECIFIED
    ipv6_source: IPv6Address = _IPV6_LINK_LOCAL
    keep_warm: frozenset[Family] = frozenset()
    initial_timeout: float = 1.0
    maximum_timeout: float = 120.0
    jitter: float = 0.1
    discovery_attempts: int = 4
    request_attempts: int = 4
    relay_lifetime: float = 300.0
    minimum_query_interval: float = 1.0
    maximum_query_interval: float = 31744.0
    default_query_interval: float = 125.0
    limit_retry: float | None = 300.0
    hint_interval: float = 5.0
    probe_timeout: float | None = None
    probe_attempts: int = 3
    report_interval: float = 1.0
    update_rate: float = 500.0
    update_burst: int = 32
    mtu: int = 1500

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ValueError: a field is out of its range; the message names it.
        """
        _require(is_unicast(self.address) or self.address.is_loopback, "address must be unicast or anycast")
        _require(0 < self.port < 65536, "port must be 1..65535")
        _require(0 < self.initial_timeout <= self.maximum_timeout, "initial_timeout must be in 0..maximum_timeout")
        _require(0 <= self.jitter < 1, "jitter must be 0 or more, below 1")
        _require(self.discovery_attempts > 0 and self.request_attempts > 0, "attempts must be 1 or more")
        _require(
            0 < self.minimum_query_interval <= self.default_query_interval <= self.maximum_query_interval,
            "query intervals must be above 0 and ordered minimum, default, maximum",
        )
        _require(self.probe_timeout is None or self.probe_timeout > 0, "probe_timeout must be above 0 or None")
        _require(self.probe_attempts > 0, "probe_attempts must be 1 or more")
        _require(self.limit_retry is None or self.limit_retry > 0, "limit_retry must be above 0 or None")
        _require(min(self.relay_lifetime, self.hint_interval, self.report_interval) >= 0, "times must not be negative")
        _require(self.update_rate > 0 and self.update_burst > 0, "update_rate and update_burst must be above 0")
        _require(self.mtu >= _MINIMUM_MTU[self.family], f"mtu must be {_MINIMUM_MTU[self.family]} or more")

    @property
    def family(self) -> Family:
        """Outer family."""
        return Family.of(self.address)

    @property
    def endpoint(self) -> Endpoint:
        """Where Discoveries go, or Requests when discovery is off."""
        return Endpoint(self.address, self.port)

    @property
    def report_size(self) -> int:
        """Largest IP packet with a report, in bytes, that an Update carries within `mtu`."""
        return self.mtu - _UPDATE_OVERHEAD[self.family]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
