"""Multicast routes of the kernel, set by somebody else and followed."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from agent.dataplane.fast.mirror import MulticastMirror
from agent.net.mroute import MulticastRouter, MulticastRoutingUnsupportedError
from agent.protocol.channels import Channel, Family
from lab.bench.engine_topology import UPLINK_AT_GATEWAY, EngineTopology, downstream
from lab.bench.relay_topology import inside

pytestmark = pytest.mark.root

ENDS = {Family.IPV4: ("192.0.2.1", "232.1.1.1"), Family.IPV6: ("2001:db8::1", "ff3e::8000:1")}


def until(loop: asyncio.AbstractEventLoop, condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        deadline = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    loop.run_until_complete(wait())


@pytest.mark.parametrize("family", list(Family))
def test_routes_from_one_interface_are_told_as_they_change(family: Family) -> None:
    source, group = map(ip_address, ENDS[family])
    channel, told = Channel(source, group), []
    with EngineTopology(f"isy-mirror{os.getpid()}", downstreams=2) as topology, inside(topology.gateway):
        loop = asyncio.new_event_loop()
        try:
            router = MulticastRouter(family)
        except MulticastRoutingUnsupportedError as error:
            pytest.skip(str(error))
        index = socket.if_nametoindex(UPLINK_AT_GATEWAY)
        router.set_route(source, group, UPLINK_AT_GATEWAY, {downstream(0)})
        mirror = MulticastMirror(loop, index, [family])
        mirror.on_changed = lambda changed: told.append((changed, mirror.interfaces(changed)))
        until(loop, lambda: told == [(channel, {downstream(0)})])
        router.set_route(source, group, UPLINK_AT_GATEWAY, {downstream(0), downstream(1)})
        until(loop, lambda: told[-1] == (channel, {downstream(0), downstream(1)}))
        router.set_route(source, group, downstream(0), {downstream(1)})
        until(loop, lambda: told[-1] == (channel, None))
        router.set_route(source, group, UPLINK_AT_GATEWAY, {downstream(1)})
        until(loop, lambda: told[-1] == (channel, {downstream(1)}))
        router.close()
        until(loop, lambda: told[-1] == (channel, None))
        assert len(told) == 5
        mirror.close()
        loop.close()
