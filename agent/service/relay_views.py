"""The relay role as the API shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from agent.dataplane.engine import Traffic
from agent.protocol.channels import Channel, FilterMode
from agent.protocol.relay import TunnelView
from agent.service.clock import Clock
from agent.service.interface_views import interface_status
from agent.service.model import (
    ChannelStatus,
    Interest,
    InterestKind,
    InterfaceRole,
    InterfaceStatus,
    NeighborStatus,
    Problem,
    Severity,
    TunnelState,
    TunnelStatus,
)
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
        port = self._role.configuration.relay.port
        for view in self._role.machine.tunnels():
            sent = traffic.get(view.tunnel, Traffic())
            yield TunnelStatus(
                id=str(view.tunnel),
                state=TunnelState.ESTABLISHED,
                relay_address=view.local,
                relay_port=port,
                gateway_address=view.tunnel.address,
                gateway_port=view.tunnel.port,
                local_address=view.local,
                local_port=port,
                established_at=self._clock.utc(view.since),
                query_interval=self._role.configuration.relay.query_interval,
                last_query_age=self._clock.age(view.last_update),
                expires_in=max(0.0, view.expires - self._clock.now),
                channels=len(_channels(view)),
                packets=sent.packets,
                bytes=sent.bytes,
            )

    def channels(self) -> Iterator[ChannelStatus]:
        """Every channel some tunnel subscribed to."""
        wanted: dict[Channel, list[TunnelView]] = {}
        for view in self._role.machine.tunnels():
            for channel in _channels(view):
                wanted.setdefault(channel, []).append(view)
        traffic = self._role.data.counters().channels
        for channel, views in wanted.items():
            moved = traffic.get(channel, Traffic())
            if channel.source is None:
                moved = _sum(item for key, item in traffic.items() if key.group == channel.group)
            yield ChannelStatus(
                source=channel.source,
                group=channel.group,
                since=self._clock.utc(min(view.since for view in views)),
                interests=[_interest(view, channel) for view in views[:_LISTED]],
                interest_count=len(views),
                incoming_interface=self._role.configuration.relay.interfaces[0],
                tunnels=[str(view.tunnel) for view in views[:_LISTED]],
                tunnel_count=len(views),
                packets=moved.packets,
                bytes=moved.bytes,
            )

    def interfaces(self) -> list[InterfaceStatus]:
        """Native interfaces."""
        return [
            interface_status(name, InterfaceRole.NATIVE, self._role.monitor.get(name))
            for name in self._role.configuration.relay.interfaces
        ]

    def neighbors(self) -> list[NeighborStatus]:
        """None: a relay joins like a host and elects nobody."""
        return []

    def refused(self) -> dict[str, int]:
        """Native packets not sent on or not captured, by reason, and tunnel packets the kernel did not take."""
        counters = self._role.data.counters()
        refused = {reason.value: count for reason, count in counters.refused.items()}
        refused |= {f"send_{name.lower()}": count for name, count in counters.errors.items()}
        refused |= {f"capture_{name.lower()}": count for name, count in counters.capture_errors.items()}
        refused["capture_overflow"] = sum(counters.capture_dropped.values())
        return {reason: count for reason, count in refused.items() if count}

    def forwarded(self) -> Traffic:
        """Everything sent into tunnels."""
        return _sum(self._role.data.counters().tunnels.values())

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
        views = self._role.machine.tunnels()
        return len(views), len({channel for view in views for channel in _channels(view)})

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
        for status in self.interfaces():
            if not status.up:
                yield Problem(
                    code="interface_down",
                    severity=Severity.ERROR,
                    message=f"Interface {status.name} is absent or down.",
                    subject=status.name,
                )


def _channels(view: TunnelView) -> list[Channel]:
    """Channels of a tunnel: listed sources, or (*,G) for any-source interest."""
    channels: list[Channel] = []
    for group, wanted in view.groups.items():
        if wanted.mode is FilterMode.EXCLUDE:
            channels.append(Channel(None, group))
        else:
            channels += [Channel(source, group) for source in wanted.sources]
    return channels


def _interest(view: TunnelView, channel: Channel) -> Interest:
    wanted = view.groups[channel.group]
    excluded = sorted(wanted.sources, key=int) if wanted.mode is FilterMode.EXCLUDE else []
    return Interest(kind=InterestKind.AMT, neighbor=str(view.tunnel), excluded_sources=excluded)


def _sum(items: Iterable[Traffic]) -> Traffic:
    total = Traffic()
    for item in items:
        total.packets += item.packets
        total.bytes += item.bytes
    return total
