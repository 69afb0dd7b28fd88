"""Record of every message a simulator got and sent, so that a test can strike after each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

_KEPT = 10_000


class WireLog:
    """Keeps the latest messages in memory and copies them to a list or a file.

    Attributes:
        entries: dict(number, direction "in"|"out", session, kind, summary), the latest last.
    """

    def __init__(self, copy: list[dict[str, Any]] | Path | None = None) -> None:
        self.entries: list[dict[str, Any]] = []
        self._number = 0
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

    def close(self) -> None:
        """Close the file, if any."""
        if self._file is not None:
            self._file.close()
            self._file = None
