"""Relays: enrolment, editing, host keys."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import func, select

from relaymgr.api import bulk, enrolment
from relaymgr.api.editing import fetch, fetch_own, remove
from relaymgr.api.etags import IfMatch, etag, require_match
from relaymgr.api.listings import CSV_ANSWER, Resource, TableQuery, equal, json_response
from relaymgr.api.parameters import PathId
from relaymgr.api.problems import DEVICE_CODES, Refused, responses
from relaymgr.api.recording import writing
from relaymgr.api.schemas.bulk import BulkResult
from relaymgr.api.schemas.relays import (
    HostKey,
    HostKeyScan,
    Relay,
    RelayBulk,
    RelayCreate,
    RelayPage,
    RelayPatch,
    check_host,
)
from relaymgr.api.security import ADMIN, VIEWER, Caller, ServicesOf
from relaymgr.api.views import relay_body, relay_view
from relaymgr.store import tables
from relaymgr.store.paging import Listing
from relaymgr.store.principals import visible_relays

_ROW = tables.Relay
RELAYS = Resource(
    Listing(
        _ROW,
        _ROW.id,
        {
            "id": _ROW.id,
            "name": _ROW.name,
            "platform": _ROW.platform,
            "polled_at": _ROW.polled_at,
            "active_tunnels": _ROW.active_tunnels,
            "created_at": _ROW.created_at,
        },
        "id",
        {
            "name": equal(_ROW.name),
            "platform": equal(_ROW.platform),
            "ad_id": equal(_ROW.ad_id),
            "site_id": equal(_ROW.site_id),
            "reachability": equal(_ROW.reachability),
            "drift_state": equal(_ROW.drift_state),
            "drained": equal(_ROW.drained),
            "enabled": equal(_ROW.enabled),
        },
    ),
    Relay,
    relay_view,
)
_TAKEN = "another relay has this name"
router = APIRouter(prefix="/api/v1/relays", tags=["relays"])


class RelayQuery(TableQuery):
    """Page and filters of relays."""

    name: str | None = Field(default=None, max_length=128, examples=["mx1"])
    """Only the one of this name."""
    platform: str | None = Field(default=None, max_length=16, examples=["junos"])
    """Only those of this platform."""
    ad_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """Only those of this AD."""
    site_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293b"])
    """Only those of this site."""
    reachability: str | None = Field(default=None, max_length=16, examples=["unreachable"])
    """Only those: unknown, reachable or unreachable."""
    drift_state: str | None = Field(default=None, max_length=16, examples=["drifted"])
    """Only those: unknown, none, drifted or unmanaged."""
    drained: bool | None = Field(default=None, examples=[False])
    """Only those that are, or are not, drained."""
    enabled: bool | None = Field(default=None, examples=[True])
    """Only those that are, or are not, enabled."""


@router.get("", operation_id="list_relays", dependencies=[VIEWER], responses=CSV_ANSWER | {200: {"model": RelayPage}})
async def list_relays(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[RelayQuery, Query()]
) -> Response:
    """Relays the token sees."""
    return await RELAYS.answer(request, services, query, visible_relays(caller))


@router.post(
    "",
    operation_id="create_relay",
    status_code=201,
    dependencies=[ADMIN],
    response_model=Relay,
    responses=responses("name_taken", "unknown_reference"),
)
async def create_relay(services: ServicesOf, caller: Caller, body: RelayCreate) -> Response:
    """Enrol a relay. Scan its host key first, compare the fingerprint with the console, and give the key here."""
    async with writing(services, _TAKEN) as session:
        row = await enrolment.create(session, services, caller, body)
    headers = {"ETag": etag(row.version), "Location": f"/api/v1/relays/{row.id}"}
    return json_response(relay_body(row, services.clock()), 201, headers)


@router.post(
    "/scan-host-key",
    operation_id="scan_host_key",
    dependencies=[ADMIN],
    response_model=HostKey,
    responses=responses(*DEVICE_CODES),
)
async def scan_host_key(services: ServicesOf, body: HostKeyScan) -> HostKey:
    """Ask a device for its host key without logging in. Nothing is stored: the operator decides."""
    key = await services.scan_host_key(body.host, body.port, legacy=body.legacy_ssh, timeout=body.timeout_seconds)
    return HostKey(host_key=key.line, fingerprint=key.fingerprint)


@router.post("/bulk", operation_id="put_relays", dependencies=[ADMIN], response_model=BulkResult)
async def put_relays(services: ServicesOf, caller: Caller, body: RelayBulk) -> BulkResult:
    """Create or update relays by name; doing it again changes nothing."""
    items = []
    edited: list[str] = []
    async with writing(services) as session:
        for one in body.relays:
            item, relay_id = await bulk.relay(session, services, caller, one)
            items.append(item)
            edited += [relay_id] if relay_id is not None and item.outcome == "updated" else []
    for relay_id in edited:
        services.access.forget(relay_id)
    return bulk.result(items)


@router.get(
    "/{relay_id}",
    operation_id="get_relay",
    dependencies=[VIEWER],
    response_model=Relay,
    responses=responses("not_found"),
)
async def get_relay(services: ServicesOf, caller: Caller, relay_id: PathId) -> Response:
    """One relay: its settings, and what is known of it and since when."""
    async with services.database.session() as session:
        row = await fetch(session, caller, _ROW, "relay", relay_id)
    return json_response(relay_body(row, services.clock()), headers={"ETag": etag(row.version)})


@router.patch(
    "/{relay_id}",
    operation_id="edit_relay",
    dependencies=[ADMIN],
    response_model=Relay,
    responses=responses(
        "not_found",
        "name_taken",
        "unknown_reference",
        "confirm_window_open",
        "in_use",
        "etag_mismatch",
        "etag_required",
    ),
)
async def edit_relay(
    services: ServicesOf, caller: Caller, relay_id: PathId, body: RelayPatch, if_match: IfMatch = None
) -> Response:
    """Change settings of a relay. Its session ends with what it is doing; the next one uses the new settings."""
    values: dict[str, Any] = body.model_dump(exclude_unset=True)
    async with writing(services, _TAKEN) as session:
        row = await fetch_own(session, caller, _ROW, "relay", relay_id)
        require_match(if_match, row.version)
        try:
            check_host(row.platform, values.get("host", row.host))
        except ValueError as error:
            raise Refused("invalid_request", str(error)) from None
        await enrolment.update(session, services, caller, row, etag(row.version), values)
    services.access.forget(row.id)
    return json_response(relay_body(row, services.clock()), headers={"ETag": etag(row.version)})


@router.delete(
    "/{relay_id}",
    operation_id="delete_relay",
    status_code=204,
    dependencies=[ADMIN],
    responses=responses("not_found", "in_use", "confirm_window_open", "etag_mismatch"),
)
async def delete_relay(services: ServicesOf, caller: Caller, relay_id: PathId, if_match: IfMatch = None) -> None:
    """Forget a relay with everything observed of it. The device keeps its configuration; audit and events stay."""
    job = tables.Job
    async with writing(services, deleting=True) as session:
        row = await fetch_own(session, caller, _ROW, "relay", relay_id)
        if row.window_job_id is not None:
            detail = f"a change waits on {row.name} for its confirmation"
            raise Refused("confirm_window_open", detail, job_id=row.window_job_id)
        active = select(func.count()).where(job.relay_id == row.id, job.state.in_(("queued", "running")))
        if await session.scalar(active):
            raise Refused("in_use", f"a job of {row.name} has not ended")
        await remove(session, services, caller, row, "relay", if_match, Relay)
    services.access.forget(relay_id)
