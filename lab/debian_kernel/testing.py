"""Runs tests of this repository on Debian's own kernel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lab.debian_kernel.machine import run_script
from lab.guest_tests import Run, run_of, script_of

_HANG: Final = 600.0
"""Seconds until a run is given up; on an idle machine a fifth of that."""


def run_tests(paths: Iterable[Path], chosen: str = "") -> Run:
    """Boot the kernel and run tests in it.

    Args:
        paths: files with tests.
        chosen: which of them, as pytest's `-k` takes it; all when empty.

    Raises:
        LabError: the guest did not come to an end, or a test failed; the message has the end of the report.
    """
    ended = run_script(script_of(paths, chosen), seconds=_HANG)
    release, report, log, console = (ended.files.get(name, "") for name in ("release", "report", "log", "console"))
    return run_of(ended.status, release, report, log[-4000:] + console[-2000:])
