"""Reading, editing and deleting one versioned row: the same steps for every resource that carries an ETag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import ColumnElement, or_, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from relaymgr.api.etags import require_match
from relaymgr.api.problems import Refused, not_found
from relaymgr.api.recording import record
from relaymgr.api.schemas.common import Output
from relaymgr.api.security import require_ad
from relaymgr.api.services import Services
from relaymgr.store.principals import Principal, visible_in_ad
from relaymgr.store.relay_records import update_if_version
from relaymgr.store.tables import Ad, CredentialRecord, Relay, Site, User

Editable = TypeVar("Editable", Ad, Site, CredentialRecord, Relay, User)


def owner_of(row: Ad | Site | CredentialRecord | Relay | User) -> str | None:
    """The AD that decides who sees a row; an AD belongs to itself."""
    if isinstance(row, Ad):
        return row.id
    return None if isinstance(row, User) else row.ad_id


def seen(caller: Principal, row: Ad | Site | CredentialRecord | Relay | User) -> bool:
    """Whether the caller may read it. Sites and credentials of nobody are everybody's."""
    owner = owner_of(row)
    if owner is None and isinstance(row, Site | CredentialRecord):
        return True
    return caller.sees_ad(owner)


def visible_or_shared(caller: Principal, column: InstrumentedAttribute[str | None]) -> ColumnElement[bool]:
    """Rows of the caller's ADs, and those of nobody."""
    return or_(column.is_(None), visible_in_ad(caller, column)) if caller.scoped else true()


async def fetch(
    session: AsyncSession, caller: Principal, table: type[Editable], kind: str, row_id: str, *, lock: bool = False
) -> Editable:
    """The row, kept from other writers with `lock`; 404 where there is none the caller may see."""
    row = await session.get(table, row_id, with_for_update=lock or None)
    if row is None or not seen(caller, row):
        raise not_found(kind, row_id)
    return row


async def fetch_own(
    session: AsyncSession, caller: Principal, table: type[Editable], kind: str, row_id: str
) -> Editable:
    """The row, to be written; 403 where the caller only may read it."""
    row = await fetch(session, caller, table, kind, row_id, lock=True)
    require_ad(caller, owner_of(row))
    return row


async def edit(
    session: AsyncSession,
    services: Services,
    caller: Principal,
    row: Editable,
    kind: str,
    given: str | None,
    values: Mapping[str, Any],
    schema: type[Output],
) -> None:
    """Write `values` if the ETag fits and anything changes, with its audit row. The row is up to date afterwards."""
    require_match(given, row.version)
    if "ad_id" in values:
        require_ad(caller, values["ad_id"])
    changed = {name: value for name, value in values.items() if getattr(row, name) != value}
    if not changed:
        return
    before = picture(schema, row)
    stamped = dict(changed) if isinstance(row, User) else {**changed, "updated_at": services.clock()}
    if not await update_if_version(session, type(row), row.id, row.version, stamped):
        raise Refused("etag_mismatch", "the resource was changed or deleted at the same time")
    await session.refresh(row)
    after = picture(schema, row)
    changes = {name for name in after if before.get(name) != after[name]} | (
        changed.keys() - {"sealed", "password_hash"}
    )
    await record(
        session,
        services,
        caller,
        f"{kind}.update",
        (kind, row.id),
        before={name: before.get(name) for name in sorted(changes)},
        after={name: after.get(name) for name in sorted(changes)},
        ad_id=owner_of(row),
    )


async def remove(
    session: AsyncSession,
    services: Services,
    caller: Principal,
    row: Editable,
    kind: str,
    given: str | None,
    schema: type[Output],
) -> None:
    """Delete the row, with its audit row; an ETag is checked where one is given."""
    if given is not None:
        require_match(given, row.version)
    await record(
        session, services, caller, f"{kind}.delete", (kind, row.id), before=picture(schema, row), ad_id=owner_of(row)
    )
    await session.delete(row)
    await session.flush()


def picture(schema: type[BaseModel], row: object) -> dict[str, Any]:
    """The row as an audit row shows it: only what the API shows, so never a secret."""
    return {name: getattr(row, name) for name in schema.model_fields if hasattr(row, name)}
