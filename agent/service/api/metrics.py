"""/metrics: the agent's counters for Prometheus; docs/metrics.md explains every name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.service.api.paging import IDLE_SECONDS, slices
from agent.service.engine_model import ChannelPlane, InterfacePlanes
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
class _Totals:
    """What is counted while rows pass."""

    tunnel_states: dict[str, int] = field(default_factory=lambda: dict.fromkeys((s.value for s in TunnelState), 0))
    tunnels: int = 0
    channels: int = 0
    channels_receiving: int = 0
    planes: dict[str, int] = field(default_factory=lambda: dict.fromkeys((each.value for each in ChannelPlane), 0))

    def tell_tunnels(self, rows: list[TunnelStatus]) -> list[TunnelStatus]:
        """Count rows; those that get metrics of their own."""
        told = rows[: max(0, ROW_LIMIT - self.tunnels)]
        self.tunnels += len(rows)
        for row in rows:
            self.tunnel_states[row.state.value] += 1
        return told

    def tell_channels(self, rows: list[ChannelStatus]) -> list[ChannelStatus]:
        """Count rows; those that get metrics of their own."""
        told = rows[: max(0, ROW_LIMIT - self.channels)]
        self.channels += len(rows)
        for row in rows:
            if row.plane is not None:
                self.planes[row.plane.value] += 1
        ages = (row.last_packet_age for row in rows)
        self.channels_receiving += sum(1 for age in ages if age is not None and age <= IDLE_SECONDS)
        return told


class _Text:
    """Exposition text put together from many parts of the same families."""

    def __init__(self) -> None:
        self._families: dict[str, list[bytes]] = {}

    def add(self, metrics: Iterable[Metric]) -> None:
        """Append the samples of some families; a family's header is written once."""
        for metric in metrics:
            text = generate_latest(_One(metric))
            known = self._families.get(metric.name)
            if known is None:
                self._families[metric.name] = [text]
            else:
                known.append(text.split(b"\n", 2)[2])

    def encoded(self) -> bytes:
        """All of it, samples of a family together."""
        return b"".join(part for parts in self._families.values() for part in parts)


class _One(Collector):
    """A collector of one family."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        """The family."""
        return (self._metric,)


async def render_metrics(service: AgentService) -> bytes:
    """Text of one scrape, made in slices so that forwarding goes on between them."""
    totals, rows, text = _Totals(), _Text(), _Text()
    async for tunnels in slices(service.tunnels()):
        rows.add(_tunnels(totals.tell_tunnels(tunnels)))
    async for channels in slices(service.channels()):
        rows.add(_channels(totals.tell_channels(channels)))
    statistics = service.statistics()
    status = service.status()
    text.add(_agent(status, statistics))
    text.add(_planes(status.engine.interfaces, totals))
    text.add(_totals(totals))
    await asyncio.sleep(0)
    text.add(_forwarding(statistics))
    text.add(_interfaces(service.interfaces()))
    return text.encoded() + rows.encoded()


def _agent(status: AgentStatus, statistics: StatisticsReport) -> Iterator[Metric]:
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
    yield _counter("isthmus_process_cpu_seconds", "Processor time used.", statistics.cpu_seconds)
    yield _gauge("isthmus_process_resident_bytes", "Resident memory.", statistics.resident_bytes)


def _planes(rows: list[InterfacePlanes], totals: _Totals) -> Iterator[Metric]:
    """Which planes are in use; the labels are those of the configuration's interfaces and three planes."""
    channels = GaugeMetricFamily("isthmus_plane_channels", "Channels by the plane they take.", labels=["plane"])
    for plane, number in totals.planes.items():
        channels.add_metric([plane], number)
    usable = GaugeMetricFamily(
        "isthmus_interface_plane_usable",
        "1 when packets can take a fast plane on the interface.",
        labels=["interface", "role", "plane"],
    )
    for row in rows:
        for item in row.planes:
            usable.add_metric([row.name, row.role.value, item.plane.value], item.usable)
    yield from (channels, usable)


