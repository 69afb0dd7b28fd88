"""`python -m lab sim mx80`."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from lab.sim import mx80
from lab.sim.command_options import fault_help, serve, simulator_options, taken


@click.command("mx80", epilog=fault_help())
@simulator_options
@click.option("--configured", is_flag=True, help="start with an AMT relay configured, so that tunnels show at once")
def mx80_command(**given: Any) -> None:  # noqa: ANN401 - what click collected
    """A Juniper MX80 that can be an AMT relay; NETCONF over SSH."""
    options, ready_file, control = taken(given)
    asyncio.run(serve(mx80.start, options, ready_file, control))
