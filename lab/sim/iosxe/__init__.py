"""A simulated IOS-XE AMT relay: CLI over SSH, and NETCONF with operational data on a port of its own.

Synthetic: nothing here was recorded from a device; formats follow public models, documents and parser fixtures.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from lab.sim.iosxe import profiles
from lab.sim.iosxe.server import running
from lab.sim.options import RunningSim, SimOptions

DEFAULT_VERSION = "17.9.4a"


def start(
    options: SimOptions, *, ios_version: str = DEFAULT_VERSION, one_gateway: bool = False
) -> AbstractAsyncContextManager[RunningSim]:
    """Run one until the context ends.

    Args:
        options: gateways show once a relay is configured: by a client, or from the start with `configured`.
        ios_version: releases before 17.9 have no `config-ios-cli-rpc`.
        one_gateway: NETCONF tells one gateway for each route and interface, as the model's key has it, not all.
    """
    return running(profiles.iosxe(ios_version, relay=options.configured), options, one_gateway=one_gateway)
