"""The database: SQLite (WAL) or PostgreSQL behind one small class.

Reading and writing are apart. `session()` reads and cannot write, on either database; `begin()` is one transaction
that commits on leaving. On SQLite a writer takes the write lock at its first statement (BEGIN IMMEDIATE) and writers of
one process queue for one connection, so that none fails half way; those of other processes wait for `BUSY_SECONDS`.
So keep transactions short: no device and no network is waited for within one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from relaymgr.store import migrations
from relaymgr.store.urls import normalise, prepare_sqlite_file

# It logs the values of every statement when it may.
logging.getLogger("aiosqlite").setLevel(logging.INFO)

BUSY_SECONDS = 30.0
READERS = 10


class Database:
    """One database, reached through two pools: readers and writers.

    Belongs to the event loop it is first used on. `repr` and `safe_url` never show a password.
    """

    def __init__(self, url: str, *, readers: int = READERS, writers: int = 5) -> None:
        self.url: URL = normalise(url)
        if self.dialect == "sqlite":
            prepare_sqlite_file(self.url)
            self._reading = _sqlite_engine(self.url, begin="BEGIN", size=readers, query_only=True)
            self._writing = _sqlite_engine(self.url, begin="BEGIN IMMEDIATE", size=1, query_only=False)
        else:
            self._writing = _postgresql_engine(self.url, writers)
            self._reading = _postgresql_engine(self.url, readers).execution_options(
                postgresql_readonly=True, isolation_level="REPEATABLE READ"
            )
        self._read_sessions = async_sessionmaker(self._reading, expire_on_commit=False)
        self._write_sessions = async_sessionmaker(self._writing, expire_on_commit=False)
        self._writers: set[asyncio.Task[Any] | None] = set()

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.url.get_backend_name()

    @property
    def safe_url(self) -> str:
        """The URL without its password, for logs."""
        return self.url.render_as_string(hide_password=True)

    def __repr__(self) -> str:
        return f"Database({self.safe_url!r})"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A session that reads one consistent state and refuses writes; nothing is committed."""
        async with self._read_sessions() as session:
            yield session

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """A transaction: committed on leaving, rolled back on an exception.

        Raises:
            RuntimeError: this task is within a `begin` already, which would wait for itself.
        """
        task = asyncio.current_task()
        if task in self._writers:
            raise RuntimeError("begin() within begin()")
        self._writers.add(task)
        try:
            async with self._write_sessions() as session, session.begin():
                yield session
        finally:
            self._writers.discard(task)

    async def ping(self) -> None:
        """Ask the database something; raises SQLAlchemyError when it does not answer."""
        async with self.session() as session:
            await session.execute(text("SELECT 1"))

    async def upgrade(self) -> None:
        """Bring the schema to what this version needs. Safe when several processes do it at once."""
        await asyncio.to_thread(migrations.upgrade, self.url)

    async def check(self) -> migrations.SchemaState:
        """Which revision the schema has and which this version needs; changes nothing."""
        return await asyncio.to_thread(migrations.check, self.url)

    async def close(self) -> None:
        """Close every connection."""
        await self._reading.dispose()
        await self._writing.dispose()


def _postgresql_engine(url: URL, size: int) -> AsyncEngine:
    return create_async_engine(
        url, hide_parameters=True, pool_size=size, max_overflow=size, pool_timeout=BUSY_SECONDS, pool_pre_ping=True
    )


def _sqlite_engine(url: URL, *, begin: str, size: int, query_only: bool) -> AsyncEngine:
    engine = create_async_engine(
        url, hide_parameters=True, pool_size=size, max_overflow=0, pool_timeout=2 * BUSY_SECONDS
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:  # noqa: ANN401 - the driver's own adapter
        # The driver's own transaction handling starts a transaction too late (at the first write, deferred).
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={int(BUSY_SECONDS * 1000)}",
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            "cache_size=-32000",
            f"query_only={'ON' if query_only else 'OFF'}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:  # noqa: ANN401
        connection.exec_driver_sql(begin)

    return engine
