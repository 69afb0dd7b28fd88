"""Intents: what a relay shall be, and every version of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api import bulk, intents
from relaymgr.api.editing import fetch
from relaymgr.api.etags import IfMatch, etag, require_match
from relaymgr.api.listings import Dicts, PageQuery, Resource, json_response
from relaymgr.api.parameters import PathId
from relaymgr.api.problems import Refused, not_found, responses
from relaymgr.api.recording import writing
from relaymgr.api.schemas.bulk import BulkItem, BulkResult, IntentBulk, IntentItem
from relaymgr.api.schemas.intents import Intent, IntentRevision, IntentRevisionPage
from relaymgr.api.security import OPERATOR, VIEWER, Caller, ServicesOf
from relaymgr.api.services import Services
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import CapabilityMissing
from relaymgr.store import tables
from relaymgr.store.paging import Listing
from relaymgr.store.principals import Principal
from relaymgr.store.relay_records import find

router = APIRouter(tags=["intents"])


def _answer(row: tables.Relay) -> Response:
    body = {
        "relay_id": row.id,
        "version": row.intent_version,
        "applied_version": row.applied_intent_version,
        "intent": row.intent,
    }
    return json_response(body, headers={"ETag": etag(row.intent_version)})


@router.get(
    "/api/v1/relays/{relay_id}/intent",
    operation_id="get_intent",
    dependencies=[VIEWER],
    response_model=Intent,
    responses=responses("not_found"),
)
async def get_intent(services: ServicesOf, caller: Caller, relay_id: PathId) -> Response:
    """The intent of a relay. One that was never given has version 0, and `"0"` is the ETag to give the first with."""
    async with services.database.session() as session:
        return _answer(await fetch(session, caller, tables.Relay, "relay", relay_id))


@router.put(
    "/api/v1/relays/{relay_id}/intent",
    operation_id="put_intent",
    dependencies=[OPERATOR],
    response_model=Intent,
    responses=responses("not_found", "etag_mismatch", "etag_required", "capability_missing"),
)
async def put_intent(
    services: ServicesOf, caller: Caller, relay_id: PathId, body: RelayIntent, if_match: IfMatch = None
) -> Response:
    """Say what a relay shall be. Nothing reaches the device before a plan of it is applied."""
    async with services.database.session() as session:
        known = await fetch(session, caller, tables.Relay, "relay", relay_id)
    require_match(if_match, known.intent_version)
    await intents.check(services, known, body)
    async with writing(services, "the intent was changed at the same time") as session:
        row = await fetch(session, caller, tables.Relay, "relay", relay_id)
        require_match(if_match, row.intent_version)
        await intents.put(session, services, caller, row, body)
    return _answer(row)


async def _revisions(_session: AsyncSession, rows: Sequence[tables.IntentRevision], _services: Services) -> Dicts:
    return [
        {
            "relay_id": row.relay_id,
            "version": row.version,
            "intent": row.body,
            "actor": row.actor,
            "created_at": row.created_at,
        }
        for row in rows
    ]


REVISIONS = Resource(
    Listing(tables.IntentRevision, tables.IntentRevision.id, {"version": tables.IntentRevision.version}, "-version"),
    IntentRevision,
    _revisions,
)


@router.get(
    "/api/v1/relays/{relay_id}/intent/revisions",
    operation_id="list_intent_revisions",
    dependencies=[VIEWER],
    responses=responses("not_found") | {200: {"model": IntentRevisionPage}},
)
async def list_intent_revisions(
    request: Request, services: ServicesOf, caller: Caller, relay_id: PathId, query: Annotated[PageQuery, Query()]
) -> Response:
    """Every intent a relay was given."""
    async with services.database.session() as session:
        await fetch(session, caller, tables.Relay, "relay", relay_id)
    return await REVISIONS.answer(request, services, query, tables.IntentRevision.relay_id == relay_id)


@router.put("/api/v1/intents/bulk", operation_id="put_intents", dependencies=[OPERATOR], response_model=BulkResult)
async def put_intents(services: ServicesOf, caller: Caller, body: IntentBulk) -> BulkResult:
    """Give many relays their intents; doing it again changes nothing."""
    async with writing(services) as session:
        return bulk.result([await _put_one(session, services, caller, one) for one in body.intents])


async def _put_one(session: AsyncSession, services: Services, caller: Principal, one: IntentItem) -> BulkItem:
    try:
        async with session.begin_nested():
            row = await find(session, one.relay)
            if row is None or not caller.sees_ad(row.ad_id):
                raise not_found("relay", one.relay)
            if one.version is not None:
                require_match(etag(one.version), row.intent_version)
            await intents.check(services, row, one.intent)
            first = row.intent_version == 0
            changed = await intents.put(session, services, caller, row, one.intent)
    except IntegrityError:
        return bulk.failure(one.relay, Refused("etag_mismatch", "the intent was changed at the same time"))
    except (Refused, CapabilityMissing) as error:
        return bulk.failure(one.relay, error)
    outcome = ("created" if first else "updated") if changed else "unchanged"
    return BulkItem.model_validate(
        {"name": one.relay, "id": row.id, "outcome": outcome, "version": row.intent_version, "problem": None}
    )
