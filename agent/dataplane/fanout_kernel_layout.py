"""Keys and values of the relay's maps, as `agent/dataplane/bpf/relay_layout.h` lays them out, and room in them."""

from __future__ import annotations

import mmap
import struct
from collections import deque
from enum import IntEnum
from pathlib import Path
from typing import Final

from agent.net.bpf import BpfMap
from agent.protocol.channels import Address, Endpoint

LONGEST_PACKET: Final = 9216
"""Octets of the longest inner packet the programs take."""

CHUNK: Final = 64
"""Copies one run of the program makes: the input queue of a CPU holds 1000 frames by default."""

MOST_CAPTURES: Final = 8
"""Native interfaces with a capture program of their own."""

_RETIRED: Final = 1.0
_channel = struct.Struct("=II")
_list = struct.Struct("=IIII")
_tunnel = struct.Struct("=16s16s4sII2sxx")
_adjacency = struct.Struct("=6s6sIIxxxx")
_settings = struct.Struct("=II2s2sBBxx")
_FLOW_LABEL: Final = 0x000F_FFFF


class AdjacencyState(IntEnum):
    """What is known of a next hop."""

    UNKNOWN = 0
    READY = 1
    FAILED = 2


def channel_value(number: int, slot: int) -> bytes:
    """Struct channel."""
    return _channel.pack(number, slot)


def list_value(first: int, ipv4: int, ipv6: int, limit: int) -> bytes:
    """Struct list."""
    return _list.pack(first, ipv4, ipv6, min(limit, LONGEST_PACKET))


def member_values(tunnels: list[int]) -> bytes:
    """An array of struct member."""
    return struct.pack(f"={len(tunnels)}Q", *tunnels)


def tunnel_value(local: Address, gateway: Endpoint, adjacency: int) -> bytes:
    """Struct tunnel; the flow label of IPv6 is the tunnel's own, so that routers spread tunnels (RFC 6438)."""
    octets = local.packed + gateway.address.packed
    port = gateway.port.to_bytes(2, "big")
    total = sum(struct.unpack(f"={len(octets) // 2}H", octets))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    label = int.from_bytes(octets[-4:] + port, "big") % _FLOW_LABEL + 1
    flow = struct.pack("!I", 6 << 28 | label)
    return _tunnel.pack(local.packed, gateway.address.packed, flow, total, adjacency, port)


def adjacency_value(hardware: bytes, own: bytes, interface: int, state: AdjacencyState) -> bytes:
    """Struct adjacency."""
    return _adjacency.pack(hardware, own, interface, state)


def settings_value(mark: int, port: int, *, dont_fragment: bool, ttl: int, hop_limit: int, chunk: int = CHUNK) -> bytes:
    """Struct settings."""
    flags = b"\x40\0" if dont_fragment else bytes(2)
    return _settings.pack(mark, chunk, port.to_bytes(2, "big"), flags, ttl, hop_limit)


def hop_setting(path: str) -> int:
    """TTL or hop limit of a file of the kernel's settings; 64 when it cannot be read."""
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 64


def shared_array(item: BpfMap) -> mmap.mmap:
    """An array the kernel and we both see (BPF_F_MMAPABLE)."""
    return mmap.mmap(item.fd, -(-item.value_size // 8) * 8 * item.entries)


class Room:
    """Places of an array; one given back is used again after a while, when no packet on its way can mean it.

    Args:
        size: places.
    """

    def __init__(self, size: int) -> None:
        self._free: list[tuple[int, int]] = [(0, size)]
        self._retired: deque[tuple[float, int, int]] = deque()

    def take(self, count: int, now: float) -> int | None:
        """First of `count` places in a row, or None when there are not so many."""
        while self._retired and self._retired[0][0] <= now:
            _, first, length = self._retired.popleft()
            self._give(first, length)
        for position, (first, length) in enumerate(self._free):
            if length >= count:
                self._free[position : position + 1] = [(first + count, length - count)] if length > count else []
                return first
        return None

    def give_back(self, first: int, count: int, now: float) -> None:
        """Use places again from a moment on."""
        self._retired.append((now + _RETIRED, first, count))

    def _give(self, first: int, count: int) -> None:
        at = 0
        while at < len(self._free) and self._free[at][0] < first:
            at += 1
        if at < len(self._free) and first + count == self._free[at][0]:
            count += self._free.pop(at)[1]
        if at and sum(self._free[at - 1]) == first:
            first, more = self._free[at - 1]
            self._free[at - 1] = (first, more + count)
        else:
            self._free.insert(at, (first, count))
