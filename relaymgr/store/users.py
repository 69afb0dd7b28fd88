"""Local users (argon2id) and users of an identity provider."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.store.database import Database
from relaymgr.store.principals import Role
from relaymgr.store.tables import User

SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 1024
_hasher = PasswordHasher(type=Type.ID)
# What a login of nobody is checked against, so that it takes as long as one with a wrong password. Made beforehand with
# the parameters of `_hasher` (a test watches), because making it takes a third of a second at every start.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$Ese9MMax1/Cv5CGWd/49AA$GmY/qrJ2FyQ400aJ7VKOpvKlK69rg+7oyspMv6aEHsE"


class PasswordUnusable(ValueError):
    """The password is too short or too long; the message says the bounds."""


async def hash_password(password: str) -> str:
    """The argon2id hash, made in a thread because it takes long on purpose.

    Raises:
        PasswordUnusable: fewer than 12 characters, or more than 1024.
    """
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise PasswordUnusable(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters")
    return await asyncio.to_thread(_hasher.hash, _octets(password))


async def create(
    session: AsyncSession,
    *,
    name: str,
    role: Role,
    now: datetime,
    password_hash: str | None = None,
    subject: str | None = None,
    ad_ids: Sequence[str] = (),
) -> User:
    """Add a user to the transaction; hash the password before (`hash_password`), not while the database waits."""
    user = User(
        name=name,
        password_hash=password_hash,
        subject=subject,
        role=role.value,
        ad_ids=sorted(set(ad_ids)),
        created_at=now,
        last_login_at=None,
    )
    session.add(user)
    await session.flush()
    return user


async def authenticate(database: Database, name: str, password: str, now: datetime) -> User | None:
    """The user, when name and password are right and the user is enabled; None otherwise, after the same time.

    Hashes of older parameters are renewed on the way. Throttling is the caller's.
    """
    async with database.session() as session:
        user: User | None = None
        if "\0" not in name:
            user = await session.scalar(select(User).where(User.name == name))
    kept = user.password_hash if user is not None and user.password_hash is not None else _NOBODY
    right = await asyncio.to_thread(_verify, kept, password)
    if not right or user is None or user.password_hash is None or not user.enabled:
        return None
    values: dict[str, object] = {"last_login_at": now}
    if _hasher.check_needs_rehash(kept):
        values["password_hash"] = await asyncio.to_thread(_hasher.hash, _octets(password))
    async with database.begin() as session:
        # Only if the password is still the one that was checked.
        await session.execute(update(User).where(User.id == user.id, User.password_hash == kept).values(**values))
    return user


async def from_identity_provider(
    session: AsyncSession, *, subject: str, name: str, role: Role, ad_ids: Sequence[str], now: datetime
) -> User | None:
    """The user of an OIDC login, made at the first one; None when an operator disabled it.

    Role and ADs follow the identity provider at each login. A local user of the same name is never taken over.

    Args:
        session: of `Database.begin`.
        subject: `issuer|sub`.
        name: what people call it; made unique when taken.
        role: from the claims.
        ad_ids: from the claims; empty: every AD.
        now: the clock.
    """
    user: User | None = await session.scalar(select(User).where(User.subject == subject))
    if user is None:
        taken = await session.scalar(select(User.id).where(User.name == name))
        unique = name if taken is None else f"{name} ({subject})"
        user = await create(session, name=unique, role=role, subject=subject, ad_ids=ad_ids, now=now)
    elif not user.enabled:
        return None
    user.role, user.ad_ids, user.last_login_at = role.value, sorted(set(ad_ids)), now
    await session.flush()
    return user


def _verify(kept: str, password: str) -> bool:
    if len(password) > LONGEST_PASSWORD:
        return False
    try:
        return _hasher.verify(kept, _octets(password))
    except (VerificationError, InvalidHashError):
        return False


def _octets(password: str) -> bytes:
    """UTF-8; a broken character of a hostile client is a wrong password, no error."""
    return password.encode("utf-8", "surrogatepass")
