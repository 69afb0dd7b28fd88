"""The gateway of the engine's bench, a process of its own in the gateway's namespace.

It prints `ready` and the tunnel's port, and a JSON object when it is told to stop: CPU seconds, packets forwarded and
refused.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
from ipaddress import ip_address

from agent.net.mroute import MulticastRouter
from agent.protocol.channels import Family
from lab.bench.engine_border import Border
from lab.bench.engine_load import group_of
from lab.bench.engine_topology import RELAY_IPV4, UPLINK_AT_GATEWAY, EngineTopology, downstream


def main() -> None:
    """Forward as told on the command line until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--interfaces", type=int, default=1)
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--per-packet", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {1})
    os.nice(-15)
    interfaces = [downstream(index) for index in range(options.interfaces)]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if options.native:
        _forward_natively(options.channels, interfaces)
    else:
        _forward_tunnelled(options, interfaces)


def _forward_natively(channels: int, interfaces: list[str]) -> None:
    router = MulticastRouter(Family.IPV4)
    for channel in range(channels):
        router.set_route(ip_address(RELAY_IPV4), ip_address(group_of(channel)), UPLINK_AT_GATEWAY, interfaces)
    print("ready 0", flush=True)
    signal.sigwait({signal.SIGTERM})
    traffic = [router.traffic(ip_address(RELAY_IPV4), ip_address(group_of(channel))) for channel in range(channels)]
    packets = sum(each.packets for each in traffic if each is not None)
    print(json.dumps({"cpu": 0.0, "packets": packets, "refused": {}}))
    router.close()


def _forward_tunnelled(options: argparse.Namespace, interfaces: list[str]) -> None:
    topology = EngineTopology(options.prefix)
    with Border(topology, segmentation=not options.per_packet) as border:
        for channel in range(options.channels):
            border.forward(4, *interfaces, group=group_of(channel))
        border.loop.add_signal_handler(signal.SIGTERM, border.loop.stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        before = resource.getrusage(resource.RUSAGE_SELF)
        print("ready", border.sockets[0].getsockname()[1], flush=True)
        border.loop.run_forever()
        after = resource.getrusage(resource.RUSAGE_SELF)
        counters = border.engine.counters()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    refused = {reason.value: count for reason, count in counters.refused.items()}
    print(json.dumps({"cpu": cpu, "packets": counters.tunnels["relay"].packets, "refused": refused}))


if __name__ == "__main__":
    main()
