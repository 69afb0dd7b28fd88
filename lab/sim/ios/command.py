"""`python -m lab sim ios`."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from lab.sim import ios
from lab.sim.iosxe.command import serve, sim_options, simulator_options


@click.command("ios")
@simulator_options
def ios_command(**given: Any) -> None:  # noqa: ANN401
    """A router with classic IOS, which knows no AMT."""
    asyncio.run(serve(ios.start(sim_options(given, netconf_port=None))))
