"""Backups of configurations: what was kept, its content, what changed between two."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api.editing import fetch
from relaymgr.api.listings import PageQuery, Resource, columns_view, equal, json_response
from relaymgr.api.parameters import PathId
from relaymgr.api.problems import Refused, not_found, responses
from relaymgr.api.recording import record
from relaymgr.api.schemas.records import Backup, BackupDiff, BackupPage
from relaymgr.api.security import OPERATOR, VIEWER, Caller, ServicesOf
from relaymgr.api.services import Services
from relaymgr.domain.differences import unified
from relaymgr.domain.masking import mask_text
from relaymgr.store import tables
from relaymgr.store.envelope import backup_context
from relaymgr.store.paging import Listing
from relaymgr.store.principals import Principal, Role, visible_of_relays

_ROW = tables.Backup
BACKUPS = Resource(
    Listing(
        _ROW,
        _ROW.id,
        {"id": _ROW.id, "taken_at": _ROW.taken_at},
        "-id",
        {"relay_id": equal(_ROW.relay_id), "reason": equal(_ROW.reason)},
    ),
    Backup,
    columns_view(Backup),
)
_COMPARED_AT_MOST: Final = 4 * 1024 * 1024
"""Bytes of two configurations together."""
router = APIRouter(prefix="/api/v1/backups", tags=["backups"])


class BackupQuery(PageQuery):
    """Page and filters of backups."""

    relay_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """Only those of this relay."""
    reason: str | None = Field(default=None, max_length=32, examples=["after_change"])
    """Only those taken for this reason."""


@router.get("", operation_id="list_backups", dependencies=[VIEWER], responses={200: {"model": BackupPage}})
async def list_backups(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[BackupQuery, Query()]
) -> Response:
    """Backups of the relays the token sees, newest first, without their content."""
    return await BACKUPS.answer(request, services, query, visible_of_relays(caller, _ROW.relay_id))


async def _fetch(session: AsyncSession, caller: Principal, backup_id: str) -> tuple[tables.Backup, tables.Relay]:
    row = await session.get(_ROW, backup_id)
    if row is None:
        raise not_found("backup", backup_id)
    try:
        return row, await fetch(session, caller, tables.Relay, "relay", row.relay_id)
    except Refused:
        raise not_found("backup", backup_id) from None


def _content(services: Services, row: tables.Backup) -> str:
    return services.sealer.open(row.sealed, backup_context(row.id)).decode("utf-8", "replace")


@router.get(
    "/diff",
    operation_id="compare_backups",
    dependencies=[OPERATOR],
    response_model=BackupDiff,
    responses=responses("not_found", "backup_too_large"),
)
async def compare_backups(
    services: ServicesOf,
    caller: Caller,
    from_id: Annotated[str, Query(max_length=64, description="The backup before.", examples=["019a3f0c77e2"])],
    to_id: Annotated[str, Query(max_length=64, description="The backup after.", examples=["019a3f0c88f3"])],
) -> Response:
    """What changed between two backups, secrets masked: one that changed shows as no change."""
    async with services.database.session() as session:
        first, _ = await _fetch(session, caller, from_id)
        second, _ = await _fetch(session, caller, to_id)
    if first.size_bytes + second.size_bytes > _COMPARED_AT_MOST:
        raise Refused("backup_too_large", f"together they may have {_COMPARED_AT_MOST} bytes")

    def compare() -> str:
        before, after = (mask_text(_content(services, row)) for row in (first, second))
        return unified(before, after, before_name=first.id, after_name=second.id)

    diff = await asyncio.to_thread(compare)
    return json_response({"from_id": first.id, "to_id": second.id, "diff": diff})


@router.get(
    "/{backup_id}",
    operation_id="get_backup",
    dependencies=[VIEWER],
    response_model=Backup,
    responses=responses("not_found"),
)
async def get_backup(services: ServicesOf, caller: Caller, backup_id: PathId) -> Response:
    """One backup, without its content."""
    async with services.database.session() as session:
        row, _ = await _fetch(session, caller, backup_id)
    return json_response({name: getattr(row, name) for name in Backup.model_fields})


@router.get(
    "/{backup_id}/content",
    operation_id="get_backup_content",
    dependencies=[OPERATOR],
    response_class=PlainTextResponse,
    responses=responses("not_found"),
)
async def get_backup_content(services: ServicesOf, caller: Caller, backup_id: PathId) -> Response:
    """The configuration as text. Secrets in it are masked unless an admin asks; that somebody asked is audited."""
    masked = not caller.role.includes(Role.ADMIN)
    async with services.database.session() as session:
        row, relay = await _fetch(session, caller, backup_id)

    def read() -> str:
        text = _content(services, row)
        return mask_text(text) if masked else text

    text = await asyncio.to_thread(read)
    async with services.database.begin() as session:
        after = {"masked": masked, "relay_id": relay.id}
        resource = ("backup", row.id)
        await record(session, services, caller, "backup.read", resource, after=after, ad_id=relay.ad_id)
    return PlainTextResponse(text)
