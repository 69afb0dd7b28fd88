"""Two worker processes on one PostgreSQL, one of them killed in the middle of a commit."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import psycopg
import pytest
from databases import _postgresql_database, _postgresql_template, postgresql
from jobs.fake_device import SEALER
from jobs.job_world import INTENT, probe

from relaymgr.cli import local
from relaymgr.jobs.assembly import assemble
from relaymgr.jobs.parts import ACTIVE, Parts, utc_now
from relaymgr.jobs.procrastinate_engine import ProcrastinateEngine, apply_schema
from relaymgr.settings import Settings
from relaymgr.store.database import Database
from relaymgr.store.tables import Job, Relay

TESTS = Path(__file__).parents[1]


@pytest.fixture
def url():
    with _postgresql_database(_postgresql_template(postgresql())) as made:
        yield made


async def start_worker(url, state, hang):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(TESTS / "jobs" / "worker_process.py"),
        url,
        str(state),
        str(hang),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "PATH": "/usr/bin:/bin"},
    )
    assert (await asyncio.wait_for(process.stdout.readline(), 60)) == b"ready\n"
    return process


async def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_the_schema_is_made_once(url):
    assert sorted(await asyncio.gather(apply_schema(url), apply_schema(url))) == [False, True]


async def test_upgrading_the_database_makes_the_engines_tables(url):
    await local.upgrade(Settings(database_url=url))
    assert await apply_schema(url) is False


async def test_wakes_that_dead_workers_held_are_deleted(url):
    engine = ProcrastinateEngine(url)
    await engine.start(None)
    try:
        await engine.wake("1" * 32)
        await engine.wake("2" * 32)
        async with await psycopg.AsyncConnection.connect(url.replace("+psycopg", "")) as connection:
            await connection.execute("SET search_path TO procrastinate")
            await connection.execute(
                "UPDATE procrastinate.procrastinate_jobs SET status = 'doing' WHERE queueing_lock = %s", ("1" * 32,)
            )
        assert await engine.prune() == 1
        assert await engine.prune() == 0
        left = await engine._app.job_manager.list_jobs_async()
        assert [wake.queueing_lock for wake in left] == ["2" * 32]
    finally:
        await engine.stop()


async def test_a_killed_workers_job_is_finished_by_another(url, tmp_path):
    state = tmp_path / "device.json"
    state.write_text(json.dumps({"sections": {"hostname": "synthetic"}, "log": [], "window": None}))
    database = Database(url)
    engine = ProcrastinateEngine(url)
    jobs = assemble(Parts(database, None, SEALER), engine, probe=probe)
    workers = []
    try:
        await engine.start(None)
        async with database.begin() as session:
            relay = Relay(
                name="mx1", platform="junos", host="192.0.2.9", created_at=utc_now(), updated_at=utc_now(),
                intent=INTENT, intent_version=1, commit_timeout_seconds=1.0,
            )  # fmt: skip
            session.add(relay)
        workers.append(await start_worker(url, state, 600.0))
        job = await jobs.service.submit("apply", relay_id=relay.id, actor="operator")

        async def begun():
            return json.loads(state.read_text())["log"] != []

        await until(begun)
        workers.append(await start_worker(url, state, 0.0))
        workers[0].kill()
        await workers[0].wait()

        async def ended():
            async with database.session() as session:
                return (await session.get(Job, job.id)).state not in ACTIVE

        await until(ended)
        async with database.session() as session:
            job, relay = await session.get(Job, job.id), await session.get(Relay, relay.id)
        assert job.state == "succeeded", (job.error_code, job.error_detail)
        assert job.attempt > 1
        assert relay.window_job_id is None
        mark = f"isthmus {job.id}"
        assert json.loads(state.read_text())["log"] == [["begun", mark], ["confirmed", mark]]
        workers[1].terminate()
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
            await worker.wait()
        await engine.stop()
        await database.close()
