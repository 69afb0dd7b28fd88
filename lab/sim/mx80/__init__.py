"""A simulated MX80: NETCONF over SSH with candidate, committed and confirmed configuration, and the AMT RPCs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncssh

from lab.sim.live import LivePopulation, following
from lab.sim.mx80 import rpc_amt, rpc_configuration, rpc_facts, rpc_multicast, rpc_standard
from lab.sim.mx80.device import Mx80
from lab.sim.netconf_server import NetconfSession
from lab.sim.options import RunningSim, SimOptions
from lab.sim.population import Population
from lab.sim.ssh_server import listening, new_host_key
from lab.sim.wire_log import WireLog

HANDLERS = {
    **rpc_facts.HANDLERS,
    **rpc_amt.HANDLERS,
    **rpc_multicast.HANDLERS,
    **rpc_standard.HANDLERS,
    **rpc_configuration.HANDLERS,
}
_NETCONF_COMMAND = "xml-mode netconf"


@asynccontextmanager
async def start(options: SimOptions) -> AsyncIterator[RunningSim]:
    """Listen until the context ends."""
    wire_log = WireLog(options.log)
    population: Population
    if options.live is not None:
        population = LivePopulation(options.live)
    else:
        population = Population(
            options.tunnels,
            channels=options.channels,
            churn=options.churn,
            seed=options.seed,
            tick_seconds=options.tick_seconds,
        )
    device = Mx80(options, population, wire_log, HANDLERS)
    device.arm()

    async def serve(process: asyncssh.SSHServerProcess[Any]) -> None:
        if process.subsystem == "netconf" or (process.command or "").startswith(_NETCONF_COMMAND):
            await NetconfSession(process, device).run()
        else:
            process.stderr.write(b"This simulator speaks NETCONF only.\n")
            process.exit(1)

    async with AsyncExitStack() as stack:
        stack.callback(wire_log.close)
        stack.callback(device.stop)
        if isinstance(population, LivePopulation):
            await stack.enter_async_context(following(population))
        key = options.host_key or new_host_key(old_ssh=options.old_ssh)
        listener = await stack.enter_async_context(listening(options, device.faults, key, serve))
        yield RunningSim(
            host=listener.host,
            port=listener.port,
            netconf_port=None,
            device=device,
            population=population,
            faults=device.faults,
            wire_log=wire_log,
            host_key=lambda: listener.key,
        )
