"""Migrations: what they make is what the models say, and upgrading at once is harmless."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from relaymgr.store import migrations
from relaymgr.store.database import Database
from relaymgr.store.urls import normalise

UPGRADE = """
import sys
from relaymgr.store import migrations
from relaymgr.store.urls import normalise
sys.stdin.readline()
migrations.upgrade(normalise(sys.argv[1]))
"""


def test_models_and_migrations_agree(database_url):
    assert migrations.differences(normalise(database_url)) == []


async def test_state_before_and_after(empty_database_url):
    database = Database(empty_database_url)
    before = await database.check()
    assert (before.current, before.up_to_date, before.newer) == (None, False, False)
    await database.upgrade()
    after = await database.check()
    assert after.current == after.head
    assert after.up_to_date
    await database.upgrade()
    assert await database.check() == after
    await database.close()


async def test_database_of_a_later_version_is_left_alone(database):
    async with database.begin() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    state = await database.check()
    assert state.newer
    assert not state.up_to_date
    with pytest.raises(migrations.SchemaUnusable, match="later version"):
        await database.upgrade()


def test_two_processes_upgrade_at_once(empty_database_url):
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", UPGRADE, empty_database_url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert errors == [""] * 3
    assert [process.returncode for process in processes] == [0] * 3
    assert migrations.check(normalise(empty_database_url)).up_to_date


def test_downgrade_leaves_nothing(database_url):
    url = normalise(database_url)
    with migrations._locked(url) as connection:
        from alembic import command

        command.downgrade(migrations._config(connection), "base")
    assert migrations.check(url).current is None
    assert any("add_table" in difference for difference in migrations.differences(url))
    migrations.upgrade(url)
    assert migrations.differences(url) == []


async def test_a_failing_upgrade_leaves_nothing_behind(empty_database_url, monkeypatch):
    def fail(*_args):
        raise RuntimeError("planted")

    url = normalise(empty_database_url)
    real = migrations.command.upgrade

    def upgrade_then_fail(*args):
        real(*args)
        fail()

    monkeypatch.setattr(migrations.command, "upgrade", upgrade_then_fail)
    with pytest.raises(RuntimeError, match="planted"):
        await asyncio.to_thread(migrations.upgrade, url)
    assert migrations.check(url).current is None
    monkeypatch.undo()
    migrations.upgrade(url)
    assert migrations.check(url).up_to_date


def test_revisions_form_one_line_and_are_modules_of_the_package():
    """A build packs modules of packages; a revision beside them would be missing from an installed manager."""
    scripts = migrations.ScriptDirectory(migrations.__path__[0])
    revisions = list(scripts.walk_revisions())
    assert len(scripts.get_heads()) == 1
    folder = Path(migrations.__path__[0])
    assert {Path(revision.path).parent for revision in revisions} == {folder / "versions"}
    assert (folder / "versions" / "__init__.py").is_file()
