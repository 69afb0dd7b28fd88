"""The gateway's programs load with the capabilities of the service: without CAP_PERFMON the verifier is stricter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.net.bpf import object_path

PROGRAMS = ["gateway_xdp", "gateway_cpu", "gateway_egress", "gateway_tc", "gateway_tc_entry"]
CAPABILITIES = "-all,+net_admin,+net_raw,+bpf"
AS_THE_SERVICE = [
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"),
    *(f"--{kind}={CAPABILITIES}" for kind in ("inh-caps", "ambient-caps", "bounding-set")),
]
LOAD = "import sys; from agent.net.bpf import load; load('gateway', programs=[sys.argv[1]]).close()"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="giving capabilities away needs root"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs the program setpriv (util-linux)"),
    pytest.mark.skipif(not object_path("gateway").exists(), reason="gateway.bpf.o is missing: `make bpf`"),
]


def as_the_service(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*AS_THE_SERVICE, sys.executable, "-c", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")


@pytest.mark.parametrize("program", PROGRAMS)
def test_three_capabilities_are_enough(program: str) -> None:
    tried = as_the_service("import cffi")
    if tried.returncode != 0:
        pytest.skip(f"nobody cannot run Python here: {tried.stderr[-200:]}")
    loaded = as_the_service(LOAD, program)
    assert loaded.returncode == 0, loaded.stderr
