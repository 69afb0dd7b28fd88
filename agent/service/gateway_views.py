"""The gateway role as the API shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from agent.dataplane.engine import Traffic
from agent.net.interfaces import local_address_towards
from agent.protocol.channels import Family
from agent.protocol.gateway_state import State
from agent.protocol.policy import Refusal
from agent.service.channel_views import ChannelViews
from agent.service.clock import Clock
from agent.service.engine_model import InterfaceRole
from agent.service.frr_views import frr_counters, frr_problems
from agent.service.gateway_role import GatewayRole
from agent.service.interface_views import interface_problems, interface_status
from agent.service.model import (
    ChannelStatus,
    InterfaceStatus,
    NeighborKind,
    NeighborStatus,
    Problem,
    QuerierStatus,
    RelayOrigin,
    Severity,
    TunnelState,
    TunnelStatus,
)
from agent.service.pim_views import PimViews
from agent.service.tunnel import Tunnel
from agent.service.unserved import unserved_problems

_TUNNEL_STATES = {
    State.STOPPED: TunnelState.CLOSED,
    State.IDLE: TunnelState.IDLE,
    State.DISCOVERING: TunnelState.DISCOVERING,
    State.REQUESTING: TunnelState.REQUESTING,
    State.ESTABLISHED: TunnelState.ESTABLISHED,
    State.LIMITED: TunnelState.HELD_DOWN,
}


_LIMITS = {
    Refusal.JOIN_RATE: "policy.joins_per_second",
    Refusal.NEIGHBOR_LIMIT: "policy.channels_per_neighbor",
    Refusal.CHANNEL_LIMIT: "gateway.channel_limit",
    Refusal.BANDWIDTH: "policy.bandwidth",
}


class GatewayViews:
    """Reads a gateway role; changes nothing."""

    def __init__(self, role: GatewayRole, clock: Clock) -> None:
        self._role = role
        self._clock = clock
        self._channels = ChannelViews(role, clock)
        self._pim = PimViews(role.pim.service, clock)

    def tunnels(self) -> Iterator[TunnelStatus]:
        """Every tunnel, in configured order."""
        traffic = self._role.engine.tunnel_traffic()
        for name in list(self._role.tunnels):
            tunnel = self._role.tunnels.get(name)
            if tunnel is not None:
                yield self._tunnel(tunnel, traffic.get(name, Traffic()))

    def channels(self) -> Iterator[ChannelStatus]:
        """Every channel that is carried, oldest first, then those somebody wants and does not get."""
        yield from self._channels.rows()

    def interfaces(self) -> list[InterfaceStatus]:
        """Uplinks, downstream and native interfaces, and the tunnel interface."""
        gateway = self._role.configuration.gateway
        names = [(name, InterfaceRole.UPLINK) for name in gateway.uplink]
        names += [(name, InterfaceRole.DOWNSTREAM) for name in gateway.downstream]
        names += [(name, InterfaceRole.NATIVE) for name in gateway.native]
        names.append((gateway.tunnel_interface, InterfaceRole.TUNNEL))
        sent = self._role.control.sent
        return [
            interface_status(
                name,
                kind,
                self._role.monitor.get(name),
                self._queriers(name),
                sent.get(name),
                self._pim.interface(name),
            )
            for name, kind in names
        ]

    def neighbors(self) -> list[NeighborStatus]:
        """PIM neighbours, and queriers that won the election against us."""
        queriers = [
            NeighborStatus(kind=NeighborKind.QUERIER, interface=name, address=listener.querier.querier_address)
            for (name, _), listener in self._role.listeners.items()
            if listener.querier.querier_address is not None and not listener.querier.is_querier
        ]
        return [*self._pim.neighbors(), *queriers]

    def forwarding(self) -> tuple[Traffic, dict[str, int]]:
        """Everything the engine handed on since it started, and packets it did not, by reason: of one moment."""
        counters = self._role.engine.counters()
        return counters.forwarded, {reason.value: count for reason, count in counters.refused.items()}

    def control(self) -> dict[str, dict[str, int]]:
        """Counters of the machines, summed over tunnels and interfaces."""
        gateway: Counter[str] = Counter()
        for tunnel in self._role.tunnels.values():
            gateway.update(tunnel.machine.counters)
            gateway["send_errors"] += tunnel.send_errors
        listeners: dict[str, Counter[str]] = {"igmp": Counter(), "mld": Counter()}
        for listener in self._role.listeners.values():
            counter = listeners["igmp" if listener.family == 4 else "mld"]
            counter.update({f"received_{kind}": count for kind, count in listener.querier.received.items()})
            counter.update({f"refused_{reason}": count for reason, count in listener.querier.refused.items()})
            counter["sent"] += listener.link.counters.sent
            counter["send_errors"] += listener.link.counters.send_errors
            counter["receive_overflows"] += listener.link.overflows or 0
        counters = {name: dict(counter) for name, counter in listeners.items()}
        counters["discovery"] = dict(self._role.discovery.counters)
        if self._role.frr is not None:
            counters["frr"] = frr_counters(self._role.frr)
        counters["relays"] = dict(self._role.relays.counters)
        counters["policy"] = {f"refused_{reason}": count for reason, count in self._role.admission.counts.items()}
        counters["metadata"] = dict(self._role.metadata.counts)
        return {"gateway": dict(gateway), **counters, "pim": self._pim.control()}

    def counts(self) -> tuple[int, int]:
        """Tunnels established and channels wanted."""
        established = sum(tunnel.machine.state is State.ESTABLISHED for tunnel in self._role.tunnels.values())
        return established, len(self._role.control.ledger)

    def problems(self) -> Iterator[Problem]:
        """What keeps channels from being carried as meant."""
        for family, reason in self._role.missing_families.items():
            yield Problem(
                code="family_not_carried",
                severity=Severity.WARNING,
                message=f"IPv{family} multicast is not carried: {reason}; switch it off in [gateway] if that is meant.",
            )
        yield from self._role.fast.problems()
        yield from self._relay_problems()
        yield from self._channel_problems()
        yield from interface_problems(self.interfaces())
        yield from self._querier_problems()
        gateway = self._role.configuration.gateway
        yield from self._pim.problems(gateway.native, None if self._role.frr is None else gateway.tunnel_interface)
        if self._role.frr is not None:
            yield from frr_problems(self._role.frr, gateway.tunnel_interface)

    def _relay_problems(self) -> Iterator[Problem]:
        for tunnel in self._role.tunnels.values():
            if tunnel.last_error and tunnel.machine.state in {State.DISCOVERING, State.REQUESTING, State.LIMITED}:
                yield Problem(
                    code="relay_unreachable" if tunnel.machine.state is not State.LIMITED else "relay_limit",
                    severity=Severity.ERROR if self._role.control.subscriptions(tunnel.name) else Severity.WARNING,
                    message=f"The relay does not serve us ({tunnel.last_error}); check the path to it and UDP 2268.",
                    subject=tunnel.name,
                )

    def _channel_problems(self) -> Iterator[Problem]:
        control = self._role.control
        yield from unserved_problems(control.unserved, control.explain_unserved)
        for channel, reason in list(control.refused.items())[:1]:
            yield Problem(
                code="channels_not_forwarded",
                severity=Severity.ERROR,
                message=f"{len(control.refused)} channels cannot be forwarded: {reason}",
                subject=str(channel),
            )
        refused = Counter(refusal for _, _, refusal in self._role.admission.refused())
        for refusal, count in refused.items():
            if refusal not in {Refusal.DENIED, Refusal.METADATA_PENDING}:
                yield Problem(
                    code=refusal.value,
                    severity=Severity.ERROR,
                    message=f"{count} channels are not carried because {_LIMITS[refusal]} is reached.",
                )

    def _querier_problems(self) -> Iterator[Problem]:
        """Interfaces that are up but have no address to query from: their receivers are never asked."""
        for (name, family), listener in self._role.listeners.items():
            interface = self._role.monitor.get(name)
            if interface is not None and interface.up and listener.querier.address is None:
                wanted = "an IPv4 address" if family is Family.IPV4 else "a link-local IPv6 address"
                yield Problem(
                    code="no_querier_address",
                    severity=Severity.WARNING,
                    message=f"{name} has no address to speak to hosts and routers from; give it {wanted}, "
                    f"or switch IPv{family} off in [gateway].",
                    subject=name,
                )

    def _tunnel(self, tunnel: Tunnel, traffic: Traffic) -> TunnelStatus:
        machine = tunnel.machine
        relay = machine.relay
        seen = machine.gateway_address
        target = relay.address if relay is not None else tunnel.settings.gateway.address
        known = self._role.relays.view(tunnel.name)
        return TunnelStatus(
            id=tunnel.name,
            state=_TUNNEL_STATES[machine.state],
            discovery_address=tunnel.settings.gateway.address if tunnel.settings.gateway.discover else None,
            relay_address=relay.address if relay is not None else None,
            relay_port=relay.port if relay is not None else None,
            gateway_address=seen.address if seen is not None else None,
            gateway_port=seen.port if seen is not None else None,
            local_address=local_address_towards(target, tunnel.settings.interface),
            local_port=tunnel.local_port,
            established_at=self._clock.utc_or_none(tunnel.established_at),
            query_interval=machine.query_interval,
            last_query_age=self._clock.age(machine.last_query),
            limited=machine.limit,
            channels=self._role.control.subscriptions(tunnel.name),
            packets=traffic.packets,
            bytes=traffic.bytes,
            last_error=tunnel.last_error,
            origin=RelayOrigin(known.origin),
            held_until=self._clock.utc_or_none(known.held_until),
            hold_reason=known.reason,
            live_live=known.live_live,
        )

    def _queriers(self, interface: str) -> list[QuerierStatus]:
        return [
            QuerierStatus(
                protocol="igmp" if family == 4 else "mld",
                version=3 if family == 4 else 2,
                querier_address=listener.querier.querier_address,
                elected=listener.querier.is_querier,
                groups=listener.querier.group_count,
            )
            for (name, family), listener in self._role.listeners.items()
            if name == interface
        ]
