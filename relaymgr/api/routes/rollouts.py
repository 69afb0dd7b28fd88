"""Rollouts: one change of many relays in waves, with an error budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import ColumnElement, exists, func, not_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api.changing import admit
from relaymgr.api.etags import etag
from relaymgr.api.idempotency import digest_of, once
from relaymgr.api.listings import Dicts, PageQuery, Resource, columns_view, equal, json_response
from relaymgr.api.parameters import IdempotencyKey, PathId
from relaymgr.api.problems import REQUEST_ID, Refused, not_found, responses
from relaymgr.api.recording import reason_of
from relaymgr.api.schemas.rollouts import (
    Rollout,
    RolloutCreate,
    RolloutPage,
    RolloutReason,
    RolloutRelay,
    RolloutRelayPage,
)
from relaymgr.api.security import OPERATOR, VIEWER, Caller, ServicesOf
from relaymgr.api.services import Services
from relaymgr.domain.rollout import BadWaves, split
from relaymgr.store import tables
from relaymgr.store.audit import Reason
from relaymgr.store.paging import Listing
from relaymgr.store.principals import Principal, visible_of_relays

_ROW = tables.Rollout
_PART = tables.RolloutRelay
_COLUMNS = tuple(name for name in Rollout.model_fields if name not in {"wave_sizes", "counts"})
router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"])


async def _view(session: AsyncSession, rows: Sequence[tables.Rollout], _services: Services) -> Dicts:
    found = await session.execute(
        select(_PART.rollout_id, _PART.state, func.count())
        .where(_PART.rollout_id.in_([row.id for row in rows]))
        .group_by(_PART.rollout_id, _PART.state)
    )
    counts: dict[str, Counter[str]] = {row.id: Counter() for row in rows}
    for rollout_id, state, number in found:
        counts[rollout_id][state] = number
    items: Dicts = []
    for row in rows:
        item: dict[str, Any] = {name: getattr(row, name) for name in _COLUMNS}
        item["wave_sizes"] = [len(wave) for wave in row.waves.get("relays", [])]
        item["counts"] = dict(sorted(counts[row.id].items()))
        items.append(item)
    return items


ROLLOUTS = Resource(
    Listing(
        _ROW,
        _ROW.id,
        {"id": _ROW.id, "created_at": _ROW.created_at, "name": _ROW.name},
        "-id",
        {"state": equal(_ROW.state), "kind": equal(_ROW.kind)},
    ),
    Rollout,
    _view,
)
PARTS = Resource(
    Listing(
        _PART, _PART.relay_id, {"wave": _PART.wave, "relay_id": _PART.relay_id}, "wave", {"state": equal(_PART.state)}
    ),
    RolloutRelay,
    columns_view(RolloutRelay),
)


class RolloutQuery(PageQuery):
    """Page and filters of rollouts."""

    state: str | None = Field(default=None, max_length=16, examples=["running"])
    """Only those in this state."""
    kind: str | None = Field(default=None, max_length=16, examples=["apply"])
    """Only those of this kind."""


class RolloutRelayQuery(PageQuery):
    """Page and filters of the relays of a rollout."""

    state: str | None = Field(default=None, max_length=16, examples=["failed"])
    """Only those in this state."""


def _visible(caller: Principal) -> ColumnElement[bool]:
    """Rollouts whose every relay the caller sees."""
    if not caller.scoped:
        return true()
    foreign = exists().where(_PART.rollout_id == _ROW.id, not_(visible_of_relays(caller, _PART.relay_id)))
    return exists().where(_PART.rollout_id == _ROW.id) & ~foreign


async def _fetch(session: AsyncSession, caller: Principal, rollout_id: str) -> tables.Rollout:
    row = await session.scalar(select(_ROW).where(_ROW.id == rollout_id, _visible(caller)))
    if row is None:
        raise not_found("rollout", rollout_id)
    return row


async def _answer(services: Services, caller: Principal, rollout_id: str, status: int = 200) -> Response:
    async with services.database.session() as session:
        row = await _fetch(session, caller, rollout_id)
        body = (await _view(session, [row], services))[0]
    headers = {"ETag": etag(row.version)}
    if status == 201:
        headers["Location"] = f"/api/v1/rollouts/{row.id}"
    return json_response(body, status, headers)


@router.get("", operation_id="list_rollouts", dependencies=[VIEWER], responses={200: {"model": RolloutPage}})
async def list_rollouts(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[RolloutQuery, Query()]
) -> Response:
    """Rollouts whose every relay the token sees, newest first."""
    return await ROLLOUTS.answer(request, services, query, _visible(caller))


@router.post(
    "",
    operation_id="create_rollout",
    status_code=201,
    dependencies=[OPERATOR],
    response_model=Rollout,
    responses=responses(
        "not_found",
        "relay_disabled",
        "host_key_not_pinned",
        "no_credential",
        "confirm_window_open",
        "conflict",
        "no_intent",
        "not_applied",
        "idempotency_key_reused",
    ),
)
async def create_rollout(
    services: ServicesOf, caller: Caller, body: RolloutCreate, key: IdempotencyKey = None
) -> Response:
    """Start a rollout. Each wave starts when the one before has ended; none once more failed than the budget allows."""
    try:
        waves = body.waves or [list(wave) for wave in split(body.relay_ids, *([body.sizes] if body.sizes else []))]
    except BadWaves as error:
        raise Refused("invalid_request", str(error)) from None

    async def make(rollout_id: str) -> tables.Rollout:
        async with services.database.session() as session:
            for relay_id in (relay for wave in waves for relay in wave):
                await admit(session, caller, relay_id)
        return await services.rollouts.create(
            name=body.name,
            kind=body.kind,
            waves=waves,
            error_budget=body.error_budget,
            confirm_minutes=body.confirm_minutes,
            probe=body.probe,
            actor=caller.actor,
            comment=body.comment,
            ticket=body.ticket,
            request_id=REQUEST_ID.get(),
            rollout_id=rollout_id,
        )

    digest = digest_of("rollout", body.model_dump(mode="json"))
    rollout = await once(services, caller.actor, key, digest, _ROW, make)
    return await _answer(services, caller, rollout.id, 201)


@router.get(
    "/{rollout_id}",
    operation_id="get_rollout",
    dependencies=[VIEWER],
    response_model=Rollout,
    responses=responses("not_found"),
)
async def get_rollout(services: ServicesOf, caller: Caller, rollout_id: PathId) -> Response:
    """One rollout."""
    return await _answer(services, caller, rollout_id)


@router.get(
    "/{rollout_id}/relays",
    operation_id="list_rollout_relays",
    dependencies=[VIEWER],
    responses=responses("not_found") | {200: {"model": RolloutRelayPage}},
)
async def list_rollout_relays(
    request: Request,
    services: ServicesOf,
    caller: Caller,
    rollout_id: PathId,
    query: Annotated[RolloutRelayQuery, Query()],
) -> Response:
    """What became of each relay of a rollout."""
    async with services.database.session() as session:
        await _fetch(session, caller, rollout_id)
    return await PARTS.answer(request, services, query, _PART.rollout_id == rollout_id)


async def _steer(
    services: Services,
    caller: Principal,
    rollout_id: str,
    body: RolloutReason | None,
    steer: Callable[[str, str, Reason], Awaitable[tables.Rollout]],
) -> Response:
    reason = body or RolloutReason()
    async with services.database.session() as session:
        before = await _fetch(session, caller, rollout_id)
    if before.state in {"aborted", "succeeded", "failed"}:
        raise Refused("rollout_finished", f"the rollout has ended: {before.state}")
    await steer(rollout_id, caller.actor, reason_of(reason.comment, reason.ticket))
    return await _answer(services, caller, rollout_id)


_STEERING = responses("not_found", "rollout_finished")
_Body = Annotated[RolloutReason | None, Body()]


@router.post(
    "/{rollout_id}/pause",
    operation_id="pause_rollout",
    dependencies=[OPERATOR],
    response_model=Rollout,
    responses=_STEERING,
)
async def pause_rollout(services: ServicesOf, caller: Caller, rollout_id: PathId, body: _Body = None) -> Response:
    """Start no more relays; what runs ends properly."""
    return await _steer(services, caller, rollout_id, body, services.rollouts.pause)


@router.post(
    "/{rollout_id}/resume",
    operation_id="resume_rollout",
    dependencies=[OPERATOR],
    response_model=Rollout,
    responses=_STEERING,
)
async def resume_rollout(services: ServicesOf, caller: Caller, rollout_id: PathId, body: _Body = None) -> Response:
    """Go on."""
    return await _steer(services, caller, rollout_id, body, services.rollouts.resume)


@router.post(
    "/{rollout_id}/abort",
    operation_id="abort_rollout",
    dependencies=[OPERATOR],
    response_model=Rollout,
    responses=_STEERING,
)
async def abort_rollout(services: ServicesOf, caller: Caller, rollout_id: PathId, body: _Body = None) -> Response:
    """Start no more relays, ever; what runs ends properly."""
    return await _steer(services, caller, rollout_id, body, services.rollouts.abort)
