"""A simulated router with classic IOS: CLI over SSH, no AMT, no NETCONF."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lab.sim.options import RunningSim, SimOptions


@asynccontextmanager
async def start(options: SimOptions) -> AsyncIterator[RunningSim]:
    """Run one until the context ends."""
    raise NotImplementedError
    yield
