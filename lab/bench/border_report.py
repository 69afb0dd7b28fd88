"""What was measured of the border, as a page of tables with the aims beside."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lab.bench.border_channels import FRR, REFRESH_SECONDS, ManyChannels
from lab.bench.border_failover import RATE, SILENCE, Failover
from lab.bench.border_joins import Joins, JoinTimes
from lab.bench.border_machine import MachineCost
from lab.bench.tables import table

Part = Callable[[JoinTimes], float]
Aim = tuple[str, str, bool]
"""What was aimed at, what was reached, whether that is it."""
JOIN_MILLISECONDS: Final = 5.0
REST_SHARE: Final = 0.03
RESIDENT_BYTES: Final = 150e6
MANY_RATIO: Final = 1.5
_QUIET_LOAD: Final = 0.5
_EXPLAINED: Final = (
    "A source, a relay, the border's agent and the domain's router in namespaces of one machine share its cores: trust"
    " ratios more than figures. Agents run before other programs (nice -15)."
)


@dataclass(slots=True)
class BorderResults:
    """Everything one run measured of the border; what was left out is empty.

    Attributes:
        joins: from a PIM Join to the first packet.
        channels: many (S,G) of one neighbour.
        machine: the PIM machine alone.
        failovers: losses of a relay.
        machine_load: of the machine before it began, over one minute.
        left_out: what could not be measured, and why.
    """

    joins: list[Joins] = field(default_factory=list)
    channels: list[ManyChannels] = field(default_factory=list)
    machine: MachineCost | None = None
    failovers: list[Failover] = field(default_factory=list)
    machine_load: float = 0.0
    left_out: list[str] = field(default_factory=list)


def aims(results: BorderResults) -> list[Aim]:
    """Each aim whose figure was measured."""
    found = [_join_aim(row) for row in results.joins]
    if len(asking := [row for row in results.joins if row.load.startswith("scripted")]) == 2:
        ratio = _asking(asking[1]) / _asking(asking[0])
        what = f"the agent's part of a join beside many channels: at most {MANY_RATIO:g} times that beside one"
        found.append((what, f"{ratio:.2f} times", ratio <= MANY_RATIO))
    for row in results.channels:
        if row.rest_share is not None:
            reached = f"{row.rest_share:.1%}, {row.resident_bytes / 1e6:.0f} MB"
            what = f"{row.channels:,} (S,G) of {row.neighbor} at rest: under 3 % of a core and 150 MB"
            found.append((what, reached, row.rest_share < REST_SHARE and row.resident_bytes < RESIDENT_BYTES))
    return found + [_failover_aim(row) for row in results.failovers]


def _join_aim(row: Joins) -> Aim:
    p99 = row.percentile(0.99) * 1000
    return (
        f"{row.load}: PIM Join to first packet, p99 under {JOIN_MILLISECONDS:g} ms",
        f"{p99:.1f} ms",
        p99 < JOIN_MILLISECONDS,
    )


def _asking(row: Joins) -> float:
    return row.percentile(0.5, lambda times: times.asking)


def _failover_aim(row: Failover) -> Aim:
    if row.bound is None:
        return f"relay {row.what}: no packet lost", f"{row.lost} lost", row.is_reached
    beyond = row.gap - row.detection
    what = f"relay {row.what}: moved under {row.bound:g} s after it could be known"
    return what, f"{max(beyond, 0.0):.2f} s", row.is_reached


def page(results: BorderResults) -> str:
    """The whole page."""
    where = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    made = f"Made by `make bench`, or alone by `python -m lab.bench border`, on {where}. {_EXPLAINED}{_shared(results)}"
    parts = ["# The border beside PIM routers: what was measured\n", made + "\n"]
    parts += [text for make in (_aims, _joins, _channels, _machine, _failovers) if (text := make(results))]
    if results.left_out:
        parts.append("## Left out\n\n" + "\n".join(f"- {reason}" for reason in results.left_out) + "\n")
    return "\n".join(parts)


def write(results: BorderResults, directory: Path) -> Path:
    """Write the page; where it is."""
    path = directory / "bench-border.md"
    path.write_text(page(results))
    return path


def _shared(results: BorderResults) -> str:
    if results.machine_load < _QUIET_LOAD:
        return ""
    return (
        f" **Other programs shared the machine** (load {results.machine_load:.1f} when it began): the tails, the p99"
        " above all, and times of many channels are theirs too."
    )


def _aims(results: BorderResults) -> str:
    rows = [[aim, reached, "yes" if is_reached else "**no**"] for aim, reached, is_reached in aims(results)]
    return "## Aims\n\n" + table(("aim", "measured", "reached"), rows) if rows else ""


_PARTS: Final[tuple[tuple[str, Part], ...]] = (
    ("Join to our AMT Update", lambda times: times.asking),
    ("Update to the relay's first packet", lambda times: times.relay),
    ("that packet in to out", lambda times: times.forwarding),
)


def _joins(results: BorderResults) -> str:
    rows = []
    for row in results.joins:
        rows.append([f"**{row.load}, {len(row.times)} joins**", *_percentiles(row)])
        rows += [[name, *_percentiles(row, part)] for name, part in _PARTS]
    text = (
        "One group after the other, warm tunnel, source sending already; kernel time stamps at the border's interfaces."
        " The relay's part contains the wait for the source's next packet, 0.5 ms at most.\n\n"
    )
    headings = ("from a PIM Join to the first packet out", "p50", "p90", "p99", "longest")
    return "## Join latency\n\n" + text + table(headings, rows) if rows else ""


def _percentiles(row: Joins, part: Part = lambda times: times.whole) -> list[str]:
    return [f"{row.percentile(share, part) * 1000:.1f} ms" for share in (0.5, 0.9, 0.99, 1.0)]


def _channels(results: BorderResults) -> str:
    rows = [
        [
            f"{row.neighbor}, {row.groups:,} groups of {row.sources}",
            f"{row.messages:,}",
            f"{row.spoken:.1f} s",
            f"{row.joined:.1f} s",
            f"{row.processor_seconds / row.channels * 1e6:.0f} µs",
            f"{row.pruned:.1f} s",
            f"{row.resident_bytes / 1e6:.0f} MB",
            "-" if row.rest_share is None else f"{row.rest_share:.1%}",
            "-" if row.refresh_seconds is None else f"{row.refresh_seconds * 1000:.0f} ms",
        ]
        for row in results.channels
    ]
    if not rows:
        return ""
    headings = ("neighbour", "messages", "spoken", "subscribed", "CPU a channel", "pruned")
    text = (
        "Times begin with the first Join (Prune) on the border's interface: `spoken` ends with the neighbour's last"
        " one, `subscribed` and `pruned` when the relay counts all channels, or none. At rest nothing is sent, while"
        f" the neighbour says all Joins and the relay queries every {REFRESH_SECONDS} s, more often than by default (60"
        " and 125 s).\n\n"
    )
    shown = table((*headings, "resident", "at rest, of one core", "CPU of a refresh"), rows)
    return "## Many channels of one neighbour\n\n" + text + shown + _bottleneck(results)


def _bottleneck(results: BorderResults) -> str:
    row = next((row for row in results.channels if row.neighbor == FRR), None)
    if row is None or not row.messages:
        return ""
    return (
        f"\nFRR said {row.messages:,} messages, one for each new (S,G), within {row.spoken:.1f} s of the"
        f" {row.joined:.1f} s until all were subscribed; the rest is the agent's and the relay's.\n"
    )


def _machine(results: BorderResults) -> str:
    row = results.machine
    if row is None:
        return ""
    cells = [
        f"{row.channels:,} (S,G)",
        f"{row.messages:,}",
        *(f"{seconds:.2f} s" for seconds in (row.join, row.refresh, row.expire)),
        f"{row.slowest * 1000:.1f} ms",
        f"{row.bytes_a_state:.0f}",
    ]
    headings = ("PIM machine alone", "messages", "joined", "said again", "expired", "longest call", "bytes a state")
    return "## The machine alone\n\nNo network; seconds are of processor.\n\n" + table(headings, [cells])


def _failovers(results: BorderResults) -> str:
    rows = [
        [f"relay {row.what}", f"{row.gap * 1000:,.0f} ms", f"{row.lost:,}", str(row.duplicates)]
        for row in results.failovers
    ]
    text = (
        f"A stream of {RATE:g} packets a second, two relays, `failover.relay_silence = {SILENCE:g}`; by default it is 2"
        " s, and gaps are a second longer.\n\n"
    )
    headings = ("what happened", "longest gap", "packets lost", "twice")
    return "## Loss of a relay\n\n" + text + table(headings, rows) if rows else ""
