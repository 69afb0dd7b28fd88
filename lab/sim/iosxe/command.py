"""`python -m lab sim iosxe`."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import click

from lab.sim import iosxe
from lab.sim.command_options import fault_help, serve, simulator_options, taken
from lab.sim.options import RunningSim, SimOptions


@click.command("iosxe", epilog=fault_help())
@simulator_options
@click.option("--netconf-port", default=830, show_default=True, help="0: any; with --count one after the other")
@click.option("--no-netconf", is_flag=True, help="the command line only")
@click.option(
    "--ios-version", default=iosxe.DEFAULT_VERSION, show_default=True, help="before 17.9: no config-ios-cli-rpc"
)
@click.option("--one-gateway", is_flag=True, help="NETCONF tells one gateway for each route and interface")
@click.option("--configured", is_flag=True, help="start with an AMT relay configured, so that tunnels show at once")
def iosxe_command(
    *,
    netconf_port: int,
    no_netconf: bool,
    ios_version: str,
    one_gateway: bool,
    **given: Any,  # noqa: ANN401 - what click collected
) -> None:
    """An IOS-XE router that can be an AMT relay; CLI over SSH, and NETCONF."""
    given["netconf_port"] = None if no_netconf else netconf_port
    options, ready_file, control = taken(given)
    if netconf_port and not no_netconf:
        options = [replace(one, netconf_port=netconf_port + index) for index, one in enumerate(options)]

    def start(one: SimOptions) -> AbstractAsyncContextManager[RunningSim]:
        return iosxe.start(one, ios_version=ios_version, one_gateway=one_gateway)

    asyncio.run(serve(start, options, ready_file, control))
