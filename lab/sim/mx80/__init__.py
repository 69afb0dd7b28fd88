"""A simulated MX80: NETCONF over SSH with candidate, committed and confirmed configuration, and the AMT RPCs."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from lab.sim.options import RunningSim, SimOptions


def start(options: SimOptions) -> AbstractAsyncContextManager[RunningSim]:
    """Listen until the context ends."""
    raise NotImplementedError
