"""The tunnels, channels, neighbours and counters that a simulated relay shows; deterministic by seed.

A population is a function of its settings and of how many ticks have passed, so that a reply made from it can be kept
until the next tick. `LivePopulation` (lab.sim.live) shows what a running agent in relay role has instead.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Final

_GATEWAYS: Final = int(IPv4Address("198.51.100.1"))
_MANY_GATEWAYS: Final = int(IPv4Address("100.64.0.1"))
_GROUPS: Final = int(IPv4Address("232.1.1.1"))
_JOINED_BY: Final = IPv4Address("10.0.0.1")
_SOURCES: Final = int(IPv4Address("192.0.2.10"))
_MESSAGES_EVERY_TICKS: Final = 12


@dataclass(frozen=True, slots=True)
class SimChannel:
    """One (S,G)."""

    source: IPv4Address | None
    group: IPv4Address
    packets: int = 0
    bytes: int = 0
    packets_per_second: int | None = 1000
    """None: not known."""
    kilobytes_per_second: int | None = 1356
    uptime_seconds: int = 0


@dataclass(frozen=True, slots=True)
class SimTunnel:
    """One gateway."""

    gateway_address: IPv4Address
    gateway_port: int = 2268
    channels: tuple[tuple[IPv4Address | None, IPv4Address], ...] = ()
    """(source, group) it asked for; source None: any."""
    state: str = "Active"
    expires_seconds: int = 240
    nonce: int = 0
    mac: str = "000000000000"
    requests: int = 0
    updates: int = 0
    packets: int = 0
    bytes: int = 0
    uptime_seconds: int = 0
    joined_by: IPv4Address = _JOINED_BY
    """Inner source of its last report."""


@dataclass(frozen=True, slots=True)
class SimNeighbor:
    """One PIM neighbour."""

    address: IPv4Address
    interface: str
    uptime_seconds: int = 0
    hold_time_seconds: int = 105
    priority: int = 1


@dataclass(frozen=True, slots=True)
class Counters:
    """Messages of the relay as a whole since start or clear."""

    discoveries: int = 0
    advertisements: int = 0
    requests: int = 0
    queries: int = 0
    updates: int = 0
    invalid_mac: int = 0
    no_gateway: int = 0
    timed_out: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it at one tick; `generation` differs between any two snapshots that differ."""

    generation: int
    tunnels: tuple[SimTunnel, ...] = ()
    channels: tuple[SimChannel, ...] = ()
    neighbors: tuple[SimNeighbor, ...] = ()
    counters: Counters = field(default_factory=Counters)


DEFAULT_NEIGHBORS: Final = (SimNeighbor(IPv4Address("10.255.0.2"), "xe-0/0/0.0"),)


