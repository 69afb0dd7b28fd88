"""How processes of the manager may be started, and what the first start says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from relaymgr import service
from relaymgr.settings import Settings
from relaymgr.store.database import Database


@pytest.mark.parametrize("start", ["work", "serve"])
@pytest.mark.parametrize("engine", ["auto", "embedded"])
async def test_jobs_are_never_left_to_workers_nobody_can_wake(tmp_path: Path, start: str, engine: str) -> None:
    where = f"sqlite:///{tmp_path}/x.db" if engine == "auto" else "postgresql://nobody@192.0.2.1/x"
    settings = Settings(database_url=where, engine=engine, run_jobs=start == "work")
    with pytest.raises(ValueError, match="PostgreSQL and the procrastinate engine"):
        await getattr(service, start)(settings)
    assert not (tmp_path / "x.db").exists()


async def test_the_first_start_prints_a_command_that_works_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = Database(f"sqlite:///{tmp_path}/x.db")
    try:
        await database.upgrade()
        await service._first_administrator(database, "http://127.0.0.1:8080")
    finally:
        await database.close()
    said = capsys.readouterr().err.replace("\\\n", "")  # a shell joins the lines
    command = shlex.split(re.search(r"ISTHMUS_URL.*?YOU", said, re.DOTALL)[0])  # type: ignore[index]
    assert command[0] == "ISTHMUS_URL=http://127.0.0.1:8080"
    assert re.fullmatch(r"ISTHMUS_TOKEN=ist_[\w-]{43}", command[1])
    assert command[2:] == ["relaymgr", "token", "create", "--role", "admin", "--name", "YOU"]
