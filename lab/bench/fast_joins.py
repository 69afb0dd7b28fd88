"""What a join costs the engine: the time `set_channel` takes beside many channels, routes and maps included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lab.bench.engine_topology import EngineTopology, host_interface
from lab.bench.fast_rig import Case
from lab.bench.fast_sink import sink
from lab.bench.fast_subject import subject

BESIDE: Final = 10_000
_JOINS: Final = 1000


@dataclass(frozen=True, slots=True)
class Joins:
    """Joins of one engine.

    Attributes:
        engine: its name.
        beside: channels that were there before.
        seconds: each join took, sorted.
        planes: channels by who forwards them, while all were there.
    """

    engine: str
    beside: int
    seconds: tuple[float, ...]
    planes: dict[str, int]

    def percentile(self, share: float) -> float:
        """Seconds that `share` (0 to 1) of the joins took at most."""
        return self.seconds[min(len(self.seconds) - 1, round(share * (len(self.seconds) - 1)))]


def measure(engine: str, prefix: str, beside: int = BESIDE, joins: int = _JOINS) -> Joins:
    """Join channels one after the other, with nothing sent.

    Raises:
        RuntimeError: the engine cannot be had here.
    """
    case = Case(engine, channels=1)
    with (
        EngineTopology(prefix, offloads=True) as topology,
        sink(topology.host, [host_interface(0)], 1, frames=engine == "xdp", checks=False),
        subject(topology, engine, case.stream, 1) as subjected,
    ):
        answer = subjected.ask("joins", before=beside, count=joins)
    return Joins(engine, beside, tuple(sorted(answer["seconds"])), answer["planes"])
