"""The relay role as the API shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from agent.dataplane.engine import Traffic
from agent.protocol.channels import Address, Channel, Endpoint
from agent.protocol.relay import TunnelView
from agent.service.clock import Clock
from agent.service.engine_model import InterfaceRole
from agent.service.interface_views import interface_problems, interface_status
from agent.service.model import (
    ChannelStatus,
    Interest,
    InterestKind,
    InterfaceStatus,
    NeighborStatus,
    Problem,
    Severity,
    TunnelState,
    TunnelStatus,
)
from agent.service.relay_channels import Subscribers
from agent.service.relay_role import RelayRole

_LISTED: Final = 64


class RelayViews:
    """Reads a relay role; changes nothing."""

    def __init__(self, role: RelayRole, clock: Clock) -> None:
        self._role = role
        self._clock = clock

    def tunnels(self) -> Iterator[TunnelStatus]:
        """Every tunnel, oldest first."""
        traffic = self._role.data.counters().tunnels
        for endpoint in self._role.machine.endpoints():
            view = self._role.machine.tunnel(endpoint)
            if view is not None:
                yield self._tunnel(view, traffic.get(endpoint, Traffic()))

    def channels(self) -> Iterator[ChannelStatus]:
        """Every channel some tunnel subscribed to, oldest first."""
        counters = self._role.data.counters()
        groups: dict[Address, _Flow] = {}
        for channel, traffic in counters.channels.items():
            groups.setdefault(channel.group, _Flow()).add(traffic, counters.seen_at[channel])
        for channel in self._role.channels.channels():
            subscribers = self._role.channels.subscribers(channel)
            if subscribers is None:
                continue
            flow = _Flow()
            if channel.source is None:
                flow = groups.get(channel.group, flow)
            elif channel in counters.channels:
                flow.add(counters.channels[channel], counters.seen_at[channel])
            yield self._channel(channel, subscribers, flow)

    def interfaces(self) -> list[InterfaceStatus]:
        """Native interfaces."""
        return [
            interface_status(name, InterfaceRole.NATIVE, self._role.monitor.get(name))
            for name in self._role.configuration.relay.interfaces
        ]

    def neighbors(self) -> list[NeighborStatus]:
        """None: a relay joins like a host and elects nobody."""
        return []

    def forwarding(self) -> tuple[Traffic, dict[str, int]]:
        """Everything sent into tunnels, and what was not, of one moment.

        By reason: native packets not sent on or not captured, and tunnel packets the kernel did not take.
        """
        counters = self._role.data.counters()
        refused = {reason.value: count for reason, count in counters.refused.items()}
        refused |= {f"send_{name.lower()}": count for name, count in counters.errors.items()}
        refused |= {f"capture_{name.lower()}": count for name, count in counters.capture_errors.items()}
        refused["capture_overflow"] = sum(counters.capture_dropped.values())
        return counters.sent, {reason: count for reason, count in refused.items() if count}

    def control(self) -> dict[str, dict[str, int]]:
        """Counters of the relay machine."""
        counters = self._role.machine.counters
        merged: Counter[str] = Counter({f"received_{kind}": count for kind, count in counters.received.items()})
        merged.update({f"sent_{kind}": count for kind, count in counters.sent.items()})
        merged.update({f"refused_{reason}": count for reason, count in counters.refused.items()})
        merged["send_errors"] = self._role.send_errors
        return {"relay": dict(merged)}

    def counts(self) -> tuple[int, int]:
        """Tunnels open and channels subscribed."""
        return self._role.machine.tunnel_count, len(self._role.channels)

    def problems(self) -> Iterator[Problem]:
        """What keeps tunnels from being fed."""
        if self._role.machine.is_full:
            yield Problem(
                code="tunnel_limit",
                severity=Severity.WARNING,
                message="relay.tunnel_limit is reached; new gateways are sent elsewhere with the L flag.",
            )
        failures = self._role.data.counters().join_failures
        for (interface, group), reason in list(failures.items())[:1]:
            yield Problem(
                code="native_join_failed",
                severity=Severity.ERROR,
                message=f"{len(failures)} groups cannot be joined natively, the first on {interface}: {reason}",
                subject=str(group),
            )
        yield from interface_problems(self.interfaces())

    def _tunnel(self, view: TunnelView, sent: Traffic) -> TunnelStatus:
        relay = self._role.configuration.relay
        return TunnelStatus(
            id=str(view.tunnel),
            state=TunnelState.ESTABLISHED,
            relay_address=view.local,
            relay_port=relay.port,
            gateway_address=view.tunnel.address,
            gateway_port=view.tunnel.port,
            local_address=view.local,
            local_port=relay.port,
            established_at=self._clock.utc(view.since),
            query_interval=relay.query_interval,
            last_query_age=self._clock.age(view.last_update),
            expires_in=max(0.0, view.expires - self._clock.now),
            channels=self._role.channels.count(view.tunnel),
            packets=sent.packets,
            bytes=sent.bytes,
        )

    def _channel(self, channel: Channel, subscribers: Subscribers, flow: _Flow) -> ChannelStatus:
        interfaces = self._role.configuration.relay.interfaces
        listed = list(islice(subscribers.tunnels, _LISTED))
        return ChannelStatus(
            source=channel.source,
            group=channel.group,
            since=self._clock.utc(subscribers.since),
            interests=[self._interest(tunnel, channel) for tunnel in listed],
            interest_count=len(subscribers.tunnels),
            incoming_interface=interfaces[0] if len(interfaces) == 1 else None,  # of several nobody knows which
            tunnels=[str(tunnel) for tunnel in listed],
            tunnel_count=len(subscribers.tunnels),
            packets=flow.packets,
            bytes=flow.bytes,
            last_packet_age=self._clock.age(flow.seen_at),
        )

    def _interest(self, tunnel: Endpoint, channel: Channel) -> Interest:
        excluded = self._role.channels.filter(tunnel, channel.group).sources if channel.source is None else ()
        return Interest(kind=InterestKind.AMT, neighbor=str(tunnel), excluded_sources=sorted(excluded, key=int))


@dataclass(slots=True)
class _Flow:
    """What came in for a channel, and when last (loop time)."""

    packets: int = 0
    bytes: int = 0
    seen_at: float | None = None

    def add(self, traffic: Traffic, seen_at: float) -> None:
        self.packets += traffic.packets
        self.bytes += traffic.bytes
        self.seen_at = seen_at if self.seen_at is None else max(self.seen_at, seen_at)
