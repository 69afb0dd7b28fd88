"""Wall-clock times for people, from the loop's clock that machines use."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class Clock:
    """Translates times of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.started = loop.time()

    @property
    def now(self) -> float:
        """Loop time, in seconds."""
        return self._loop.time()

    @property
    def uptime(self) -> float:
        """Seconds since this clock was made."""
        return self.now - self.started

    def utc(self, moment: float) -> datetime:
        """Wall-clock time of a loop time, by today's offset between the two."""
        return datetime.now(UTC) - timedelta(seconds=self.now - moment)

    def utc_or_none(self, moment: float | None) -> datetime | None:
        """The same for a time that may not have come."""
        return None if moment is None else self.utc(moment)

    def age(self, moment: float | None) -> float | None:
        """Seconds since a loop time, None for one that has not come."""
        return None if moment is None else max(0.0, self.now - moment)
