"""Sites: places with relays."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from relaymgr.api.editing import edit, fetch, fetch_own, picture, remove, visible_or_shared
from relaymgr.api.etags import IfMatch, tagged
from relaymgr.api.listings import PageQuery, Resource, columns_view, equal
from relaymgr.api.parameters import PathId
from relaymgr.api.problems import responses
from relaymgr.api.recording import record, writing
from relaymgr.api.schemas.ads import Site, SiteCreate, SitePage, SitePatch
from relaymgr.api.security import ADMIN, VIEWER, Caller, ServicesOf, require_ad
from relaymgr.store import tables
from relaymgr.store.paging import Listing

_ROW = tables.Site
SITES = Resource(
    Listing(
        _ROW,
        _ROW.id,
        {"id": _ROW.id, "name": _ROW.name, "created_at": _ROW.created_at},
        "id",
        {"name": equal(_ROW.name), "ad_id": equal(_ROW.ad_id)},
    ),
    Site,
    columns_view(Site),
)
_TAKEN = "another site has this name"
router = APIRouter(prefix="/api/v1/sites", tags=["sites"])


class SiteQuery(PageQuery):
    """Page and filters of sites."""

    name: str | None = Field(default=None, max_length=128, examples=["fra1"])
    """Only the one of this name."""
    ad_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """Only those of this AD."""


@router.get("", operation_id="list_sites", dependencies=[VIEWER], responses={200: {"model": SitePage}})
async def list_sites(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[SiteQuery, Query()]
) -> Response:
    """Sites the token sees."""
    return await SITES.answer(request, services, query, visible_or_shared(caller, _ROW.ad_id))


@router.post(
    "",
    operation_id="create_site",
    status_code=201,
    dependencies=[ADMIN],
    response_model=Site,
    responses=responses("name_taken", "unknown_reference"),
)
async def create_site(services: ServicesOf, caller: Caller, body: SiteCreate) -> Response:
    """Make a site."""
    require_ad(caller, body.ad_id)
    now = services.clock()
    async with writing(services, _TAKEN) as session:
        row = _ROW(**body.model_dump(), version=1, created_at=now, updated_at=now)
        session.add(row)
        await session.flush()
        await record(
            session, services, caller, "site.create", ("site", row.id), after=picture(Site, row), ad_id=row.ad_id
        )
    return tagged(Site.model_validate(row), row.version, 201, f"/api/v1/sites/{row.id}")


@router.get(
    "/{site_id}", operation_id="get_site", dependencies=[VIEWER], response_model=Site, responses=responses("not_found")
)
async def get_site(services: ServicesOf, caller: Caller, site_id: PathId) -> Response:
    """One site."""
    async with services.database.session() as session:
        row = await fetch(session, caller, _ROW, "site", site_id)
    return tagged(Site.model_validate(row), row.version)


@router.patch(
    "/{site_id}",
    operation_id="edit_site",
    dependencies=[ADMIN],
    response_model=Site,
    responses=responses("not_found", "name_taken", "unknown_reference", "etag_mismatch", "etag_required"),
)
async def edit_site(
    services: ServicesOf, caller: Caller, site_id: PathId, body: SitePatch, if_match: IfMatch = None
) -> Response:
    """Change members of a site."""
    async with writing(services, _TAKEN) as session:
        row = await fetch_own(session, caller, _ROW, "site", site_id)
        await edit(session, services, caller, row, "site", if_match, body.model_dump(exclude_unset=True), Site)
    return tagged(Site.model_validate(row), row.version)


@router.delete(
    "/{site_id}",
    operation_id="delete_site",
    status_code=204,
    dependencies=[ADMIN],
    responses=responses("not_found", "in_use", "etag_mismatch"),
)
async def delete_site(services: ServicesOf, caller: Caller, site_id: PathId, if_match: IfMatch = None) -> None:
    """Delete a site no relay refers to."""
    async with writing(services, deleting=True) as session:
        row = await fetch_own(session, caller, _ROW, "site", site_id)
        await remove(session, services, caller, row, "site", if_match, Site)
