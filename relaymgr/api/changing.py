"""What is checked before a device is asked for a plan or a job is made; the job service checks again, for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api.editing import fetch
from relaymgr.api.idempotency import digest_of, once
from relaymgr.api.problems import REQUEST_ID, Refused, not_found
from relaymgr.api.recording import record
from relaymgr.api.services import Services
from relaymgr.store.principals import Principal
from relaymgr.store.tables import Job, Plan, Relay

SSH_PLATFORMS: Final = frozenset({"junos", "iosxe", "ios"})


@dataclass(frozen=True, slots=True)
class Order:
    """A job somebody asks for."""

    kind: str
    relay_id: str
    parameters: dict[str, Any]
    plan_id: str | None = None
    comment: str = ""
    ticket: str | None = None
    key: str | None = None
    """Idempotency-Key."""

    @property
    def digest(self) -> str:
        """What two requests with one key must have in common."""
        return digest_of(self.kind, self.relay_id, self.plan_id, self.parameters, self.comment, self.ticket)


async def admit(session: AsyncSession, caller: Principal, relay_id: str) -> Relay:
    """The relay, if something may be done on its device now."""
    row = await fetch(session, caller, Relay, "relay", relay_id)
    if not row.enabled:
        raise Refused("relay_disabled", f"{row.name} is disabled")
    if row.platform in SSH_PLATFORMS:
        if row.host_key is None:
            raise Refused("host_key_not_pinned", f"{row.name} has no pinned host key")
        if row.credential_id is None:
            raise Refused("no_credential", f"{row.name} has no credential")
    if row.window_job_id is not None:
        detail = f"job {row.window_job_id} waits on {row.name} for its confirmation"
        raise Refused("confirm_window_open", detail, job_id=row.window_job_id)
    return row


async def make_plan(services: Services, caller: Principal, relay_id: str, kind: str) -> Plan:
    """A plan of `kind`, with its audit row."""
    async with services.database.session() as session:
        relay = await admit(session, caller, relay_id)
    plan = await services.planner.make_plan(relay_id, kind, caller.actor)
    after = {"kind": kind, "relay_id": relay_id, "unchanged": not plan.diff, "intent_version": plan.intent_version}
    async with services.database.begin() as session:
        resource = ("plan", plan.id)
        await record(session, services, caller, "plan.create", resource, after=after, ad_id=relay.ad_id)
    return plan


async def check_plan(session: AsyncSession, services: Services, caller: Principal, relay: Relay, order: Order) -> None:
    """Refuse a plan that is of something else, too old, or of an intent that is not there any more."""
    if order.plan_id is None:
        return
    plan = await session.get(Plan, order.plan_id)
    planned = await session.get(Relay, plan.relay_id) if plan is not None else None
    if plan is None or planned is None or not caller.sees_ad(planned.ad_id):
        raise not_found("plan", order.plan_id)
    if plan.relay_id != relay.id or plan.kind != order.kind:
        raise Refused("plan_mismatch", f"the plan is one of {plan.kind}, and maybe of another relay")
    if plan.expires_at <= services.clock():
        raise Refused("plan_expired", "the plan is too old; make another")
    if plan.kind == "apply" and plan.intent_version != relay.intent_version:
        raise Refused("plan_expired", f"the intent is at version {relay.intent_version} now; make another plan")


async def submit(services: Services, caller: Principal, order: Order) -> Job:
    """The job asked for, or the one the same key made before."""
    async with services.database.session() as session:
        await fetch(session, caller, Relay, "relay", order.relay_id)

    async def make(job_id: str) -> Job:
        return await _make(services, caller, order, job_id)

    return await once(services, caller.actor, order.key, order.digest, Job, make)


async def _make(services: Services, caller: Principal, order: Order, job_id: str) -> Job:
    async with services.database.session() as session:
        relay = await admit(session, caller, order.relay_id)
        await check_plan(session, services, caller, relay, order)
    return await services.jobs.submit(
        order.kind,
        relay_id=order.relay_id,
        plan_id=order.plan_id,
        parameters=order.parameters,
        actor=caller.actor,
        comment=order.comment,
        ticket=order.ticket,
        request_id=REQUEST_ID.get(),
        job_id=job_id,
    )
