"""API tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api.editing import picture
from relaymgr.api.listings import PageQuery, Resource, columns_view, equal, json_response
from relaymgr.api.parameters import PathId
from relaymgr.api.problems import Refused, not_found, responses
from relaymgr.api.recording import record
from relaymgr.api.schemas.access import Token, TokenCreate, TokenMade, TokenPage
from relaymgr.api.security import ADMIN_EVERYWHERE, Caller, ServicesOf
from relaymgr.store import tables, tokens
from relaymgr.store.paging import Listing
from relaymgr.store.principals import Role

_ROW = tables.Token
TOKENS = Resource(
    Listing(
        _ROW,
        _ROW.id,
        {"id": _ROW.id, "name": _ROW.name, "last_used_at": _ROW.last_used_at, "expires_at": _ROW.expires_at},
        "id",
        {
            "name": equal(_ROW.name),
            "role": equal(_ROW.role),
            "revoked": lambda wanted: _ROW.revoked_at.is_not(None) if wanted else _ROW.revoked_at.is_(None),
        },
    ),
    Token,
    columns_view(Token),
)
router = APIRouter(prefix="/api/v1/tokens", tags=["access"])


class TokenQuery(PageQuery):
    """Page and filters of tokens."""

    name: str | None = Field(default=None, max_length=128, examples=["noc-automation"])
    """Only those of this name."""
    role: str | None = Field(default=None, max_length=16, examples=["operator"])
    """Only those with this role."""
    revoked: bool | None = Field(default=None, examples=[False])
    """Only those that are, or are not, revoked."""


async def known_ads(session: AsyncSession, ad_ids: list[str]) -> None:
    """Refuse a scope that names an AD there is not: it would see nothing, or something nobody meant."""
    found = set(await session.scalars(select(tables.Ad.id).where(tables.Ad.id.in_(ad_ids))))
    if missing := sorted(set(ad_ids) - found):
        raise Refused("unknown_reference", f"ad_ids: there is no {missing[0]}")


@router.get("", operation_id="list_tokens", dependencies=[ADMIN_EVERYWHERE], responses={200: {"model": TokenPage}})
async def list_tokens(request: Request, services: ServicesOf, query: Annotated[TokenQuery, Query()]) -> Response:
    """Tokens, also those of logins, without their text."""
    return await TOKENS.answer(request, services, query)


@router.post(
    "",
    operation_id="create_token",
    status_code=201,
    dependencies=[ADMIN_EVERYWHERE],
    response_model=TokenMade,
    responses=responses("unknown_reference"),
)
async def create_token(services: ServicesOf, caller: Caller, body: TokenCreate) -> Response:
    """Make a token. Its text is in this answer and nowhere else."""
    now = services.clock()
    if body.expires_at is not None and body.expires_at <= now:
        raise Refused("invalid_request", "expires_at is in the past")
    async with services.database.begin() as session:
        await known_ads(session, body.ad_ids)
        made = await tokens.create(
            session,
            name=body.name,
            role=Role(body.role),
            created_by=caller.actor,
            now=now,
            ad_ids=body.ad_ids,
            expires_at=body.expires_at,
        )
        after = picture(Token, made.row)
        await record(session, services, caller, "token.create", ("token", made.row.id), after=after)
    return json_response(after | {"token": made.text}, 201, {"Location": f"/api/v1/tokens/{made.row.id}"})


@router.get(
    "/{token_id}",
    operation_id="get_token",
    dependencies=[ADMIN_EVERYWHERE],
    response_model=Token,
    responses=responses("not_found"),
)
async def get_token(services: ServicesOf, token_id: PathId) -> Response:
    """One token without its text."""
    async with services.database.session() as session:
        row = await session.get(_ROW, token_id)
    if row is None:
        raise not_found("token", token_id)
    return json_response(picture(Token, row))


@router.delete(
    "/{token_id}",
    operation_id="revoke_token",
    status_code=204,
    dependencies=[ADMIN_EVERYWHERE],
    responses=responses("not_found"),
)
async def revoke_token(services: ServicesOf, caller: Caller, token_id: PathId) -> None:
    """Revoke a token; its row stays for the audit. Again changes nothing."""
    async with services.database.begin() as session:
        row = await session.get(_ROW, token_id)
        if row is None:
            raise not_found("token", token_id)
        before = picture(Token, row)
        if await tokens.revoke(session, token_id, services.clock()):
            await record(session, services, caller, "token.revoke", ("token", token_id), before=before)
