"""The programs load with the capabilities of the service; without CAP_PERFMON they load, or the refusal names it.

A verifier is stricter with a process that has not CAP_PERFMON, and those of Linux 6.1 to 6.12 too strict for them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.net.bpf import object_path

REPOSITORY = Path(__file__).parents[2]
UNIT = REPOSITORY / "packaging" / "isthmus-agent.service"
PROGRAMS = {
    "gateway": [f"gateway_{name}" for name in ("xdp", "cpu", "egress", "tc", "tc_entry")],
    "relay": [f"relay_{name}" for name in ("tc", "tc_entry", *(f"capture_{number}" for number in range(8)))],
}
LOAD = """
import json, sys
from agent.net.bpf import BpfUnavailableError, load
outcomes = {}
for program in sys.argv[2:]:
    try:
        load(sys.argv[1], programs=[program]).close()
        outcomes[program] = ""
    except BpfUnavailableError as error:
        outcomes[program] = str(error)
print(json.dumps(outcomes))
"""
PERFMON = "CAP_PERFMON"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="giving capabilities away needs root"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs the program setpriv (util-linux)"),
    pytest.mark.skipif(not object_path("gateway").exists(), reason="gateway.bpf.o is missing: `make bpf`"),
    pytest.mark.skipif(not object_path("relay").exists(), reason="relay.bpf.o is missing: `make bpf`"),
]


def of_the_unit() -> set[str]:
    found = re.search(r"^AmbientCapabilities=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    return set(found[1].split())


def load_with(capabilities: set[str], name: str) -> dict[str, str]:
    """Load programs one by one as a user that has these capabilities and no way to others.

    Returns:
        By program why it was refused, empty when it was not.
    """
    given = ",".join(["-all", *("+" + name.removeprefix("CAP_").lower() for name in sorted(capabilities))])
    kinds = [f"--{kind}={given}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs", *kinds]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [*command, sys.executable, "-c", *arguments]
        return subprocess.run(words, capture_output=True, text=True, check=False, env=environment, cwd="/")

    done = run(LOAD, name, *PROGRAMS[name])
    if done.returncode != 0 and (tried := run("import cffi")).returncode != 0:
        pytest.skip(f"nobody cannot run Python here: {tried.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, str] = json.loads(done.stdout)
    assert set(outcomes) == set(PROGRAMS[name])
    return outcomes


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_capabilities_of_the_unit_are_enough(name: str) -> None:
    assert {program: why for program, why in load_with(of_the_unit(), name).items() if why} == {}


@pytest.mark.parametrize("name", PROGRAMS)
def test_without_perfmon_they_load_or_the_refusal_names_what_is_missing(name: str) -> None:
    refused = [why for why in load_with(of_the_unit() - {PERFMON}, name).values() if why]
    release = tuple(int(number) for number in os.uname().release.split(".")[:2])
    assert release < (6, 13) or not refused, refused
    assert [why for why in refused if PERFMON not in why] == []
