"""Keeps the kernel's multicast routes in use while programs forward past them, for the daemon that set them.

FRR's pimd asks the kernel whether a route is used, and forgets a source of an any-source group whose route was not for
30 seconds and longer than its keepalive timer (RFC 7761 §4.1.4). The channel would then begin anew, again and again. So
of each channel that programs forward a packet is written into the tunnel interface from time to time. Its TTL is 1: the
route counts it, and no interface's threshold lets it through.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from agent.dataplane.userspace_flow import PLAIN_SOURCE
from agent.net.tap import VIRTIO_HEADER_SIZE
from agent.protocol.channels import Channel

INTERVAL: Final = 10.0
"""Seconds between two packets of a channel, a third of what FRR waits."""

_AT_ONCE: Final = 200
"""Packets written in one turn of the loop, a millisecond of them."""

_DISCARD: Final = 9  # port, RFC 863
_ipv4: Final = struct.Struct(">BBHHHBBH")
_ipv6: Final = struct.Struct(">IHBB")
_udp: Final = struct.Struct(">HHHH")


class KeptRoutes:
    """Writes the packets.

    Args:
        loop: the event loop.
        tap: descriptor of the tunnel interface.
        counted: packets that programs have forwarded of each channel; a smaller number than before begins anew.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tap: int, counted: Callable[[], Mapping[Channel, int]]) -> None:
        self._loop = loop
        self._tap = tap
        self._counted = counted
        self._before: Mapping[Channel, int] = {}
        self._timer: asyncio.Handle = loop.call_later(INTERVAL, self._look)

    def close(self) -> None:
        """Write no more."""
        self._timer.cancel()

    def _look(self) -> None:
        counted = self._counted()
        used = [channel for channel, packets in counted.items() if packets != self._before.get(channel, 0)]
        self._before = counted
        self._write(used)

    def _write(self, channels: list[Channel]) -> None:
        for channel in channels[:_AT_ONCE]:
            with suppress(OSError):  # its interface is down; the next one comes in a while
                os.write(self._tap, keeping_frame(channel))
        if len(channels) > _AT_ONCE:
            self._timer = self._loop.call_soon(self._write, channels[_AT_ONCE:])
        else:
            self._timer = self._loop.call_later(INTERVAL, self._look)


def keeping_frame(channel: Channel) -> bytes:
    """An empty UDP datagram of a channel that has its source, as it is written into the tunnel interface."""
    assert channel.source is not None
    source, group = channel.source.packed, channel.group.packed
    checksum = _checksum(source + group + bytes((0, socket.IPPROTO_UDP, 0, _udp.size)) + _udp.pack(0, _DISCARD, 8, 0))
    datagram = _udp.pack(0, _DISCARD, _udp.size, checksum or 0xFFFF)
    if channel.group.version == 4:
        head = _ipv4.pack(0x45, 0, 28, 0, 0, 1, socket.IPPROTO_UDP, 0) + source + group
        packet = head[:10] + _checksum(head).to_bytes(2, "big") + head[12:] + datagram
        link = b"\x01\x00\x5e" + bytes((group[1] & 0x7F,)) + group[2:] + PLAIN_SOURCE + b"\x08\x00"
    else:
        packet = _ipv6.pack(6 << 28, _udp.size, socket.IPPROTO_UDP, 1) + source + group + datagram
        link = b"\x33\x33" + group[12:] + PLAIN_SOURCE + b"\x86\xdd"
    return bytes(VIRTIO_HEADER_SIZE) + link + packet


def _checksum(data: bytes) -> int:
    """RFC 1071 §4.1, of an even number of octets."""
    words: tuple[int, ...] = struct.unpack(f">{len(data) // 2}H", data)
    return 0xFFFF - sum(words) % 0xFFFF
