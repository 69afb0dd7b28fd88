"""Groups the polls of many relays into few transactions, so that a thousand relays cost two commits a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Self

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from relaymgr.store.database import Database
from relaymgr.store.observations import AdCache, Poll, write

log = logging.getLogger(__name__)

LARGEST_BATCH = 16
"""Polls in one transaction: what else wants to write waits no longer than that takes."""
_LONGEST_PAUSE = 5.0


class ObservationWriter:
    """`async with ObservationWriter(database) as writer: writer.put(poll)`; leaving writes what is left.

    While the database is away polls wait, the newest of each relay, and nobody who polls is held up.

    Args:
        database: where to.
        every_seconds: how long polls are gathered.
        sample_seconds: a relay's statistics become a sample of the time series at most this often.
        leave_seconds: how long leaving waits for what is left to be written.
    """

    def __init__(
        self,
        database: Database,
        *,
        every_seconds: float = 0.5,
        sample_seconds: float = 60.0,
        leave_seconds: float = 10.0,
    ) -> None:
        self._database = database
        self._every = every_seconds
        self._sample_after = timedelta(seconds=sample_seconds)
        self._leave_seconds = leave_seconds
        self._waiting: dict[str, Poll] = {}
        self._sampled: dict[str, datetime] = {}
        self._ads = AdCache()
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._away = False

    @property
    def backlog(self) -> int:
        """Polls not written yet."""
        return len(self._waiting)

    def put(self, poll: Poll) -> None:
        """Hand over a poll; never waits. A newer poll of a relay replaces one not written yet."""
        if poll.observation is None and not poll.unreachable and poll.relay_id in self._waiting:
            return  # what it tells less of is still to be written
        self._waiting[poll.relay_id] = poll
        self._some.set()
        self._idle.clear()

    async def flush(self) -> None:
        """Return when everything put before is written."""
        self._hurry.set()
        try:
            await self._idle.wait()
        finally:
            self._hurry.clear()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="observation writer")
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            async with asyncio.timeout(self._leave_seconds):
                await self.flush()
        except TimeoutError:
            log.warning("polls left unwritten", extra={"polls": self.backlog})
        finally:
            if self._task is not None:
                self._task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._task

    async def _run(self) -> None:
        pause = self._every
        while True:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            pause = self._every if await self._write_waiting() else min(2 * pause, _LONGEST_PAUSE)

    async def _write_waiting(self) -> bool:
        """Write all that waits; False when the database is away."""
        while self._waiting:
            batch = [self._waiting[relay_id] for relay_id in list(self._waiting)[:LARGEST_BATCH]]
            if not await self._write(batch):
                await asyncio.sleep(0)
                return False
            for poll in batch:
                if self._waiting.get(poll.relay_id) is poll:
                    del self._waiting[poll.relay_id]
        self._some.clear()
        self._idle.set()
        return True

    async def _write(self, batch: list[Poll]) -> bool:
        try:
            await self._commit(batch)
        except (OperationalError, InterfaceError, PoolTimeout, OSError) as error:
            self._note_away(error)
            return False
        except Exception as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                self._note_away(error)
                return False
            if len(batch) == 1:
                # One relay's data that cannot be written must not keep the others' from being written.
                log.exception("a poll cannot be written", extra={"relay_id": batch[0].relay_id})
                return True
            for poll in batch:
                if not await self._write([poll]):
                    return False
        self._away = False
        return True

    async def _commit(self, batch: list[Poll]) -> None:
        async with self._database.begin() as session:
            await write(session, batch, self._ads, sampled=self._due)
        self._note_samples(batch)

    def _due(self, poll: Poll) -> bool:
        last = self._sampled.get(poll.relay_id)
        return last is None or not last <= poll.finished_at < last + self._sample_after

    def _note_samples(self, batch: Iterable[Poll]) -> None:
        for poll in batch:
            if poll.observation is not None and poll.observation.statistics is not None and self._due(poll):
                self._sampled[poll.relay_id] = poll.finished_at

    def _note_away(self, error: SQLAlchemyError | OSError) -> None:
        if not self._away:
            log.warning("polls wait for the database", extra={"error": type(error).__name__})
        self._away = True
