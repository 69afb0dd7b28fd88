"""Where the text comes from that a change makes a device equal to; the kinds of changes differ in nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.domain.configuration import OwnedConfiguration
from relaymgr.domain.intent import RelayIntent
from relaymgr.drivers.protocol import Driver
from relaymgr.jobs.errors import Conflict
from relaymgr.jobs.parts import CHANGES
from relaymgr.store.tables import IntentRevision, Job, Json, Plan, Relay


@dataclass(frozen=True, slots=True)
class Desired:
    """What a relay shall be, and what is recorded of it once it is."""

    configuration: OwnedConfiguration
    """Over everything owned before and after."""
    new_scope: tuple[str, ...]
    """Owned afterwards."""
    new_text: str | None
    """What is expected of it afterwards; None: nothing is owned."""
    drained: bool
    intent_version: int | None


async def desired_of(session: AsyncSession, relay: Relay, kind: str, driver: Driver) -> Desired:
    """What a change of `kind` would make of the relay.

    Raises:
        Conflict: there is no intent, nothing was applied yet, or nothing is to be rolled back.
        CapabilityMissing: the platform cannot do what the intent asks.
    """
    if kind == "restore":
        return _restore(relay)
    if kind == "rollback":
        return await _rollback(session, relay)
    body, version = await _intent(session, relay, kind)
    drained = {"drain": True, "undrain": False}.get(kind, relay.drained)
    rendered = driver.render(RelayIntent.model_validate(body), drained=drained)
    return Desired(rendered.widened(tuple(relay.applied_scope)), rendered.scope, rendered.text, drained, version)


async def _intent(session: AsyncSession, relay: Relay, kind: str) -> tuple[Json, int]:
    """The intent to render. Draining moves only the anycast address: it takes the intent that is on the device."""
    if relay.intent is None:
        raise Conflict("no_intent", f"{relay.name} has no intent")
    applied = relay.applied_intent_version
    if kind in {"drain", "undrain"} and applied is not None and applied != relay.intent_version:
        statement = select(IntentRevision.body).where(
            IntentRevision.relay_id == relay.id, IntentRevision.version == applied
        )
        if (body := await session.scalar(statement)) is not None:
            return body, applied
    return relay.intent, relay.intent_version


def _restore(relay: Relay) -> Desired:
    if relay.applied_text is None:
        raise Conflict("not_applied", f"nothing was applied to {relay.name} yet")
    scope = tuple(relay.applied_scope)
    configuration = OwnedConfiguration(scope, relay.applied_text)
    return Desired(configuration, scope, relay.applied_text, relay.drained, relay.applied_intent_version)


async def _rollback(session: AsyncSession, relay: Relay) -> Desired:
    job = await session.scalar(
        select(Job)
        # also one that was not to stay and that somebody confirmed: the device has it
        .where(Job.relay_id == relay.id, Job.kind.in_(CHANGES), Job.phase == "confirmed")
        .order_by(Job.finished_at.desc(), Job.id.desc())
        .limit(1)
    )
    plan = await session.get(Plan, job.plan_id) if job is not None and job.plan_id else None
    if job is None or plan is None:
        raise Conflict("not_applied", f"no confirmed change of {relay.name} is known")
    previous = job.result.get("previous")
    if not isinstance(previous, dict):
        raise Conflict("not_applied", f"job {job.id} did not record what was before it")
    before = OwnedConfiguration(tuple(plan.before_scope), plan.before_text)
    return Desired(
        before.widened(tuple(relay.applied_scope)),
        tuple(previous["applied_scope"]),
        previous["applied_text"],  # not the device's text of then, which holds what was not ours yet
        bool(previous["drained"]),
        previous["intent_version"],
    )