def _totals(totals: _Totals) -> Iterator[Metric]:
    tunnels = GaugeMetricFamily("isthmus_tunnels", "Tunnels by state.", labels=["state"])
    for state, count in totals.tunnel_states.items():
        tunnels.add_metric([state], count)
    yield tunnels
    channels = GaugeMetricFamily("isthmus_channels", "Channels wanted, by whether packets come.", labels=["state"])
    channels.add_metric(["receiving"], totals.channels_receiving)
    channels.add_metric(["idle"], totals.channels - totals.channels_receiving)
    yield channels
    omitted = GaugeMetricFamily("isthmus_rows_omitted", "Rows without metrics of their own.", labels=["kind"])
    omitted.add_metric(["tunnel"], max(0, totals.tunnels - ROW_LIMIT))
    omitted.add_metric(["channel"], max(0, totals.channels - ROW_LIMIT))
    yield omitted


def _forwarding(statistics: StatisticsReport) -> Iterator[Metric]:
    yield _counter("isthmus_forwarded_packets", "Packets handed on.", statistics.forwarded_packets)
    yield _counter("isthmus_forwarded_bytes", "Bytes of those packets.", statistics.forwarded_bytes)
    refused = CounterMetricFamily("isthmus_refused_packets", "Packets not forwarded, by reason.", labels=["reason"])
    for reason, count in sorted(statistics.refused.items()):
        refused.add_metric([reason], count)
    yield refused
    left = CounterMetricFamily(
        "isthmus_exception_packets", "Packets a fast plane left to userspace, by reason.", labels=["reason"]
    )
    for reason, count in sorted(statistics.exceptions.items()):
        left.add_metric([reason], count)
    yield left
    control = CounterMetricFamily(
        "isthmus_control_events", "What the protocol machines counted.", labels=["machine", "event"]
    )
    for machine, counters in sorted(statistics.control.items()):
        for event, count in sorted(counters.items()):
            control.add_metric([machine, event], count)
    yield control


def _interfaces(rows: Iterable[InterfaceStatus]) -> Iterator[Metric]:
    labels = ["interface", "role"]
    up = GaugeMetricFamily("isthmus_interface_up", "1 when the interface is up.", labels=labels)
    packets = CounterMetricFamily("isthmus_interface_packets", "Packets forwarded by us.", labels=labels)
    size = CounterMetricFamily("isthmus_interface_bytes", "Bytes of those packets.", labels=labels)
    groups = GaugeMetricFamily("isthmus_interface_groups", "Groups with listeners.", labels=["interface", "protocol"])
    querier = GaugeMetricFamily(
        "isthmus_interface_querier", "1 when we are the querier.", labels=["interface", "protocol"]
    )
    of_pim = ["interface", "family"]
    designated = GaugeMetricFamily("isthmus_pim_designated", "1 when we are the designated router.", labels=of_pim)
    neighbors = GaugeMetricFamily("isthmus_pim_neighbors", "PIM neighbours.", labels=of_pim)
    joined = GaugeMetricFamily("isthmus_pim_channels", "States PIM neighbours asked for.", labels=of_pim)
    for row in rows:
        values = [row.name, row.role.value]
        up.add_metric(values, row.up)
        packets.add_metric(values, row.packets)
        size.add_metric(values, row.bytes)
        for item in row.queriers:
            groups.add_metric([row.name, item.protocol], item.groups)
            querier.add_metric([row.name, item.protocol], item.elected)
        for pim in row.pim:
            values = [row.name, f"ipv{pim.family}"]
            designated.add_metric(values, pim.designated)
            neighbors.add_metric(values, pim.neighbors)
            joined.add_metric(values, pim.channels)
    yield from (up, packets, size, groups, querier, designated, neighbors, joined)


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
