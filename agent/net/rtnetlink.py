"""pyroute2's synchronous rtnetlink socket, usable from a thread that runs an event loop.

pyroute2 runs its synchronous calls on an event loop of its own, which Python refuses in a thread whose loop is running.
Configuration calls are few and the kernel answers them at once, so each set of them borrows a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pyroute2 import IPRoute

Result = TypeVar("Result")


def with_rtnetlink(call: Callable[[IPRoute], Result]) -> Result:
    """Result of `call` on a fresh rtnetlink socket of the calling thread's network namespace.

    Raises:
        pyroute2.NetlinkError: the kernel refused something.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(call)
    with ThreadPoolExecutor(max_workers=1) as pool:  # a new thread starts in its creator's namespace
        return pool.submit(_run, call).result()


def _run(call: Callable[[IPRoute], Result]) -> Result:
    with IPRoute() as route:
        return call(route)
