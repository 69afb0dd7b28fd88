"""What the configuration store keeps on disk beside the configuration file itself.

Files below `state_dir`/configuration: `running.toml` (last text known to run), `candidate.json`,
`pending.json` (an unconfirmed commit) and `versions/NNNNNNNN.toml`, one for each text that once ran.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from agent.service.durable import remove_file, replace_file, sweep

VERSION_LIMIT: Final = 50

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text waiting to be committed.

    Attributes:
        text: TOML.
        base: ETag of the running configuration it was made for.
    """

    text: str
    base: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A commit that is rolled back unless it is confirmed.

    Attributes:
        deadline: seconds since the epoch.
        seconds: what was asked for, so that a clock set back cannot prolong it.
        restore: version to return to.
    """

    deadline: float
    seconds: float
    restore: int


class History:
    """The files; every write is durable when the method returns."""

    def __init__(self, state_dir: Path) -> None:
        """Open the directory, make it when it is not there.

        Raises:
            OSError: it cannot be made.
        """
        self._directory = state_dir / "configuration"
        self._versions = self._directory / "versions"
        state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._versions.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("running.toml", "candidate.json", "pending.json"):
            sweep(self._directory, name)
        sweep(self._versions, "*")
        self._candidate = self._record(
            "candidate.json", lambda value: Candidate(str(value["text"]), str(value["base"]))
        )
        self._pending = self._record(
            "pending.json",
            lambda value: Pending(float(value["deadline"]), float(value["seconds"]), int(value["restore"])),
        )

    def running(self) -> str | None:
        """Text that ran last."""
        return _read(self._directory / "running.toml")

    def set_running(self, text: str) -> None:
        """Remember the text that runs now."""
        replace_file(self._directory / "running.toml", text.encode())

    def candidate(self) -> Candidate | None:
        """The candidate, if there is one."""
        return self._candidate

    def set_candidate(self, candidate: Candidate | None) -> None:
        """Keep a candidate, or none."""
        self._set_record("candidate.json", candidate)
        self._candidate = candidate

    def pending(self) -> Pending | None:
        """The unconfirmed commit, if there is one."""
        return self._pending

    def set_pending(self, pending: Pending | None) -> None:
        """Keep an unconfirmed commit, or none."""
        self._set_record("pending.json", pending)
        self._pending = pending

    def numbers(self) -> list[int]:
        """Versions kept, newest first."""
        return sorted((int(path.stem) for path in self._versions.glob("[0-9]*.toml")), reverse=True)

    def version(self, number: int) -> str | None:
        """Text of a version."""
        return _read(self._path(number))

    def saved_at(self, number: int) -> float:
        """When a version was kept, in seconds since the epoch."""
        return self._path(number).stat().st_mtime

    def keep(self, text: str) -> int:
        """Keep a text as the newest version and return its number; the same text twice running is kept once."""
        numbers = self.numbers()
        if numbers and self.version(numbers[0]) == text:
            return numbers[0]
        number = numbers[0] + 1 if numbers else 1
        replace_file(self._path(number), text.encode())
        pending = self.pending()
        for old in numbers[VERSION_LIMIT - 1 :]:
            if pending is None or pending.restore != old:
                self._path(old).unlink(missing_ok=True)
        return number

    def _path(self, number: int) -> Path:
        return self._versions / f"{number:08d}.toml"

    def _record(self, name: str, build: Callable[[Any], Record]) -> Record | None:
        text = _read(self._directory / name)
        if text is None:
            return None
        try:
            return build(json.loads(text))
        except (ValueError, KeyError, TypeError):
            return None  # not written by us: as good as absent

    def _set_record(self, name: str, record: Candidate | Pending | None) -> None:
        path = self._directory / name
        if record is None:
            remove_file(path)
        else:
            replace_file(path, json.dumps(asdict(record)).encode())


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
