"""Runs a simulated router with IOS: SSH for the command line and, where the profile has it, NETCONF."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncssh

from lab.sim.cli_shell import CliShell
from lab.sim.faults import FaultSwitch
from lab.sim.iosxe.device import IosDevice, Profile, Terminal
from lab.sim.iosxe.netconf import IosxeNetconf
from lab.sim.iosxe.session import Session
from lab.sim.live import LivePopulation, following
from lab.sim.netconf_server import NetconfSession
from lab.sim.options import RunningSim, SimOptions
from lab.sim.population import DEFAULT_NEIGHBORS, Population
from lab.sim.ssh_server import listening, new_host_key
from lab.sim.wire_log import WireLog

_LINES = 16
"""Terminal lines; more logins are refused."""


def population(profile: Profile, options: SimOptions) -> Population:
    """The population `options` ask for, with neighbours on the profile's core interface."""
    made = (
        LivePopulation(options.live)
        if options.live is not None
        else Population(
            options.tunnels,
            channels=options.channels,
            churn=options.churn,
            seed=options.seed,
            tick_seconds=options.tick_seconds,
        )
    )
    made.set_neighbors([replace(one, interface=profile.core_interface) for one in DEFAULT_NEIGHBORS])
    return made


async def serve_cli(device: IosDevice, process: asyncssh.SSHServerProcess[Any]) -> None:
    """One login; only shells and single commands, no subsystem."""
    user: str = process.get_extra_info("username")
    if process.subsystem is not None or len(device.terminals) >= _LINES:
        process.exit(1)
        return
    session = Session(device, user)
    shell = CliShell(process, session, device.faults, device.wire_log)
    peer = process.get_extra_info("peername") or ("",)
    device.terminals[session.number] = Terminal(session.number, user, str(peer[0]), shell.tell)
    try:
        await shell.run()
    finally:
        device.terminals.pop(session.number, None)


@asynccontextmanager
async def running(profile: Profile, options: SimOptions, *, one_gateway: bool = False) -> AsyncIterator[RunningSim]:
    """Listen until the context ends."""
    wire_log = WireLog(options.log)
    faults = FaultSwitch(options.fault)
    people = population(profile, options)
    device = IosDevice(profile, options, people, faults, wire_log)
    key = options.host_key or new_host_key(old_ssh=options.old_ssh)
    other_key = new_host_key(old_ssh=options.old_ssh)

    async def cli(process: asyncssh.SSHServerProcess[Any]) -> None:
        await serve_cli(device, process)

    async def netconf(process: asyncssh.SSHServerProcess[Any]) -> None:
        if process.subsystem != "netconf":
            process.exit(1)
            return
        await NetconfSession(process, IosxeNetconf(device, one_gateway=one_gateway)).run()

    async with AsyncExitStack() as stack:
        stack.callback(wire_log.close)
        stack.callback(device.stop)
        if isinstance(people, LivePopulation):
            await stack.enter_async_context(following(people))
        netconf_port: int | None = None
        if options.netconf_port is not None and "netconf" in profile.features:
            second = await stack.enter_async_context(
                listening(options, faults, key, netconf, port=options.netconf_port, other_key=other_key)
            )
            netconf_port = second.port
        listener = await stack.enter_async_context(
            listening(options, faults, key, cli, encoding="utf-8", other_key=other_key)
        )
        device.resume()
        yield RunningSim(
            options.listen_host, listener.port, netconf_port, device, people, faults, wire_log, lambda: listener.key
        )
