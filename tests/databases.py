"""Fixtures that run a test on each database: SQLite, and a PostgreSQL started once from Debian's packages.

In a folder's conftest.py: `from databases import database, database_url, empty_database_url  # noqa: F401`. Then

    async def test_something(database: Database) -> None: ...

runs once a database, on a fresh one with all tables. `database_url` is the same as a string, for programs that connect
by themselves; `empty_database_url` has no tables. PostgreSQL refuses root, so it runs as `postgres` (or `nobody`) when
the tests run as root; what is missing is named and those tests are skipped.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from relaymgr.store import migrations
from relaymgr.store.database import Database

DATABASES = ("sqlite", "postgresql")
_UNTIL_TOLD = '"$@" & read -r _; kill -QUIT $!; wait $!; rm -rf "$0"'
"""Runs until its input ends, which it does however the tests end; SIGQUIT is at once and without care for the data."""
_numbers = count(1)


@dataclass(frozen=True)
class Cluster:
    """A running PostgreSQL."""

    folder: Path
    programs: Path
    user: str

    def url(self, name: str) -> str:
        """URL of one of its databases."""
        return f"postgresql://{self.user}@/{name}?host={self.folder}"

    def run(self, statement: str) -> None:
        """Run a statement that creates or drops a database."""
        with psycopg.connect(host=str(self.folder), user=self.user, dbname="postgres", autocommit=True) as connection:
            connection.execute(statement.encode())


def missing_for_postgresql() -> str | None:
    """What a PostgreSQL for tests lacks here, or None."""
    if _programs() is None:
        return "PostgreSQL (Debian package postgresql)"
    if os.geteuid() == 0 and _unprivileged() is None:
        return "an unprivileged user to run PostgreSQL as"
    return None


def postgresql() -> Cluster:
    """The PostgreSQL of this test session, started when first asked for. Skips the test where there is none."""
    if (missing := missing_for_postgresql()) is not None:
        pytest.skip(f"needs {missing}")
    return _cluster()


@pytest.fixture(params=DATABASES)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a new database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'relaymgr.db'}"
        return
    with _postgresql_database("template0") as url:
        yield url


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a new database with every table."""
    if request.param == "sqlite":
        path = tmp_path / "relaymgr.db"
        shutil.copy(_sqlite_template(), path)
        yield f"sqlite:///{path}"
        return
    cluster = postgresql()
    with _postgresql_database(_postgresql_template(cluster)) as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A new database with every table."""
    made = Database(database_url)
    try:
        yield made
    finally:
        await made.close()


@contextlib.contextmanager
def _postgresql_database(template: str) -> Iterator[str]:
    cluster = postgresql()
    name = f"test_{next(_numbers)}"
    cluster.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")  # a quarter of the default's work
    try:
        yield cluster.url(name)
    finally:
        cluster.run(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def fresh_postgresql() -> Iterator[str]:
    """URL of a new PostgreSQL database with every table, for fixtures of other scopes. Skips where there is none."""
    with _postgresql_database(_postgresql_template(postgresql())) as url:
        yield url


@functools.cache
def _sqlite_template() -> Path:
    folder = tempfile.mkdtemp(prefix="isthmus-sqlite-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "template.db"
    migrations.upgrade(make_url(f"sqlite:///{path}"))
    return path


@functools.cache
def _postgresql_template(cluster: Cluster) -> str:
    cluster.run("CREATE DATABASE with_tables TEMPLATE template0")
    migrations.upgrade(make_url(cluster.url("with_tables")).set(drivername="postgresql+psycopg"))
    return "with_tables"


def _programs() -> Path | None:
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


def _unprivileged() -> str | None:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


@functools.cache
def _cluster() -> Cluster:
    programs = _programs()
    assert programs is not None
    as_user = {}
    folder = Path(tempfile.mkdtemp(prefix="isthmus-pg-"))
    if os.geteuid() == 0:
        account = pwd.getpwnam(_unprivileged() or "nobody")
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "isthmus", "-A", "trust", "--locale=C.UTF-8", "-E", "UTF8", "-N"],
        check=True,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        **as_user,
    )
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "autovacuum": "off",
        "jit": "off",
        "max_connections": "200",
        "shared_buffers": "32MB",
    }
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _UNTIL_TOLD, folder, programs / "postgres", "-D", data]
            + [f"--{key}={value}" for key, value in options.items()],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # an interrupt on the terminal is for the tests; they stop it themselves
            **as_user,
        )
    atexit.register(_stop, process, folder)
    cluster = Cluster(folder, programs, "isthmus")
    deadline = time.monotonic() + 60
    while True:
        try:
            cluster.run("SELECT 1")
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text()) from None
            time.sleep(0.05)
        else:
            return cluster


def _stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    try:
        process.communicate(timeout=30)  # ends its input
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
