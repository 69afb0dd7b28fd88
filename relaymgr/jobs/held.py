"""A job in the hands of one worker: taken by a lease, kept by renewing it, written only while it is still held.

Every write to the row names the holder, so that a worker that was taken for dead and comes back cannot write any more.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, and_, func, or_, update
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.domain.change import Phase, enter, progress
from relaymgr.jobs.errors import LeaseLost, RelayBusy
from relaymgr.jobs.heartbeat import kept
from relaymgr.jobs.notifier import Notifier
from relaymgr.jobs.parts import Parts
from relaymgr.store import leases
from relaymgr.store.tables import Job, JobEvent

log = logging.getLogger(__name__)


class Held:
    """One run of one job."""

    def __init__(self, job: Job, holder: str, parts: Parts, notifier: Notifier, *, orphaned: bool = False) -> None:
        self.job = job
        self.orphaned = orphaned
        """Its worker before died, or was not heard of for a whole lease."""
        self.holder = holder
        self._parts = parts
        self._notifier = notifier
        self._relay_lease: str | None = None

    @property
    def relay_id(self) -> str:
        """The relay the job is about."""
        if self.job.relay_id is None:
            raise ValueError(f"job {self.job.id} is about no relay")
        return self.job.relay_id

    async def write(self, session: AsyncSession, **values: Any) -> None:  # noqa: ANN401 - columns of all types
        """Set columns of the row in a transaction of the caller.

        Raises:
            LeaseLost: it is not ours any more; the transaction must not be committed.
        """
        statement = (
            update(Job)
            .where(Job.id == self.job.id, Job.worker == self.holder, Job.state == "running")
            .values(**values)
            .execution_options(synchronize_session=False)
        )
        result = cast("CursorResult[Any]", await session.execute(statement))
        if result.rowcount != 1:
            raise LeaseLost(self.job.id)

    async def note(
        self,
        message: str,
        *,
        phase: Phase | None = None,
        level: str = "info",
        data: dict[str, Any] | None = None,
        session: AsyncSession | None = None,
        **values: Any,  # noqa: ANN401
    ) -> None:
        """Add a line to the job's log, and set phase and columns with it, in the caller's transaction or an own one.

        `message` and `data` are shown to everybody who may see the job: no configuration beyond masked diffs.
        """
        if session is None:
            async with self._parts.database.begin() as own:
                await self.note(message, phase=phase, level=level, data=data, session=own, **values)
            self._notifier.publish(self.job.id)
            return
        shown = enter(Phase(self.job.phase), phase) if phase else Phase(self.job.phase)
        values = {"phase": shown.value, "progress": progress(shown), **values}
        await self.write(session, **values)
        session.add(
            JobEvent(
                job_id=self.job.id,
                at=self._parts.clock(),
                level=level,
                phase=shown.value,
                progress=values["progress"],
                message=message,
                data=data or {},
            )
        )
        for name, value in values.items():
            setattr(self.job, name, value)

    def publish(self) -> None:
        """Tell listeners, after a transaction of the caller that had `note` in it."""
        self._notifier.publish(self.job.id)

    async def cancel_requested(self) -> bool:
        """Whether somebody asked the job to end."""
        async with self._parts.database.session() as session:
            row = await session.get(Job, self.job.id)
            return bool(row and row.cancel_requested)

    async def park(self, seconds: float) -> datetime:
        """Let go of a job under way until `seconds` from now. Returns the time it is to be woken."""
        at = self._parts.clock() + timedelta(seconds=seconds)
        async with self._parts.database.begin() as session:
            await self.write(session, worker=None, lease_until=at)
        return at

    async def requeue(self, seconds: float, message: str) -> datetime:
        """Put a job that touched nothing yet back into the queue. Returns the time it is to be woken."""
        at = self._parts.clock() + timedelta(seconds=seconds)
        phase = Phase.QUEUED if self.job.phase in {Phase.LOCKING, Phase.QUEUED} else Phase(self.job.phase)
        await self.note(message, phase=phase, state="queued", worker=None, lease_until=None, run_after=at)
        return at

    @asynccontextmanager
    async def relay(self) -> AsyncIterator[None]:
        """Hold the job's relay against other processes.

        Raises:
            RelayBusy: somebody else holds it.
        """
        name, parts = f"relay:{self.relay_id}", self._parts
        if not await leases.acquire(parts.database, name, self.holder, parts.timing.lease, parts.clock()):
            raise RelayBusy("another task configures this relay")
        self._relay_lease = name
        try:
            yield
        finally:
            self._relay_lease = None
            await leases.release(parts.database, name, self.holder)

    def kept(self) -> AbstractAsyncContextManager[None]:
        """Renew the leases while the block runs; end the block with LeaseLost when they cannot be renewed."""
        job_id = self.job.id
        return kept(self._renew, self._parts.timing.lease, f"job {job_id}", lambda: LeaseLost(job_id))

    async def _renew(self) -> bool:
        parts, now = self._parts, self._parts.clock()
        try:
            async with parts.database.begin() as session:
                await self.write(session, lease_until=now + timedelta(seconds=parts.timing.lease))
        except LeaseLost:
            return False
        name = self._relay_lease
        if name is None or await leases.renew(parts.database, name, self.holder, parts.timing.lease, now):
            return True
        return self._relay_lease is None  # released in the meantime: nothing was lost


async def take(job_id: str, parts: Parts, notifier: Notifier) -> Held | None:
    """Take a job that waits, or one whose worker is dead or let go; None when there is nothing to take."""
    now = parts.clock()
    statement = (
        update(Job)
        .where(
            Job.id == job_id,
            or_(
                and_(Job.state == "queued", or_(Job.run_after.is_(None), Job.run_after <= now)),
                and_(Job.state == "running", or_(Job.lease_until.is_(None), Job.lease_until <= now)),
            ),
        )
        .values(
            state="running",
            lease_until=now + timedelta(seconds=parts.timing.lease),
            worker=parts.worker + ":" + job_id,
            attempt=Job.attempt + 1,
            started_at=func.coalesce(Job.started_at, now),
        )
        .returning(Job.attempt)
        .execution_options(synchronize_session=False)
    )
    async with parts.database.begin() as session:
        before = await session.get(Job, job_id)
        # Who lets go of a job in good order leaves no name behind.
        orphaned = before is not None and before.state == "running" and before.worker is not None
        attempt = (await session.execute(statement)).scalar()
        if attempt is None:
            return None
        holder = f"{parts.worker}:{job_id[-8:]}:{attempt}"
        await session.execute(update(Job).where(Job.id == job_id).values(worker=holder))
        job = await session.get(Job, job_id, populate_existing=True)
    return None if job is None else Held(job, holder, parts, notifier, orphaned=orphaned)
