"""The fast planes on Debian 12's kernel, Linux 6.1: they do with each frame what they do here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.kernel_amt.testing import run_tests

pytestmark = [pytest.mark.root, pytest.mark.uml, pytest.mark.slow]

HERE = Path(__file__).parent
ENGINES = ("userspace", "xdp", "xdp-mfc", "tc")


def test_frames_meet_the_same_verdicts_as_debian_12_runs_it(make_lab) -> None:
    """As program test runs, for which the kernel needs no multicast routing: all vectors of ordinary links."""
    names = ("test_xdp_program.py", "test_xdp_program_refusals.py", "test_forwarding_vectors_program.py")
    run = run_tests(make_lab(receivers=0), [HERE / name for name in names])
    assert run.skipped == ()
    assert run.passed >= 300


def test_every_plane_forwards_the_vectors_as_debian_12_runs_it(make_lab) -> None:
    """On the wire, through the whole engine: all vectors but those of inner IPv6, which this kernel does not route."""
    files = [HERE / "test_forwarding_vectors.py", HERE / "test_fast_uplink_pair.py"]
    run = run_tests(make_lab(receivers=0), files, "test_forwarding_vectors or above_another")
    assert run.skipped == ()
    assert run.passed == 18  # with each plane on an uplink that is a VLAN or macvlan device
    ran = re.findall(
        r"test_every_packet_has_its_outcome\[([a-z-]+)-(\d)-ordinary\] _+\n[^\n]*\n(\d+) vectors", run.report
    )
    assert sorted((engine, family) for engine, family, _ in ran) == sorted((name, n) for name in ENGINES for n in "46")
    assert min(int(count) for _, _, count in ran) >= 330
