"""A receiver that joins like any program, through the kernel's socket, and counts what it gets of `lab.traffic`."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from agent.media import TransportStream
from agent.protocol.channels import Address, Channel
from lab.traffic import HEADER, MAGIC

# Linux's protocol-independent joins (RFC 3678 §5), not named by the socket module.
_MCAST_JOIN_GROUP: Final = 42
_MCAST_LEAVE_GROUP: Final = 45
_MCAST_JOIN_SOURCE_GROUP: Final = 46
_MCAST_LEAVE_SOURCE_GROUP: Final = 47
_SO_RCVBUFFORCE: Final = 33

_MOST_MISSING: Final = 1_000_000  # gaps remembered, to tell a late packet from a duplicate
_MOST_LATENCIES: Final = 1_000_000


@dataclass(slots=True)
class Measurement:
    """What arrived of a stream, counted from its first packet on.

    Attributes:
        received: packets, duplicates included, numbered or not.
        lost: sequence numbers between the first and the last that never came.
        reordered: packets that came after a later one.
        duplicates: packets that came again.
        foreign: packets that are not of `lab.traffic`; `transport` counts the MPEG-TS continuity of those.
        payload_bytes: UDP payload, duplicates included.
        first_sequence: number of the first packet; None before it.
        last_sequence: highest number seen.
        join_seconds: from the join to the first packet.
        longest_gap_seconds: longest time between two packets.
    """

    received: int = 0
    lost: int = 0
    reordered: int = 0
    duplicates: int = 0
    foreign: int = 0
    transport: TransportStream = field(default_factory=TransportStream)
    payload_bytes: int = 0
    first_sequence: int | None = None
    last_sequence: int = -1
    join_seconds: float | None = None
    longest_gap_seconds: float = 0.0
    _joined_at: float = 0.0
    _last_at: float = 0.0
    _missing: set[int] = field(default_factory=set)
    _latencies: array[int] = field(default_factory=lambda: array("q"))

    def start(self, now: float) -> None:
        """The join happens at `now` (seconds of CLOCK_MONOTONIC)."""
        self._joined_at = now

    def count(self, payload: bytes, now: float) -> None:
        """Count one packet that arrived at `now`."""
        self.received += 1
        self.payload_bytes += len(payload)
        if self.join_seconds is None:
            self.join_seconds = now - self._joined_at
        else:
            self.longest_gap_seconds = max(self.longest_gap_seconds, now - self._last_at)
        self._last_at = now
        if len(payload) < HEADER.size or not payload.startswith(MAGIC):
            self.foreign += 1
            self.transport.feed(payload)
            return
        _, _, sequence, sent = HEADER.unpack_from(payload)
        if len(self._latencies) < _MOST_LATENCIES:
            self._latencies.append(int(now * 1e9) - sent)
        if self.first_sequence is None:
            self.first_sequence, self.last_sequence = sequence, sequence - 1
        self._place(sequence)

    def _place(self, sequence: int) -> None:
        gap = sequence - self.last_sequence - 1
        if gap >= 0:
            self.lost += gap
            if gap <= _MOST_MISSING - len(self._missing):
                self._missing.update(range(self.last_sequence + 1, sequence))
            self.last_sequence = sequence
        elif sequence in self._missing:
            self._missing.discard(sequence)
            self.lost -= 1
            self.reordered += 1
        elif self.first_sequence is not None and sequence < self.first_sequence:
            self.reordered += 1
        else:
            self.duplicates += 1

    def report(self) -> dict[str, float | int | None]:
        """The figures; times in seconds, latencies in milliseconds."""
        ordered = sorted(self._latencies)
        percentile = {
            share: ordered[int(share * (len(ordered) - 1))] / 1e6 if ordered else None for share in (0.5, 0.99)
        }
        return {
            "received": self.received,
            "lost": self.lost,
            "reordered": self.reordered,
            "duplicates": self.duplicates,
            "foreign": self.foreign,
            "transport_packets": self.transport.packets,
            "continuity_errors": self.transport.discontinuities + self.transport.sync_errors,
            "payload_bytes": self.payload_bytes,
            "first_sequence": self.first_sequence,
            "last_sequence": self.last_sequence if self.first_sequence is not None else None,
            "join_seconds": self.join_seconds,
            "longest_gap_seconds": self.longest_gap_seconds,
            "latency_p50_milliseconds": percentile[0.5],
            "latency_p99_milliseconds": percentile[0.99],
        }


def membership_request(channel: Channel, interface: str) -> tuple[int, bytes]:
    """Protocol level and `group_req` or `group_source_req` (RFC 3678 §5.1) of a channel on an interface."""
    level = socket.IPPROTO_IP if channel.family == 4 else socket.IPPROTO_IPV6
    request = struct.pack("=I4x", socket.if_nametoindex(interface)) + _socket_address(channel.group)
    return level, request + (b"" if channel.source is None else _socket_address(channel.source))


def _socket_address(address: Address) -> bytes:
    if address.version == 4:
        packed = struct.pack("=HH4s", socket.AF_INET, 0, address.packed)
    else:
        packed = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, address.packed, 0)
    return packed.ljust(128, b"\0")  # struct sockaddr_storage


def join(receiver: socket.socket, channel: Channel, interface: str) -> None:
    """Join a channel as the kernel offers it to every program."""
    level, request = membership_request(channel, interface)
    receiver.setsockopt(level, _MCAST_JOIN_GROUP if channel.source is None else _MCAST_JOIN_SOURCE_GROUP, request)


def leave(receiver: socket.socket, channel: Channel, interface: str) -> None:
    """Undo `join`."""
    level, request = membership_request(channel, interface)
    receiver.setsockopt(level, _MCAST_LEAVE_GROUP if channel.source is None else _MCAST_LEAVE_SOURCE_GROUP, request)


def multicast_receiver(group: Address, port: int) -> socket.socket:
    """A socket bound to a group and port, with room for bursts; not joined yet."""
    receiver = socket.socket(socket.AF_INET if group.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
    except PermissionError:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    receiver.bind((str(group), port))
    receiver.setblocking(False)
    return receiver


def receive(
    channel: Channel,
    port: int,
    interface: str,
    *,
    seconds: float | None = None,
    packets: int | None = None,
    idle_seconds: float | None = None,
    every: float | None = None,
    progress: Callable[[Measurement], None] | None = None,
) -> Measurement:
    """Join, count, leave.

    Args:
        channel: what to join.
        port: UDP port.
        interface: where to join.
        seconds: stop after this long.
        packets: stop after this many packets.
        idle_seconds: stop once nothing has come for this long after the first packet.
        every: call `progress` this often, in seconds.
        progress: called with the running measurement.

    Returns:
        The measurement; KeyboardInterrupt ends it early.
    """
    result = Measurement()
    with multicast_receiver(channel.group, port) as receiver, selectors.DefaultSelector() as selector:
        selector.register(receiver, selectors.EVENT_READ)
        start = last = shown = time.monotonic()
        result.start(start)
        join(receiver, channel, interface)
        try:
            while packets is None or result.received < packets:
                if selector.select(0.05):
                    last = _drain(receiver, result, 256 if packets is None else packets - result.received)
                now = time.monotonic()
                if every is not None and progress is not None and now - shown >= every:
                    shown = now
                    progress(result)
                if seconds is not None and now - start >= seconds:
                    break
                if idle_seconds is not None and result.received and now - last >= idle_seconds:
                    break
        except KeyboardInterrupt:
            pass
        leave(receiver, channel, interface)
    return result


def _drain(receiver: socket.socket, result: Measurement, most: int) -> float:
    now = time.monotonic()
    for _ in range(min(most, 256)):
        try:
            payload = receiver.recv(65535)
        except BlockingIOError:
            break
        now = time.monotonic()
        result.count(payload, now)
    return now
