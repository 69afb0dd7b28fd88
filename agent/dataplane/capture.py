"""Native multicast of one interface, as inner IP packets ready for tunnels."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from agent.dataplane.capture_frame import read_frame
from agent.dataplane.engine import Refusal
from agent.net.packet_socket import BATCH, PacketSocket
from agent.protocol.channels import Family

_LEAST: Final = 4
_TURN: Final = 0.02
"""Seconds a batch should take at most, fan-out included, before other callbacks of the loop get their turn."""

SEGMENTS_UNREADABLE: Final = "segments_unreadable"
"""Counts datagrams that offload had joined into one frame: a packet socket reads those since Linux 6.2."""

OnPackets = Callable[[list[bytes]], None]
"""Called with inner IP packets, TTL decremented and checksums complete, in order of arrival."""


class Capture:
    """Captures forwardable multicast of one interface for as long as it exists.

    Attributes:
        refused: captured packets that were not passed on, by reason.
        errors: errors of the capture sockets, by errno name or `SEGMENTS_UNREADABLE`.

    Raises:
        OSError: no such interface, link type unknown, or CAP_NET_RAW is missing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, interface: str, on_packets: OnPackets) -> None:
        self.interface = interface
        self.refused: Counter[Refusal] = Counter()
        self.errors: Counter[str] = Counter()
        self._loop = loop
        self._on_packets = on_packets
        self._sockets: list[PacketSocket] = []
        self._limit = BATCH
        try:
            for family in Family:
                self._sockets.append(PacketSocket(interface, family))
        except OSError:
            self.close()
            raise
        for item in self._sockets:
            loop.add_reader(item.fileno(), self._readable, item)

    def attach(self, program: int) -> None:
        """Put a program of the kernel's fan-out, by its descriptor, in the place of the filters."""
        for item in self._sockets:
            item.attach(program)

    def detach(self) -> None:
        """Take the filters again."""
        for item in self._sockets:
            with suppress(OSError):
                item.detach()

    def dropped(self) -> int:
        """Packets the kernel dropped because the relay did not keep up."""
        return sum(item.dropped() for item in self._sockets)

    def close(self) -> None:
        """Stop capturing."""
        for item in self._sockets:
            self._loop.remove_reader(item.fileno())
            item.close()
        self._sockets.clear()

    def _readable(self, source: PacketSocket) -> None:
        link_header = source.link_header
        begun = self._loop.time()
        try:
            frames = source.receive(self._limit)
        except OSError as error:
            self._record(error)
            return
        packets: list[bytes] = []
        for frame in frames:
            refusal = read_frame(frame, link_header, packets)
            if refusal is not None:
                self.refused[refusal] += 1
        if packets:
            self._on_packets(packets)
        took = self._loop.time() - begun
        if took > _TURN:
            self._limit = max(_LEAST, self._limit // 2)
        elif took < _TURN / 3:
            self._limit = min(BATCH, self._limit * 2)

    def _record(self, error: OSError) -> None:
        if error.errno == errno.EINVAL:
            self.errors[SEGMENTS_UNREADABLE] += 1
            return
        self.errors[errno.errorcode.get(error.errno or 0, "unknown")] += 1
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.EBADF):
            # The interface is gone for good; a poll that stays readable would spin.
            for item in self._sockets:
                self._loop.remove_reader(item.fileno())
