"""Debian's pimd 2.3 in the lab's namespaces, where lab/packages.sh unpacks it: apt has it or FRR, never both."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lab.namespaces import Lab, stop

PROGRAM: Final = Path(__file__).resolve().parents[1] / ".cache/pimd/usr/sbin/pimd"


def missing_for_pimd() -> list[str]:
    """What this machine lacks for pimd, in words; empty when it can be run."""
    return [] if PROGRAM.exists() else ["pimd"]


class PimdRouter:
    """pimd in one namespace, on all its interfaces; a context manager.

    Attributes:
        log: what it printed.
    """

    def __init__(self, lab: Lab, namespace: str, directory: Path, configuration: str) -> None:
        """`configuration` is the text of a pimd.conf; it and the log go to `directory`."""
        self.log = directory / f"pimd-{namespace}.log"
        self._lab = lab
        self._namespace = namespace
        self._configuration = directory / f"pimd-{namespace}.conf"
        self._configuration.write_text(configuration)
        self._process: subprocess.Popen[Any] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        with self.log.open("a") as log:
            self._process = self._lab.start(
                self._namespace,
                *(str(PROGRAM), "-f", "-s", "info", "-c", str(self._configuration)),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        if self._process is not None:
            stop(self._process)
