"""The relay's data plane alone in a process, to be measured: `python -m lab.bench.relay_process TUNNELS [kernel]`.

Each line on standard input is answered with a line of JSON: processor seconds used so far and the counters. The first
line is printed once every tunnel is in place.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import socket
import sys
from ipaddress import ip_address
from typing import Final

from agent.dataplane.relay import RelayDataPlane
from agent.net.socket_options import set_send_buffer
from agent.protocol.channels import Endpoint, Family, Filter
from lab.bench.relay_topology import GATEWAY_IPV4, NATIVE_AT_RELAY, SOURCE_IPV4

GROUP: Final = "232.1.1.1"
FIRST_PORT: Final = 10_000
_SEND_BUFFER: Final = 16 << 20


async def serve(tunnels: int, *, kernel: bool = False) -> None:
    """Send (SOURCE_IPV4, GROUP) to `tunnels` ports of the gateways' host until standard input ends."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("0.0.0.0", 2268))
        sender.setblocking(False)
        set_send_buffer(sender, _SEND_BUFFER)
        plane = RelayDataPlane(loop, {Family.IPV4: sender}, [NATIVE_AT_RELAY], kernel=kernel)
        gateway, wanted = ip_address(GATEWAY_IPV4), Filter.include([ip_address(SOURCE_IPV4)])
        for number in range(tunnels):
            plane.set_interest(Endpoint(gateway, FIRST_PORT + number), None, ip_address(GROUP), wanted)
        ended = loop.create_future()

        def answer() -> None:
            if not sys.stdin.readline():
                ended.set_result(None)
                return
            usage, counters = resource.getrusage(resource.RUSAGE_SELF), plane.counters()
            state = {
                "cpu": usage.ru_utime + usage.ru_stime,
                "native": sum(traffic.packets for traffic in counters.channels.values()),
                "sent": sum(traffic.packets for traffic in counters.tunnels.values()),
                "dropped": sum(counters.capture_dropped.values()),
                "errors": counters.errors,
                "kernel": plane.details["kernel"],
            }
            print(json.dumps(state), flush=True)

        loop.add_reader(sys.stdin.fileno(), answer)
        print("ready", flush=True)
        try:
            await ended
        finally:
            loop.remove_reader(sys.stdin.fileno())
            plane.close()


if __name__ == "__main__":
    gc.freeze()
    asyncio.run(serve(int(sys.argv[1]), kernel="kernel" in sys.argv[2:]))
