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
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from cffi import FFI

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
    os.nice(-15)  # or whatever else the machine does would be measured
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 20)
        bursts = _tunnel_bursts(sending, options) if options.target else _native_bursts(sending, options)
        sent, seconds = _send(bursts, options.rate, options.seconds)
    print(json.dumps({"sent": sent, "seconds": seconds}))


Burst: TypeAlias = tuple[Callable[[], object], int]
"""What sends a burst, and how many packets it sends."""


def _tunnel_bursts(sending: socket.socket, options: argparse.Namespace) -> list[Burst]:
    """AMT data of all channels, interleaved packet by packet; Don't Fragment is set, as Linux senders do."""
    sending.bind(("0.0.0.0", 2268))
    address, port = options.target.rsplit(":", 1)
    inner = [
        b"\x06\x00"
        + datagram_ipv4(bytes(options.size), group=group_of(channel), identification=0, flags=0x4000, ttl=16)
        for channel in range(options.channels)
    ]
    if options.zero_checksums:  # which the kernel does not segment
        sending.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
        sending.connect((address, int(port)))
        messages = inner * (64 // options.channels)
        return [(Separately(sending, messages), len(messages))]
    count = min(64, _LARGEST_BURST // len(inner[0])) // options.channels * options.channels
    segment = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", len(inner[0])))]
    return [(partial(sending.sendmsg, inner * (count // options.channels), segment, 0, (address, int(port))), count)]


def _native_bursts(sending: socket.socket, options: argparse.Namespace) -> list[Burst]:
    sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 16)
    count = min(64, _LARGEST_BURST // options.size)
    segment = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", options.size))]
    payload = [bytes(options.size)] * count
    return [
        (partial(sending.sendmsg, payload, segment, 0, (group_of(channel), 5004)), count)
        for channel in range(options.channels)
    ]


class Separately:
    """Sends datagrams one by one with a single call, sendmmsg(2), from a connected socket."""

    def __init__(self, sending: socket.socket, messages: list[bytes]) -> None:
        ffi = FFI()
        ffi.cdef(
            """
            struct iovec { const void *iov_base; size_t iov_len; };
            struct msghdr {
                void *msg_name; unsigned int msg_namelen; struct iovec *msg_iov; size_t msg_iovlen;
                void *msg_control; size_t msg_controllen; int msg_flags;
            };
            struct mmsghdr { struct msghdr msg_hdr; unsigned int msg_len; };
            int sendmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags);
            """
        )
        library: Any = ffi.dlopen(None)
        self._messages = messages
        buffers = [ffi.from_buffer(message) for message in messages]
        vectors = ffi.new("struct iovec[]", [(buffer, len(buffer)) for buffer in buffers])
        headers: Any = ffi.new("struct mmsghdr[]", len(messages))
        for index in range(len(messages)):
            headers[index].msg_hdr.msg_iov = vectors + index
            headers[index].msg_hdr.msg_iovlen = 1
        self._held = (buffers, vectors, headers)
        self._send = partial(library.sendmmsg, sending.fileno(), headers, len(messages), 0)

    def __call__(self) -> None:
        """Send all of them.

        Raises:
            RuntimeError: some were not sent.
        """
        if self._send() != len(self._messages):
            raise RuntimeError("not every datagram was sent")


def _send(bursts: list[Burst], rate: float, seconds: float) -> tuple[int, float]:
    """Send evenly; time lost to other programs is not made up for, since that would be a burst beyond the rate."""
    sent = position = 0
    start = due = time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        if now < due:
            continue
        send, count = bursts[position]
        position = (position + 1) % len(bursts)
        send()
        sent += count
        if rate:
            due = max(due, now - count / rate) + count / rate
    return sent, time.perf_counter() - start


if __name__ == "__main__":
    main()
