"""Writes what was measured: a page of tables with the aims beside, and a plot."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.bench import border_report, fast_report, manager_report
from lab.bench.border_report import BorderResults
from lab.bench.fast_report import DataplaneResults
from lab.bench.idle import Idle
from lab.bench.join_latency import JoinLatency
from lab.bench.manager_report import ManagerResults
from lab.bench.tables import table


@dataclass(slots=True)
class Results:
    """Everything one run measured; what was left out is empty.

    Attributes:
        engine: rows of `lab.bench.engine.measure_all`.
        relay: rows of `lab.bench.relay`, each with a `load` added.
        joins: join latencies.
        idle: cost of idle channels.
        border: beside PIM routers, on a page of its own.
        dataplane: the fast data planes, on a page of their own.
        manager: of the relay manager.
        left_out: what was not measured, and why.
    """

    engine: list[dict[str, Any]] = field(default_factory=list)
    relay: list[dict[str, Any]] = field(default_factory=list)
    joins: list[JoinLatency] = field(default_factory=list)
    idle: list[Idle] = field(default_factory=list)
    border: BorderResults | None = None
    dataplane: DataplaneResults | None = None
    manager: ManagerResults = field(default_factory=ManagerResults)
    left_out: list[str] = field(default_factory=list)

    def engine_row(self, name: str) -> dict[str, Any] | None:
        """One case of the engine's, by name."""
        return next((row for row in self.engine if row["name"] == name), None)

    def cost_ratio(self, row: dict[str, Any]) -> float | None:
        """Cost per packet relative to the kernel's own forwarding of the same payload to as many interfaces."""
        for other in self.engine:
            same = (other["size"], other["interfaces"]) == (row["size"], row["interfaces"])
            if other["native"] and same:
                return float(row["ns_per_packet"]) / float(other["ns_per_packet"])
        return None


_CAUTION = "Sender, router and receiver share these cores and talk over veth: trust ratios more than figures.\n"


def page(results: Results) -> str:
    """The whole page."""
    parts = [
        "# Measurements\n",
        f"Made by `make bench` on {_machine()}. " + _CAUTION,
        "![The same as a plot](bench.png)\n",
    ]
    sections = (_aims, _engine, _relay, _joins, _idle, _manager)
    parts += [text for section in sections if (text := section(results))]
    if results.left_out:
        parts.append("## Left out\n\n" + "\n".join(f"- {reason}" for reason in results.left_out) + "\n")
    return "\n".join(parts)


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores of {model}, Linux {platform.release()}, Python {platform.python_version()}"


def _engine(results: Results) -> str:
    rows = []
    for row in results.engine:
        ratio = results.cost_ratio(row)
        shown = "-" if row["native"] or ratio is None else f"{ratio:.2f}"
        rate = f"{row['packets_per_second']:,}" if row["packets_per_second"] else "-"
        rows.append([row["name"], f"{row['ns_per_packet']:,}", shown, rate, f"{row['saturated_per_second']:,}"])
    headings = ("gateway", "CPU ns a packet", "to native", "packets/s without loss", "packets/s when overloaded")
    return "## Gateway\n\n" + table(headings, rows) if rows else ""


def _relay(results: Results) -> str:
    rows = [
        [
            f"{row['load']}, {row['tunnels']} tunnels",
            f"{row['tunnel_packets_per_second']:,.0f}",
            f"{row['cpu_ns']:,.0f}",
            f"{row['cpu_share']:.0%}",
            f"{row['loss']:.2%}",
        ]
        for row in results.relay
    ]
    headings = ("relay", "tunnel packets/s at the sink", "CPU ns a tunnel packet", "of one core", "loss")
    return "## Relay\n\n" + table(headings, rows) if rows else ""


def _joins(results: Results) -> str:
    rows = [
        [
            f"{item.kind}, {len(item.seconds)} joins",
            *(f"{item.percentile(share) * 1000:.1f} ms" for share in (0.5, 0.99)),
        ]
        for item in results.joins
    ]
    return "## From report to first packet\n\n" + table(("join", "p50", "p99"), rows) if rows else ""


