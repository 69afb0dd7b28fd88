"""What the command line does with the database itself, on the manager's own machine, before there is a token."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from sqlalchemy import select

from relaymgr.cli.failure import EXIT_USAGE, Failure
from relaymgr.jobs.assembly import engine_name
from relaymgr.jobs.procrastinate_engine import apply_schema
from relaymgr.settings import Settings
from relaymgr.store import audit, tokens
from relaymgr.store.database import Database
from relaymgr.store.migrations import SchemaState
from relaymgr.store.principals import Role
from relaymgr.store.tables import Ad
from relaymgr.store.urls import normalise, sqlite_file


async def upgrade(settings: Settings) -> tuple[str, str]:
    """Bring the schema up to date, the job engine's too; the URL without its password, and the revision."""
    database = Database(settings.database_url)
    try:
        await database.upgrade()
        if engine_name(settings.engine, database.dialect) == "procrastinate":
            await apply_schema(database.url.render_as_string(hide_password=False))
        return database.safe_url, (await database.check()).head
    finally:
        await database.close()


async def check(settings: Settings) -> tuple[str, SchemaState]:
    """The URL without its password, and the state of the schema. Makes no database where there is none."""
    async with _existing(settings) as database:
        return database.safe_url, await database.check()


async def create_token(
    settings: Settings, *, name: str, role: str, ads: Sequence[str], expires_at: datetime | None
) -> dict[str, object]:
    """Make a token in the database itself; the document the API would answer."""
    now = datetime.now(UTC)
    actor = f"local:{_login()}"
    async with _existing(settings) as database:
        if not (await database.check()).up_to_date:
            raise Failure("the database is not at this version's revision: relaymgr db upgrade", EXIT_USAGE)
        async with database.begin() as session:
            ad_ids = list((await session.scalars(select(Ad.id).where(Ad.name.in_(ads) | Ad.id.in_(ads)))).all())
            if len(ad_ids) != len(set(ads)):
                raise Failure("not every --ad is known", EXIT_USAGE)
            made = await tokens.create(
                session,
                name=name,
                role=Role(role),
                created_by=actor,
                now=now,
                ad_ids=ad_ids,
                expires_at=expires_at,
            )
            row = made.row
            shown: dict[str, object] = {
                "id": row.id,
                "name": row.name,
                "prefix": row.prefix,
                "role": row.role,
                "ad_ids": row.ad_ids,
                "user_id": None,
                "created_by": actor,
                "created_at": _written(now),
                "expires_at": None if expires_at is None else _written(expires_at),
                "last_used_at": None,
                "revoked_at": None,
            }
            after = {key: shown[key] for key in ("name", "role", "ad_ids", "expires_at")}
            await audit.record(session, actor, "token.create", "token", row.id, after=after, now=now)
        return shown | {"token": made.text}


@asynccontextmanager
async def _existing(settings: Settings) -> AsyncIterator[Database]:
    path = sqlite_file(normalise(settings.database_url))
    if path is not None and not path.exists():
        raise Failure(f"there is no database {path}: relaymgr db upgrade makes it", EXIT_USAGE)
    database = Database(settings.database_url)
    try:
        yield database
    finally:
        await database.close()


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
