"""A simulated IOS-XE AMT relay: CLI over SSH, and NETCONF with operational data on a port of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lab.sim.options import RunningSim, SimOptions


@asynccontextmanager
async def start(options: SimOptions, *, ios_version: str = "17.9.4a") -> AsyncIterator[RunningSim]:
    """Run one until the context ends; releases before 17.9 have no `config-ios-cli-rpc`."""
    raise NotImplementedError
    yield
