"""/metrics: the agent's counters for Prometheus; docs/metrics.md explains every name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from agent.service.api.paging import slices
from agent.service.model import (
    AgentStatus,
    ChannelStatus,
    InterfaceStatus,
    StatisticsReport,
    TunnelState,
    TunnelStatus,
)
from agent.service.port import AgentService

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
ROW_LIMIT: Final = 1000
"""Tunnels and channels with metrics of their own; the oldest are kept, the rest only counted."""


@dataclass(slots=True)
class Snapshot:
    """What one scrape tells, taken in the event loop; turned into text elsewhere."""

    status: AgentStatus
    statistics: StatisticsReport
    interfaces: list[InterfaceStatus]
    tunnels: list[TunnelStatus] = field(default_factory=list)
    channels: list[ChannelStatus] = field(default_factory=list)
    tunnel_states: dict[str, int] = field(default_factory=lambda: dict.fromkeys((s.value for s in TunnelState), 0))
    channel_count: int = 0
    channels_receiving: int = 0
    tunnel_count: int = 0


async def render_metrics(service: AgentService) -> bytes:
    """Text of one scrape; rows are read in slices and the text is made in a thread, so that forwarding goes on."""
    snapshot = Snapshot(service.status(), service.statistics(), list(service.interfaces()))
    async for tunnels in slices(service.tunnels()):
        snapshot.tunnel_count += len(tunnels)
        for tunnel in tunnels:
            snapshot.tunnel_states[tunnel.state.value] += 1
        snapshot.tunnels.extend(tunnels[: max(0, ROW_LIMIT - len(snapshot.tunnels))])
    async for channels in slices(service.channels()):
        snapshot.channel_count += len(channels)
        snapshot.channels_receiving += sum(
            1 for row in channels if row.last_packet_age is not None and row.last_packet_age <= 10
        )
        snapshot.channels.extend(channels[: max(0, ROW_LIMIT - len(snapshot.channels))])
    return await asyncio.to_thread(_text, snapshot)


def _text(snapshot: Snapshot) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(snapshot))
    return generate_latest(registry)


class SnapshotCollector:
    """A prometheus_client collector over one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are only checked when metrics are made."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric family."""
        yield from _agent(self._snapshot)
        yield from _forwarding(self._snapshot.statistics)
        yield from _interfaces(self._snapshot.interfaces)
        yield from _tunnels(self._snapshot.tunnels)
        yield from _channels(self._snapshot.channels)


def _agent(snapshot: Snapshot) -> Iterator[Metric]:
    status, statistics = snapshot.status, snapshot.statistics
    yield InfoMetricFamily(
        "isthmus_agent",
        "Version, role and engine of the agent.",
        {"version": status.version, "role": status.role.value, "engine": status.engine.name},
    )
    yield _gauge("isthmus_start_time_seconds", "When the process started.", status.started_at.timestamp())
    yield _gauge("isthmus_ready", "1 when interfaces, sockets and engine are all up.", status.ready)
    yield _gauge("isthmus_draining", "1 while new tunnels are turned away.", status.draining)
    yield _gauge("isthmus_joins", "Static joins.", status.counts.joins)
    yield _gauge(
        "isthmus_commit_unconfirmed",
        "1 while a commit waits to be confirmed.",
        status.configuration.confirm_deadline is not None,
    )
    problems = GaugeMetricFamily("isthmus_problems", "Problems now.", labels=["severity"])
    for severity in ("warning", "error"):
        problems.add_metric([severity], sum(1 for item in status.problems if item.severity.value == severity))
    yield problems
    tunnels = GaugeMetricFamily("isthmus_tunnels", "Tunnels by state.", labels=["state"])
    for state, count in snapshot.tunnel_states.items():
        tunnels.add_metric([state], count)
    yield tunnels
    channels = GaugeMetricFamily("isthmus_channels", "Channels wanted, by whether packets come.", labels=["state"])
    channels.add_metric(["receiving"], snapshot.channels_receiving)
    channels.add_metric(["idle"], snapshot.channel_count - snapshot.channels_receiving)
    yield channels
    omitted = GaugeMetricFamily("isthmus_rows_omitted", "Rows without metrics of their own.", labels=["kind"])
    omitted.add_metric(["tunnel"], snapshot.tunnel_count - len(snapshot.tunnels))
    omitted.add_metric(["channel"], snapshot.channel_count - len(snapshot.channels))
    yield omitted
    yield _counter("isthmus_process_cpu_seconds", "Processor time used.", statistics.cpu_seconds)
    yield _gauge("isthmus_process_resident_bytes", "Resident memory.", statistics.resident_bytes)


