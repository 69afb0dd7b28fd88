"""Which jobs are taken in. Refusing here costs nobody anything; the worker looks again at whatever may have changed."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.jobs.errors import Conflict, Invalid, NotFound
from relaymgr.jobs.parts import ACTIVE, CHANGES, Parts
from relaymgr.jobs.planner import window_open
from relaymgr.jobs.starting import DEFAULT_CONFIRM_MINUTES, expired
from relaymgr.store.tables import Job, Plan, Relay

READINGS: Final = frozenset({"plan", "drift", "backup"})
_LONGEST_CONFIRM: Final = 60
"""As in the API; every platform has timers this long."""


def checked(kind: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters with defaults.

    Raises:
        Invalid: unknown kind or parameter, or a value out of range.
    """
    if kind in CHANGES:
        known: dict[str, Any] = {"confirm_minutes": DEFAULT_CONFIRM_MINUTES, "probe": False}
    elif kind == "plan":
        known = {"kind": "apply"}
    elif kind in READINGS:
        known = {}
    else:
        raise Invalid("invalid_request", f"{kind!r} is no kind of job")
    if unknown := sorted(set(parameters) - set(known)):
        raise Invalid("invalid_request", f"a {kind} job has no parameter {', '.join(unknown)}")
    values = {**known, **{name: value for name, value in parameters.items() if value is not None}}
    minutes = values.get("confirm_minutes", DEFAULT_CONFIRM_MINUTES)
    if not isinstance(minutes, int) or isinstance(minutes, bool) or not 1 <= minutes <= _LONGEST_CONFIRM:
        raise Invalid("invalid_request", f"confirm_minutes must be 1..{_LONGEST_CONFIRM}")
    if not isinstance(values.get("probe", False), bool):
        raise Invalid("invalid_request", "probe must be true or false")
    if kind == "plan" and values["kind"] not in CHANGES:
        raise Invalid("invalid_request", f"{values['kind']!r} is no kind of change")
    return values


async def admit(session: AsyncSession, job: Job, parts: Parts) -> Relay:
    """Refuse a job that cannot be carried out as things stand, in the transaction that stores it. Returns its relay.

    Raises:
        JobError: no such relay or plan, relay disabled or without what the job needs, a change under way.
    """
    relay = await session.get(Relay, job.relay_id, with_for_update=True) if job.relay_id else None
    if relay is None:
        raise NotFound("not_found", f"no relay {job.relay_id}")
    if not relay.enabled:
        raise Conflict("relay_disabled", f"{relay.name} is disabled")
    if relay.window_job_id is not None:
        raise window_open(relay)
    if job.kind not in CHANGES:
        return relay
    active = select(Job.id).where(Job.relay_id == relay.id, Job.state.in_(ACTIVE), Job.kind.in_(CHANGES)).limit(1)
    if (other := await session.scalar(active)) is not None:
        raise Conflict("conflict", f"job {other} changes {relay.name} already")
    if job.plan_id is not None:
        await _fits(session, job, relay, parts)
    elif job.kind in {"apply", "drain", "undrain"} and relay.intent is None:
        raise Conflict("no_intent", f"{relay.name} has no intent")
    elif job.kind in {"restore", "rollback"} and relay.applied_text is None:
        raise Conflict("not_applied", f"nothing was applied to {relay.name} yet")
    return relay


async def _fits(session: AsyncSession, job: Job, relay: Relay, parts: Parts) -> None:
    plan = await session.get(Plan, job.plan_id)
    if plan is None:
        raise NotFound("not_found", f"no plan {job.plan_id}")
    if plan.relay_id != relay.id or plan.kind != job.kind:
        raise Conflict("plan_mismatch", f"plan {plan.id} is of another relay or another kind of change")
    if expired(plan, relay, parts):
        raise Conflict("plan_expired", f"plan {plan.id} has expired; make another")
