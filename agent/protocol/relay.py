"""RFC 7450 relay, sans-IO: discovery, stateless requests, tunnels and their groups.

Nothing is remembered of a gateway before it has returned a MAC that proves it receives at its address (§5.3.5), except
a bounded count of how often it asked. What is bad about a message is counted by reason; no input raises.

Unauthenticated messages get at most one answer each, no longer than the RFC's layout: 12 or 24 bytes for a Discovery,
48 (IGMP) or 88 (MLD) for a Request, 18 more with the gateway's address. Requests may be longer than 8 bytes: VLC's are.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable

from agent.protocol.channels import Address, Datagram, Endpoint, Family, is_unicast
from agent.protocol.relay_authentication import ResponseMacs
from agent.protocol.relay_config import RelayConfig
from agent.protocol.relay_events import (
    CloseReason,
    InterestChanged,
    RelayCounters,
    RelayEvent,
    TunnelClosed,
    TunnelOpened,
    TunnelView,
)
from agent.protocol.relay_limiter import AddressLimiter
from agent.protocol.relay_tunnel import REQUEST_BURST, Tunnel
from agent.protocol.timers import Timers
from agent.protocol.wire import amt, group_packet
from agent.protocol.wire.errors import WireError
from agent.protocol.wire.groups import AnySourceReport, Leave, Query, Report

__all__ = [
    "CloseReason",
    "InterestChanged",
    "Relay",
    "RelayConfig",
    "RelayCounters",
    "RelayEvent",
    "TunnelClosed",
    "TunnelOpened",
    "TunnelView",
]


class Relay:
    """A relay of any number of addresses and both families.

    Attributes:
        counters: messages received and sent by type, and refusals by reason.
    """

    def __init__(self, config: RelayConfig, entropy: Callable[[int], bytes]) -> None:
        """Make a relay without tunnels.

        Args:
            config: addresses, timers and limits.
            entropy: gives that many random bytes fit for cryptography, for the private secret.
        """
        self.counters = RelayCounters()
        self._config = config
        self._macs = ResponseMacs(entropy, config.secret_lifetime)
        self._limiter = _limiter(config)
        self._queries = _queries(config)
        self._tunnels: dict[Endpoint, Tunnel] = {}
        self._tunnels_of: Counter[Address] = Counter()
        self._timers: Timers[Endpoint] = Timers()
        self._draining_since: float | None = None
        self._datagrams: list[Datagram] = []
        self._events: list[RelayEvent] = []

    @property
    def config(self) -> RelayConfig:
        """Configuration in effect."""
        return self._config

    @property
    def draining_since(self) -> float | None:
        """Since when new gateways are turned away by `drain`, or None."""
        return self._draining_since

    @property
    def is_full(self) -> bool:
        """Whether the tunnel limit is reached."""
        return len(self._tunnels) >= self._config.tunnel_limit

    @property
    def tunnel_count(self) -> int:
        """Tunnels open."""
        return len(self._tunnels)

    def configure(self, config: RelayConfig) -> None:
        """Take a new configuration; tunnels, their groups and the secret stay, also those beyond a lower limit."""
        self._config = config
        self._macs.lifetime = config.secret_lifetime
        self._limiter = _limiter(config)
        self._queries = _queries(config)
        for tunnel in self._tunnels.values():
            tunnel.configure(config)

    def drain(self, enabled: bool, now: float) -> None:
        """Turn new gateways away with the L flag, or accept them again; existing tunnels go on."""
        if not enabled:
            self._draining_since = None
        elif self._draining_since is None:
            self._draining_since = now

    def rotate_secret(self, now: float) -> None:
        """Replace the private secret before its time; MACs given out stay valid until the next replacement."""
        self._macs.rotate(now)

    def stop(self, now: float) -> None:  # noqa: ARG002 - stop takes the time in every machine
        """Close every tunnel. RFC 7450 has no message that tells gateways; their data ends."""
        for tunnel in list(self._tunnels.values()):
            self._close(tunnel, CloseReason.STOPPED)

    def receive_datagram(self, data: bytes, source: Endpoint, local: Address, now: float) -> None:
        """Take a UDP payload sent from `source` to our address `local`."""
        try:
            message = amt.decode(data)
        except WireError as error:
            self._refuse(error.reason)
            return
        self.counters.received[message.type.name.lower()] += 1
        if source.port == 0 or not (is_unicast(source.address) or source.address.is_loopback):
            self._refuse("bad_source")
            return
        match message:
            case amt.RelayDiscovery():
                self._receive_discovery(message, source, local, now)
            case amt.Request():
                self._receive_request(message, source, local, now)
            case amt.MembershipUpdate():
                self._receive_update(message, source, local, now)
            case amt.Teardown():
                self._receive_teardown(message, now)
            case _:
                self._refuse("not_for_a_relay")

    def handle_timer(self, now: float) -> None:
        """Act on what is due at `now`."""
        for endpoint in self._timers.expired(now):
            tunnel = self._tunnels[endpoint]
            if tunnel.expires <= now:
                self._close(tunnel, CloseReason.EXPIRED)
            else:
                tunnel.table.handle_timer(now)
                self._follow(tunnel)

    def next_deadline(self) -> float | None:
        """When `handle_timer` has something to do, or None."""
        return self._timers.next_deadline()

    def datagrams_to_send(self) -> list[Datagram]:
        """Datagrams to send now, each from the address its request came to; drained."""
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def events(self) -> list[RelayEvent]:
        """Changes since the last call, in order, drained."""
        events, self._events = self._events, []
        return events

    def tunnels(self) -> list[TunnelView]:
        """Every tunnel with its groups, oldest first."""
        return [tunnel.view() for tunnel in self._tunnels.values()]

    def endpoints(self) -> list[Endpoint]:
        """The gateway of every tunnel, oldest first."""
        return list(self._tunnels)

    def tunnel(self, endpoint: Endpoint) -> TunnelView | None:
        """One tunnel with its groups, None when it is gone."""
        tunnel = self._tunnels.get(endpoint)
        return None if tunnel is None else tunnel.view()

    def _receive_discovery(self, message: amt.RelayDiscovery, source: Endpoint, local: Address, now: float) -> None:
        """§5.3.3: tell our unicast address of the family asked in, from the address asked."""
        address = self._config.address(Family.of(source.address))
        if address is None:
            self._refuse("no_address_of_family")
        elif not self._limiter.allow(source.address, now):
            self._refuse("rate_limit")
        else:
            self._send(amt.RelayAdvertisement(message.nonce, address), source, local)

    def _receive_request(self, message: amt.Request, source: Endpoint, local: Address, now: float) -> None:
        """§5.3.3: answer with a MAC and a general query, keeping nothing."""
        tunnel = self._tunnels.get(source)
        if not self._may_ask(source, tunnel, now):
            self._refuse("rate_limit")
            return
        family = Family.IPV6 if message.mld or message.kernel_mld else Family.IPV4
        if family not in self._config.families:
            self._refuse("family_not_offered")
            return
        query = amt.MembershipQuery(
            self._macs.compute(source.address, source.port, message.nonce, now),
            message.nonce,
            self._queries[family],
            # The Linux kernel's gateway drops queries with L, so tunnels that are to live on are never told.
            limit=tunnel is None and self._admission_refusal(source.address) is not None,
            gateway=(source.address, source.port) if self._config.gateway_address_in_query else None,
        )
        self._send(query, source, local)

    def _receive_update(self, message: amt.MembershipUpdate, source: Endpoint, local: Address, now: float) -> None:
        """§5.3.3: a valid MAC, then a report or leave, then state."""
        tunnel = self._tunnels.get(source)
        if not self._is_authentic(message, source, tunnel, now):
            self._refuse("bad_mac")
            return
        try:
            inner = group_packet.decode(message.packet)
        except WireError as error:
            self._refuse(f"inner_{error.reason}")
            return
        report = inner.message
        if isinstance(report, Query):
            self._refuse("inner_query")
            return
        if Family.of(inner.source) not in self._config.families:
            self._refuse("family_not_offered")
            return
        if tunnel is None:
            tunnel = self._admit(report, source, local, now)
        elif tunnel.local != local:
            # Data has to come from the address the gateway talks to, so this is another tunnel.
            self._close(tunnel, CloseReason.MOVED)
            tunnel = self._open(report, source, local, now)
        else:
            tunnel.table.receive(report, now)
        if tunnel is None:
            return
        family = Family.of(inner.source)
        tunnel.refresh(family, message.nonce, message.response_mac, self._config.tunnel_lifetime, now)
        self._follow(tunnel)

    def _receive_teardown(self, message: amt.Teardown, now: float) -> None:
        """§5.3.3: the MAC has to be that of the embedded address and port, wherever the message comes from."""
        gateway = Endpoint(*message.gateway)
        tunnel = self._tunnels.get(gateway)
        if not self._is_authentic(message, gateway, tunnel, now):
            self._refuse("bad_mac")
        elif tunnel is None:
            self._refuse("unknown_tunnel")
        else:
            self._close(tunnel, CloseReason.TEARDOWN)

    def _may_ask(self, source: Endpoint, tunnel: Tunnel | None, now: float) -> bool:
        rate = self._config.tunnel_requests_per_second
        if tunnel is not None and tunnel.requests.take(rate, REQUEST_BURST, now):
            return True
        return self._limiter.allow(source.address, now)

    def _is_authentic(
        self, message: amt.MembershipUpdate | amt.Teardown, gateway: Endpoint, tunnel: Tunnel | None, now: float
    ) -> bool:
        """Whether the MAC is ours for this gateway: under a valid secret, or remembered by its tunnel."""
        mac, nonce = message.response_mac, message.nonce
        if self._macs.verify(mac, gateway.address, gateway.port, nonce, now):
            return True
        if tunnel is None or not self._config.tunnel_keeps_mac:
            return False
        known = [known_mac for known_nonce, known_mac in tunnel.macs.values() if known_nonce == nonce]
        return any(hmac.compare_digest(mac, known_mac) for known_mac in known)

    def _admission_refusal(self, address: Address) -> str | None:
        """Why a new tunnel from `address` would not be taken, or None."""
        if self._draining_since is not None:
            return "draining"
        if self.is_full:
            return "tunnel_limit"
        most = self._config.tunnels_per_address
        return "tunnels_per_address" if most is not None and self._tunnels_of[address] >= most else None

    def _admit(
        self, report: Report | AnySourceReport | Leave, source: Endpoint, local: Address, now: float
    ) -> Tunnel | None:
        refusal = self._admission_refusal(source.address)
        if refusal is not None:
            self._refuse(refusal)
            return None
        return self._open(report, source, local, now)

    def _open(
        self, report: Report | AnySourceReport | Leave, source: Endpoint, local: Address, now: float
    ) -> Tunnel | None:
        """Open a tunnel if the report wants anything."""
        tunnel = Tunnel.open(source, local, self._config, self.counters.refused, now)
        tunnel.table.receive(report, now)
        if not len(tunnel.table):
            self._refuse("no_interest")
            return None
        self._tunnels[source] = tunnel
        self._tunnels_of[source.address] += 1
        self._events.append(TunnelOpened(source, local))
        return tunnel

    def _close(self, tunnel: Tunnel, reason: CloseReason) -> None:
        tunnel.table.clear()
        self._follow(tunnel)
        del self._tunnels[tunnel.endpoint]
        self._timers.cancel(tunnel.endpoint)
        address = tunnel.endpoint.address
        self._tunnels_of[address] -= 1
        if not self._tunnels_of[address]:
            del self._tunnels_of[address]
        self._events.append(TunnelClosed(tunnel.endpoint, reason))

    def _follow(self, tunnel: Tunnel) -> None:
        """Pass on what changed in a tunnel, and arm its next deadline."""
        self._events.extend(
            InterestChanged(tunnel.endpoint, tunnel.local, change.group, change.filter)
            for change in tunnel.table.events()
        )
        self._timers.set(tunnel.endpoint, tunnel.next_deadline())

    def _send(self, message: amt.RelayAdvertisement | amt.MembershipQuery, gateway: Endpoint, local: Address) -> None:
        self.counters.sent[message.type.name.lower()] += 1
        self._datagrams.append(Datagram(message.encode(), gateway, local))

    def _refuse(self, reason: str) -> None:
        self.counters.refused[reason] += 1


def _limiter(config: RelayConfig) -> AddressLimiter:
    return AddressLimiter(config.requests_per_second, config.request_burst, config.rate_limited_addresses)


def _queries(config: RelayConfig) -> dict[Family, bytes]:
    """The general query of each family; they are the same for every gateway."""
    query = Query(
        max_response_time=config.query_response_interval,
        robustness=config.timing.robustness,
        interval=int(config.query_interval),
    )
    return {family: group_packet.encode(query, config.query_source(family)) for family in Family}
