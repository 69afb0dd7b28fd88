"""The TC program on Debian 12's kernel, Linux 6.1.

It has no tcx, but VLANs, bonds and netem, which other kernels may not have.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.kernel_amt.guest import DIRECTORY, Guest
from lab.namespaces import LabError

pytestmark = [pytest.mark.root, pytest.mark.uml, pytest.mark.slow]

IN_THE_GUEST = """
set -e
uname -r > $OUT/release
mount -t tmpfs tmpfs /var/tmp
for module in 8021q bonding sch_ingress sch_netem cls_bpf; do modprobe -d {modules} $module || true; done
export TMPDIR=/var/tmp
$PYTHON -m pytest -p no:cacheprovider -n0 -q -rs --tb=short --basetemp=/var/tmp/tests {paths} > $OUT/report 2>&1
"""
FILES = ("test_tc_program.py", "test_tc_program_links.py", "test_tc_uplinks.py")
A_HANG = 400.0  # seconds


def test_packets_leave_byte_for_byte_as_debian_12_runs_it(make_lab) -> None:
    here = Path(__file__).parent
    paths = " ".join(str(here / name) for name in FILES)
    lab = make_lab(receivers=0)
    with Guest(lab, lab.topology.internet, IN_THE_GUEST.format(modules=DIRECTORY / "modules", paths=paths)) as guest:
        try:
            status = guest.finish(A_HANG)
        except LabError as error:
            raise LabError(f"{error}\n{guest.read('report')[-4000:]}") from error
        report = guest.read("report")
        assert guest.read("release").startswith("6.1.")
    assert status == 0, report[-8000:]
    skipped = [line for line in report.splitlines() if line.startswith("SKIPPED")]
    assert [line for line in skipped if "no tcx in this kernel" not in line] == []
    counted = re.search(r"(\d+) passed", report.splitlines()[-1])
    assert counted is not None
    assert int(counted[1]) >= 20
