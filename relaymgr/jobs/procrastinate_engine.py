"""The procrastinate engine: several worker processes on one PostgreSQL.

procrastinate carries job ids and nothing else. Its own idea of what a dead worker held is not used: our row has a
lease, the reaper finds it, and wakes anew. Its tables live in the schema `procrastinate` of the same database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import datetime
from typing import Final

import psycopg
from procrastinate import App, PsycopgConnector, exceptions
from procrastinate.jobs import Status
from procrastinate.schema import SchemaManager

from relaymgr.jobs.engine import RunJob

log = logging.getLogger(__name__)

SCHEMA: Final = "procrastinate"
_TASK: Final = "relaymgr.run_job"
_QUEUE: Final = "relaymgr"
STALLED_SECONDS: Final = 300.0
_LOCK: Final = 2268_0003
"""Advisory lock under which the schema is made."""


class ProcrastinateEngine:
    """Wakes survive a restart of everything but the database."""

    def __init__(self, url: str, *, workers: int = 16) -> None:
        """Take an URL as SQLAlchemy or libpq writes it; it may hold a password and is never logged."""
        self._url = "postgresql://" + url.split("://", 1)[1]
        self._workers = workers
        self._run: RunJob | None = None
        self._worker: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._app = App(
            connector=PsycopgConnector(
                conninfo=self._url,
                kwargs={"options": f"-c search_path={SCHEMA}"},
                min_size=1,
                max_size=max(4, min(workers, 10)),
            )
        )
        self._task = self._app.task(name=_TASK, queue=_QUEUE)(self._work)

    async def start(self, run: RunJob | None) -> None:
        """Connect, make the tables when they are not there, and with `run` work in this process."""
        await apply_schema(self._url)
        await self._app.open_async()
        self._run = run
        if run is not None:
            self._worker = asyncio.create_task(self._working(), name="procrastinate worker")
            self._tidying = asyncio.create_task(self._tidy_up(), name="procrastinate tidying")

    async def wake(self, job_id: str, *, at: datetime | None = None) -> None:
        """Have some worker look at the job; one wake of a job waits at a time."""
        deferrer = self._task.configure(queueing_lock=f"{job_id}:later" if at else job_id, schedule_at=at)
        with contextlib.suppress(exceptions.AlreadyEnqueued):
            await deferrer.defer_async(job_id=job_id)

    async def stop(self) -> None:
        """Take no more jobs; those running are cancelled, which hands them back."""
        self._run = None
        tasks = [task for task in (self._worker, self._tidying) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._worker = self._tidying = None
        await self._app.close_async()

    async def _work(self, job_id: str) -> None:
        if self._run is None:
            raise RuntimeError("this worker is stopping")
        await self._run(job_id)

    async def prune(self, seconds: float = STALLED_SECONDS) -> int:
        """Delete wakes in the hands of workers not heard of for so long; they only take space. Returns how many."""
        stalled = list(await self._app.job_manager.get_stalled_jobs(seconds_since_heartbeat=seconds))
        for wake in stalled:
            await self._app.job_manager.finish_job(wake, Status.FAILED, delete_job=True)
        return len(stalled)

    async def _tidy_up(self) -> None:
        while True:
            await asyncio.sleep(STALLED_SECONDS)
            try:
                if deleted := await self.prune():
                    log.info("deleted %d wakes that dead workers held", deleted)
            except Exception:  # the database may be away for a while
                log.exception("procrastinate tidying")

    async def _working(self) -> None:
        while True:
            try:
                await self._app.run_worker_async(
                    queues=[_QUEUE],
                    concurrency=self._workers,
                    install_signal_handlers=False,
                    shutdown_graceful_timeout=0.1,
                    fetch_job_polling_interval=2.0,
                    delete_jobs="always",
                )
            except Exception:  # the database may be away for a while; the reaper wakes what was lost
                log.exception("procrastinate worker; starting again")
            await asyncio.sleep(1)


async def apply_schema(url: str) -> bool:
    """Make procrastinate's tables when they are not there. Returns whether they were made. Safe at the same time."""
    conninfo = "postgresql://" + url.split("://", 1)[1]
    async with await psycopg.AsyncConnection.connect(conninfo) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        found = await connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.procrastinate_jobs",))
        row = await found.fetchone()
        if row is not None and row[0] is not None:
            return False
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        await connection.execute(f"SET LOCAL search_path TO {SCHEMA}")
        await connection.execute(SchemaManager.get_schema())
    return True
