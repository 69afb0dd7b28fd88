"""Receive processing as threads on one core, and the CPU time of what runs there."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lab.bench.relay_topology import inside

CORE: Final = 1
"""The core that is measured."""

_THREADS_SECONDS: Final = 2.0


def napi_threads(interface: str) -> set[int]:
    """Process ids of the threads that receive at interfaces of that name, in all namespaces."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().startswith(f"napi/{interface}"):
                found.add(int(path.parent.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def receive_by_thread(namespace: str, interface: str) -> bool:
    """Have an interface's receive processing done by threads of its own; False where that is not possible."""
    script = f"mount -t sysfs sysfs /sys && echo 1 > /sys/class/net/{interface}/threaded"
    with inside(namespace):
        done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, check=False, timeout=10)
    return done.returncode == 0


def receive_on_one_core(namespace: str, interface: str) -> list[int]:
    """Move an interface's receive processing to threads on `CORE`; their ids, none where that is not possible."""
    before = napi_threads(interface)
    if not receive_by_thread(namespace, interface):
        return []
    threads: set[int] = set()
    deadline = time.monotonic() + _THREADS_SECONDS
    while not threads and time.monotonic() < deadline:
        threads = napi_threads(interface) - before
    pin(threads)
    return sorted(threads)


def pin(threads: Iterable[int]) -> None:
    """Keep threads on `CORE`; receive processing precedes processes, as it does where it is no thread."""
    for thread in threads:
        os.sched_setaffinity(thread, {CORE})
        os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(1))


def softirq_thread() -> list[int]:
    """The thread of `CORE` that takes over what receive processing leaves; none where there is none to see."""
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == f"ksoftirqd/{CORE}":
                return [int(path.parent.name)]
        except OSError:
            continue
    return []


def cpu_seconds(threads: Iterable[int]) -> float:
    """Seconds these ran so far; nanoseconds on a CPU, as the tick-based times of `stat` are too coarse."""
    return sum(int(Path(f"/proc/{thread}/schedstat").read_text().split()[0]) for thread in threads) / 1e9


def threads_of(process: int) -> list[int]:
    """Ids of a process's threads."""
    return [int(path.name) for path in Path(f"/proc/{process}/task").iterdir()]
