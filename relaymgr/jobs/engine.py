"""The Protocol of job engines: they wake workers, nothing more. The job row in the database is the truth."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

RunJob = Callable[[str], Awaitable[None]]
"""Given a job's id: take it (lease), work, record. Returns at once when another worker holds it or it is finished."""


class JobEngine(Protocol):
    """Carries job identifiers from whoever made the row to some worker."""

    async def start(self, run: RunJob | None) -> None:
        """Connect; with `run`, also work in this process."""

    async def wake(self, job_id: str, *, at: datetime | None = None) -> None:
        """Have some worker look at the job, not before `at`, once its row is committed. A lost wake costs only time."""

    async def stop(self) -> None:
        """Take no more jobs; return when those running here are done or cancelled."""
