"""Polls the relays of this process's shards, each on its own beat; a slow or dead one delays nobody else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from relaymgr.domain.observed import Facts, Observation
from relaymgr.domain.platforms import Capabilities
from relaymgr.drivers.errors import CircuitOpen, DeviceBusy, DriverError
from relaymgr.drivers.protocol import Driver
from relaymgr.poll.schedule import Due, Schedule, phase

_log = logging.getLogger(__name__)

FACTS_SECONDS = 3600.0
"""How long facts and capabilities of a device are believed at most, and half of it at least."""


class Devices(Protocol):
    """What the poller uses of `DeviceAccess`."""

    def monitoring(self, relay_id: str) -> AbstractAsyncContextManager[Driver]:
        """The device, or DeviceBusy or CircuitOpen at once."""


class Sink(Protocol):
    """Where observations go."""

    async def observed(self, relay_id: str, observation: Observation, started: datetime, ended: datetime) -> None:
        """A poll succeeded."""

    async def failed(
        self, relay_id: str, reason: str, started: datetime, ended: datetime, *, unreachable: bool
    ) -> None:
        """There is none; what was known stays, stale for this reason. Only the device's own fault makes it lost."""

    async def identified(self, relay_id: str, facts: Facts, capabilities: Capabilities) -> None:
        """What the device is."""


LoadIntervals = Callable[[], Awaitable[Mapping[str, float]]]
"""The relays this process is to poll now, with their intervals in seconds."""


@dataclass(slots=True)
class PollCounters:
    """Since the start of the process."""

    started: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    """Device in use by a job, or its circuit open."""
    on_time: int = 0
    """Succeeded within one interval of being due."""
    missed: int = 0
    """Beats left out because the poll before was still out, or the process was late."""
    running: int = 0
    seconds: float = 0.0
    """Duration of the succeeded ones, together."""
    failures: dict[str, int] = field(default_factory=dict)
    """By error code."""


class Poller:
    """Runs until cancelled."""

    def __init__(
        self,
        devices: Devices,
        sink: Sink,
        intervals: LoadIntervals,
        *,
        concurrency: int = 200,
        reload_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._devices = devices
        self._sink = sink
        self._intervals = intervals
        self._concurrency = asyncio.Semaphore(concurrency)
        self._reload_seconds = reload_seconds
        self._clock = clock
        self._wall = wall
        self._schedule = Schedule()
        self._changed = asyncio.Event()
        self._identified: dict[str, float] = {}
        self.counters = PollCounters()

    async def run(self) -> None:
        """Poll until cancelled; polls under way are cancelled with it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_reloading(), name="poll-reload")
            while True:
                due = await self._next_due()
                await self._concurrency.acquire()
                tasks.create_task(self._poll(due), name=f"poll-{due.relay_id}")

    def soon(self, relay_id: str) -> None:
        """Poll this relay next and ask it who it is: it was just enrolled or edited, or a change just ended."""
        self._identified.pop(relay_id, None)
        self._schedule.soon(relay_id, self._clock())
        self._changed.set()

    async def _next_due(self) -> Due:
        while True:
            now = self._clock()
            due = self._schedule.take(now)
            if due is not None:
                return due
            self._changed.clear()
            at = self._schedule.next_at()
            try:
                await asyncio.wait_for(self._changed.wait(), None if at is None else max(0.0, at - now))
            except TimeoutError:
                continue

    async def _keep_reloading(self) -> None:
        while True:
            try:
                intervals = await self._intervals()
                self._schedule.replace(intervals, self._clock())
                self._identified = {relay_id: at for relay_id, at in self._identified.items() if relay_id in intervals}
                self._changed.set()
            except Exception:  # noqa: BLE001 - a database away for a minute must not end polling
                _log.exception("the list of relays cannot be read; polling goes on with the one known")
            await asyncio.sleep(self._reload_seconds)

    async def _poll(self, due: Due) -> None:
        counters = self.counters
        counters.started += 1
        counters.running += 1
        counters.missed += due.missed
        try:
            await self._observe(due)
        except Exception:  # noqa: BLE001 - one relay's trouble never ends the polling of all
            counters.failed += 1
            counters.failures["internal"] = counters.failures.get("internal", 0) + 1
            _log.exception("poll of relay %s failed inside the manager", due.relay_id)
            now = self._wall()
            reason = "internal: the manager itself failed; its log tells"
            await self._sink.failed(due.relay_id, reason, now, now, unreachable=False)
        finally:
            counters.running -= 1
            self._concurrency.release()
            self._schedule.done(due, self._clock())
            self._changed.set()

    async def _observe(self, due: Due) -> None:
        started, began = self._clock(), self._wall()
        ours = False
        try:
            async with self._devices.monitoring(due.relay_id) as driver:
                ours = True
                await self._identify(due.relay_id, driver)
                observation = await driver.observe()
        except DriverError as error:
            in_use = isinstance(error, DeviceBusy) and not ours  # by a job; the next beat will do
            if in_use or isinstance(error, CircuitOpen):
                self.counters.skipped += 1
                reason = error.detail
            else:
                self._count_failure(error)
                reason = f"{error.code}: {error.detail}"
            await self._sink.failed(due.relay_id, reason, began, self._wall(), unreachable=not in_use)
        else:
            ended = self._clock()
            self.counters.succeeded += 1
            self.counters.seconds += ended - started
            self.counters.on_time += ended - due.at <= due.interval
            await self._sink.observed(due.relay_id, observation, began, self._wall())

    async def _identify(self, relay_id: str, driver: Driver) -> None:
        now = self._clock()
        if now < self._identified.get(relay_id, float("-inf")):
            return
        facts, capabilities = await driver.facts(), await driver.device_capabilities()
        # Spread over half an hour: polls themselves are spread over seconds only, and so would be all of these.
        self._identified[relay_id] = now + FACTS_SECONDS * (1 + phase(relay_id)) / 2
        await self._sink.identified(relay_id, facts, capabilities)

    def _count_failure(self, error: DriverError) -> None:
        self.counters.failed += 1
        self.counters.failures[error.code] = self.counters.failures.get(error.code, 0) + 1
