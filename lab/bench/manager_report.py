"""What was measured of the relay manager, as tables, with the aims beside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from lab.bench.manager_api import JSON, Requests
from lab.bench.manager_changes import Plans, Waves
from lab.bench.manager_polling import Polling
from lab.bench.manager_transport import OWN, PYEZ, Transport
from lab.bench.tables import table

Aim = tuple[str, str, bool]
"""What was aimed at, what was reached, whether that is it."""
SHARE_ON_TIME: Final = 0.99
PAGE_MILLISECONDS: Final = 150.0
_SHARED: Final = (
    "One manager process with SQLite; simulators and requests share the cores. Polls go over real SSH through the"
    " shipped drivers, nine of ten to Junos, one of ten to IOS-XE.\n\n"
)


@dataclass(slots=True)
class ManagerResults:
    """Everything one run measured of the manager; what was left out is empty.

    Attributes:
        polling: stretches of polling.
        transports: PyEZ and our own.
        plans: latency of plans, by driver.
        waves: a rollout.
        requests: listings of tunnels.
        left_out: what could not be measured, and why.
    """

    polling: list[Polling] = field(default_factory=list)
    transports: list[Transport] = field(default_factory=list)
    plans: list[Plans] = field(default_factory=list)
    waves: list[Waves] = field(default_factory=list)
    requests: list[Requests] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def transport(self, name: str) -> Transport | None:
        """One transport, by name."""
        return next((row for row in self.transports if row.name == name), None)

    @property
    def transport_ratio(self) -> float | None:
        """Processor time of a poll over our own transport, relative to PyEZ."""
        own, pyez = self.transport(OWN), self.transport(PYEZ)
        return own.processor_seconds / pyez.processor_seconds if own and pyez and pyez.processor_seconds else None


def aims(results: ManagerResults) -> list[Aim]:
    """Each aim whose figure was measured."""
    found: list[Aim] = []
    for row in results.polling:
        share = row.share_on_time
        what = f"{row.relays:,} relays of {_tunnels_each(row)} tunnels at {row.interval} s, {row.load}"
        found.append((f"{what}: 99 % of polls on time", _percent(share), share >= SHARE_ON_TIME))
    if (ratio := results.transport_ratio) is not None:
        found.append(("poll over our own transport: cheaper than over PyEZ", f"{ratio:.2f} times", ratio < 1))
    for waves in results.waves:
        done = waves.counts.get("succeeded", 0)
        least = sum(waves.sizes) - waves.error_budget
        what = f"change of {sum(waves.sizes)} relays in waves of {_sizes(waves)}"
        reached = f"{done} in {waves.seconds:.1f} s"
        found.append((f"{what}: all but the {waves.error_budget} that refuses", reached, done >= least))
    for one in results.requests:
        if one.kind == JSON and one.seconds:
            p95 = one.milliseconds(0.95)
            aim = f"page of {one.rows:,} of {one.tunnels:,} tunnels, {one.load}: p95 under {PAGE_MILLISECONDS:g} ms"
            found.append((aim, f"{p95:.0f} ms", p95 < PAGE_MILLISECONDS))
    return found


def section(results: ManagerResults) -> str:
    """The tables; empty when nothing was measured."""
    parts = [text for make in (_polling, _transports, _changes, _requests) if (text := make(results))]
    return "## Relay manager\n\n" + _SHARED + "\n".join(parts) if parts else ""


def _polling(results: ManagerResults) -> str:
    rows = [
        [
            f"{row.relays:,} relays, {row.tunnels:,} tunnels, {row.load}",
            _percent(row.share_on_time),
            f"{row.missed:,}",
            f"{row.processor_share:.0%}",
            f"{row.simulators_share:.0%}",
            f"{row.poll_milliseconds:.1f} ms",
            f"{row.resident_bytes / 1e6:.0f} MB",
            str(row.threads),
            f"{row.p50_seconds * 1000:.0f} ms",
            f"{row.p95_seconds * 1000:.0f} ms",
            f"{row.machine_load:.1f}",
        ]
        for row in results.polling
    ]
    headings = ("polling", "on time", "beats missed", "of one core", "simulators", "CPU a poll", "resident", "threads")
    return "### Polling\n\n" + table((*headings, "poll p50", "poll p95", "load"), rows) if rows else ""


def _transports(results: ManagerResults) -> str:
    base = results.transport(PYEZ)
    rows = [
        [
            f"{row.name}, {row.sessions} sessions, {row.tunnels} tunnels each",
            f"{row.processor_seconds * 1000:.1f} ms",
            f"{row.processor_seconds / base.processor_seconds:.2f}" if base else "-",
            f"{row.seconds * 1000:.0f} ms",
            str(row.threads),
        ]
        for row in results.transports
    ]
    headings = ("transport of a Junos poll", "CPU a poll", "to PyEZ", "a poll takes", "threads of all")
    return "### Transport\n\n" + table(headings, rows) if rows else ""


def _changes(results: ManagerResults) -> str:
    plans = [
        [
            f"plan, {row.name}, {row.changed_lines} lines changed",
            *(f"{row.milliseconds(share):.0f} ms" for share in (0.5, 0.95)),
        ]
        for row in results.plans
    ]
    waves = [
        [
            f"waves of {_sizes(row)}, error budget {row.error_budget}",
            f"{row.state}: " + ", ".join(f"{number} {state}" for state, number in sorted(row.counts.items())),
            f"{row.seconds:.1f} s",
            f"{row.threads} ({row.idle_threads} before)",
        ]
        for row in results.waves
    ]
    parts = [table(("one device, login included", "p50", "p95"), plans)] if plans else []
    parts += [table(("apply", "ended", "took", "threads, most"), waves)] if waves else []
    return "### Changes\n\n" + "\n".join(parts) if parts else ""


def _requests(results: ManagerResults) -> str:
    rows = [
        [
            f"{row.kind}, {row.load}",
            f"{row.rows:,}",
            str(len(row.seconds)),
            *(f"{row.milliseconds(share):.0f} ms" for share in (0.5, 0.95)),
        ]
        for row in results.requests
        if row.seconds
    ]
    headings = ("tunnels with two filters, token of one AD", "rows", "requests", "p50", "p95")
    return "### API\n\n" + table(headings, rows) if rows else ""


def _tunnels_each(row: Polling) -> int:
    relays = row.relays + row.faulty
    return round(row.tunnels / relays) if relays else 0


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _sizes(waves: Waves) -> str:
    return ", ".join(map(str, waves.sizes))
