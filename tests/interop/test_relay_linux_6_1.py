"""The relay's programs on Debian 12's kernel, Linux 6.1.

User Mode Linux compiles no BPF programs, and a kernel that does not runs none with callbacks (`bpf_loop`). It says
so last of all, so the verifier has accepted the program by then; and the relay has to go on by its sockets.
"""

from __future__ import annotations

import json

import pytest

from lab.kernel_amt.guest import Guest

pytestmark = [pytest.mark.root, pytest.mark.uml, pytest.mark.slow]

IN_THE_GUEST = """
set -e
uname -r > $OUT/release
$PYTHON -c '
import json
from agent.net.bpf import BpfUnavailableError, load
outcomes = {}
for name in ("relay_tc", "relay_tc_entry", *(f"relay_capture_{number}" for number in range(8))):
    try:
        load("relay", programs={name}).close()
        outcomes[name] = "loaded"
    except BpfUnavailableError as error:
        outcomes[name] = str(error)
print(json.dumps(outcomes))
' > $OUT/outcomes
mount -t tmpfs tmpfs /var/tmp
export TMPDIR=/var/tmp
$PYTHON -m pytest -p no:cacheprovider -n0 -q -rs --tb=short --basetemp=/var/tmp/tests -k told_why \
    tests/interop/test_relay_kernel_process.py > $OUT/report 2>&1
"""
A_HANG = 120.0  # seconds
NO_COMPILER = "callbacks are not allowed in non-JITed programs"


def test_the_verifier_accepts_the_programs_as_debian_12_has_it(make_lab) -> None:
    lab = make_lab(receivers=0)
    with Guest(lab, lab.topology.internet, IN_THE_GUEST) as guest:
        status = guest.finish(A_HANG)
        outcomes = json.loads(guest.read("outcomes") or "{}")
        report = guest.read("report")
        assert guest.read("release").startswith("6.1."), guest.log()
    assert len(outcomes) == 10, report
    refusal = outcomes.pop("relay_tc")
    assert refusal == "loaded" or NO_COMPILER in refusal
    assert set(outcomes.values()) == {"loaded"}, outcomes
    assert status == 0, report[-4000:]
    assert "1 passed" in report.splitlines()[-1]
