"""The embedded engine: jobs run in this process's event loop, a bounded number at a time."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from relaymgr.jobs.engine import RunJob
from relaymgr.jobs.parts import Clock, utc_now

log = logging.getLogger(__name__)


class EmbeddedEngine:
    """Keeps nothing across a restart: the reaper wakes what the database says is to be done."""

    def __init__(self, *, workers: int = 16, clock: Clock = utc_now) -> None:
        self._slots = asyncio.Semaphore(workers)
        self._clock = clock
        self._run: RunJob | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def start(self, run: RunJob | None) -> None:
        """Work in this process; without `run` a wake is left to the processes that do."""
        self._run = run

    async def wake(self, job_id: str, *, at: datetime | None = None) -> None:
        """Run the job here, not before `at`; woken while running, it is looked at once more."""
        if self._run is None:
            return
        delay = (at - self._clock()).total_seconds() if at else 0.0
        if (timer := self._timers.pop(job_id, None)) is not None:
            if timer.when() < asyncio.get_running_loop().time() + delay:
                self._timers[job_id] = timer
                return
            timer.cancel()
        if delay > 0:
            self._timers[job_id] = asyncio.get_running_loop().call_later(delay + 0.01, self._spawn, job_id)
        else:
            self._spawn(job_id)

    async def stop(self) -> None:
        """Take no more jobs; those running are cancelled, which hands them back."""
        self._run = None
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, job_id: str) -> None:
        self._timers.pop(job_id, None)
        if self._run is None:
            return
        if job_id in self._tasks:
            self._again.add(job_id)
            return
        task = asyncio.get_running_loop().create_task(self._work(job_id, self._run), name=f"job {job_id}")
        self._tasks[job_id] = task
        task.add_done_callback(lambda done: self._done(job_id, done))

    def _done(self, job_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(job_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("job %s ended with %s", job_id, type(error).__name__, exc_info=error)
        if job_id in self._again:
            self._again.discard(job_id)
            self._spawn(job_id)

    async def _work(self, job_id: str, run: RunJob) -> None:
        async with self._slots:
            await run(job_id)
