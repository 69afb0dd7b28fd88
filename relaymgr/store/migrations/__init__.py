"""Schema migrations: what `relaymgr db upgrade` and `db check` do. Synchronous; call them in a thread.

All revisions of one upgrade run in one transaction, on SQLite too. It holds a lock from its start (PostgreSQL: an
advisory lock; SQLite: the write lock), so of several processes that upgrade at once one works and the others then find
nothing left to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.pool import NullPool

from relaymgr.store.tables import Table

LOCK = 0x15_7E_05_22_68
"""Key of the advisory lock; also taken by whoever must run once among starting processes."""
LOCK_SECONDS = 600


class SchemaUnusable(Exception):
    """The schema cannot be used by this version: the message says what to do."""


@dataclass(frozen=True, slots=True)
class SchemaState:
    """What `check` found."""

    current: str | None
    """Revision in the database; None when it is empty."""
    head: str
    """Revision this version needs."""
    newer: bool
    """The database was upgraded by a later version that this one does not know."""

    @property
    def up_to_date(self) -> bool:
        """Whether this version can work with the database."""
        return self.current == self.head


def upgrade(url: URL, revision: str = "head") -> None:
    """Run the missing migrations.

    Raises:
        SchemaUnusable: a later version of the manager upgraded this database.
    """
    with _locked(url) as connection:
        state = _state(connection)
        if state.newer:
            raise SchemaUnusable(f"the database is at revision {state.current}, of a later version of relaymgr")
        command.upgrade(_config(connection), revision)
        if connection.dialect.name == "sqlite":
            broken = connection.execute(text("PRAGMA foreign_key_check")).fetchall()
            if broken:
                raise SchemaUnusable(f"a migration would break {len(broken)} references")


def check(url: URL) -> SchemaState:
    """Compare the database's revision with the one this version needs."""
    with _connected(url) as connection:
        return _state(connection)


def differences(url: URL) -> list[str]:
    """How the tables differ from the models; empty when migrations and models agree."""
    with _connected(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [str(difference) for difference in compare_metadata(context, Table.metadata)]


def _state(connection: Connection) -> SchemaState:
    scripts = ScriptDirectory.from_config(_config(None))
    head = scripts.get_current_head()
    if head is None:
        raise SchemaUnusable("this installation holds no migrations")
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    return SchemaState(current, head, newer=current is not None and current not in known)


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    sqlite = url.get_backend_name() == "sqlite"
    engine = create_engine(
        url.set(drivername="sqlite") if sqlite else url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"timeout": LOCK_SECONDS, "isolation_level": None} if sqlite else {},
    )
    if sqlite:

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.info.get("locked") else "BEGIN")

    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _locked(url: URL) -> Iterator[Connection]:
    with _connected(url) as connection:
        connection.info["locked"] = True
        with connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            yield connection
