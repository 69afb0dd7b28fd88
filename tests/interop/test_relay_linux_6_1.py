"""The relay's programs on Debian 12's kernel, Linux 6.1, and the relay on a kernel that cannot run them.

User Mode Linux compiles no BPF programs, and a kernel that does not runs none with callbacks (`bpf_loop`): the relay
has to go on by its sockets there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.debian_kernel import testing as debian
from lab.kernel_amt import testing as uml

pytestmark = [pytest.mark.root, pytest.mark.slow]

HERE = Path(__file__).parent


@pytest.mark.qemu
def test_the_fan_out_is_what_it_is_elsewhere_as_debian_12_runs_it() -> None:
    names = ("test_relay_kernel.py", "test_relay_kernel_links.py", "test_relay_kernel_process.py")
    run = debian.run_tests(HERE / name for name in names)
    assert [line for line in run.skipped if "no tcx" not in line] == []
    assert run.passed >= 24


@pytest.mark.qemu
def test_the_capabilities_of_the_unit_are_enough_for_the_verifier_of_debian_12() -> None:
    run = debian.run_tests([HERE / "test_program_privileges.py"])
    assert run.skipped == ()
    assert run.passed == 4


@pytest.mark.uml
def test_a_kernel_without_compiler_leaves_the_relay_to_its_sockets(make_lab) -> None:
    run = uml.run_tests(make_lab(receivers=0), [HERE / "test_relay_kernel_process.py"], "told_why")
    assert run.skipped == ()
    assert run.passed == 1
