"""Databases for the tests of jobs."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from databases import _sqlite_template, database, database_url, empty_database_url

from relaymgr.store.database import Database

__all__ = ["database", "database_url", "empty_database_url"]


@pytest.fixture
async def one_database(tmp_path: Path) -> AsyncIterator[Database]:
    """SQLite only, for tests that walk through every case: what differs between databases, others look at."""
    path = tmp_path / "relaymgr.db"
    shutil.copy(_sqlite_template(), path)
    made = Database(f"sqlite:///{path}", readers=2)
    try:
        yield made
    finally:
        await made.close()
