"""Changing relays: plan, apply, drain, undrain, rollback, restore, accept, and the checks an operator asks for."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Body
from fastapi.responses import Response

from relaymgr.api import bulk
from relaymgr.api.changing import Order, admit, make_plan, submit
from relaymgr.api.editing import fetch
from relaymgr.api.listings import json_response
from relaymgr.api.parameters import IdempotencyKey, PathId
from relaymgr.api.problems import DEVICE_CODES, Refused, responses
from relaymgr.api.recording import reason_of
from relaymgr.api.schemas.bulk import BulkItem, BulkResult, PlanBulk
from relaymgr.api.schemas.changes import ApplyRequest, ChangeRequest, Job, Plan, PlanRequest, Reason
from relaymgr.api.schemas.observed import Drift
from relaymgr.api.security import OPERATOR, Caller, ServicesOf
from relaymgr.api.services import Services
from relaymgr.api.views import named_view, plan_body
from relaymgr.store import tables
from relaymgr.store.principals import Principal

router = APIRouter(prefix="/api/v1", tags=["changes"])
_REFUSED: Final = ("not_found", "relay_disabled", "host_key_not_pinned", "no_credential", "confirm_window_open")
_PLANNING: Final = (*_REFUSED, "no_intent", "not_applied", "credential_unusable", "capability_missing", *DEVICE_CODES)
_SUBMITTING: Final = (
    *_REFUSED,
    "conflict",
    "no_intent",
    "not_applied",
    "plan_expired",
    "plan_mismatch",
    "idempotency_key_reused",
)
_PLANS_AT_ONCE: Final = 16


def job_answer(job: tables.Job) -> Response:
    """202 with the job, and where to follow it."""
    body = {name: getattr(job, name) for name in Job.model_fields}
    return json_response(body, 202, {"Location": f"/api/v1/jobs/{job.id}"})


@router.post(
    "/relays/{relay_id}/plan",
    operation_id="plan_change",
    status_code=201,
    dependencies=[OPERATOR],
    response_model=Plan,
    responses=responses(*_PLANNING),
)
async def plan_change(
    services: ServicesOf, caller: Caller, relay_id: PathId, body: Annotated[PlanRequest | None, Body()] = None
) -> Response:
    """Ask the device what a change would do. Leaves no trace on it; the plan is stored."""
    kind = (body or PlanRequest()).kind
    plan = await make_plan(services, caller, relay_id, kind)
    return json_response(plan_body(plan, services.clock()), 201, {"Location": f"/api/v1/plans/{plan.id}"})


@router.post("/plans/bulk", operation_id="plan_changes", dependencies=[OPERATOR], response_model=BulkResult)
async def plan_changes(services: ServicesOf, caller: Caller, body: PlanBulk) -> BulkResult:
    """Plan for many relays at once; every one succeeds or fails by itself."""
    turns = asyncio.Semaphore(_PLANS_AT_ONCE)

    async def one(relay_id: str) -> BulkItem:
        try:
            async with turns:
                plan = await make_plan(services, caller, relay_id, body.kind)
        except Exception as error:  # noqa: BLE001 - told apart there: what nobody documented is raised again
            return bulk.failure(relay_id, error)
        outcome = "created" if plan.diff else "unchanged"
        return BulkItem.model_validate(
            {"name": relay_id, "id": plan.id, "outcome": outcome, "version": plan.intent_version, "problem": None}
        )

    return bulk.result(list(await asyncio.gather(*(one(relay_id) for relay_id in body.relay_ids))))


@router.post(
    "/relays/{relay_id}/apply",
    operation_id="apply_plan",
    status_code=202,
    dependencies=[OPERATOR],
    response_model=Job,
    responses=responses(*_SUBMITTING),
)
async def apply_plan(
    services: ServicesOf, caller: Caller, relay_id: PathId, body: ApplyRequest, key: IdempotencyKey = None
) -> Response:
    """Carry a plan out: lock, load, check, commit confirmed, verify, confirm; or the device goes back."""
    parameters = {"confirm_minutes": body.confirm_minutes, "probe": body.probe}
    order = Order("apply", relay_id, parameters, body.plan, body.comment, body.ticket, key)
    return job_answer(await submit(services, caller, order))


async def _change(
    services: Services, caller: Principal, kind: str, relay_id: str, body: ChangeRequest, key: str | None
) -> Response:
    if body.dry_run:
        if body.plan is not None:
            raise Refused("invalid_request", "dry_run makes a plan; it takes none")
        return json_response(plan_body(await make_plan(services, caller, relay_id, kind), services.clock()))
    parameters = {"confirm_minutes": body.confirm_minutes, "probe": body.probe}
    order = Order(kind, relay_id, parameters, body.plan, body.comment, body.ticket, key)
    return job_answer(await submit(services, caller, order))


_CHANGE_ANSWERS: Final = responses(*_PLANNING, *_SUBMITTING) | {
    200: {"model": Plan, "description": "With `dry_run`: the plan."}
}


@router.post(
    "/relays/{relay_id}/drain",
    operation_id="drain_relay",
    status_code=202,
    dependencies=[OPERATOR],
    response_model=Job,
    responses=_CHANGE_ANSWERS,
)
async def drain_relay(
    services: ServicesOf, caller: Caller, relay_id: PathId, body: ChangeRequest, key: IdempotencyKey = None
) -> Response:
    """Take the anycast address and its announcement away. Tunnels stay; new gateways go elsewhere."""
    return await _change(services, caller, "drain", relay_id, body, key)


@router.post(
    "/relays/{relay_id}/undrain",
    operation_id="undrain_relay",
    status_code=202,
    dependencies=[OPERATOR],
    response_model=Job,
    responses=_CHANGE_ANSWERS,
)
async def undrain_relay(
    services: ServicesOf, caller: Caller, relay_id: PathId, body: ChangeRequest, key: IdempotencyKey = None
) -> Response:
    """Bring the anycast address and its announcement back."""
    return await _change(services, caller, "undrain", relay_id, body, key)


@router.post(
    "/relays/{relay_id}/rollback",
    operation_id="roll_back_relay",
    status_code=202,
    dependencies=[OPERATOR],
    response_model=Job,
    responses=_CHANGE_ANSWERS,
)
async def roll_back_relay(
    services: ServicesOf, caller: Caller, relay_id: PathId, body: ChangeRequest, key: IdempotencyKey = None
) -> Response:
    """Bring back what was before the last confirmed change."""
    return await _change(services, caller, "rollback", relay_id, body, key)


@router.post(
    "/relays/{relay_id}/restore",
    operation_id="restore_relay",
    status_code=202,
    dependencies=[OPERATOR],
    response_model=Job,
    responses=_CHANGE_ANSWERS,
)
async def restore_relay(
    services: ServicesOf, caller: Caller, relay_id: PathId, body: ChangeRequest, key: IdempotencyKey = None
) -> Response:
    """Undo drift: bring back what the last confirmed change left."""
    return await _change(services, caller, "restore", relay_id, body, key)


@router.post(
    "/relays/{relay_id}/accept",
    operation_id="accept_drift",
    dependencies=[OPERATOR],
    response_model=Drift,
    responses=responses("not_found", "no_drift", "confirm_window_open"),
)
async def accept_drift(services: ServicesOf, caller: Caller, relay_id: PathId, body: Reason) -> Response:
    """Take what the device has in its owned sections as what is expected from now on. Nothing is sent to it."""
    async with services.database.session() as session:
        relay = await fetch(session, caller, tables.Relay, "relay", relay_id)
        before = await session.get(tables.DriftRow, relay_id)
    if before is None or before.state != "drifted":
        raise Refused("no_drift", f"no drift of {relay.name} is known")
    await services.drift.accept(relay_id, caller.actor, reason_of(body.comment, body.ticket))
    async with services.database.session() as session:
        row = await session.get(tables.DriftRow, relay_id)
        items = await named_view(Drift)(session, [row] if row is not None else [], services)
    if not items:
        raise Refused("no_drift", f"no drift of {relay.name} is known")
    return json_response(items[0])


async def _ask(services: Services, caller: Principal, kind: str, relay_id: str, key: str | None) -> Response:
    async with services.database.session() as session:
        await admit(session, caller, relay_id)
    return job_answer(await submit(services, caller, Order(kind, relay_id, {}, key=key)))


@router.post(
    "/relays/{relay_id}/check-drift",
    operation_id="check_drift",
    status_code=202,
    dependencies=[OPERATOR],
    response_model=Job,
    responses=responses(*_REFUSED, "conflict", "idempotency_key_reused"),
)
async def check_drift(services: ServicesOf, caller: Caller, relay_id: PathId, key: IdempotencyKey = None) -> Response:
    """Compare the owned sections with what the last confirmed change left, now."""
    return await _ask(services, caller, "drift", relay_id, key)


@router.post(
    "/relays/{relay_id}/backup",
    operation_id="take_backup",
    status_code=202,
    dependencies=[OPERATOR],
    response_model=Job,
    responses=responses(*_REFUSED, "conflict", "idempotency_key_reused"),
)
async def take_backup(services: ServicesOf, caller: Caller, relay_id: PathId, key: IdempotencyKey = None) -> Response:
    """Read the whole configuration and keep it if it changed."""
    return await _ask(services, caller, "backup", relay_id, key)
