"""A multicast source whose packets can be counted at the other end.

Payload, network byte order: magic `ISTH`, 4 zero bytes, 8 bytes sequence number from 0, 8 bytes time of sending in
nanoseconds of CLOCK_MONOTONIC (one clock for all namespaces of a machine), then filler up to the size asked for.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from typing import Final

from agent.protocol.channels import Address

HEADER: Final = struct.Struct("!4sIQQ")
MAGIC: Final = b"ISTH"
_LONGEST_SLEEP: Final = 0.02


@dataclass(frozen=True, slots=True)
class Stream:
    """What to send.

    Attributes:
        group: destination, of either family.
        port: destination UDP port.
        interface: name of the interface to send from; None leaves it to the routing table.
        rate: packets per second.
        size: UDP payload in bytes, at least the 24 of the header.
        seconds: how long to send; None means until stopped.
        hops: TTL or hop limit.
        first_sequence: number of the first packet.
    """

    group: Address
    port: int
    interface: str | None = None
    rate: float = 1000.0
    size: int = 1316
    seconds: float | None = None
    hops: int = 32
    first_sequence: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be sent."""
        if self.size < HEADER.size or self.rate <= 0:
            raise ValueError(f"a stream has at least {HEADER.size} bytes a packet and a rate above 0")


def multicast_sender(stream: Stream) -> socket.socket:
    """A socket connected to the stream's group."""
    family = socket.AF_INET if stream.group.version == 4 else socket.AF_INET6
    sender = socket.socket(family, socket.SOCK_DGRAM)
    index = 0 if stream.interface is None else socket.if_nametoindex(stream.interface)
    if family == socket.AF_INET:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, stream.hops)
        if index:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", index))
    else:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, stream.hops)
        if index:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    sender.connect((str(stream.group), stream.port))
    return sender


def send(stream: Stream) -> int:
    """Send the stream at an even pace until its time is over or the process is interrupted; the packets sent."""
    sequence = stream.first_sequence
    filler = bytes(stream.size - HEADER.size)
    start = time.monotonic()
    end = None if stream.seconds is None else start + stream.seconds
    with multicast_sender(stream) as sender:
        try:
            while True:
                now = time.monotonic()
                if end is not None and now >= end:
                    break
                due = stream.first_sequence + int((now - start) * stream.rate) + 1
                while sequence < due:
                    sender.send(HEADER.pack(MAGIC, 0, sequence, time.monotonic_ns()) + filler)
                    sequence += 1
                following = start + (sequence - stream.first_sequence) / stream.rate
                time.sleep(min(max(following - time.monotonic(), 0.0), _LONGEST_SLEEP))
        except KeyboardInterrupt:
            pass
    return sequence - stream.first_sequence
