"""The manager's API over a database, the real planner and job service, and synthetic devices in memory."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import databases
import pytest
from databases import database, database_url
from manager_api.manager import Manager

from relaymgr.store.database import Database

__all__ = ["database", "database_url"]


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    """A manager on SQLite."""
    path = tmp_path / "relaymgr.db"
    shutil.copy(databases._sqlite_template(), path)
    made = Database(f"sqlite:///{path}")
    running = Manager(made)
    try:
        yield running
    finally:
        await running.close()
        await made.close()


@pytest.fixture
async def manager_anywhere(database: Database) -> AsyncIterator[Manager]:
    """A manager on each database."""
    running = Manager(database)
    try:
        yield running
    finally:
        await running.close()
