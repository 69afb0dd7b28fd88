"""A simulated router with classic IOS: CLI over SSH, no AMT, no NETCONF.

Synthetic, like the simulated IOS-XE whose command line it shares.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from lab.sim.iosxe import profiles
from lab.sim.iosxe.server import running
from lab.sim.options import RunningSim, SimOptions


def start(options: SimOptions) -> AbstractAsyncContextManager[RunningSim]:
    """Run one until the context ends."""
    return running(profiles.ios(), options)
