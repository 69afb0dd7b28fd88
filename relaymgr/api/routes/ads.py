"""Administrative domains."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from relaymgr.api.editing import edit, fetch, fetch_own, picture, remove
from relaymgr.api.etags import IfMatch, tagged
from relaymgr.api.listings import PageQuery, Resource, columns_view, equal
from relaymgr.api.parameters import PathId
from relaymgr.api.problems import responses
from relaymgr.api.recording import record, writing
from relaymgr.api.schemas.ads import Ad, AdCreate, AdPage, AdPatch
from relaymgr.api.security import ADMIN, ADMIN_EVERYWHERE, VIEWER, Caller, ServicesOf
from relaymgr.store import tables
from relaymgr.store.paging import Listing
from relaymgr.store.principals import visible_in_ad

_ROW = tables.Ad
ADS = Resource(
    Listing(
        _ROW,
        _ROW.id,
        {"id": _ROW.id, "name": _ROW.name, "asn": _ROW.asn, "created_at": _ROW.created_at},
        "id",
        {"name": equal(_ROW.name), "asn": equal(_ROW.asn)},
    ),
    Ad,
    columns_view(Ad),
)
_TAKEN = "another AD has this name"
router = APIRouter(prefix="/api/v1/ads", tags=["ads"])


class AdQuery(PageQuery):
    """Page and filters of ADs."""

    name: str | None = Field(default=None, max_length=128, examples=["Example Research Network"])
    """Only the one of this name."""
    asn: int | None = Field(default=None, ge=1, le=4294967295, examples=[64500])
    """Only those with this AS number."""


@router.get("", operation_id="list_ads", dependencies=[VIEWER], responses={200: {"model": AdPage}})
async def list_ads(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[AdQuery, Query()]
) -> Response:
    """ADs the token sees."""
    return await ADS.answer(request, services, query, visible_in_ad(caller, _ROW.id))


@router.post(
    "",
    operation_id="create_ad",
    status_code=201,
    dependencies=[ADMIN_EVERYWHERE],
    response_model=Ad,
    responses=responses("name_taken"),
)
async def create_ad(services: ServicesOf, caller: Caller, body: AdCreate) -> Response:
    """Make an AD."""
    now = services.clock()
    async with writing(services, _TAKEN) as session:
        row = _ROW(**body.model_dump(), version=1, created_at=now, updated_at=now)
        session.add(row)
        await session.flush()
        await record(session, services, caller, "ad.create", ("ad", row.id), after=picture(Ad, row), ad_id=row.id)
    return tagged(Ad.model_validate(row), row.version, 201, f"/api/v1/ads/{row.id}")


@router.get(
    "/{ad_id}", operation_id="get_ad", dependencies=[VIEWER], response_model=Ad, responses=responses("not_found")
)
async def get_ad(services: ServicesOf, caller: Caller, ad_id: PathId) -> Response:
    """One AD."""
    async with services.database.session() as session:
        row = await fetch(session, caller, _ROW, "AD", ad_id)
    return tagged(Ad.model_validate(row), row.version)


@router.patch(
    "/{ad_id}",
    operation_id="edit_ad",
    dependencies=[ADMIN],
    response_model=Ad,
    responses=responses("not_found", "name_taken", "etag_mismatch", "etag_required"),
)
async def edit_ad(
    services: ServicesOf, caller: Caller, ad_id: PathId, body: AdPatch, if_match: IfMatch = None
) -> Response:
    """Change members of an AD. Tunnels are matched to new prefixes at their next poll."""
    async with writing(services, _TAKEN) as session:
        row = await fetch_own(session, caller, _ROW, "AD", ad_id)
        await edit(session, services, caller, row, "ad", if_match, body.model_dump(exclude_unset=True), Ad)
    return tagged(Ad.model_validate(row), row.version)


@router.delete(
    "/{ad_id}",
    operation_id="delete_ad",
    status_code=204,
    dependencies=[ADMIN_EVERYWHERE],
    responses=responses("not_found", "in_use", "etag_mismatch"),
)
async def delete_ad(services: ServicesOf, caller: Caller, ad_id: PathId, if_match: IfMatch = None) -> None:
    """Delete an AD nothing refers to."""
    async with writing(services, deleting=True) as session:
        row = await fetch_own(session, caller, _ROW, "AD", ad_id)
        await remove(session, services, caller, row, "ad", if_match, Ad)
