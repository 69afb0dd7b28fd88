"""What `bpftool` lists in the kernel of an agent."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from lab.namespaces import Lab
from lab.planes import held_objects

KINDS = ("prog", "map", "link")
LIST_SECONDS = 20.0


def _listed(kind: str) -> list[dict[str, Any]]:
    """All of a kind; once more where an object of somebody else went while bpftool listed it, for it fails then."""
    deadline = time.monotonic() + LIST_SECONDS
    while True:
        done = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode == 0:
            return list(json.loads(done.stdout or "[]"))
        assert time.monotonic() < deadline, done.stdout + done.stderr


def listable(process: int) -> set[tuple[str, int]]:
    """Programs, maps and links a process has descriptors of, as (kind, number)."""
    return {held for held in held_objects(process) if held[0] in KINDS}


def kernel_objects(process: int) -> set[tuple[str, int]]:
    """Programs, maps and links a process has descriptors of, and what those refer to, as (kind, number)."""
    found = listable(process)
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
