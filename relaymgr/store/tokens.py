"""API tokens: `ist_` and 32 random bytes. Only the SHA-256 is kept; the text is shown once, when it is made."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.store.database import Database
from relaymgr.store.migrations import LOCK
from relaymgr.store.principals import Principal, Role
from relaymgr.store.tables import Token, User

PREFIX = "ist_"
_SHOWN = 12
_LONGEST = 128
LAST_USED_EVERY = timedelta(minutes=1)
BOOTSTRAP_LIFETIME = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made; the only time its text is known."""

    row: Token
    text: str = field(repr=False)


async def create(
    session: AsyncSession,
    *,
    name: str,
    role: Role,
    created_by: str,
    now: datetime,
    ad_ids: Sequence[str] = (),
    expires_at: datetime | None = None,
    user_id: str | None = None,
) -> NewToken:
    """Make a token and add its row to the transaction."""
    secret = PREFIX + secrets.token_urlsafe(32)
    row = Token(
        name=name,
        prefix=secret[:_SHOWN],
        sha256=_digest(secret),
        role=role.value,
        ad_ids=sorted(set(ad_ids)),
        user_id=user_id,
        created_by=created_by,
        created_at=now,
        expires_at=expires_at,
        last_used_at=None,
        revoked_at=None,
    )
    session.add(row)
    await session.flush()
    return NewToken(row, secret)


async def verify(database: Database, secret: str, now: datetime) -> Principal | None:
    """Whose token it is; None when unknown, expired, revoked, or its user is disabled.

    A login's token has its user's role and ADs of now, not those of the login. `last_used_at` is written at most once
    a minute.
    """
    if not secret.startswith(PREFIX) or len(secret) > _LONGEST:
        return None
    async with database.session() as session:
        found = (
            await session.execute(
                select(Token, User)
                .outerjoin(User, User.id == Token.user_id)
                .where(Token.sha256 == _digest(secret), Token.revoked_at.is_(None))
            )
        ).one_or_none()
    if found is None:
        return None
    token: Token = found[0]
    user: User | None = found[1]
    if token.expires_at is not None and token.expires_at <= now:
        return None
    if token.user_id is not None and (user is None or not user.enabled):
        return None
    if token.last_used_at is None or token.last_used_at <= now - LAST_USED_EVERY:
        await _note_use(database, token.id, now)
    if user is not None:
        return Principal(f"user:{user.name}", Role(user.role), frozenset(user.ad_ids), token.id, user.id)
    return Principal(f"token:{token.name}", Role(token.role), frozenset(token.ad_ids), token.id)


async def revoke(session: AsyncSession, token_id: str, now: datetime) -> bool:
    """Make a token worthless; False when there is none, or it is revoked already."""
    revoked = await session.scalar(
        update(Token).where(Token.id == token_id, Token.revoked_at.is_(None)).values(revoked_at=now).returning(Token.id)
    )
    return revoked is not None


async def list_tokens(session: AsyncSession) -> Sequence[Token]:
    """Every token, newest last; none of their texts."""
    return (await session.scalars(select(Token).order_by(Token.id))).all()


async def bootstrap(session: AsyncSession, now: datetime) -> str | None:
    """A token for the first administrator, good for a day; None when there is one who can log in or has a token.

    Of several processes that start at once one gets it.
    """
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    tokens = select(func.count()).where(
        Token.role == Role.ADMIN.value,
        Token.user_id.is_(None),
        Token.revoked_at.is_(None),
        or_(Token.expires_at.is_(None), Token.expires_at > now),
    )
    users = select(func.count()).where(User.role == Role.ADMIN.value, User.enabled)
    if await session.scalar(tokens) or await session.scalar(users):
        return None
    made = await create(
        session, name="bootstrap", role=Role.ADMIN, created_by="system", now=now, expires_at=now + BOOTSTRAP_LIFETIME
    )
    return made.text


async def _note_use(database: Database, token_id: str, now: datetime) -> None:
    # A database that is busy writing does not keep anybody out who only reads.
    with suppress(SQLAlchemyError):
        async with database.begin() as session:
            await session.execute(update(Token).where(Token.id == token_id).values(last_used_at=now))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
