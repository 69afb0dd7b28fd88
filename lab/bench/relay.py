"""What the relay's data plane costs: tunnel packets per second as a sink counts them, and processor time per packet.

The relay runs in a process of its own on one processor, the source on another. UDP segmentation is off on the relay's
uplink, so the kernel cuts every burst into packets before it leaves, and the sink counts packets and not bursts. A veth
receives on the processor that sends: the sink's work for every packet is in the relay's numbers.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from lab.bench.relay_process import GROUP
from lab.bench.relay_topology import (
    NATIVE_AT_SOURCE,
    SOURCE_IPV4,
    UPLINK_AT_GATEWAY,
    UPLINK_AT_RELAY,
    RelayTopology,
    inside,
    run,
)

PAYLOAD: Final = 1316
"""Seven MPEG-TS packets, the usual datagram of a video stream."""

EVERYDAY_RATE: Final = 1167
"""Packets per second of a 12 Mbit/s stream in 1316-byte payloads, RTP or not."""

Measure: TypeAlias = Callable[[float, float, int, int], dict[str, Any]]
"""Called with (packets per second, seconds, payload octets, packets sent at a time)."""

_NANO: Final = 1e9
_BURST: Final = 16
_DRAIN_SECONDS: Final = 3.0
_BEHIND_SECONDS: Final = 0.1


def missing() -> list[str]:
    """What this machine lacks for these measurements, in words."""
    lacks = [f"the program {name}" for name in ("ip", "ethtool", "nft") if shutil.which(name) is None]
    return [*lacks, "root"] if os.geteuid() != 0 else lacks


def full_batches(tunnels: int, *, seconds: float = 2.0, payload: int = PAYLOAD) -> dict[str, Any]:
    """The most one stream can be fanned out without loss, the offered rate searched for.

    Returns:
        `tunnels`, `payload`, `tunnel_packets_per_second` received by the sink, `cpu_ns` of the relay's process per
        tunnel packet, `cpu_share` of one processor, `loss` (0 to 1), and `behind_seconds` it took the relay to catch up
        after the source stopped, of the best run.
    """
    best: dict[str, Any] | None = None
    with _rig(tunnels) as measure:
        low, high = 0.0, math.inf
        rate = min(30_000.0, 600_000.0 / tunnels)
        for _ in range(8):
            result = measure(rate, seconds, payload, _BURST)
            if result["loss"] <= 0.0 and result["behind_seconds"] < _BEHIND_SECONDS:
                low, best = rate, result
            else:
                high = rate
            rate = low * 1.4 if high == math.inf else (low + high) / 2
    return best if best is not None else result


def everyday(tunnels: int = 1000, *, seconds: float = 10.0, rate: float = EVERYDAY_RATE) -> dict[str, Any]:
    """One evenly paced stream to many tunnels; the same keys as `full_batches`."""
    with _rig(tunnels) as measure:
        measure(rate, 1.0, PAYLOAD, 1)
        return measure(rate, seconds, PAYLOAD, 1)


@contextmanager
def _rig(tunnels: int) -> Iterator[Measure]:
    processors = sorted(os.sched_getaffinity(0))
    with RelayTopology(f"isb{os.getpid()}") as topology:
        run("ip", "netns", "exec", topology.relay, "ethtool", "-K", UPLINK_AT_RELAY, "tx-udp-segmentation", "off")
        run("ip", "netns", "exec", topology.source, "ethtool", "-K", NATIVE_AT_SOURCE, "tx-udp-segmentation", "off")
        _count_and_drop(topology)
        relay = subprocess.Popen(
            [
                "nsenter",
                f"--net=/run/netns/{topology.relay}",
                sys.executable,
                "-m",
                "lab.bench.relay_process",
                str(tunnels),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(relay.pid, {processors[0]})
        os.sched_setaffinity(0, {processors[-1]})
        # What else runs on this machine is not what is measured.
        os.setpriority(os.PRIO_PROCESS, relay.pid, -15)
        os.setpriority(os.PRIO_PROCESS, 0, -10)
        try:
            _line(relay)
            with inside(topology.source):
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with sender:
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 16)
                sender.bind((SOURCE_IPV4, 4000))
                yield lambda rate, seconds, payload, burst: _measure(
                    topology, relay, sender, (tunnels, rate, seconds, payload, burst)
                )
        finally:
            os.setpriority(os.PRIO_PROCESS, 0, 0)
            os.sched_setaffinity(0, set(processors))
            relay.kill()
            relay.communicate()


def _count_and_drop(topology: RelayTopology) -> None:
    rules = f"""
        table netdev sink {{
            counter arrived {{ }}
            chain count {{
                type filter hook ingress device {UPLINK_AT_GATEWAY} priority 0
                udp sport 2268 counter name arrived drop
            }}
        }}
    """
    subprocess.run(
        ["ip", "netns", "exec", topology.gateway, "nft", "-f", "-"], input=rules, text=True, check=True, timeout=10
    )


def _received(topology: RelayTopology) -> int:
    listed = run("ip", "netns", "exec", topology.gateway, "nft", "-j", "list", "counter", "netdev", "sink", "arrived")
    return int(json.loads(listed)["nftables"][1]["counter"]["packets"])


def _settled(topology: RelayTopology) -> int:
    """Packets the sink counted, once what an earlier run left behind has arrived."""
    count = _received(topology)
    deadline = time.monotonic() + _DRAIN_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.1)
        before, count = count, _received(topology)
        if before == count:
            break
    return count


def _measure(
    topology: RelayTopology,
    relay: subprocess.Popen[str],
    sender: socket.socket,
    load: tuple[int, float, float, int, int],
) -> dict[str, Any]:
    tunnels, rate, seconds, payload, burst = load
    received_before = _settled(topology)
    before = _ask(relay)
    begun = time.monotonic()
    offered = _send(sender, rate, seconds, payload, burst)
    sent_at = time.monotonic()
    share = (_ask(relay)["cpu"] - before["cpu"]) / (sent_at - begun)
    received, done_at = 0, sent_at
    while time.monotonic() < sent_at + _DRAIN_SECONDS:
        count = _received(topology) - received_before
        if count > received:
            received, done_at = count, time.monotonic()
        if received >= offered * tunnels:
            break
        time.sleep(0.01)
    after = _ask(relay)
    return {
        "tunnels": tunnels,
        "payload": payload,
        "rate": offered / (sent_at - begun),
        "tunnel_packets_per_second": received / (done_at - begun),
        "cpu_ns": (after["cpu"] - before["cpu"]) / max(1, received) * _NANO,
        "cpu_share": share,
        "loss": 1 - received / (offered * tunnels),
        "behind_seconds": done_at - sent_at,
        "errors": after["errors"],
    }


def _send(sender: socket.socket, rate: float, seconds: float, payload: int, burst: int) -> int:
    """Send at an even rate, `burst` packets at a time, and return how many were sent."""
    data = os.urandom(payload) * burst
    control = [(17, 103, struct.pack("=H", payload))] if burst > 1 else []
    address = (GROUP, 5000)
    total = int(rate * seconds / burst)
    begun = time.monotonic()
    for number in range(total):
        due = begun + number * burst / rate
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        sender.sendmsg([data], control, 0, address)
    return total * burst


def _ask(relay: subprocess.Popen[str]) -> dict[str, Any]:
    assert relay.stdin is not None
    relay.stdin.write("\n")
    relay.stdin.flush()
    answer: dict[str, Any] = json.loads(_line(relay))
    return answer


def _line(relay: subprocess.Popen[str]) -> str:
    assert relay.stdout is not None
    line = relay.stdout.readline()
    if not line:
        raise RuntimeError("the relay's process ended")
    return line
