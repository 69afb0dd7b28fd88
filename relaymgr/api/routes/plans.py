"""Plans that were made."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from relaymgr.api.editing import fetch
from relaymgr.api.listings import PageQuery, Resource, equal, json_response
from relaymgr.api.parameters import PathId
from relaymgr.api.problems import Refused, not_found, responses
from relaymgr.api.schemas.changes import Plan, PlanPage
from relaymgr.api.security import VIEWER, Caller, ServicesOf
from relaymgr.api.views import plan_body, plan_view
from relaymgr.store import tables
from relaymgr.store.paging import Listing
from relaymgr.store.principals import visible_of_relays

_ROW = tables.Plan
PLANS = Resource(
    Listing(
        _ROW,
        _ROW.id,
        {"id": _ROW.id, "created_at": _ROW.created_at},
        "-id",
        {"relay_id": equal(_ROW.relay_id), "kind": equal(_ROW.kind)},
    ),
    Plan,
    plan_view,
)
router = APIRouter(prefix="/api/v1/plans", tags=["changes"])


class PlanQuery(PageQuery):
    """Page and filters of plans."""

    relay_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """Only those of this relay."""
    kind: str | None = Field(default=None, max_length=16, examples=["apply"])
    """Only those of this kind."""


@router.get("", operation_id="list_plans", dependencies=[VIEWER], responses={200: {"model": PlanPage}})
async def list_plans(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[PlanQuery, Query()]
) -> Response:
    """Plans of the relays the token sees, newest first."""
    return await PLANS.answer(request, services, query, visible_of_relays(caller, _ROW.relay_id))


@router.get(
    "/{plan_id}",
    operation_id="get_plan",
    dependencies=[VIEWER],
    response_model=Plan,
    responses=responses("not_found"),
)
async def get_plan(services: ServicesOf, caller: Caller, plan_id: PathId) -> Response:
    """One plan."""
    async with services.database.session() as session:
        row = await session.get(_ROW, plan_id)
        if row is None:
            raise not_found("plan", plan_id)
        try:
            await fetch(session, caller, tables.Relay, "relay", row.relay_id)
        except Refused:
            raise not_found("plan", plan_id) from None
    return json_response(plan_body(row, services.clock()))
