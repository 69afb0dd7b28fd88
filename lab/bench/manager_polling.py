"""A manager that polls many relays: whether it keeps its beat, and what that costs it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import httpx

from lab.bench.manager_fleet import Usage, percentile
from lab.manager import Manager
from lab.namespaces import wait_until

LOGINS_PER_SECOND: Final = 20.0
"""The manager's own limit; what a fleet needs at least until each has a session."""
_SPARE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Polling:
    """One stretch of polling.

    Attributes:
        load: what was polled, in words.
        relays: how many answered.
        faulty: how many more were dead or hung.
        tunnels: how many the manager knew at the end.
        interval: seconds between two polls of a relay.
        seconds: how long was measured.
        on_time: polls that ended within one interval of being due.
        missed: beats left out.
        processor_share: of one core, the manager alone.
        simulators_share: of one core, all simulators together.
        resident_bytes: the manager's memory.
        threads: the manager's threads, most seen.
        p50_seconds: median of what the relays' last polls took.
        p95_seconds: 95th percentile of that.
        machine_load: load average of the last minute.
    """

    load: str
    relays: int
    faulty: int
    tunnels: int
    interval: int
    seconds: float
    on_time: int
    missed: int
    processor_share: float
    simulators_share: float
    resident_bytes: int
    threads: int
    p50_seconds: float
    p95_seconds: float
    machine_load: float

    @property
    def share_on_time(self) -> float:
        """Polls on time of the relays that answer, of those due in the time, 0..1."""
        due = self.relays * self.seconds / self.interval
        return min(1.0, self.on_time / due) if due else 0.0

    @property
    def poll_milliseconds(self) -> float:
        """Processor time of one poll."""
        polls = self.relays * self.seconds / self.interval
        return 1000 * self.processor_share * self.seconds / polls if polls else 0.0


def metrics(manager: Manager) -> dict[str, float]:
    """/metrics: name with labels -> value."""
    headers = {"Authorization": f"Bearer {manager.token}"}
    return parsed(httpx.get(f"{manager.url}/metrics", headers=headers, timeout=30.0).raise_for_status().text)


def parsed(text: str) -> dict[str, float]:
    """Prometheus text format: name with labels -> value."""
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def wait_until_polled(manager: Manager, relays: int, interval: int) -> None:
    """Until each relay was polled and has a session, and one interval more, so that the beat is a steady one.

    Raises:
        LabError: they are not in time.
    """
    name = 'relaymgr_relays{reachability="reachable"}'
    seconds = 60.0 + interval + 1.5 * relays / LOGINS_PER_SECOND

    def polled() -> bool:
        with contextlib.suppress(httpx.TimeoutException):  # it may have more to do than it can
            return metrics(manager)[name] >= relays
        return False

    wait_until(polled, seconds, f"{relays:,} relays are polled", 1.0)
    time.sleep(interval)


def measure(
    manager: Manager,
    load: str,
    relays: int,
    *,
    interval: int,
    seconds: float,
    faulty: int = 0,
    simulators: Collection[int] = (),
    meanwhile: Callable[[float], None] = time.sleep,
) -> Polling:
    """Measure for `seconds`.

    Args:
        manager: whose polling.
        load: in words.
        relays: how many answer.
        interval: seconds between two polls of a relay.
        seconds: how long; whole intervals.
        faulty: how many relays more do not answer.
        simulators: their process ids.
        meanwhile: called with almost all of the seconds; returns when they are over.
    """
    before, used, started = metrics(manager), Usage.of(manager.process_id), time.monotonic()
    simulated = _processor_seconds(simulators)
    meanwhile(seconds - _SPARE_SECONDS)
    time.sleep(max(0.0, started + seconds - time.monotonic()))  # whole intervals, so that as many polls come due
    after, now, passed = metrics(manager), Usage.of(manager.process_id), time.monotonic() - started
    simulated = _processor_seconds(simulators) - simulated
    took = _poll_seconds(manager)

    def counted(name: str) -> int:
        return int(after[f"relaymgr_polls_{name}_total"] - before[f"relaymgr_polls_{name}_total"])

    return Polling(
        load=load,
        relays=relays,
        faulty=faulty,
        tunnels=int(after["relaymgr_tunnels"]),
        interval=interval,
        seconds=passed,
        on_time=counted("on_time"),
        missed=counted("missed"),
        processor_share=(now.processor_seconds - used.processor_seconds) / passed,
        simulators_share=simulated / passed,
        resident_bytes=now.resident_bytes,
        threads=max(used.threads, now.threads),
        p50_seconds=percentile(took, 0.5),
        p95_seconds=percentile(took, 0.95),
        machine_load=_load(),
    )


def _processor_seconds(process_ids: Collection[int]) -> float:
    return sum(Usage.of(process_id).processor_seconds for process_id in process_ids)


def _poll_seconds(manager: Manager) -> list[float]:
    """What the last polls of the reachable relays took."""
    found: list[float] = []
    cursor: str | None = None
    while True:
        given = {"limit": 1000, "reachability": "reachable"} | ({"cursor": cursor} if cursor else {})
        page = manager.call("GET", "/relays", params=given)
        found += [relay["poll_seconds"] for relay in page["items"] if relay["poll_seconds"] is not None]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def _load() -> float:
    return os.getloadavg()[0]
