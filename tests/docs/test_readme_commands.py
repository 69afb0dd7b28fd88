"""The README's walk through the manager, run as it is printed: its commands in one bash, on other ports.

What is printed there as output (lines with `#`) is looked for too, as far as it is the same every time.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.manager import free_port
from lab.own_namespace import missing_for_own_namespace

README = Path(__file__).parents[2] / "README.md"
HEADING = "## A relay rolled out, drained and rolled back in ten minutes\n"
PORTS = ("2830", "2222", "8830", "8080")
SECONDS = 420.0
"""Far more than it takes (a minute or two), for a machine that is busy."""
LEASE_SECONDS = 15
"""Less than the default, which has the reader wait half a minute. Renewed every third of that, it keeps others from
the job within the ten seconds that the router waits for its confirmation."""
SAME_EVERY_TIME = (
    "etag_required",
    "+   address 203.0.113.7/32;",
    '"progress":80,"message":"verified; confirming',
    '"progress":100,"message":"the device has what was desired and waits for nothing',
    "apply rolled_back: ",
    "(confirm_window_elapsed)",
    "drain succeeded",
    '"gateway_address":"198.51.100.1"',
    "undrain succeeded",
    "rollback succeeded",
)


def blocks() -> list[str]:
    """The indented blocks of the walk, without their indent and without what is output."""
    walk = README.read_text().split(HEADING, 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"(?:^    .*\n)+", walk, re.MULTILINE)
    return ["".join(line[4:] for line in block.splitlines(keepends=True) if line[4:5] != "#") for block in found]


def script() -> str:
    """All of them, on ports that are free here; without our own relay where a namespace cannot be had."""
    chosen = [block for block in blocks() if "unshare" not in block or not missing_for_own_namespace()]
    text = "".join(chosen)
    for port in PORTS:
        text = text.replace(port, str(free_port()))
    activate = ". .venv/bin/activate && "
    assert activate in text
    return "set -eu\n" + text.replace(activate, "")


def test_every_block_of_the_walk_is_found():
    assert len(blocks()) >= 7
    assert "".join(blocks()).count("/apply") == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_the_walk_works_as_it_is_printed(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ISTHMUS_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    environment["ISTHMUS_JOB_LEASE_SECONDS"] = str(LEASE_SECONDS)
    output = tmp_path / "output"
    with output.open("wb") as file:
        shell = subprocess.Popen(
            ["bash", "-c", script()],
            cwd=README.parent,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            status = shell.wait(SECONDS)
        finally:
            os.killpg(shell.pid, signal.SIGKILL)  # simulators, manager and relay, which the walk leaves running
            shell.wait()
    text = output.read_text()
    assert status == 0, f"status {status}; the end of what was printed:\n{text[-4000:]}"
    missing = [line for line in SAME_EVERY_TIME if line not in text]
    assert not missing, f"not printed: {missing}; all that was printed:\n{text}"
