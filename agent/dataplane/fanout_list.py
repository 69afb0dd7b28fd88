"""Tunnels, and the prebuilt lists of them that one channel is sent to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from agent.dataplane.engine import Traffic
from agent.net.send_batch import Batch, BatchSender, Destination
from agent.protocol.channels import Address, Endpoint

UNLIMITED: Final = 65_535

OVERHEAD: Final = {4: 30, 6: 50}
"""Outer IP, UDP and AMT headers by outer IP version, in bytes."""


@dataclass(slots=True, eq=False)
class Tunnel:
    """One gateway endpoint.

    Attributes:
        endpoint: the gateway's address and port.
        local: the address to send from, or None for the socket's own.
        sender: sends to it.
        destination: its prebuilt message header.
        segment_limit: largest datagram (UDP payload, bytes) the kernel segments for it; lowered when the kernel
            refuses.
        path_mtu: outer IP packet size the path takes, UNLIMITED when the outer packet may be fragmented.
        sent: inner packets handed to the kernel for it.
        errors: inner packets lost on the way out, by errno name.
    """

    endpoint: Endpoint
    local: Address | None
    sender: BatchSender
    destination: Destination
    segment_limit: int = UNLIMITED
    path_mtu: int = UNLIMITED
    sent: Traffic = field(default_factory=Traffic)
    errors: Counter[str] = field(default_factory=Counter)

    def lose(self, reason: str, packets: int, size: int) -> None:
        """Take back what the list counted as sent."""
        self.errors[reason] += packets
        self.sent.packets -= packets
        self.sent.bytes -= size


@dataclass(slots=True, eq=False)
class Part:
    """Tunnels of a list that are sent to in one call: same socket, same limits."""

    sender: BatchSender
    tunnels: tuple[Tunnel, ...]
    batch: Batch
    segment_limit: int
    path_mtu: int

    @property
    def inner_limit(self) -> int:
        """Largest inner packet that fits the path, in bytes."""
        return self.path_mtu - OVERHEAD[self.sender.family]


class SendList:
    """The tunnels one or more channels go to.

    Counting per packet and tunnel would cost more than sending, so a list counts once for all its tunnels, and `settle`
    credits them when somebody looks or the list is given up.
    """

    __slots__ = ("__weakref__", "_packets", "_size", "parts", "tunnels")

    def __init__(self, tunnels: tuple[Tunnel, ...]) -> None:
        self.tunnels = tunnels
        self.parts = _parts(tunnels)
        self._packets = 0
        self._size = 0

    def __len__(self) -> int:
        return len(self.tunnels)

    def count(self, packets: int, size: int) -> None:
        """Count inner packets and bytes sent to every tunnel of the list."""
        self._packets += packets
        self._size += size

    def settle(self) -> None:
        """Credit the tunnels with what was counted."""
        if self._packets:
            for tunnel in self.tunnels:
                tunnel.sent.packets += self._packets
                tunnel.sent.bytes += self._size
            self._packets = self._size = 0

    def rebuild(self) -> None:
        """Follow a change of a tunnel's limits."""
        self.parts = _parts(self.tunnels)


def _parts(tunnels: tuple[Tunnel, ...]) -> list[Part]:
    groups: dict[tuple[int, int, int], list[Tunnel]] = {}
    for tunnel in tunnels:
        groups.setdefault((id(tunnel.sender), tunnel.segment_limit, tunnel.path_mtu), []).append(tunnel)
    return [
        Part(
            members[0].sender,
            tuple(members),
            Batch([member.destination for member in members]),
            members[0].segment_limit,
            members[0].path_mtu,
        )
        for members in groups.values()
    ]
