"""Database URLs as operators write them, made into what SQLAlchemy needs."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


class DatabaseUrlInvalid(ValueError):
    """The URL cannot be used; the message never repeats it, because it may hold a password."""


def normalise(url: str) -> URL:
    """The URL with the driver the manager uses.

    Args:
        url: `sqlite:///FILE`, `sqlite+aiosqlite:///FILE`, `postgresql://…`, `postgres://…` or `postgresql+psycopg://…`.

    Raises:
        DatabaseUrlInvalid: it is no URL, of another database, or an SQLite database without a file.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise DatabaseUrlInvalid("the database URL cannot be parsed") from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise DatabaseUrlInvalid(
            f"database {parsed.drivername!r} is not supported; use sqlite:///FILE or postgresql://USER@HOST/NAME"
        )
    if driver.startswith("sqlite") and (not parsed.database or ":memory:" in parsed.database):
        raise DatabaseUrlInvalid("an SQLite database needs a file: sqlite:///FILE")
    return parsed.set(drivername=driver)


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite database; None for PostgreSQL."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def prepare_sqlite_file(url: URL) -> None:
    """Make the file, readable by nobody else, before SQLite makes it readable by everybody.

    Raises:
        DatabaseUrlInvalid: its folder does not exist or may not be written.
    """
    path = sqlite_file(url)
    if path is None or path.exists():
        return
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise DatabaseUrlInvalid(f"cannot make the database {path}: {error.strerror}") from error
