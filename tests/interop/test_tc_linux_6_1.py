"""The TC program on Debian 12's kernel, Linux 6.1.

It has no tcx, but VLANs, bonds and netem, which other kernels may not have.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.kernel_amt.testing import run_tests

pytestmark = [pytest.mark.root, pytest.mark.uml, pytest.mark.slow]

FILES = ("test_tc_program.py", "test_tc_program_links.py", "test_tc_uplinks.py")


def test_packets_leave_byte_for_byte_as_debian_12_runs_it(make_lab) -> None:
    """Behind VLAN devices, bonds, bridges and delayed links too."""
    run = run_tests(make_lab(receivers=0), (Path(__file__).with_name(name) for name in FILES))
    assert [line for line in run.skipped if "no tcx in this kernel" not in line] == []
    assert run.passed >= 70
