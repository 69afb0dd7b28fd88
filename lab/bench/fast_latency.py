"""How long packets are under way from the sender's program to the sink's, at an even rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lab.bench.fast_rig import Case, rig
from lab.bench.fast_sink import percentile

RATE: Final = 50_000.0
SHARES: Final = (0.5, 0.99, 0.999)
_SECONDS: Final = 1.5
_REPEATS: Final = 3


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of one engine.

    Attributes:
        case: what it is of.
        nanoseconds: that `SHARES` of the packets were under way at most, each the best of several runs.
        lost: packets of all runs that did not arrive.
        sent: packets of all runs.
    """

    case: Case
    nanoseconds: tuple[float, ...]
    lost: int
    sent: int


def measure(case: Case, prefix: str, seconds: float = _SECONDS) -> Latency:
    """Send packets one by one, evenly, and sort their times.

    Raises:
        RuntimeError: the engine cannot be had here.
    """
    found = []
    lost = sent = 0
    with rig(case, prefix, checks=True) as running:
        running.run(RATE, seconds / 3, burst=1)
        for _ in range(_REPEATS):
            before = running.sink.times()
            run = running.run(RATE, seconds, burst=1)
            times = [after - each for after, each in zip(running.sink.times(), before, strict=True)]
            found.append([percentile(times, share) for share in SHARES])
            sent += run.sent.packets * case.interfaces
            lost += run.sent.packets * case.interfaces - run.arrived.packets
    return Latency(case, tuple(map(min, zip(*found, strict=True))), lost, sent)
