"""Writing relays: what may be referred to, what a confirm window forbids, create-or-update by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api.editing import edit, picture, seen
from relaymgr.api.etags import etag
from relaymgr.api.problems import Refused
from relaymgr.api.recording import record
from relaymgr.api.schemas import relays as schemas
from relaymgr.api.security import require_ad
from relaymgr.api.services import Services
from relaymgr.store.principals import Principal
from relaymgr.store.tables import Ad, CredentialRecord, Job, Relay, Site

CONNECTION: Final = frozenset({"host", "port", "netconf_port", "legacy_ssh", "options", "credential_id", "host_key"})
"""Members that decide which device a session reaches."""
CHANGING: Final = ("apply", "drain", "undrain", "restore", "rollback")
"""Kinds of jobs that change a device."""


async def check_references(session: AsyncSession, caller: Principal, values: Mapping[str, Any]) -> None:
    """Refuse references to what does not exist or the caller does not see."""
    referred: dict[str, type[Ad | Site | CredentialRecord]] = {
        "ad_id": Ad,
        "site_id": Site,
        "credential_id": CredentialRecord,
    }
    for name, table in referred.items():
        if (row_id := values.get(name)) is None:
            continue
        row: Ad | Site | CredentialRecord | None = await session.get(table, row_id)
        if row is None or not seen(caller, row):
            raise Refused("unknown_reference", f"{name}: there is no {row_id}")
        if isinstance(row, CredentialRecord):
            _require_own(caller, row)


def _require_own(caller: Principal, credential: CredentialRecord) -> None:
    """Whoever chooses where the manager logs in sees what with: only what is of the caller's ADs, not what all use."""
    if not caller.sees_ad(credential.ad_id):
        raise Refused("outside_scope", f"credential {credential.name} is of none of the ADs the token is scoped to")


async def create(session: AsyncSession, services: Services, caller: Principal, body: schemas.RelayCreate) -> Relay:
    """A new relay, with its audit row."""
    require_ad(caller, body.ad_id)
    values = body.model_dump()
    await check_references(session, caller, values)
    now = services.clock()
    row = Relay(**values, version=1, intent_version=0, created_at=now, updated_at=now, intent=None)
    session.add(row)
    await session.flush()
    await session.refresh(row)
    after = picture(schemas.RelaySettings, row) | {"name": row.name, "platform": row.platform}
    await record(session, services, caller, "relay.create", ("relay", row.id), after=after, ad_id=row.ad_id)
    return row


async def update(
    session: AsyncSession, services: Services, caller: Principal, row: Relay, if_match: str, values: Mapping[str, Any]
) -> None:
    """Edit a relay. While a confirm window is open on the device, the way to it stays."""
    touched = {name for name, value in values.items() if getattr(row, name) != value}
    if row.window_job_id is not None and touched & CONNECTION:
        detail = (
            f"a change waits on {row.name} for its confirmation; {', '.join(sorted(touched & CONNECTION))} must stay"
        )
        raise Refused("confirm_window_open", detail, job_id=row.window_job_id)
    if touched & CONNECTION:
        await _require_idle(session, row)
        credential = await session.get(CredentialRecord, row.credential_id) if row.credential_id else None
        if credential is not None and "credential_id" not in touched:
            _require_own(caller, credential)
    await check_references(session, caller, {name: values[name] for name in touched})
    await edit(session, services, caller, row, "relay", if_match, values, schemas.Relay)


async def _require_idle(session: AsyncSession, row: Relay) -> None:
    """A change under way ends on the device it began on. The caller holds the relay's row."""
    running = select(Job.id).where(Job.relay_id == row.id, Job.state == "running", Job.kind.in_(CHANGING)).limit(1)
    if (job_id := await session.scalar(running)) is not None:
        raise Refused("in_use", f"a change of {row.name} is under way; the way to it must stay", job_id=job_id)


async def create_or_update(
    session: AsyncSession, services: Services, caller: Principal, body: schemas.RelayCreate
) -> tuple[Relay, str]:
    """The relay of this name brought to this state, and `created`, `updated` or `unchanged`."""
    row = await session.scalar(select(Relay).where(Relay.name == body.name).with_for_update())
    if row is None:
        return await create(session, services, caller, body), "created"
    if not caller.sees_ad(row.ad_id):
        raise Refused("name_taken", "another relay has this name")
    if row.platform != body.platform:
        raise Refused("conflict", f"{row.name} is a relay of platform {row.platform}, and that stays")
    version = row.version
    values = body.model_dump(exclude={"name", "platform"})
    if body.host_key is None:
        del values["host_key"]
    await update(session, services, caller, row, etag(version), values)
    return row, "unchanged" if row.version == version else "updated"
