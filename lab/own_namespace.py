"""A network namespace without a name for one test: it belongs to a thread and goes with it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

_CLONE_NEWNET: Final = 0x4000_0000


def missing_for_own_namespace() -> str:
    """What this machine lacks, in words; empty when nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("ip") is None:
        return "needs the program ip (iproute2)"
    failures: list[str] = []

    def probe() -> None:
        try:
            _unshare()
        except OSError as error:
            failures.append(f"needs network namespaces ({error})")

    thread = threading.Thread(target=probe)
    thread.start()
    thread.join()
    return "".join(failures)


def run_in_own_namespace(scenario: Callable[[], Coroutine[Any, Any, None]], timeout: float = 30.0) -> None:
    """Run a coroutine in a fresh namespace whose `lo` is up; programs it starts run there too.

    Raises:
        BaseException: what the scenario raised.
        TimeoutError: it took longer than `timeout` seconds.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            _unshare()
            ip("link set lo up")
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(asyncio.wait_for(scenario(), timeout))
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def ip(*lines: str) -> None:
    """Run `ip` once on all lines of arguments; it stops at the first it cannot do.

    Raises:
        CalledProcessError: iproute2 refused; its message is in `stderr`.
    """
    text = "".join(f"{line}\n" for line in lines)
    subprocess.run(["ip", "-batch", "-"], input=text, check=True, capture_output=True, text=True, timeout=10)


def wait_for_carrier(*interfaces: str, seconds: float = 5.0) -> None:
    """Wait until interfaces pass packets: a device drops what it is given until the kernel has made its queue.

    Raises:
        AssertionError: they do not in time.
    """
    deadline = time.monotonic() + seconds
    for interface in interfaces:
        while True:
            shown = subprocess.run(
                ["ip", "-o", "link", "show", interface], check=True, capture_output=True, text=True, timeout=10
            ).stdout
            if " state UP " in shown and " qdisc noop " not in shown:
                break
            assert time.monotonic() < deadline, shown
            time.sleep(0.01)


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Poll until `condition` holds.

    Raises:
        AssertionError: it does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