class Population:
    """Scripted tunnels.

    Args:
        tunnels: how many, or which.
        channels: (S,G) each generated tunnel asks for.
        churn: share of the generated tunnels replaced at each tick, 0..1.
        seed: makes the same numbers again.
        tick_seconds: how often counters move; 0: only by `advance`.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        tunnels: int | Sequence[SimTunnel] = 0,
        *,
        channels: int = 4,
        churn: float = 0.0,
        seed: int = 1,
        tick_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channels_each = channels
        self._churn = churn
        self._seed = seed
        self._tick_seconds = tick_seconds
        self._clock = clock
        self._started = clock()
        self._skipped = 0
        self._edits = 0
        self._neighbors: tuple[SimNeighbor, ...] = DEFAULT_NEIGHBORS
        self._count = 0
        self._explicit: tuple[SimTunnel, ...] | None = None
        self._kept: Snapshot | None = None
        self.set_tunnels(tunnels)

    def set_tunnels(self, tunnels: int | Iterable[SimTunnel]) -> None:
        """Show this many generated tunnels, or exactly these (whose counters stand still)."""
        if isinstance(tunnels, int):
            self._count, self._explicit = tunnels, None
        else:
            self._explicit = tuple(tunnels)
        self._changed()

    def set_neighbors(self, neighbors: Iterable[SimNeighbor]) -> None:
        """Show these PIM neighbours."""
        self._neighbors = tuple(neighbors)
        self._changed()

    def advance(self, ticks: int = 1) -> None:
        """Let ticks pass at once."""
        self._skipped += ticks
        self._changed()

    def remove(self, address: IPv4Address) -> None:
        """Forget the tunnels of a gateway (clear amt tunnel); generated ones become explicit."""
        self.set_tunnels([tunnel for tunnel in self.snapshot().tunnels if tunnel.gateway_address != address])

    @property
    def ticks(self) -> int:
        """Ticks since the start."""
        passed = int((self._clock() - self._started) / self._tick_seconds) if self._tick_seconds > 0 else 0
        return passed + self._skipped

    def snapshot(self) -> Snapshot:
        """What there is now; the same object until something changes."""
        generation = (self._edits << 40) + self.ticks
        if self._kept is None or self._kept.generation != generation:
            self._kept = self._make(generation)
        return self._kept

    def _changed(self) -> None:
        self._edits += 1
        self._kept = None

    def _make(self, generation: int) -> Snapshot:
        ticks = self.ticks
        seconds = int(ticks * (self._tick_seconds or 1.0))
        if self._explicit is None:
            tunnels = tuple(self._generated(index, ticks, seconds) for index in range(self._count))
        else:
            tunnels = self._explicit
        wanted = dict.fromkeys(pair for tunnel in tunnels for pair in tunnel.channels)
        channels = tuple(
            SimChannel(source, group, packets=1000 * seconds, bytes=1_356_000 * seconds, uptime_seconds=seconds)
            for source, group in wanted
        )
        neighbors = tuple(replace(one, uptime_seconds=one.uptime_seconds + seconds) for one in self._neighbors)
        return Snapshot(generation, tunnels, channels, neighbors, self._counters(tunnels, ticks))

    def _generated(self, index: int, ticks: int, seconds: int) -> SimTunnel:
        life = self._life(index, ticks)
        chance = random.Random(f"{self._seed}/{index}/{life}")
        base = _GATEWAYS if self._count <= 200 else _MANY_GATEWAYS
        offset = chance.randrange(1 << 10) if self._channels_each else 0
        pairs = tuple(
            (IPv4Address(_SOURCES + channel % 4), IPv4Address(_GROUPS + channel))
            for channel in sorted({(offset + step) % 64 for step in range(self._channels_each)})
        )
        exchanges = 1 + ticks // _MESSAGES_EVERY_TICKS
        packets = 1000 * seconds * len(pairs)
        return SimTunnel(
            gateway_address=IPv4Address(base + index),
            gateway_port=chance.randrange(1024, 65536) if life else 2268 + chance.randrange(4) * 1000,
            channels=pairs,
            expires_seconds=260 - (ticks * 5 + chance.randrange(125)) % 125,
            nonce=chance.randrange(1, 1 << 31),
            mac=f"{chance.randrange(1 << 48):012x}",
            requests=exchanges,
            updates=exchanges + 1,
            packets=packets,
            bytes=packets * 1356,
            uptime_seconds=seconds,
            joined_by=IPv4Address((10 << 24) + 256 * (index + 1) + 1),
        )

    def _life(self, index: int, ticks: int) -> int:
        """How many times churn has replaced this tunnel."""
        if self._churn <= 0:
            return 0
        period = max(1, round(1 / self._churn))
        return (ticks + index) // period

    @staticmethod
    def _counters(tunnels: tuple[SimTunnel, ...], ticks: int) -> Counters:
        requests = sum(tunnel.requests for tunnel in tunnels)
        return Counters(
            discoveries=len(tunnels) + ticks // 10,
            advertisements=len(tunnels) + ticks // 10,
            requests=requests,
            queries=requests,
            updates=sum(tunnel.updates for tunnel in tunnels),
        )
