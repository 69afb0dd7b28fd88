"""Programs in a lab that are started together and ended together."""

from __future__ import annotations

import subprocess
import sys
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lab import faulty_relay
from lab.namespaces import Lab, stop, wait_until
from lab.topology import FAULTY_RELAY

_PROXY_SECONDS: Final = 10.0


class Ensemble(ABC):
    """A context that starts its parts by `_start_all` and ends whatever was started.

    Attributes:
        lab: the namespaces.
        control: where the fault proxy is told its faults.
    """

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.control = directory / "faults.sock"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start everything; when one part does not start, end the others.

        Raises:
            LabError: a part did not become ready.
        """
        try:
            self._start_all()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End everything started here."""
        self._stack.close()

    def faults(self, **faults: object) -> dict[str, int]:
        """Set the faults between gateway and relay, those not named being off; the proxy's counters."""
        return faulty_relay.tell(self.control, **faults)

    @abstractmethod
    def _start_all(self) -> None:
        """Start every part, and have `_stack` end each."""

    def _start(self, namespace: str, *command: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start a command of `python -m lab`."""
        process = self.lab.start(namespace, sys.executable, "-m", "lab", *command, stdout=stdout)
        self._stack.callback(stop, process)
        return process

    def _start_proxy(self, relay: str, stranger: str) -> None:
        """Start the fault proxy in front of `relay`; what shall come from another address comes from `stranger`."""
        places = (
            *("--address", str(FAULTY_RELAY.ipv4), "--relay", relay),
            *("--stranger", stranger, "--control", str(self.control)),
        )
        self._start(self.lab.topology.relay, "faulty-relay", *places)
        wait_until(self.control.exists, _PROXY_SECONDS, "the fault proxy listens")
