"""Runs tests of this repository in the guest, whose kernel is Debian 12's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lab.guest_tests import Run, run_of, script_of
from lab.kernel_amt.guest import Guest
from lab.namespaces import Lab, LabError

_HANG: Final = 400.0
"""Seconds until a run is given up; on an idle machine a third of that."""


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
    script = script_of(paths, chosen, nice=19 if tidy else 0)
    with Guest(lab, lab.topology.internet, script) as guest:
        try:
            status = guest.finish(_HANG)
        except LabError as error:
            raise LabError(f"{error}\n{guest.read('report')[-4000:]}") from error
        return run_of(status, guest.read("release"), guest.read("report"), guest.log())
