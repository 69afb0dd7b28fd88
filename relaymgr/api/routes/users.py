"""Local users, and users an identity provider sent."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field, SecretStr
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api.editing import edit, fetch, picture, remove
from relaymgr.api.etags import IfMatch, tagged
from relaymgr.api.listings import PageQuery, Resource, columns_view, equal
from relaymgr.api.parameters import PathId
from relaymgr.api.problems import Refused, responses
from relaymgr.api.recording import record, writing
from relaymgr.api.routes.tokens import known_ads
from relaymgr.api.schemas.access import User, UserCreate, UserPage, UserPatch
from relaymgr.api.security import ADMIN_EVERYWHERE, Caller, ServicesOf
from relaymgr.store import tables, users
from relaymgr.store.paging import Listing
from relaymgr.store.principals import Role

_ROW = tables.User
USERS = Resource(
    Listing(
        _ROW,
        _ROW.id,
        {"id": _ROW.id, "name": _ROW.name, "last_login_at": _ROW.last_login_at},
        "id",
        {"name": equal(_ROW.name), "role": equal(_ROW.role), "enabled": equal(_ROW.enabled)},
    ),
    User,
    columns_view(User),
)
_TAKEN = "another user has this name"
router = APIRouter(prefix="/api/v1/users", tags=["access"])


class UserQuery(PageQuery):
    """Page and filters of users."""

    name: str | None = Field(default=None, max_length=128, examples=["alice"])
    """Only the one of this name."""
    role: str | None = Field(default=None, max_length=16, examples=["operator"])
    """Only those with this role."""
    enabled: bool | None = Field(default=None, examples=[True])
    """Only those that are, or are not, enabled."""


async def _hashed(password: SecretStr | None) -> str | None:
    if password is None:
        return None
    try:
        return await users.hash_password(password.get_secret_value())
    except users.PasswordUnusable as error:
        raise Refused("invalid_request", str(error)) from None


@router.get("", operation_id="list_users", dependencies=[ADMIN_EVERYWHERE], responses={200: {"model": UserPage}})
async def list_users(request: Request, services: ServicesOf, query: Annotated[UserQuery, Query()]) -> Response:
    """Users."""
    return await USERS.answer(request, services, query)


@router.post(
    "",
    operation_id="create_user",
    status_code=201,
    dependencies=[ADMIN_EVERYWHERE],
    response_model=User,
    responses=responses("name_taken", "unknown_reference"),
)
async def create_user(services: ServicesOf, caller: Caller, body: UserCreate) -> Response:
    """Make a local user."""
    hashed = await _hashed(body.password)
    async with writing(services, _TAKEN) as session:
        await known_ads(session, body.ad_ids)
        row = await users.create(
            session,
            name=body.name,
            role=Role(body.role),
            now=services.clock(),
            password_hash=hashed,
            ad_ids=body.ad_ids,
        )
        await session.refresh(row)
        await record(session, services, caller, "user.create", ("user", row.id), after=picture(User, row))
    return tagged(User.model_validate(row), row.version, 201, f"/api/v1/users/{row.id}")


@router.get(
    "/{user_id}",
    operation_id="get_user",
    dependencies=[ADMIN_EVERYWHERE],
    response_model=User,
    responses=responses("not_found"),
)
async def get_user(services: ServicesOf, caller: Caller, user_id: PathId) -> Response:
    """One user."""
    async with services.database.session() as session:
        row = await fetch(session, caller, _ROW, "user", user_id)
    return tagged(User.model_validate(row), row.version)


@router.patch(
    "/{user_id}",
    operation_id="edit_user",
    dependencies=[ADMIN_EVERYWHERE],
    response_model=User,
    responses=responses("not_found", "unknown_reference", "in_use", "etag_mismatch", "etag_required"),
)
async def edit_user(
    services: ServicesOf, caller: Caller, user_id: PathId, body: UserPatch, if_match: IfMatch = None
) -> Response:
    """Change a user. Role and ADs hold at once, also for sessions under way; a new password ends them."""
    values: dict[str, Any] = body.model_dump(exclude_unset=True, exclude={"password"})
    if "ad_ids" in values:
        values["ad_ids"] = sorted(set(values["ad_ids"]))
    if (hashed := await _hashed(body.password)) is not None:
        values["password_hash"] = hashed
    async with writing(services) as session:
        row = await fetch(session, caller, _ROW, "user", user_id)
        await known_ads(session, values.get("ad_ids", []))
        await edit(session, services, caller, row, "user", if_match, values, User)
        if hashed is not None:
            await _end_sessions(session, row.id, services.clock())
    return tagged(User.model_validate(row), row.version)


async def _end_sessions(session: AsyncSession, user_id: str, now: datetime) -> None:
    token = tables.Token
    open_ones = update(token).where(token.user_id == user_id, token.revoked_at.is_(None))
    await session.execute(open_ones.values(revoked_at=now))


@router.delete(
    "/{user_id}",
    operation_id="delete_user",
    status_code=204,
    dependencies=[ADMIN_EVERYWHERE],
    responses=responses("not_found", "in_use", "etag_mismatch"),
)
async def delete_user(services: ServicesOf, caller: Caller, user_id: PathId, if_match: IfMatch = None) -> None:
    """Delete a user and the sessions. The one who asks stays."""
    if caller.user_id == user_id:
        raise Refused("in_use", "you are this user")
    async with writing(services, deleting=True) as session:
        row = await fetch(session, caller, _ROW, "user", user_id)
        await remove(session, services, caller, row, "user", if_match, User)
