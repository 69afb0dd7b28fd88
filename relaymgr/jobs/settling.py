"""A change from the device's answer to its end: read, judge, act, read again.

The same for the worker that sent the change and for whoever finds the job after it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from relaymgr.domain.change import Begun, Phase, Truth, Verdict, judge
from relaymgr.domain.configuration import Change, ChangeReading, OwnedConfiguration
from relaymgr.domain.differences import unified
from relaymgr.domain.platforms import CapabilityMissing
from relaymgr.domain.verification import failures, passed
from relaymgr.drivers.errors import DriverError
from relaymgr.jobs.attempt import Attempt, change_of
from relaymgr.jobs.backups import Backups
from relaymgr.jobs.held import Held
from relaymgr.jobs.outcome import CANCELLED, VERIFICATION_FAILED, ending_of, finish
from relaymgr.jobs.parts import Parts
from relaymgr.jobs.verifying import Verifier
from relaymgr.store.tables import Plan

log = logging.getLogger(__name__)

_FINAL: Final = frozenset({Truth.SUCCEEDED, Truth.BACK, Truth.UNCERTAIN})
_SLOWEST: Final = 60.0


class Settler:
    """The second half of a change."""

    def __init__(self, parts: Parts, backups: Backups, verifier: Verifier) -> None:
        self._parts = parts
        self._backups = backups
        self._verifier = verifier

    async def settle(self, held: Held, attempt: Attempt) -> datetime | None:
        """Go on until the change ended (None) or has to be read again later (the time it is to be woken).

        Raises:
            LeaseLost: another worker has the job.
        """
        async with self._parts.database.session() as session:
            plan = await session.get(Plan, held.job.plan_id)
        if plan is None:
            raise LookupError(f"plan {held.job.plan_id} of job {held.job.id} is gone")
        change = change_of(held.job, plan, attempt.window.minutes)
        acted = False
        while True:
            reading, unreadable = await self._read(held, change)
            verdict = judge(reading, change, self._parts.clock(), attempt.window)
            if verdict.truth in _FINAL:
                await self._end(held, attempt, plan, change, reading, verdict)
                return None
            if verdict.truth is Truth.UNSETTLED or acted:
                return await self._later(held, attempt, verdict, unreadable)
            if verdict.truth is Truth.CONFIRMABLE:
                attempt, acted = await self._confirm(held, attempt, change, plan, reading)
            elif verdict.truth is Truth.UNSAVED:
                await held.note(f"{verdict.reason}; saving it", level="warning")
                await self._do(held, "saving", self._confirming(held, change))
                acted = True
            else:
                await self._revert(held, change)
                acted = True

    async def _read(self, held: Held, change: Change) -> tuple[ChangeReading | None, str | None]:
        try:
            async with self._parts.access.configuring(held.relay_id, urgent=True) as driver:
                return await driver.read_change(change), None
        except (DriverError, CapabilityMissing) as error:
            return None, str(error)
        except Exception as error:  # whatever a driver does wrong, the change has to come to an end
            log.exception("reading the device of job %s", held.job.id)
            return None, f"the driver failed: {type(error).__name__}"

    async def _later(self, held: Held, attempt: Attempt, verdict: Verdict, unreadable: str | None) -> datetime:
        elapsed = (self._parts.clock() - attempt.window.begun_at).total_seconds()
        message = f"{verdict.reason}: {unreadable}" if unreadable else verdict.reason
        await held.note(f"{message}; reading again", phase=Phase.WAITING, level="warning")
        return await held.park(min(_SLOWEST, max(self._parts.timing.read_again, elapsed / 10)))

    async def _confirm(
        self, held: Held, attempt: Attempt, change: Change, plan: Plan, reading: ChangeReading | None
    ) -> tuple[Attempt, bool]:
        """Verify, then confirm; a change that is not well, or not wanted any more, is marked to go back."""
        assert reading is not None
        attempt = attempt.knowing(begun=Begun.ACCEPTED)
        await held.note("verifying", phase=Phase.VERIFYING, result={**held.job.result, **attempt.dump()})
        left = attempt.window.time_to_confirm(reading, self._parts.clock())
        checks = await self._verifier.run(held, attempt.baseline, plan, patience=left / 2)
        well = passed(checks)
        cancelled = await held.cancel_requested()
        why_not = CANCELLED if cancelled else None if well else VERIFICATION_FAILED
        attempt = replace(attempt.knowing(verified=why_not is None, confirm_sent=why_not is None), why_not=why_not)
        verification = {"passed": well, "checks": [check.dump() for check in checks]}
        result = {**held.job.result, **attempt.dump(), "verification": verification}
        if why_not is not None:
            message = "cancelled" if cancelled else f"verification failed: {failures(verification)}"
            await held.note(message, level="error", data=verification, result=result)
            return attempt, False
        await held.note("verified; confirming", phase=Phase.CONFIRMING, data=verification, result=result)
        await self._do(held, "confirming", self._confirming(held, change))
        return attempt, True

    async def _confirming(self, held: Held, change: Change) -> None:
        async with self._parts.access.configuring(held.relay_id, urgent=True) as driver:
            await driver.confirm_change(change)

    async def _revert(self, held: Held, change: Change) -> None:
        async def reverting() -> None:
            async with self._parts.access.configuring(held.relay_id, urgent=True) as driver:
                await driver.revert_change(change)

        await held.note("taking the change back", phase=Phase.REVERTING)
        await self._do(held, "taking back", reverting())

    async def _do(self, held: Held, what: str, doing: Awaitable[None]) -> None:
        """Act on the device. Failing is no answer: the reading that follows is."""
        try:
            await doing
        except (DriverError, CapabilityMissing) as error:
            await held.note(f"{what} ended with: {error}", level="warning")
        except Exception as error:  # as in `_read`
            log.exception("%s, job %s", what, held.job.id)
            await held.note(f"{what}: the driver failed: {type(error).__name__}", level="warning")

    async def _end(
        self,
        held: Held,
        attempt: Attempt,
        plan: Plan,
        change: Change,
        reading: ChangeReading | None,
        verdict: Verdict,
    ) -> None:
        if reading is not None and reading.committed:  # it took the change once, whoever died before hearing of it
            attempt = attempt.knowing(begun=Begun.ACCEPTED)
        result: dict[str, Any] = {}
        if verdict.truth is Truth.UNCERTAIN and reading is not None:
            result = {
                "desired_to_actual": _difference(change.desired, reading.owned),
                "before_to_actual": _difference(change.before, reading.owned),
            }
        if verdict.truth is Truth.SUCCEEDED and attempt.window.verified is None:
            checks = await self._verifier.run(held, attempt.baseline, plan, patience=0)
            verification = {"passed": passed(checks), "checks": [check.dump() for check in checks]}
            result["verification"] = verification
            await held.note("somebody confirmed the change before it was verified", level="warning", data=verification)
        committed = reading.committed if reading is not None else None
        failed = failures(held.job.result.get("verification", {}))
        ending = ending_of(verdict.truth, verdict.reason, attempt, committed=committed, failed=failed)
        await finish(self._parts, held, ending, plan=plan, result=result)
        if verdict.truth is Truth.SUCCEEDED:
            await self._back_up(held)

    async def _back_up(self, held: Held) -> None:
        try:
            async with self._parts.access.configuring(held.relay_id) as driver:
                await self._backups.take_with(driver, held.relay_id, "after_change", job_id=held.job.id)
        except DriverError as error:  # the periodic backup sees the change too
            log.warning("no backup after job %s: %s", held.job.id, error)


def _difference(one: OwnedConfiguration, actual: OwnedConfiguration) -> str:
    return unified(one.text, actual.text, before_name="expected", after_name="actual")
