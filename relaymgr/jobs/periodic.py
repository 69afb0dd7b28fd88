"""Drift checks and backups at their intervals, spread over time, one process at a time, a few devices at once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from sqlalchemy import select

from relaymgr.domain.platforms import CapabilityMissing
from relaymgr.drivers.errors import DriverError
from relaymgr.jobs.backups import Backups
from relaymgr.jobs.drift import DriftChecker
from relaymgr.jobs.errors import JobError
from relaymgr.jobs.parts import Parts
from relaymgr.store import leases
from relaymgr.store.tables import Relay

log = logging.getLogger(__name__)

LEASE = "periodic"
_LEASE_SECONDS = 60.0


def due(relay_id: str, interval: float, now: datetime, last: datetime | None) -> bool:
    """Whether a relay's turn has come.

    Every relay has its own place in the interval, from its id: they come evenly spread, also after a restart, and each
    at most once an interval.
    """
    place = int.from_bytes(hashlib.sha256(relay_id.encode()).digest()[:8], "big") / 2**64 * interval
    slot_start = now.timestamp() - (now.timestamp() - place) % interval
    return last is None or last.timestamp() < slot_start


class Periodic:
    """Runs them. Who is busy, unreachable or in a confirm window is left for the next interval."""

    def __init__(
        self,
        parts: Parts,
        drift: DriftChecker,
        backups: Backups,
        *,
        drift_interval: float = 900.0,
        backup_interval: float = 3600.0,
        concurrency: int = 8,
        look_every: float = 5.0,
    ) -> None:
        self._parts = parts
        self._drift = drift
        self._backups = backups
        self._drift_interval = drift_interval
        self._backup_interval = backup_interval
        self._slots = asyncio.Semaphore(concurrency)
        self._look_every = look_every
        self._tried: dict[str, datetime] = {}
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._forever(), name="periodic checks")

    async def stop(self) -> None:
        """End; checks under way are cancelled, they change nothing."""
        tasks = [task for task in (self._task, *self._running.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = None
        await leases.release(self._parts.database, LEASE, self._parts.worker)

    async def tick(self) -> int:
        """Start what is due. Returns how many were started."""
        parts, now = self._parts, self._parts.clock()
        if not await leases.acquire(parts.database, LEASE, parts.worker, _LEASE_SECONDS, now):
            return 0
        started = 0
        for relay_id, managed, checked_at, backed_up_at in await self._idle():
            if managed and due(relay_id, self._drift_interval, now, checked_at):
                started += self._spawn("drift", relay_id, self._drift.check)
            # A device that cannot be read is asked once an interval too, as far as this process remembers.
            last = max((at for at in (backed_up_at, self._tried.get(relay_id)) if at is not None), default=None)
            if due(relay_id, self._backup_interval, now, last):
                self._tried[relay_id] = now
                started += self._spawn("backup", relay_id, self._back_up)
        return started

    async def idle(self) -> None:
        """Return when nothing started here is under way any more."""
        while self._running:
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _idle(self) -> list[tuple[str, bool, datetime | None, datetime | None]]:
        """Id, whether drift can be told, and when drift and backup were last looked at."""
        statement = select(
            Relay.id, Relay.applied_text.is_not(None), Relay.drift_checked_at, Relay.backup_checked_at
        ).where(
            Relay.enabled, Relay.window_job_id.is_(None), Relay.host_key.is_not(None) | (Relay.platform == "isthmus")
        )
        async with self._parts.database.session() as session:
            return [(row[0], bool(row[1]), row[2], row[3]) for row in await session.execute(statement)]

    async def _back_up(self, relay_id: str) -> None:
        await self._backups.take(relay_id, "periodic")

    def _spawn(self, what: str, relay_id: str, doing: Callable[[str], Awaitable[object]]) -> bool:
        key = (what, relay_id)
        if key in self._running:
            return False
        task = asyncio.create_task(self._one(what, relay_id, doing), name=f"{what} of {relay_id}")
        self._running[key] = task
        task.add_done_callback(lambda _: self._running.pop(key, None))
        return True

    async def _one(self, what: str, relay_id: str, doing: Callable[[str], Awaitable[object]]) -> None:
        async with self._slots:
            try:
                await doing(relay_id)
            except (DriverError, CapabilityMissing, JobError) as error:
                log.info("%s of relay %s: %s", what, relay_id, error)
            except Exception:
                log.exception("%s of relay %s", what, relay_id)

    async def _forever(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                try:
                    await self.tick()
                except Exception:  # the database may be away for a while
                    log.exception("periodic checks")
            await asyncio.sleep(self._look_every)
