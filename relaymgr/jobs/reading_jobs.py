"""Jobs that change nothing on a device: plans, drift checks and backups somebody asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from relaymgr.domain.change import Phase
from relaymgr.domain.platforms import CapabilityMissing
from relaymgr.drivers.errors import DriverError
from relaymgr.jobs.backups import Backups
from relaymgr.jobs.drift import DriftChecker
from relaymgr.jobs.errors import JobError
from relaymgr.jobs.held import Held
from relaymgr.jobs.outcome import CANCELLED
from relaymgr.jobs.parts import Parts
from relaymgr.jobs.planner import Planner

_Result = dict[str, Any]


class ReadingJobs:
    """Runs them. One that was interrupted is simply done again."""

    def __init__(self, parts: Parts, planner: Planner, drift: DriftChecker, backups: Backups) -> None:
        self._parts = parts
        self._planner = planner
        self._drift = drift
        self._backups = backups

    async def run(self, held: Held) -> datetime | None:
        """Do it. Returns None: such a job always ends."""
        doing: dict[str, Callable[[Held], Awaitable[_Result]]] = {
            "plan": self._plan,
            "drift": self._check,
            "backup": self._back_up,
        }
        await held.note("taking the relay", phase=Phase.LOCKING)
        if await held.cancel_requested():
            await self._end(held, "cancelled", Phase.CANCELLED, code=CANCELLED)
            return None
        await held.note("reading the device", phase=Phase.READING)
        try:
            result = await doing[held.job.kind](held)
        except JobError as error:
            await self._end(held, "failed", Phase.FAILED, code=error.code, detail=error.detail)
        except DriverError as error:
            await self._end(held, "failed", Phase.FAILED, code=error.code, detail=str(error))
        except CapabilityMissing as error:
            await self._end(held, "failed", Phase.FAILED, code="capability_missing", detail=error.reason)
        else:
            await self._end(held, "succeeded", Phase.DONE, result=result)
        return None

    async def _plan(self, held: Held) -> _Result:
        plan = await self._planner.make_plan(held.relay_id, held.job.parameters.get("kind", "apply"), held.job.actor)
        return {"plan_id": plan.id, "unchanged": not plan.diff}

    async def _check(self, held: Held) -> _Result:
        drift = await self._drift.check(held.relay_id)
        return {"drift": drift.state, "diff": drift.diff}

    async def _back_up(self, held: Held) -> _Result:
        backup_id = await self._backups.take(held.relay_id, "requested", job_id=held.job.id)
        return {"backup_id": backup_id, "unchanged": backup_id is None}

    async def _end(
        self,
        held: Held,
        state: str,
        phase: Phase,
        *,
        code: str | None = None,
        detail: str | None = None,
        result: _Result | None = None,
    ) -> None:
        await held.note(
            detail or state,
            phase=phase,
            level="error" if state == "failed" else "info",
            state=state,
            finished_at=self._parts.clock(),
            worker=None,
            lease_until=None,
            error_code=code,
            error_detail=detail,
            result=result or {},
        )
