"""Record of every message a simulator got and sent, so that a test can strike after each of them.

`hold_after(n)` makes the router stand still once it recorded n more messages, `hold_at("out lock-configuration")` at
the next message of this direction and kind. Held at a request, NETCONF obeys it only after the release, and a command
line has obeyed it but not answered; held at an answer, that session has nothing more to say. After the release sessions
do what they were asked before, as a router does whose client died.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, TextIO

_KEPT = 10_000
_NO_MESSAGES = frozenset({"session-end"})
"""Recorded, but nothing to count: the end of one session may come before or after the beginning of the next."""


class WireLog:
    """Keeps the latest messages in memory and copies them to a list or a file.

    Attributes:
        entries: dict(number, direction "in"|"out", session, kind, summary), the latest last.
    """

    def __init__(self, copy: list[dict[str, Any]] | Path | None = None) -> None:
        self.entries: list[dict[str, Any]] = []
        self._number = 0
        self._hold: int | str | None = None
        self._released = asyncio.Event()
        self._released.set()
        self._list = copy if isinstance(copy, list) else None
        self._file: TextIO | None = copy.open("a", encoding="utf-8") if isinstance(copy, Path) else None

    def record(self, direction: str, session: int, kind: str, summary: str) -> None:
        """Note one message; `summary` holds no configuration text and no secret."""
        self._number += 1
        entry = {"number": self._number, "direction": direction, "session": session, "kind": kind, "summary": summary}
        self.entries.append(entry)
        if len(self.entries) > 2 * _KEPT:
            del self.entries[:_KEPT]
        if self._list is not None:
            self._list.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        if kind not in _NO_MESSAGES and self._hold is not None:
            self._count_down(f"{direction} {kind}")

    def _count_down(self, message: str) -> None:
        if isinstance(self._hold, int):
            self._hold -= 1
        if self._hold in {0, message}:
            self._hold = None
            self._released.clear()

    @property
    def held(self) -> bool:
        """Whether the router stands still now."""
        return not self._released.is_set()

    def hold_after(self, messages: int) -> None:
        """Stand still once so many more messages were recorded, 1 or more; ends of sessions do not count."""
        self._hold = messages

    def hold_at(self, message: str) -> None:
        """Stand still at the next message that is `DIRECTION KIND`."""
        self._hold = message

    def release(self) -> None:
        """Go on, and forget an order to hold."""
        self._hold = None
        self._released.set()

    async def passed(self) -> bool:
        """What a session awaits after each message; says whether the router stood still there meanwhile."""
        waited = self.held
        await self._released.wait()
        return waited

    def close(self) -> None:
        """Close the file, if any."""
        if self._file is not None:
            self._file.close()
            self._file = None
