"""How a change ends: job, relay, audit and event in one transaction, so that they never tell different stories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.domain.change import Begun, Phase, Truth
from relaymgr.jobs.attempt import Attempt
from relaymgr.jobs.held import Held
from relaymgr.jobs.parts import Parts
from relaymgr.store import audit, events
from relaymgr.store.relay_records import close_window
from relaymgr.store.tables import DriftRow, Plan, Relay

VERIFICATION_FAILED = "verification_failed"
CANCELLED = "cancelled"
_NOT_CONFIRMED: Final = "not confirmed in time, the device's timer (or somebody on the device) took the change back"


@dataclass(frozen=True, slots=True)
class Ending:
    """What a job comes to."""

    state: str
    phase: Phase
    code: str | None
    detail: str
    applied: bool = False
    """The device has what was desired, for good."""


def ending_of(
    truth: Truth, reason: str, attempt: Attempt, *, committed: bool | None = None, failed: str = ""
) -> Ending:
    """From what is true of the device to what is said of the job.

    Args:
        truth: SUCCEEDED, BACK or UNCERTAIN.
        reason: the verdict's.
        attempt: the job's.
        committed: whether the device tells that it took the change at some time; None where it does not tell.
        failed: what failed of the verification, in words.
    """
    if truth is Truth.SUCCEEDED:
        if attempt.window.verified is False:
            detail = "the change was not to stay, but somebody confirmed it: the device keeps it"
            return Ending("failed", Phase.CONFIRMED, attempt.why_not or VERIFICATION_FAILED, detail, applied=True)
        return Ending("succeeded", Phase.CONFIRMED, None, reason, applied=True)
    if truth is Truth.UNCERTAIN:
        return Ending("uncertain", Phase.UNCERTAIN, "outcome_uncertain", reason)
    if attempt.window.verified is False:
        why = "cancelled" if attempt.why_not == CANCELLED else f"verification failed: {failed}"
        return Ending("rolled_back", Phase.REVERTED, attempt.why_not or VERIFICATION_FAILED, f"{why}; {reason}")
    if attempt.window.begun is Begun.ACCEPTED or committed:
        return Ending("rolled_back", Phase.REVERTED, "confirm_window_elapsed", f"{_NOT_CONFIRMED}; {reason}")
    code = attempt.doubt or "job_interrupted"
    return Ending("failed", Phase.REFUSED, code, attempt.doubt_detail or reason)


async def finish(
    parts: Parts, held: Held, ending: Ending, *, plan: Plan | None = None, result: dict[str, Any] | None = None
) -> None:
    """Record how a change ended.

    Raises:
        LeaseLost: another worker has the job; nothing was recorded.
    """
    job, now = held.job, parts.clock()
    async with parts.database.begin() as session:
        await held.note(
            ending.detail,
            phase=ending.phase,
            level="info" if ending.state in {"succeeded", "cancelled"} else "error",
            session=session,
            state=ending.state,
            progress=100,
            finished_at=now,
            worker=None,
            lease_until=None,
            error_code=ending.code,
            error_detail=ending.detail if ending.code else None,
            result={**job.result, **(result or {})},
        )
        relay = await session.get(Relay, job.relay_id) if job.relay_id else None
        if relay is not None:
            before = {"intent_version": relay.applied_intent_version, "drained": relay.drained}
            await _settle_relay(session, parts, relay, held, ending, plan)
            after = {"intent_version": relay.applied_intent_version, "drained": relay.drained}
            await _report(session, parts, relay, held, ending, {"before": before, "after": after}, plan)
    held.publish()


async def _settle_relay(
    session: AsyncSession, parts: Parts, relay: Relay, held: Held, ending: Ending, plan: Plan | None
) -> None:
    now = parts.clock()
    await close_window(session, relay.id, held.job.id)
    if ending.state == "uncertain":
        relay.drift_state, relay.updated_at, relay.version = "unknown", now, relay.version + 1
    if not ending.applied or plan is None:
        return
    relay.applied_scope, relay.applied_text = list(plan.new_scope), plan.new_text
    relay.applied_intent_version, relay.drained = plan.intent_version, plan.drained
    relay.updated_at, relay.version = now, relay.version + 1
    drift = await session.get(DriftRow, relay.id)
    if plan.kind == "rollback":
        # What was there before may have drifted from what was expected before; the next check tells.
        relay.drift_state, relay.drift_checked_at = "unknown", None
        if drift is not None:
            await session.delete(drift)
        return
    relay.drift_state, relay.drift_checked_at = "none", now
    if drift is not None:
        drift.state, drift.diff, drift.actual_text, drift.reason = "none", "", plan.desired_text, None
        drift.actual_scope, drift.since, drift.checked_at = list(plan.new_scope), None, now


async def _report(
    session: AsyncSession,
    parts: Parts,
    relay: Relay,
    held: Held,
    ending: Ending,
    states: dict[str, dict[str, Any]],
    plan: Plan | None,
) -> None:
    job, now = held.job, parts.clock()
    severity = {"succeeded": "info", "cancelled": "info", "uncertain": "critical"}.get(ending.state, "warning")
    await events.emit(
        session,
        f"job.{ending.state}",
        severity,
        f"{job.kind} of {relay.name}: {ending.detail}",
        relay_id=relay.id,
        data={"job_id": job.id, "kind": job.kind, "state": ending.state, "code": ending.code},
        now=now,
    )
    await audit.record(
        session,
        job.actor,
        f"job.{job.kind}",
        "relay",
        relay.id,
        before=states["before"],
        after={**states["after"], "job_id": job.id, "diff": plan.diff if plan else ""},
        comment=job.comment or None,
        ticket=job.ticket,
        ad_id=relay.ad_id,
        outcome=ending.code or ("ok" if ending.state == "succeeded" else ending.state),
        now=now,
    )
