"""`python -m lab sim ios`."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from lab.sim import ios
from lab.sim.command_options import fault_help, serve, simulator_options, taken


@click.command("ios", epilog=fault_help())
@simulator_options
def ios_command(**given: Any) -> None:  # noqa: ANN401 - what click collected
    """A router with classic IOS, which knows no AMT; CLI over SSH."""
    options, ready_file, control = taken(given)
    asyncio.run(serve(ios.start, options, ready_file, control))
