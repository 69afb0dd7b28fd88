"""Tells listeners in this process that a job's log grew. Only a hint: listeners read the database and also poll."""

from __future__ import annotations

import asyncio
from collections import defaultdict


class Notifier:
    """Wakes whoever waits for news of a job."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def publish(self, job_id: str) -> None:
        """There is news of the job."""
        for event in self._waiting.get(job_id, ()):
            event.set()

    async def wait(self, job_id: str, seconds: float) -> bool:
        """Return at the next news of the job (True) or after `seconds`, whichever is first."""
        event = asyncio.Event()
        self._waiting[job_id].add(event)
        try:
            async with asyncio.timeout(seconds):
                return await event.wait()
        except TimeoutError:
            return False
        finally:
            self._waiting[job_id].discard(event)
            if not self._waiting[job_id]:
                del self._waiting[job_id]