def _idle(results: Results) -> str:
    rows = [
        [
            f"{item.role}, {item.channels:,} channels",
            f"{item.resident_bytes / 1e6:.0f} MB",
            f"{item.processor_share:.2%}",
        ]
        for item in results.idle
    ]
    return "## Idle\n\n" + table(("agent", "resident", "of one core"), rows) if rows else ""


def aims(results: Results) -> list[tuple[str, str, bool]]:
    """Each aim whose figure was measured: what was aimed at, what was reached, and whether that is it."""
    found: list[tuple[str, str, bool]] = []
    for name, most in (("userspace, 1 channel", 1.3), ("userspace, 8 channels", 2.2)):
        row = results.engine_row(name)
        if row and (ratio := results.cost_ratio(row)) is not None:
            found.append((f"{name}: at most {most} times native", f"{ratio:.2f} times", ratio <= most))
    for row in results.engine:
        if row["zero_checksums"]:
            whole = int(row["packets_per_second"])
            found.append((f"{row['name']}: 100,000 packets/s without loss", f"{whole:,}", whole >= 100_000))
    for row in results.relay:
        rate, loss = float(row["tunnel_packets_per_second"]), float(row["loss"])
        if row["load"] == "full batches" and row["tunnels"] == 100:
            found.append(("relay, 100 tunnels: 1,000,000 tunnel packets/s", f"{rate:,.0f}", rate >= 1e6 and loss <= 0))
        if row["load"] == "one stream":
            found.append((f"relay, one stream to {row['tunnels']} tunnels: no loss", f"{loss:.2%} lost", loss <= 0))
    for item in results.joins:
        bound = 0.005 if item.kind == "warm" else 0.030
        p99 = item.percentile(0.99)
        found.append((f"{item.kind} join: p99 under {bound * 1000:g} ms", f"{p99 * 1000:.1f} ms", p99 < bound))
    for idle in results.idle:
        if idle.channels == 10_000:
            reached = f"{idle.resident_bytes / 1e6:.0f} MB, {idle.processor_share:.2%}"
            within = idle.resident_bytes < 150e6 and idle.processor_share < 0.03
            found.append((f"{idle.role}, 10,000 idle channels: under 150 MB and 3 % of a core", reached, within))
    border = border_report.aims(results.border) if results.border is not None else []
    dataplane = fast_report.aims(results.dataplane) if results.dataplane is not None else []
    return found + border + dataplane + manager_report.aims(results.manager)


def _manager(results: Results) -> str:
    return manager_report.section(results.manager)


def _aims(results: Results) -> str:
    rows = [[aim, reached, "yes" if is_reached else "**no**"] for aim, reached, is_reached in aims(results)]
    return "## Aims\n\n" + table(("aim", "measured", "reached"), rows) if rows else ""


def plot(results: Results, path: Path) -> None:
    """Bars of everything measured."""
    figure = Figure(figsize=(14, 9))
    axes = figure.subplots(2, 2)
    cost, fan, join, idle = axes.flat
    _bars(cost, "Gateway: CPU ns a packet", [(row["name"], row["ns_per_packet"]) for row in results.engine])
    relay = [(f"{row['load']}, {row['tunnels']}", row["tunnel_packets_per_second"] / 1e6) for row in results.relay]
    _bars(fan, "Relay: million tunnel packets/s at the sink", relay)
    for item in results.joins:
        count = len(item.seconds)
        shares = [(position + 1) / count for position in range(count)]
        join.step([second * 1000 for second in item.seconds], shares, where="post", label=item.kind)
    join.set(title="From report to first packet: share of joins", xlabel="ms", ylim=(0, 1.02))
    if results.joins:
        join.legend()
    memory = [(f"{item.role}, {item.channels:,}", item.resident_bytes / 1e6) for item in results.idle]
    _bars(idle, "Idle channels: resident MB", memory)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def _bars(axes: Axes, title: str, values: Sequence[tuple[str, float]]) -> None:
    axes.set_title(title)
    bars = axes.barh([name for name, _ in values], [value for _, value in values])
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
