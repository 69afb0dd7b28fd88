"""Rollouts: many relays in waves. A state machine in the database that anybody may push on, one at a time.

Nothing is kept in memory: a push reads what the jobs of the rollout came to, lets the domain decide, and carries the
decision out in one transaction with the jobs it starts. So nothing runs twice, whoever dies and whoever comes after.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.domain.change import Phase
from relaymgr.domain.rollout import BadWaves, RelayPhase, RolloutPhase, RolloutState, advance, split
from relaymgr.jobs.engine import JobEngine
from relaymgr.jobs.errors import Conflict, Invalid, NotFound
from relaymgr.jobs.parts import ACTIVE, Parts
from relaymgr.jobs.submission import checked
from relaymgr.store import audit, events
from relaymgr.store.audit import UNSAID, Reason
from relaymgr.store.tables import Job, Relay, Rollout, RolloutRelay, new_id

_KINDS = frozenset({"apply", "drain", "undrain", "restore"})
_OPEN = (RolloutPhase.RUNNING.value, RolloutPhase.PAUSED.value)


class Rollouts:
    """Makes, pauses, resumes, aborts and pushes on rollouts."""

    def __init__(self, parts: Parts, engine: JobEngine) -> None:
        self._parts = parts
        self._engine = engine

    async def create(
        self,
        *,
        name: str,
        kind: str,
        waves: Sequence[Sequence[str]],
        error_budget: int,
        confirm_minutes: int,
        probe: bool,
        actor: str,
        comment: str = "",
        ticket: str | None = None,
        request_id: str | None = None,
        rollout_id: str | None = None,
    ) -> Rollout:
        """Store a rollout whose waves hold relay ids, and start it. Waves by sizes are made with `waves_of`.

        `rollout_id` is the id it gets, a new one when absent.

        Raises:
            JobError: unknown kind or relay, an empty or double wave, a relay that is in another open rollout.
        """
        if kind not in _KINDS:
            raise Invalid("invalid_request", f"{kind!r} cannot be rolled out")
        checked(kind, {"confirm_minutes": confirm_minutes, "probe": probe})
        relays = [relay for wave in waves for relay in wave]
        if not relays or not all(waves) or len(set(relays)) != len(relays) or error_budget < 0:
            raise Invalid("invalid_request", "a wave without a relay, a relay named twice, or a negative budget")
        now = self._parts.clock()
        rollout = Rollout(
            id=rollout_id or new_id(),
            name=name,
            kind=kind,
            state=RolloutPhase.RUNNING.value,
            waves={"sizes": [len(wave) for wave in waves], "relays": [list(wave) for wave in waves]},
            error_budget=error_budget,
            confirm_minutes=confirm_minutes,
            probe=probe,
            actor=actor,
            comment=comment,
            ticket=ticket,
            created_at=now,
            updated_at=now,
        )
        async with self._parts.database.begin() as session:
            await _admit(session, relays)
            session.add(rollout)
            await session.flush()
            session.add_all(
                RolloutRelay(rollout_id=rollout.id, relay_id=relay, wave=index)
                for index, wave in enumerate(waves)
                for relay in wave
            )
            settings = {"error_budget": error_budget, "confirm_minutes": confirm_minutes, "probe": probe}
            after = {"name": name, "kind": kind, **settings, "waves": rollout.waves["relays"]}
            why = Reason(comment, ticket, request_id)
            await _audit(session, rollout, "create", actor, why, now, after=after)
        await self.push(rollout.id)
        return await self._get(rollout.id)

    async def pause(self, rollout_id: str, actor: str, why: Reason = UNSAID) -> Rollout:
        """Start no more relays; running ones finish."""
        return await self._turn(rollout_id, actor, "pause", RolloutPhase.PAUSED, why)

    async def resume(self, rollout_id: str, actor: str, why: Reason = UNSAID) -> Rollout:
        """Go on."""
        return await self._turn(rollout_id, actor, "resume", RolloutPhase.RUNNING, why)

    async def abort(self, rollout_id: str, actor: str, why: Reason = UNSAID) -> Rollout:
        """Start no more relays, ever. Jobs that wait in the queue are cancelled, those under way finish."""
        return await self._turn(rollout_id, actor, "abort", RolloutPhase.ABORTED, why)

    async def push(self, rollout_id: str) -> None:
        """Take in what jobs came to and do what follows. May be called any number of times, from anywhere."""
        started: list[str] = []
        async with self._parts.database.begin() as session:
            rollout = await session.get(Rollout, rollout_id, with_for_update=True)
            if rollout is None or rollout.finished_at is not None:
                return
            rows = {row.relay_id: row for row in await _relays_of(session, rollout_id)}
            results = await self._results(session, rows)
            state, actions = advance(_state(rollout, rows), results)
            now = self._parts.clock()
            for relay_id, row in rows.items():
                row.state = state.relays[relay_id].value
            for relay_id in actions.skip:
                rows[relay_id].detail = actions.reason
            started = [self._start(session, rollout, rows[relay_id], now) for relay_id in actions.start]
            rollout.current_wave = actions.wave
            if actions.skip or actions.finish is RolloutPhase.FAILED:
                rollout.pause_reason = actions.reason
            await self._finish(session, rollout, state, actions.finish, now)
        for job_id in started:
            await self._engine.wake(job_id)

    async def push_all(self) -> None:
        """Push on every rollout that has not ended; what the reaper does."""
        async with self._parts.database.session() as session:
            open_ids = list(await session.scalars(select(Rollout.id).where(Rollout.finished_at.is_(None))))
        for rollout_id in open_ids:
            await self.push(rollout_id)

    async def _results(self, session: AsyncSession, rows: dict[str, RolloutRelay]) -> dict[str, RelayPhase]:
        """What the jobs of running relays came to; a job that is gone (retention, deletion) is unknown."""
        running = {row.job_id: relay for relay, row in rows.items() if row.state == RelayPhase.RUNNING.value}
        jobs = {job.id: job for job in await session.scalars(select(Job).where(Job.id.in_(list(running))))}
        results: dict[str, RelayPhase] = {}
        for job_id, relay_id in running.items():
            job = jobs.get(job_id or "")
            if job is not None and job.state in ACTIVE:
                continue
            results[relay_id] = _came_to(job)
            rows[relay_id].detail = job.error_detail if job else "its job is gone"
        return results

    def _start(self, session: AsyncSession, rollout: Rollout, row: RolloutRelay, now: datetime) -> str:
        job = Job(
            id=new_id(),
            kind=rollout.kind,
            relay_id=row.relay_id,
            rollout_id=rollout.id,
            parameters={"confirm_minutes": rollout.confirm_minutes, "probe": rollout.probe},
            result={},
            actor=rollout.actor,
            comment=rollout.comment,
            ticket=rollout.ticket,
            state="queued",
            phase=Phase.QUEUED.value,
            created_at=now,
        )
        session.add(job)
        row.job_id = job.id
        return job.id

    async def _finish(
        self,
        session: AsyncSession,
        rollout: Rollout,
        state: RolloutState,
        finish: RolloutPhase | None,
        now: datetime,
    ) -> None:
        running = any(phase is RelayPhase.RUNNING for phase in state.relays.values())
        if finish is None and (rollout.state != RolloutPhase.ABORTED.value or running):
            return
        rollout.state = (finish or RolloutPhase.ABORTED).value
        rollout.finished_at = rollout.updated_at = now
        rollout.version += 1
        succeeded = rollout.state == RolloutPhase.SUCCEEDED.value
        await events.emit(
            session,
            f"rollout.{rollout.state}",
            "info" if succeeded else "warning",
            f"rollout {rollout.name}: {rollout.state}, {state.failed} relays failed",
            data={"rollout_id": rollout.id},
            now=now,
        )

    async def _turn(self, rollout_id: str, actor: str, action: str, to: RolloutPhase, why: Reason) -> Rollout:
        now = self._parts.clock()
        reason = None if to is RolloutPhase.RUNNING else why.comment or f"{to.value} by {actor}"
        async with self._parts.database.begin() as session:
            rollout = await session.get(Rollout, rollout_id, with_for_update=True)
            if rollout is None:
                raise NotFound("not_found", f"no rollout {rollout_id}")
            if rollout.state not in _OPEN:
                raise Conflict("rollout_finished", f"rollout {rollout.name} is {rollout.state}")
            before, rollout.state, rollout.pause_reason = rollout.state, to.value, reason
            rollout.version, rollout.updated_at = rollout.version + 1, now
            if to is RolloutPhase.ABORTED:
                await _cancel_queued(session, rollout_id, now)
            await _audit(session, rollout, action, actor, why, now, before={"state": before}, after={"state": to.value})
        await self.push(rollout_id)
        return await self._get(rollout_id)

    async def _get(self, rollout_id: str) -> Rollout:
        async with self._parts.database.session() as session:
            rollout = await session.get(Rollout, rollout_id)
        if rollout is None:
            raise NotFound("not_found", f"no rollout {rollout_id}")
        return rollout


def waves_of(relays: Sequence[str], sizes: Sequence[int | str]) -> list[list[str]]:
    """Waves by sizes: numbers of relays, or `N%` of all done after the wave.

    Raises:
        Invalid: sizes that make no sense.
    """
    try:
        return [list(wave) for wave in split(relays, sizes)]
    except BadWaves as error:
        raise Invalid("invalid_request", str(error)) from error


def _state(rollout: Rollout, rows: dict[str, RolloutRelay]) -> RolloutState:
    # A relay that was deleted has no row any more: its wave goes on without it.
    waves = tuple(tuple(relay for relay in wave if relay in rows) for wave in rollout.waves["relays"])
    relays = {relay: RelayPhase(row.state) for relay, row in rows.items()}
    return RolloutState(waves, relays, RolloutPhase(rollout.state), rollout.error_budget)


def _came_to(job: Job | None) -> RelayPhase:
    if job is None:
        return RelayPhase.UNCERTAIN
    if job.state == "succeeded":
        return RelayPhase.UNCHANGED if job.phase == Phase.UNCHANGED.value else RelayPhase.SUCCEEDED
    if job.state == "cancelled":
        return RelayPhase.SKIPPED
    return RelayPhase(job.state)


async def _audit(
    session: AsyncSession,
    rollout: Rollout,
    action: str,
    actor: str,
    why: Reason,
    now: datetime,
    *,
    after: dict[str, Any],
    before: dict[str, Any] | None = None,
) -> None:
    """One row, seen by the AD that owns every relay of the rollout; where several do, by unscoped tokens only."""
    relays = [relay for wave in rollout.waves["relays"] for relay in wave]
    owners = set(await session.scalars(select(Relay.ad_id).where(Relay.id.in_(relays)).distinct()))
    await audit.record(
        session,
        actor,
        f"rollout.{action}",
        "rollout",
        rollout.id,
        comment=why.comment or None,
        ticket=why.ticket,
        request_id=why.request_id,
        ad_id=owners.pop() if len(owners) == 1 else None,
        before=before,
        after=after,
        now=now,
    )


async def _relays_of(session: AsyncSession, rollout_id: str) -> Sequence[RolloutRelay]:
    return (await session.scalars(select(RolloutRelay).where(RolloutRelay.rollout_id == rollout_id))).all()


async def _admit(session: AsyncSession, relays: list[str]) -> None:
    known = {relay.id: relay for relay in await session.scalars(select(Relay).where(Relay.id.in_(relays)))}
    if missing := [relay for relay in relays if relay not in known]:
        raise NotFound("not_found", f"no relay {missing[0]}")
    if off := [relay.name for relay in known.values() if not relay.enabled]:
        raise Conflict("relay_disabled", f"{', '.join(sorted(off))} disabled")
    statement = (
        select(RolloutRelay.relay_id, Rollout.name)
        .join(Rollout, Rollout.id == RolloutRelay.rollout_id)
        .where(RolloutRelay.relay_id.in_(relays), Rollout.finished_at.is_(None))
        .limit(1)
    )
    if (other := (await session.execute(statement)).first()) is not None:
        raise Conflict("conflict", f"{known[other[0]].name} is in rollout {other[1]}, which has not ended")


async def _cancel_queued(session: AsyncSession, rollout_id: str, now: datetime) -> None:
    statement = select(Job).where(Job.rollout_id == rollout_id, Job.state == "queued").with_for_update()
    for job in await session.scalars(statement):
        job.state, job.phase, job.progress = "cancelled", Phase.CANCELLED.value, 100
        job.error_code, job.cancel_requested, job.finished_at = "cancelled", True, now
