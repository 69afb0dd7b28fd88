"""What an uplink's setting was before the agent changed it: a killed agent's next life puts it right."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class BorrowedSettings:
    """Interfaces whose setting was changed, with what it was, in one JSON file.

    Interfaces are told apart by index, and forgotten with the boot they were seen in.

    Args:
        path: of the file; its directory exists. None remembers nothing beyond this life.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._boot = _boot()
        self._found: dict[int, bool] = {}
        if path is None:
            return
        try:
            stored = json.loads(path.read_text())
            if stored["boot"] == self._boot:
                self._found = {int(index): bool(value) for index, value in stored["interfaces"].items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("settings of an earlier life are not known: %s", error)

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._found))

    def found(self, index: int) -> bool | None:
        """What the setting of an interface was; None when it was not changed."""
        return self._found.get(index)

    def borrow(self, index: int, *, found: bool) -> None:
        """The setting is about to change; what it was first is kept."""
        if index not in self._found:
            self._found[index] = found
            self._write()

    def give_back(self, index: int) -> None:
        """The setting is as it was, or the interface gone."""
        if self._found.pop(index, None) is not None:
            self._write()

    def _write(self) -> None:
        """A file that a crash of the host leaves unfinished is of no use anyway: not synced."""
        if self._path is None:
            return
        temporary = self._path.with_suffix(".new")
        try:
            temporary.write_text(json.dumps({"boot": self._boot, "interfaces": self._found}))
            temporary.replace(self._path)
        except OSError as error:
            _log.warning("settings of uplinks are not remembered: %s", error)


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
