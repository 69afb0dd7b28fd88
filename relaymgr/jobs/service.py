"""The job service: takes jobs in, hands them to an engine, runs them, and lets people watch and cancel them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from relaymgr.domain.change import Phase, Window
from relaymgr.jobs import submission
from relaymgr.jobs.attempt import Attempt, attempt_of
from relaymgr.jobs.change_workflow import ChangeWorkflow
from relaymgr.jobs.engine import JobEngine
from relaymgr.jobs.errors import Conflict, LeaseLost, NotFound
from relaymgr.jobs.held import Held, take
from relaymgr.jobs.notifier import Notifier
from relaymgr.jobs.outcome import Ending, finish
from relaymgr.jobs.parts import ACTIVE, CHANGES, Parts
from relaymgr.jobs.reading_jobs import ReadingJobs
from relaymgr.store import audit
from relaymgr.store.audit import UNSAID, Reason
from relaymgr.store.tables import Job, JobEvent, Relay, new_id

log = logging.getLogger(__name__)

RolloutTick = Callable[[str], Awaitable[None]]


class JobService:
    """Everything about jobs. The row in the database is the truth; engine and notifier only hurry things along."""

    def __init__(
        self, parts: Parts, engine: JobEngine, changes: ChangeWorkflow, readings: ReadingJobs, notifier: Notifier
    ) -> None:
        self._parts = parts
        self._engine = engine
        self._changes = changes
        self._readings = readings
        self._notifier = notifier
        self.on_rollout_news: RolloutTick | None = None
        """Called when a job of a rollout ended here; set by whoever runs rollouts."""

    async def submit(
        self,
        kind: str,
        *,
        relay_id: str | None = None,
        plan_id: str | None = None,
        parameters: dict[str, Any] | None = None,
        actor: str,
        comment: str = "",
        ticket: str | None = None,
        request_id: str | None = None,
        job_id: str | None = None,
    ) -> Job:
        """Store a job and wake a worker. Without `plan_id` a change plans first.

        Args:
            kind: apply, drain, undrain, restore, rollback; plan (parameters: kind), drift, backup.
            relay_id: the relay.
            plan_id: the plan a change carries out.
            parameters: of a change `confirm_minutes` (1..60, 5) and `probe` (bool); of a plan `kind`.
            actor: who asks.
            comment: why.
            ticket: reference.
            request_id: of the API's request, for the audit.
            job_id: the id the job gets; a new one when absent.

        Raises:
            JobError: refused; nothing was stored.
        """
        job = Job(
            id=job_id or new_id(),
            kind=kind,
            relay_id=relay_id,
            plan_id=plan_id,
            parameters=submission.checked(kind, parameters or {}),
            result={},
            actor=actor,
            comment=comment,
            ticket=ticket,
            state="queued",
            phase=Phase.QUEUED.value,
            created_at=self._parts.clock(),
        )
        async with self._parts.database.begin() as session:
            relay = await submission.admit(session, job, self._parts)
            session.add(job)
            await audit.record(
                session,
                actor,
                "job.create",
                "job",
                job.id,
                after={"kind": kind, "relay_id": relay_id, "plan_id": plan_id, **job.parameters},
                comment=comment or None,
                ticket=ticket,
                request_id=request_id,
                ad_id=relay.ad_id,
                now=job.created_at,
            )
        await self._engine.wake(job.id)
        return job

    async def cancel(self, job_id: str, actor: str, why: Reason = UNSAID) -> Job:
        """Ask a job to end as soon as that leaves nothing half done.

        At once while it is queued; while it waits for its confirmation, by taking the change back.

        Raises:
            NotFound, Conflict: no such job, or it has ended.
        """
        now = self._parts.clock()
        async with self._parts.database.begin() as session:
            job = await session.get(Job, job_id, with_for_update=True)
            if job is None:
                raise NotFound("not_found", f"no job {job_id}")
            if job.state not in ACTIVE:
                raise Conflict("job_finished", f"job {job_id} has ended: {job.state}")
            before = {"state": job.state, "cancel_requested": job.cancel_requested}
            job.cancel_requested = True
            if job.state == "queued" and attempt_of(job) is None:
                job.state, job.phase, job.progress, job.finished_at = "cancelled", Phase.CANCELLED.value, 100, now
                job.error_code = "cancelled"
            session.add(
                JobEvent(
                    job_id=job_id,
                    at=now,
                    level="warning",
                    phase=job.phase,
                    progress=job.progress,
                    message=f"cancellation asked for by {actor}",
                    data={},
                )
            )
            relay = await session.get(Relay, job.relay_id) if job.relay_id else None
            await audit.record(
                session,
                actor,
                "job.cancel",
                "job",
                job_id,
                before=before,
                after={"state": job.state, "cancel_requested": True},
                comment=why.comment or None,
                ticket=why.ticket,
                request_id=why.request_id,
                ad_id=relay.ad_id if relay is not None else None,
                now=now,
            )
        self._notifier.publish(job_id)
        await self._tell_rollout(job)
        return job

    async def retry(self, job_id: str, actor: str) -> Job:
        """A new job like one that ended badly, with the same plan while that holds.

        Raises:
            JobError: no such job, it has not ended or went well, or what `submit` refuses.
        """
        async with self._parts.database.session() as session:
            job = await session.get(Job, job_id)
        if job is None:
            raise NotFound("not_found", f"no job {job_id}")
        if job.state in ACTIVE or job.state == "succeeded":
            raise Conflict("conflict", f"job {job_id} is {job.state}; there is nothing to try again")
        return await self.submit(
            job.kind,
            relay_id=job.relay_id,
            plan_id=job.plan_id,
            parameters=job.parameters,
            actor=actor,
            comment=job.comment,
            ticket=job.ticket,
        )

    async def run(self, job_id: str) -> None:
        """Take a job and carry it as far as it goes; return at once when there is nothing to take.

        What engines call. May be called for the same job any number of times, anywhere.
        """
        held = await take(job_id, self._parts, self._notifier)
        if held is None:
            return
        again: datetime | None = None
        try:
            async with held.kept():
                if held.orphaned:
                    await self._tell_taken_over(held)
                again = await self._work(held)
        except LeaseLost:
            log.warning("job %s was taken over by another worker", job_id)
            return
        except asyncio.CancelledError:
            await asyncio.shield(self._hand_back(held))
            raise
        except Exception as error:  # a defect of ours must not leave a job nobody looks at
            log.exception("job %s", job_id)
            again = await self._failed(held, error)
        if again is not None:
            await self._engine.wake(job_id, at=again)
        else:
            await self._tell_rollout(held.job)

    async def follow(self, job_id: str, after: int = 0, *, poll_seconds: float = 1.0) -> AsyncIterator[JobEvent]:
        """The log of a job from after event `after` on, as it grows; ends with the job.

        Works across processes: news of this one come at once, those of others within `poll_seconds`.
        """
        while True:
            async with self._parts.database.session() as session:
                job = await session.get(Job, job_id)
                statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after).order_by(JobEvent.id)
                rows = list(await session.scalars(statement))
            for row in rows:
                after = row.id
                yield row
            if job is None or job.state not in ACTIVE:
                return
            await self._notifier.wait(job_id, poll_seconds)

    async def _tell_taken_over(self, held: Held) -> None:
        if attempt_of(held.job) is not None:
            message = "the worker that had the job was lost in the middle of the change; reading the device again"
        else:
            message = "the worker that had the job was lost before it sent anything; starting again"
        await held.note(message, level="warning", data={"worker_lost": True})

    async def _work(self, held: Held) -> datetime | None:
        if held.job.kind in CHANGES:
            return await self._changes.run(held)
        return await self._readings.run(held)

    async def _failed(self, held: Held, error: Exception) -> datetime | None:
        """A defect: a job that sent nothing has failed; one that did is read again until the device has the answer."""
        if held.job.state not in ACTIVE:
            return None
        detail = f"the manager failed: {type(error).__name__}"
        attempt = attempt_of(held.job)
        try:
            if attempt is not None and not self._over(attempt):
                await held.note(detail, level="error")
                return await held.park(max(10.0, self._parts.timing.read_again))
            phase = Phase.UNCERTAIN if attempt else Phase.FAILED if held.job.phase == "reading" else Phase.REFUSED
            state = "uncertain" if attempt else "failed"
            await finish(self._parts, held, Ending(state, phase, "internal", detail))
        except LeaseLost:
            log.warning("job %s was taken over by another worker", held.job.id)
        return None

    def _over(self, attempt: Attempt) -> bool:
        window: Window = attempt.window
        return self._parts.clock() >= window.give_up_at

    async def _hand_back(self, held: Held) -> None:
        """This process ends in good order: others need not wait for the lease to run out."""
        if held.job.state not in ACTIVE:
            return
        try:
            if attempt_of(held.job) is None:
                await held.requeue(0, "the worker was stopped")
            else:
                await held.park(0)
        except LeaseLost:
            log.info("job %s ended or was taken over", held.job.id)

    async def _tell_rollout(self, job: Job) -> None:
        if job.rollout_id is None or self.on_rollout_news is None:
            return
        try:
            await self.on_rollout_news(job.rollout_id)
        except Exception:  # the reaper looks after rollouts too
            log.exception("rollout %s", job.rollout_id)


async def clear_orphan_windows(parts: Parts) -> int:
    """Free relays whose window belongs to a job that ended or was deleted, once it must be over. Returns how many."""
    now = parts.clock()
    active = select(Job.id).where(Job.state.in_(ACTIVE))
    statement = (
        update(Relay)
        .where(Relay.window_job_id.is_not(None), Relay.window_until < now, Relay.window_job_id.not_in(active))
        .values(window_job_id=None, window_until=None)
        .returning(Relay.id)
        .execution_options(synchronize_session=False)
    )
    async with parts.database.begin() as session:
        return len((await session.execute(statement)).all())