def _forwarding(statistics: StatisticsReport) -> Iterator[Metric]:
    yield _counter("isthmus_forwarded_packets", "Packets handed on.", statistics.forwarded_packets)
    yield _counter("isthmus_forwarded_bytes", "Bytes of those packets.", statistics.forwarded_bytes)
    refused = CounterMetricFamily("isthmus_refused_packets", "Packets not forwarded, by reason.", labels=["reason"])
    for reason, count in sorted(statistics.refused.items()):
        refused.add_metric([reason], count)
    yield refused
    control = CounterMetricFamily(
        "isthmus_control_events", "What the protocol machines counted.", labels=["machine", "event"]
    )
    for machine, counters in sorted(statistics.control.items()):
        for event, count in sorted(counters.items()):
            control.add_metric([machine, event], count)
    yield control


def _interfaces(rows: list[InterfaceStatus]) -> Iterator[Metric]:
    labels = ["interface", "role"]
    up = GaugeMetricFamily("isthmus_interface_up", "1 when the interface is up.", labels=labels)
    packets = CounterMetricFamily("isthmus_interface_packets", "Packets forwarded by us.", labels=labels)
    size = CounterMetricFamily("isthmus_interface_bytes", "Bytes of those packets.", labels=labels)
    groups = GaugeMetricFamily("isthmus_interface_groups", "Groups with listeners.", labels=["interface", "protocol"])
    querier = GaugeMetricFamily(
        "isthmus_interface_querier", "1 when we are the querier.", labels=["interface", "protocol"]
    )
    for row in rows:
        values = [row.name, row.role.value]
        up.add_metric(values, row.up)
        packets.add_metric(values, row.packets)
        size.add_metric(values, row.bytes)
        for item in row.queriers:
            groups.add_metric([row.name, item.protocol], item.groups)
            querier.add_metric([row.name, item.protocol], item.elected)
    yield from (up, packets, size, groups, querier)


def _tunnels(rows: list[TunnelStatus]) -> Iterator[Metric]:
    labels = ["tunnel", "relay", "gateway"]
    up = GaugeMetricFamily("isthmus_tunnel_established", "1 when the tunnel is established.", labels=labels)
    limited = GaugeMetricFamily("isthmus_tunnel_limited", "1 when the relay set the L flag.", labels=labels)
    channels = GaugeMetricFamily("isthmus_tunnel_channels", "Channels over the tunnel.", labels=labels)
    packets = CounterMetricFamily("isthmus_tunnel_packets", "Packets through the tunnel.", labels=labels)
    size = CounterMetricFamily("isthmus_tunnel_bytes", "Bytes of those packets.", labels=labels)
    for row in rows:
        values = [
            row.id,
            str(row.relay_address or row.discovery_address or ""),
            "" if row.gateway_address is None else str(row.gateway_address),
        ]
        up.add_metric(values, row.state is TunnelState.ESTABLISHED)
        limited.add_metric(values, row.limited)
        channels.add_metric(values, row.channels)
        packets.add_metric(values, row.packets)
        size.add_metric(values, row.bytes)
    yield from (up, limited, channels, packets, size)


def _channels(rows: list[ChannelStatus]) -> Iterator[Metric]:
    labels = ["source", "group"]
    packets = CounterMetricFamily("isthmus_channel_packets", "Packets forwarded.", labels=labels)
    size = CounterMetricFamily("isthmus_channel_bytes", "Bytes of those packets.", labels=labels)
    latency = GaugeMetricFamily(
        "isthmus_channel_join_latency_seconds", "From the first interest to the first packet.", labels=labels
    )
    for row in rows:
        values = ["*" if row.source is None else str(row.source), str(row.group)]
        packets.add_metric(values, row.packets)
        size.add_metric(values, row.bytes)
        if row.join_latency is not None:
            latency.add_metric(values, row.join_latency)
    yield from (packets, size, latency)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(name, documentation, value=value)
