"""Tests of this repository in a guest with another kernel: the script that runs them, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Final

from lab.namespaces import LabError

_SCRIPT: Final = """
set -e
ulimit -n 65536
uname -r > $OUT/release
mount -t tmpfs tmpfs /var/tmp
export TMPDIR=/var/tmp
nice -n {nice} $PYTHON -m pytest -p no:cacheprovider -n0 -q -rsP --tb=short --basetemp=/var/tmp/tests \\
    {arguments} > $OUT/report 2>&1
"""
"""For a guest that offers `$OUT`, a directory of this machine, and `$PYTHON`."""


@dataclass(frozen=True)
class Run:
    """Tests that ran in a guest, none of which failed.

    Attributes:
        passed: how many.
        skipped: pytest's line for each reason to skip.
        report: what pytest wrote, with what each test that passed had printed.
    """

    passed: int
    skipped: tuple[str, ...]
    report: str


def script_of(paths: Iterable[Path], chosen: str, *, nice: int = 0) -> str:
    """The script that runs tests.

    Args:
        paths: files with tests.
        chosen: which of them, as pytest's `-k` takes it; all when empty.
        nice: the niceness of the tests.
    """
    return _SCRIPT.format(nice=nice, arguments=" ".join(["-k", quote(" ".join(chosen.split())), *map(str, paths)]))


def run_of(status: int | None, release: str, report: str, log: str) -> Run:
    """What came of the script.

    Args:
        status: its exit status; None when the guest ended before.
        release: the guest's kernel, as `uname -r` has it.
        report: what pytest wrote.
        log: whatever else the guest printed.

    Raises:
        LabError: a test failed, or the kernel is not of Debian 12; the message has the end of the report.
    """
    if status != 0:
        raise LabError(f"tests failed in the guest:\n{report[-8000:]}{log}")
    if not release.startswith("6.1."):
        raise LabError(f"the guest's kernel is {release.strip()}")
    lines = report.splitlines()
    counted = re.search(r"(\d+) passed", lines[-1])
    return Run(int(counted[1]) if counted else 0, tuple(line for line in lines if line.startswith("SKIPPED")), report)
