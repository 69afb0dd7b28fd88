"""The relay's planes side by side: tunnel packets a second at a counting sink, and what one stream to many costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lab.bench import relay

KERNEL: Final = "kernel"
USERSPACE_RELAY: Final = "userspace"


@dataclass(frozen=True, slots=True)
class RelayFigures:
    """One plane under one load.

    Attributes:
        plane: who multiplies.
        tunnels: that want the stream.
        is_flood: the highest rate without loss was searched for; else one stream of `relay.EVERYDAY_RATE` was sent.
        tunnel_packets_per_second: as the sink counted.
        nanoseconds: CPU time per tunnel packet, of the relay's core.
        cpu_share: of that core.
        loss: 0 to 1.
    """

    plane: str
    tunnels: int
    is_flood: bool
    tunnel_packets_per_second: float
    nanoseconds: float
    cpu_share: float
    loss: float


def userspace(tunnels: int, *, is_flood: bool) -> RelayFigures:
    """The userspace plane: as fast as it goes without loss, or the everyday stream."""
    row = relay.full_batches(tunnels) if is_flood else relay.everyday(tunnels, seconds=5.0)
    return RelayFigures(
        *(USERSPACE_RELAY, tunnels, is_flood, row["tunnel_packets_per_second"], row["cpu_ns"]),
        *(row["cpu_share"], row["loss"]),
    )
