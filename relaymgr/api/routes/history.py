"""What was: statistics over time, drift, audit."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import select

from relaymgr.api.editing import fetch
from relaymgr.api.listings import (
    CSV_ANSWER,
    Resource,
    TableQuery,
    before,
    columns_view,
    equal,
    json_response,
    not_before,
)
from relaymgr.api.parameters import PathId
from relaymgr.api.problems import not_found, responses
from relaymgr.api.schemas.common import Zoned
from relaymgr.api.schemas.observed import Drift, DriftPage, StatisticsPage, StatisticsSample
from relaymgr.api.schemas.records import AuditEntry, AuditPage
from relaymgr.api.security import OPERATOR, VIEWER, Caller, ServicesOf
from relaymgr.api.views import named_view
from relaymgr.store import tables
from relaymgr.store.paging import Listing
from relaymgr.store.principals import visible_in_ad, visible_of_relays
from relaymgr.store.tables import AuditRow, DriftRow

router = APIRouter(prefix="/api/v1", tags=["history"])
_SAMPLE = tables.StatisticsSample
STATISTICS = Resource(
    Listing(
        _SAMPLE,
        _SAMPLE.id,
        {"id": _SAMPLE.id, "at": _SAMPLE.at},
        "-at",
        {"relay_id": equal(_SAMPLE.relay_id), "since": not_before(_SAMPLE.at), "until": before(_SAMPLE.at)},
    ),
    StatisticsSample,
    named_view(StatisticsSample),
)
DRIFT = Resource(
    Listing(
        DriftRow,
        DriftRow.relay_id,
        {"relay_id": DriftRow.relay_id, "checked_at": DriftRow.checked_at, "since": DriftRow.since},
        "relay_id",
        {"relay_id": equal(DriftRow.relay_id), "state": equal(DriftRow.state)},
    ),
    Drift,
    named_view(Drift),
)
AUDIT = Resource(
    Listing(
        AuditRow,
        AuditRow.id,
        {"id": AuditRow.id, "at": AuditRow.at},
        "-id",
        {
            "actor": equal(AuditRow.actor),
            "action": equal(AuditRow.action),
            "resource_type": equal(AuditRow.resource_type),
            "resource_id": equal(AuditRow.resource_id),
            "ticket": equal(AuditRow.ticket),
            "since": not_before(AuditRow.at),
            "until": before(AuditRow.at),
        },
    ),
    AuditEntry,
    columns_view(AuditEntry),
)


class _Between(TableQuery):
    since: Zoned | None = None
    """Only from this time on."""
    until: Zoned | None = None
    """Only before this time."""


class StatisticsQuery(_Between):
    """Page and filters of samples."""

    relay_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """Only those of this relay."""


class DriftQuery(TableQuery):
    """Page and filters of drift checks."""

    relay_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """Only that of this relay."""
    state: str | None = Field(default=None, max_length=16, examples=["drifted"])
    """Only those: none, drifted or unknown."""


class AuditQuery(_Between):
    """Page and filters of the audit."""

    actor: str | None = Field(default=None, max_length=200, examples=["token:noc-automation"])
    """Only what this one did."""
    action: str | None = Field(default=None, max_length=64, examples=["intent.put"])
    """Only this action."""
    resource_type: str | None = Field(default=None, max_length=32, examples=["relay"])
    """Only to resources of this kind."""
    resource_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """Only to this resource."""
    ticket: str | None = Field(default=None, max_length=200, examples=["NOC-4711"])
    """Only with this reference."""


@router.get(
    "/statistics",
    operation_id="list_statistics",
    dependencies=[VIEWER],
    responses=CSV_ANSWER | {200: {"model": StatisticsPage}},
)
async def list_statistics(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[StatisticsQuery, Query()]
) -> Response:
    """Counters and gauges of relays over time, newest first."""
    return await STATISTICS.answer(request, services, query, visible_of_relays(caller, _SAMPLE.relay_id))


@router.get(
    "/drift", operation_id="list_drift", dependencies=[VIEWER], responses=CSV_ANSWER | {200: {"model": DriftPage}}
)
async def list_drift(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[DriftQuery, Query()]
) -> Response:
    """What the last drift check of each relay found. A relay that was never checked is not listed."""
    return await DRIFT.answer(request, services, query, visible_of_relays(caller, DriftRow.relay_id))


@router.get(
    "/relays/{relay_id}/drift",
    operation_id="get_drift",
    dependencies=[VIEWER],
    response_model=Drift,
    responses=responses("not_found"),
)
async def get_drift(services: ServicesOf, caller: Caller, relay_id: PathId) -> Response:
    """What the last drift check of a relay found; 404 when there was none."""
    async with services.database.session() as session:
        await fetch(session, caller, tables.Relay, "relay", relay_id)
        row = await session.scalar(select(DriftRow).where(DriftRow.relay_id == relay_id))
        items = await named_view(Drift)(session, [row] if row is not None else [], services)
    if not items:
        raise not_found("drift check of relay", relay_id)
    return json_response(items[0])


@router.get(
    "/audit", operation_id="list_audit", dependencies=[OPERATOR], responses=CSV_ANSWER | {200: {"model": AuditPage}}
)
async def list_audit(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[AuditQuery, Query()]
) -> Response:
    """Every write: who, what, before and after, why. Newest first."""
    return await AUDIT.answer(request, services, query, visible_in_ad(caller, AuditRow.ad_id))
