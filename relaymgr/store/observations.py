"""What polls read, written down with as few writes as that needs.

`replace` writes one poll in the caller's transaction; `ObservationWriter` groups the polls of many relays into one
transaction every half second.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.domain.observed import Observation
from relaymgr.store.database import Database

PARTS = ("tunnels", "channels", "pim_neighbors", "statistics")


@dataclass(frozen=True, slots=True)
class Poll:
    """One poll of one relay, finished: with an observation, or with the reason there is none."""

    relay_id: str
    started_at: datetime
    finished_at: datetime
    observation: Observation | None
    failure: str | None = None
    """Why there is no observation, one sentence for the operator; no secrets."""


async def replace(session: AsyncSession, relay_id: str, observation: Observation, now: datetime) -> None:
    """Write one successful poll in the caller's transaction."""
    await write(session, [Poll(relay_id, now, now, observation)])


async def write(session: AsyncSession, polls: list[Poll]) -> None:
    """Write several polls, at most one a relay, in the caller's transaction."""
    raise NotImplementedError


class ObservationWriter:
    """Groups polls into transactions. Use: `async with ObservationWriter(database) as writer: writer.put(poll)`."""

    def __init__(self, database: Database, *, every_seconds: float = 0.5) -> None:
        self._database = database
        self._every = every_seconds

    def put(self, poll: Poll) -> None:
        """Hand over a poll; never waits. A newer poll of a relay replaces one not written yet."""
        raise NotImplementedError

    async def flush(self) -> None:
        """Return when everything put before is written."""
        raise NotImplementedError

    async def __aenter__(self) -> ObservationWriter:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.flush()
