"""The sender of the engine's bench, a process of its own in the relay's namespace: `python -m lab.bench.engine_load …`.

It prints one JSON object: packets sent and seconds taken.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import time
from typing import Final

from lab.bench.inner_packets import datagram_ipv4

_LARGEST_BURST: Final = 64000
_UDP_SEGMENT: Final = 103
_SO_NO_CHECK: Final = 11


def group_of(channel: int) -> str:
    """The group of channel `channel`."""
    return f"232.1.1.{channel + 1}"


def main() -> None:
    """Send as told on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", help="address:port of the gateway; without it native multicast is sent")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--size", type=int, default=1316, help="octets of payload")
    parser.add_argument("--rate", type=float, default=0.0, help="packets a second, 0 for as fast as it goes")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--zero-checksums", action="store_true")
    options = parser.parse_args()
    os.sched_setaffinity(0, {0})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 20)
        bursts = _tunnel_bursts(sending, options) if options.target else _native_bursts(sending, options)
        sent, seconds = _send(sending, bursts, options.rate, options.seconds)
    print(json.dumps({"sent": sent, "seconds": seconds}))


Burst = tuple[list[bytes], list[tuple[int, int, bytes]], tuple[str, int], int]


def _tunnel_bursts(sending: socket.socket, options: argparse.Namespace) -> list[Burst]:
    """AMT data of all channels, interleaved packet by packet; Don't Fragment is set, as Linux senders do."""
    sending.bind(("0.0.0.0", 2268))
    address, port = options.target.rsplit(":", 1)
    inner = [
        b"\x06\x00"
        + datagram_ipv4(bytes(options.size), group=group_of(channel), identification=0, flags=0x4000, ttl=16)
        for channel in range(options.channels)
    ]
    if options.zero_checksums:  # which the kernel sends one by one only
        sending.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
        return [([message], [], (address, int(port)), 1) for message in inner]
    count = min(64, _LARGEST_BURST // len(inner[0])) // options.channels * options.channels
    segment = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", len(inner[0])))]
    return [(inner * (count // options.channels), segment, (address, int(port)), count)]


def _native_bursts(sending: socket.socket, options: argparse.Namespace) -> list[Burst]:
    sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 16)
    count = min(64, _LARGEST_BURST // options.size)
    segment = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", options.size))]
    return [([bytes(options.size)] * count, segment, (group_of(n), 5004), count) for n in range(options.channels)]


def _send(sending: socket.socket, bursts: list[Burst], rate: float, seconds: float) -> tuple[int, float]:
    sent = position = 0
    start = time.perf_counter()
    end = start + seconds
    while (now := time.perf_counter()) < end:
        if rate and sent > (now - start) * rate:
            continue
        data, control, target, count = bursts[position]
        position = (position + 1) % len(bursts)
        sending.sendmsg(data, control, 0, target)
        sent += count
    return sent, time.perf_counter() - start


if __name__ == "__main__":
    main()
