"""Finds what nobody looks after: jobs of dead workers, jobs nobody was woken for, windows and rollouts left behind.

It decides nothing: it wakes a worker, who reads the device and judges.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import timedelta

from sqlalchemy import and_, or_, select

from relaymgr.jobs.engine import JobEngine
from relaymgr.jobs.parts import Parts
from relaymgr.jobs.rollouts import Rollouts
from relaymgr.jobs.service import clear_orphan_windows
from relaymgr.store import leases
from relaymgr.store.tables import Job

log = logging.getLogger(__name__)

LEASE = "reaper"
PATIENCE_SECONDS = 5.0
"""A job queued for longer than this has probably lost its wake."""


class Reaper:
    """One at a time over all processes; every process runs one, and the first takes the lease."""

    def __init__(self, parts: Parts, engine: JobEngine, rollouts: Rollouts, *, interval: float = 5.0) -> None:
        self._parts = parts
        self._engine = engine
        self._rollouts = rollouts
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look at once, then at intervals."""
        self._task = asyncio.create_task(self._forever(), name="reaper")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            await leases.release(self._parts.database, LEASE, self._parts.worker)

    async def tick(self) -> int:
        """Look once. Returns how many jobs were woken."""
        parts = self._parts
        if not await leases.acquire(parts.database, LEASE, parts.worker, max(15.0, 3 * self._interval), parts.clock()):
            return 0
        job_ids = await self._forgotten()
        for job_id in job_ids:
            await self._engine.wake(job_id)
        if freed := await clear_orphan_windows(parts):
            log.warning("%d confirm windows belonged to no job any more", freed)
        await self._rollouts.push_all()
        return len(job_ids)

    async def _forgotten(self) -> list[str]:
        now = self._parts.clock()
        dead = and_(Job.state == "running", or_(Job.lease_until.is_(None), Job.lease_until <= now))
        patience = now - timedelta(seconds=PATIENCE_SECONDS)
        asleep = and_(
            Job.state == "queued",
            or_(
                and_(Job.run_after.is_(None), Job.created_at <= patience),
                Job.run_after <= now,
            ),
        )
        statement = select(Job.id).where(or_(dead, asleep)).order_by(Job.id).limit(1000)
        async with self._parts.database.session() as session:
            return list(await session.scalars(statement))

    async def _forever(self) -> None:
        while True:
            try:
                await self.tick()
            except Exception:  # the database may be away for a while
                log.exception("reaper")
            await asyncio.sleep(self._interval)
