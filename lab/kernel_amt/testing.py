"""Runs tests of this repository in the guest, whose kernel is Debian 12's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Final

from lab.kernel_amt.guest import Guest
from lab.namespaces import Lab, LabError

_HANG: Final = 400.0
"""Seconds until a run is given up; on an idle machine a third of that."""

_SCRIPT: Final = """
set -e
uname -r > $OUT/release
mount -t tmpfs tmpfs /var/tmp
export TMPDIR=/var/tmp
nice -n {nice} $PYTHON -m pytest -p no:cacheprovider -n0 -q -rsP --tb=short --basetemp=/var/tmp/tests \\
    {arguments} > $OUT/report 2>&1
"""


@dataclass(frozen=True)
class Run:
    """Tests that ran in the guest, none of which failed.

    Attributes:
        passed: how many.
        skipped: pytest's line for each reason to skip.
        report: what pytest wrote, with what each test that passed had printed.
    """

    passed: int
    skipped: tuple[str, ...]
    report: str


def run_tests(lab: Lab, paths: Iterable[Path], chosen: str = "", *, tidy: bool = False) -> Run:
    """Boot the guest and run tests in it.

    Args:
        lab: the lab whose Internet the guest is joined to.
        paths: files with tests.
        chosen: which of them, as pytest's `-k` takes it; all when empty.
        tidy: let the kernel's workers, which are slow to free programs and maps here, go before the tests; many tests
            that load programs use up the guest's memory else.

    Raises:
        LabError: the guest did not come to an end, or a test failed; the message has the end of the report.
    """
    arguments = " ".join(["-k", quote(" ".join(chosen.split())), *map(str, paths)])
    with Guest(lab, lab.topology.internet, _SCRIPT.format(nice=19 if tidy else 0, arguments=arguments)) as guest:
        try:
            status = guest.finish(_HANG)
        except LabError as error:
            raise LabError(f"{error}\n{guest.read('report')[-4000:]}") from error
        report, release = guest.read("report"), guest.read("release")
        if status != 0:
            raise LabError(f"tests failed in the guest:\n{report[-8000:]}{guest.log()}")
    if not release.startswith("6.1."):
        raise LabError(f"the guest's kernel is {release.strip()}")
    lines = report.splitlines()
    counted = re.search(r"(\d+) passed", lines[-1])
    skipped = tuple(line for line in lines if line.startswith("SKIPPED"))
    return Run(int(counted[1]) if counted else 0, skipped, report)
