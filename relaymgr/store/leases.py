"""Leases: who among several processes holds a name until when.

Compare-and-set in one statement, so that of two that try at once exactly one succeeds on either database. The clock is
the caller's: processes that share a database need clocks that agree to well within a lease.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from relaymgr.store.database import Database
from relaymgr.store.tables import Lease


async def acquire(database: Database, name: str, holder: str, seconds: float, now: datetime) -> bool:
    """Take the lease, or take it again; False when somebody else holds it.

    Args:
        database: where leases are kept.
        name: what is held, `relay:ID`, `poll:SHARD`, `reaper`.
        holder: who; distinct for every process and start.
        seconds: how long it is held without a `renew`.
        now: the caller's clock.
    """
    until = now + timedelta(seconds=seconds)
    insert = postgresql.insert if database.dialect == "postgresql" else sqlite.insert
    statement = (
        insert(Lease)
        .values(name=name, holder=holder, until=until)
        .on_conflict_do_update(
            index_elements=[Lease.name],
            set_={"holder": holder, "until": until},
            where=or_(Lease.until <= now, Lease.holder == holder),
        )
        .returning(Lease.name)
    )
    async with database.begin() as session:
        return (await session.execute(statement)).first() is not None


async def renew(database: Database, name: str, holder: str, seconds: float, now: datetime) -> bool:
    """Hold it longer; False when it ran out or is somebody else's: stop what it protected."""
    statement = (
        update(Lease)
        .where(Lease.name == name, Lease.holder == holder, Lease.until > now)
        .values(until=now + timedelta(seconds=seconds))
        .returning(Lease.name)
    )
    async with database.begin() as session:
        return (await session.execute(statement)).first() is not None


async def release(database: Database, name: str, holder: str) -> None:
    """Give it back. Nothing happens when it is not the holder's any more."""
    async with database.begin() as session:
        await session.execute(delete(Lease).where(Lease.name == name, Lease.holder == holder))


async def holder_of(database: Database, name: str, now: datetime) -> str | None:
    """Who holds it now; None when nobody does."""
    async with database.session() as session:
        holder: str | None = await session.scalar(select(Lease.holder).where(Lease.name == name, Lease.until > now))
        return holder
