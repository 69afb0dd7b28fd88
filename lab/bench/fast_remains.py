"""What the engine's process has in the kernel, by number, and which of it outlives the process."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from pyroute2 import NetNS

from lab.bench.relay_topology import inside

_SYSTEM_CALL: Final = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 0)  # bpf(2)
_BY_NUMBER: Final = {"map": 14, "prog": 13, "link": 30}  # BPF_MAP_GET_FD_BY_ID and so on
_KINDS: Final = {"map_id": "map", "prog_id": "prog", "link_id": "link"}  # as /proc names them
_GONE_SECONDS: Final = 5.0  # the kernel frees maps and programs a grace period after their end

Numbers = Mapping[str, Iterable[int]]
"""Numbers of BPF objects by kind: map, prog, link."""


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def objects() -> dict[str, list[int]]:
    """Numbers of the BPF objects this process holds descriptors of."""
    found: dict[str, set[int]] = {kind: set() for kind in _BY_NUMBER}
    for path in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = path.read_text().splitlines()
        except OSError:  # the descriptor of the listing itself
            continue
        # A program's descriptor tells its own number; a link's tells that of its program too.
        for name, _, value in (line.partition(":") for line in lines):
            if name in _KINDS:
                found[_KINDS[name]].add(int(value))
    return {kind: sorted(numbers) for kind, numbers in found.items()}


def outlived(numbers: Numbers, seconds: float = _GONE_SECONDS) -> list[str]:
    """Which of these BPF objects are still there after a moment, in words."""
    deadline = time.monotonic() + seconds
    while left := [f"{kind} {number}" for kind in numbers for number in numbers[kind] if _exists(kind, number)]:
        if time.monotonic() > deadline:
            return [f"BPF {each} outlives the agent" for each in left]
        time.sleep(0.1)
    return []


def _exists(kind: str, number: int) -> bool:
    library = ctypes.CDLL(None, use_errno=True)
    attributes = struct.pack("=I", number).ljust(64, b"\0")
    descriptor: int = library.syscall(_SYSTEM_CALL, _BY_NUMBER[kind], ctypes.c_char_p(attributes), len(attributes))
    if descriptor >= 0:
        os.close(descriptor)
        return True
    if ctypes.get_errno() != errno.ENOENT:
        raise OSError(ctypes.get_errno(), f"BPF {kind} {number}: {os.strerror(ctypes.get_errno())}")
    return False


def left_in_namespace(namespace: str) -> list[str]:
    """What of an engine is in a namespace that had nothing of it, in words."""
    problems = []
    with NetNS(namespace) as route:
        for link in route.get_links():
            name, xdp = str(link.get("ifname")), link.get("xdp")
            if name == "amt0":
                problems.append("amt0 is left")
            if xdp is not None and xdp.get("attached"):
                problems.append(f"an XDP program is left on {name}")
        # Without a class queueing discipline of ours there can be no filter of ours.
        kinds = [str(queue.get("kind")) for queue in route.get_qdiscs()]
        problems += [f"a queueing discipline {kind} is left" for kind in kinds if kind in ("clsact", "ingress")]
    with inside(namespace):
        for name in ("ip_mr_cache", "ip6_mr_cache"):
            path = Path("/proc/thread-self/net", name)
            if path.exists() and (lines := path.read_text().splitlines()[1:]):
                problems.append(f"{len(lines)} routes left in {name}")
    return problems
