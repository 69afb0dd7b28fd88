"""The XDP programs on Debian 12's kernel, Linux 6.1: they verify there and do with each frame what they do here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.kernel_amt.guest import Guest
from lab.namespaces import LabError

pytestmark = [pytest.mark.root, pytest.mark.uml, pytest.mark.slow]

IN_THE_GUEST = """
set -e
uname -r > $OUT/release
mount -t tmpfs tmpfs /var/tmp
export TMPDIR=/var/tmp
$PYTHON -m pytest -p no:cacheprovider -n0 -q -rs --tb=short --basetemp=/var/tmp/tests {paths} > $OUT/report 2>&1
"""
A_HANG = 300.0  # seconds


def test_frames_meet_the_same_verdicts_as_debian_12_runs_it(make_lab) -> None:
    here = Path(__file__).parent
    paths = " ".join(str(here / name) for name in ("test_xdp_program.py", "test_xdp_program_refusals.py"))
    lab = make_lab(receivers=0)
    with Guest(lab, lab.topology.internet, IN_THE_GUEST.format(paths=paths)) as guest:
        try:
            status = guest.finish(A_HANG)
        except LabError as error:
            raise LabError(f"{error}\n{guest.read('report')[-4000:]}") from error
        report = guest.read("report")
        assert guest.read("release").startswith("6.1.")
    assert status == 0, report[-8000:]
    assert [line for line in report.splitlines() if line.startswith("SKIPPED")] == []
    counted = re.search(r"(\d+) passed", report.splitlines()[-1])
    assert counted is not None
    assert int(counted[1]) >= 300
