"""Credentials. What is secret in them goes in and never comes out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api.editing import edit, fetch, fetch_own, picture, remove, visible_or_shared
from relaymgr.api.etags import IfMatch, tagged
from relaymgr.api.listings import PageQuery, Resource, columns_view, equal
from relaymgr.api.parameters import PathId
from relaymgr.api.problems import Refused, responses
from relaymgr.api.recording import record, writing
from relaymgr.api.schemas.credentials import Credential, CredentialCreate, CredentialPage, CredentialPatch
from relaymgr.api.security import ADMIN, OPERATOR, Caller, ServicesOf, require_ad
from relaymgr.api.services import Services
from relaymgr.store.credentials import CredentialUnusable, check_reference, seal_secret
from relaymgr.store.paging import Listing
from relaymgr.store.principals import Principal
from relaymgr.store.tables import CredentialRecord, Relay, new_id

_ROW = CredentialRecord
CREDENTIALS = Resource(
    Listing(
        _ROW,
        _ROW.id,
        {"id": _ROW.id, "name": _ROW.name, "created_at": _ROW.created_at},
        "id",
        {"name": equal(_ROW.name), "source": equal(_ROW.source), "ad_id": equal(_ROW.ad_id)},
    ),
    Credential,
    columns_view(Credential),
)
_TAKEN = "another credential has this name"
router = APIRouter(prefix="/api/v1/credentials", tags=["credentials"])


class CredentialQuery(PageQuery):
    """Page and filters of credentials."""

    name: str | None = Field(default=None, max_length=128, examples=["mx80-automation"])
    """Only the one of this name."""
    source: str | None = Field(default=None, max_length=16, examples=["sealed"])
    """Only those of this source: env, file, vault or sealed."""
    ad_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """Only those of this AD."""


@router.get("", operation_id="list_credentials", dependencies=[OPERATOR], responses={200: {"model": CredentialPage}})
async def list_credentials(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[CredentialQuery, Query()]
) -> Response:
    """Credentials the token sees, without what is secret in them."""
    return await CREDENTIALS.answer(request, services, query, visible_or_shared(caller, _ROW.ad_id))


def _check_reference(services: Services, caller: Principal, source: str, reference: str) -> None:
    """References reach into the manager's host; only who is not bound to an AD writes them."""
    if caller.scoped:
        raise Refused("outside_scope", "a token scoped to ADs makes sealed credentials only")
    try:
        check_reference(source, reference, services.settings)
    except CredentialUnusable as error:
        raise Refused("credential_unusable", str(error)) from None


@router.post(
    "",
    operation_id="create_credential",
    status_code=201,
    dependencies=[ADMIN],
    response_model=Credential,
    responses=responses("name_taken", "unknown_reference", "credential_unusable"),
)
async def create_credential(services: ServicesOf, caller: Caller, body: CredentialCreate) -> Response:
    """Make a credential."""
    require_ad(caller, body.ad_id)
    if body.reference is not None:
        _check_reference(services, caller, body.source, body.reference)
    now, row_id = services.clock(), new_id()
    secret = body.secret.get_secret_value() if body.secret is not None else None
    row = _ROW(
        id=row_id,
        **body.model_dump(exclude={"secret"}),
        sealed=None if secret is None else seal_secret(services.sealer, row_id, secret),
        version=1,
        created_at=now,
        updated_at=now,
    )
    async with writing(services, _TAKEN) as session:
        session.add(row)
        await session.flush()
        after, resource = picture(Credential, row), ("credential", row.id)
        await record(session, services, caller, "credential.create", resource, after=after, ad_id=row.ad_id)
    return tagged(Credential.model_validate(row), row.version, 201, f"/api/v1/credentials/{row.id}")


@router.get(
    "/{credential_id}",
    operation_id="get_credential",
    dependencies=[OPERATOR],
    response_model=Credential,
    responses=responses("not_found"),
)
async def get_credential(services: ServicesOf, caller: Caller, credential_id: PathId) -> Response:
    """One credential, without what is secret in it."""
    async with services.database.session() as session:
        row = await fetch(session, caller, _ROW, "credential", credential_id)
    return tagged(Credential.model_validate(row), row.version)


@router.patch(
    "/{credential_id}",
    operation_id="edit_credential",
    dependencies=[ADMIN],
    response_model=Credential,
    responses=responses("not_found", "name_taken", "credential_unusable", "etag_mismatch", "etag_required"),
)
async def edit_credential(
    services: ServicesOf, caller: Caller, credential_id: PathId, body: CredentialPatch, if_match: IfMatch = None
) -> Response:
    """Change a credential. Sessions that used it end with what they are doing."""
    values: dict[str, Any] = body.model_dump(exclude_unset=True, exclude={"secret"})
    async with writing(services, _TAKEN) as session:
        row = await fetch_own(session, caller, _ROW, "credential", credential_id)
        if "reference" in values:
            if row.source == "sealed":
                raise Refused("credential_unusable", "a sealed credential has no reference")
            _check_reference(services, caller, row.source, values["reference"])
        if body.secret is not None:
            if row.source != "sealed":
                raise Refused("credential_unusable", "only a sealed credential has a secret of its own")
            values["sealed"] = seal_secret(services.sealer, row.id, body.secret.get_secret_value())
        await edit(session, services, caller, row, "credential", if_match, values, Credential)
        relays = await _relays_of(session, row.id)
    for relay_id in relays:
        services.access.forget(relay_id)
    return tagged(Credential.model_validate(row), row.version)


async def _relays_of(session: AsyncSession, credential_id: str) -> list[str]:
    return list(await session.scalars(select(Relay.id).where(Relay.credential_id == credential_id)))


@router.delete(
    "/{credential_id}",
    operation_id="delete_credential",
    status_code=204,
    dependencies=[ADMIN],
    responses=responses("not_found", "in_use", "etag_mismatch"),
)
async def delete_credential(
    services: ServicesOf, caller: Caller, credential_id: PathId, if_match: IfMatch = None
) -> None:
    """Delete a credential no relay uses."""
    async with writing(services, deleting=True) as session:
        row = await fetch_own(session, caller, _ROW, "credential", credential_id)
        await remove(session, services, caller, row, "credential", if_match, Credential)
