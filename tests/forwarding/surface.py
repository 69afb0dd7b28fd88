"""What an operator sees of an agent: its commands, its metrics, and what `bpftool` lists of it in the kernel."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from lab.agents import PROGRAM, Agent
from lab.namespaces import Lab

KINDS = ("prog", "map", "link")
# /sys shows the network namespace it was mounted in.
_OWN_SYS = ["unshare", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys && exec "$@"', "sh"]


def said(agent: Agent, *command: str) -> str:
    """Output of one of the commands that ask the agent."""
    whole = [*PROGRAM, *command, "--socket", str(agent.place.socket)]
    return subprocess.run(whole, capture_output=True, text=True, timeout=30, check=True).stdout


def doctor(lab: Lab, agent: Agent) -> str:
    """What `amt-agent doctor` says on the agent's host."""
    command = [*_OWN_SYS, *PROGRAM, "doctor", "--config", str(agent.place.configuration)]
    return lab.run(agent.place.namespace, *command, check=False).stdout


def checked(lab: Lab, agent: Agent) -> tuple[int, str]:
    """Exit status and output of `amt-agent config check` of the agent's configuration as it is written."""
    done = lab.run(agent.place.namespace, *PROGRAM, "config", "check", str(agent.place.configuration), check=False)
    return done.returncode, done.stdout + done.stderr


def metrics(agent: Agent) -> dict[str, float]:
    """Every metric, by its name with its labels as they are written."""
    command = ["curl", "-sf", "--unix-socket", str(agent.place.socket), "http://agent/metrics"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    rows = (line.rpartition(" ") for line in done.stdout.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def _listed(kind: str) -> list[dict[str, Any]]:
    done = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, text=True, timeout=30, check=False)
    return list(json.loads(done.stdout or "[]"))


def kernel_objects(process: int) -> set[tuple[str, int]]:
    """Programs, maps and links a process has descriptors of, and what those refer to, as (kind, number)."""
    names = {f"{kind}_id:": kind for kind in KINDS}
    found = set()
    for path in Path(f"/proc/{process}/fdinfo").iterdir():
        try:
            lines = path.read_text().splitlines()
        except OSError:  # closed meanwhile
            continue
        found |= {(names[line.split()[0]], int(line.split()[1])) for line in lines if line.split()[:1][0] in names}
    for program in _listed("prog"):
        of_program = {("map", number) for number in program.get("map_ids", [])}
        if ("prog", program["id"]) in found or of_program & found:
            found |= {("prog", program["id"]), *of_program}
    return found


def still_there(objects: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those of the objects that the kernel still has."""
    return {(kind, row["id"]) for kind in KINDS for row in _listed(kind)} & objects


def attached(lab: Lab, namespace: str) -> list[str]:
    """Lines of `bpftool net` that name an interface."""
    shown = lab.run(namespace, "bpftool", "net", "list").stdout.splitlines()
    return [line for line in shown if "(" in line]
