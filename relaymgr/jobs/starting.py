"""A change up to the device's answer: take the relay, look at the plan again, record the attempt, send it."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.domain.change import Begun, Phase, Window, same
from relaymgr.domain.configuration import OwnedConfiguration
from relaymgr.domain.platforms import Capability, CapabilityMissing
from relaymgr.domain.verification import Baseline
from relaymgr.drivers.errors import (
    CircuitOpen,
    ConfigurationChanged,
    ConfigurationRefused,
    ConfirmWindowOpen,
    DeviceBusy,
    DriverError,
    Garbage,
    HostKeyMismatch,
    LoginRefused,
    NotConfigured,
)
from relaymgr.drivers.protocol import Driver
from relaymgr.jobs.attempt import Attempt, change_of, previous_of
from relaymgr.jobs.backups import Backups
from relaymgr.jobs.errors import Conflict, JobError, NotFound, RelayBusy
from relaymgr.jobs.held import Held
from relaymgr.jobs.outcome import CANCELLED, Ending, finish
from relaymgr.jobs.parts import Parts
from relaymgr.jobs.planner import Planner, window_open
from relaymgr.store.relay_records import open_window
from relaymgr.store.tables import Job, Plan, Relay

DEFAULT_CONFIRM_MINUTES = 5
REFUSALS = (
    ConfigurationChanged,
    ConfigurationRefused,
    ConfirmWindowOpen,
    DeviceBusy,
    LoginRefused,
    HostKeyMismatch,
    NotConfigured,
    CircuitOpen,
    CapabilityMissing,
)
"""With one of these a driver says that the device was not changed. The device is asked all the same."""


class _Ended(Exception):
    """The job ends here, before anything was sent."""

    def __init__(self, ending: Ending, *, unchanged: Plan | None = None) -> None:
        """`unchanged` is the plan that the device fulfils already."""
        super().__init__(ending.detail)
        self.ending = ending
        self.unchanged = unchanged


class Starter:
    """The first half of a change. It is gone through once for a job, whatever happens."""

    def __init__(self, parts: Parts, planner: Planner, backups: Backups) -> None:
        self._parts = parts
        self._planner = planner
        self._backups = backups

    async def start(self, held: Held) -> Attempt | None:
        """Up to the device's answer to the commit; None when the job ended before anything was sent.

        Raises:
            RelayBusy: a confirm window of another job is open; nothing was sent.
            LeaseLost: another worker has the job.
        """
        await held.note("taking the relay", phase=Phase.LOCKING)
        attempt: Attempt | None = None
        self._parts.access.renew(held.relay_id)  # the relay may have been edited in another process
        try:
            async with self._parts.access.configuring(held.relay_id) as driver:
                relay, plan = await self._prepare(held, driver)
                baseline = await _look(driver)
                attempt = await self._record(held, relay, plan, baseline)
                await driver.begin_change(change_of(held.job, plan, attempt.window.minutes))
        except _Ended as ended:
            result = {"unchanged": ended.unchanged is not None}
            await finish(self._parts, held, ended.ending, plan=ended.unchanged, result=result)
            return None
        except JobError as error:
            await finish(self._parts, held, _refused(error.code, error.detail))
            return None
        except (DriverError, CapabilityMissing) as error:
            if attempt is None:
                await finish(self._parts, held, _refused(_code(error), str(error)))
                return None
            return await self._answered(held, attempt, error)
        return await self._answered(held, attempt, None)

    async def _prepare(self, held: Held, driver: Driver) -> tuple[Relay, Plan]:
        relay = await self._relay(held)
        plan = await self._plan(held, driver, relay)
        if plan.desired_text == plan.before_text:
            await _still_so(driver, plan)
            detail = "the device already is as desired; nothing was sent"
            # From here on it is the manager's to watch: a relay taken over as it stands drifts like any other.
            raise _Ended(Ending("succeeded", Phase.UNCHANGED, None, detail, applied=True), unchanged=plan)
        able = await driver.device_capabilities()
        if Capability.CONFIRMED_COMMIT not in able.supported:
            raise CapabilityMissing(Capability.CONFIRMED_COMMIT, able.reason(Capability.CONFIRMED_COMMIT))
        try:
            await self._backups.take_with(driver, relay.id, "before_change", job_id=held.job.id)
        except Garbage as error:
            await held.note(f"no backup before the change: {error}", level="warning")
        return relay, plan

    async def _relay(self, held: Held) -> Relay:
        async with self._parts.database.session() as session:
            relay = await session.get(Relay, held.relay_id)
        if relay is None:
            raise NotFound("not_found", f"no relay {held.relay_id}")
        if not relay.enabled:
            raise Conflict("relay_disabled", f"{relay.name} is disabled")
        if relay.window_job_id not in {None, held.job.id}:
            raise RelayBusy(window_open(relay).detail)
        return relay

    async def _plan(self, held: Held, driver: Driver, relay: Relay) -> Plan:
        job = held.job
        if job.plan_id is None:
            plan = await self._planner.plan_on(driver, relay.id, job.kind, job.actor)
            await held.note("planned", plan_id=plan.id, data={"diff": plan.diff, "diff_source": plan.diff_source})
            return plan
        async with self._parts.database.session() as session:
            found = await session.get(Plan, job.plan_id)
        if found is None or found.relay_id != relay.id or found.kind != job.kind:
            raise Conflict("plan_mismatch", f"plan {job.plan_id} is not of this relay and kind of change")
        if expired(found, relay, self._parts):
            raise Conflict("plan_expired", f"plan {found.id} has expired; make another")
        return found

    async def _record(self, held: Held, relay: Relay, plan: Plan, baseline: Baseline) -> Attempt:
        """From here on the device may be changed, and nobody but this job may touch it."""
        minutes = int(held.job.parameters.get("confirm_minutes", DEFAULT_CONFIRM_MINUTES))
        window = Window(self._parts.clock(), minutes, relay.commit_timeout_seconds)
        attempt = Attempt(window, baseline, previous_of(relay))
        async with self._parts.database.begin() as session:
            await self._open_window(session, held, relay, window)
            await held.note(
                f"committing, to be confirmed within {minutes} min",
                phase=Phase.LOADING,
                session=session,
                data={"diff": plan.diff, "diff_source": plan.diff_source},
                plan_id=plan.id,
                confirm_deadline=window.latest_end,
                result={**held.job.result, **attempt.dump(), "unchanged": False},
            )
        held.publish()
        return attempt

    async def _open_window(self, session: AsyncSession, held: Held, relay: Relay, window: Window) -> None:
        job_id = held.job.id
        row = await session.get(Job, job_id)
        if row is not None and row.cancel_requested:
            raise _Ended(Ending("cancelled", Phase.CANCELLED, CANCELLED, "cancelled before anything was sent"))
        if not await open_window(session, held.relay_id, job_id, window.latest_end, version=relay.version):
            raise RelayBusy("the relay was edited meanwhile, or a confirm window of another job is open there")

    async def _answered(self, held: Held, attempt: Attempt, error: DriverError | CapabilityMissing | None) -> Attempt:
        """Record what the driver said of the commit; what is true the device says next."""
        if error is None:
            attempt = attempt.knowing(begun=Begun.ACCEPTED)
            message, phase, level = "the device took the change and waits for the confirmation", Phase.PENDING, "info"
        else:
            begun = Begun.REFUSED if isinstance(error, REFUSALS) else Begun.UNKNOWN
            attempt = replace(attempt.knowing(begun=begun), doubt=_code(error), doubt_detail=str(error))
            message, phase, level = f"the commit ended with: {error}", Phase.WAITING, "warning"
        await held.note(message, phase=phase, level=level, result={**held.job.result, **attempt.dump()})
        return attempt


def expired(plan: Plan, relay: Relay, parts: Parts) -> bool:
    """Whether a plan is too old, or made of an intent or a state that is not the relay's any more."""
    if plan.expires_at <= parts.clock():
        return True
    if plan.kind == "restore":
        return plan.desired_text != relay.applied_text
    return plan.kind == "apply" and plan.intent_version != relay.intent_version


async def _look(driver: Driver) -> Baseline:
    """How the relay is before the change; what cannot be read now is not held against the change later."""
    try:
        return Baseline.of(await driver.observe())
    except Garbage:
        return Baseline()


async def _still_so(driver: Driver, plan: Plan) -> None:
    """An empty plan is only as good as the device it was read from."""
    desired = OwnedConfiguration(tuple(plan.desired_scope), plan.desired_text)
    if not same(await driver.read_owned(desired.scope), desired):
        raise Conflict("plan_expired", "the device changed since the plan was made")


def _refused(code: str, detail: str) -> Ending:
    return Ending("failed", Phase.REFUSED, code, detail)


def _code(error: DriverError | CapabilityMissing) -> str:
    return error.code if isinstance(error, DriverError) else "capability_missing"
