"""The figures of one case: what one core can do, what a packet costs then, and what it keeps up with."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import Final

from lab.bench.fast_generator import MOST_RATE
from lab.bench.fast_rig import Case, Rig, Run, rig

TOLERANCE: Final = 1e-3
"""Share of the packets that may be lost where an engine keeps up, the same for all."""

LIGHT_RATE: Final = 100_000.0
"""Packets a second, of all interfaces together, at which every engine has time to spare."""

SECONDS: Final = 0.3
_WARM_RATE: Final = 20_000.0
_UP: Final = 1.35
_GROWN: Final = 1.03  # less is no more than before
FULL: Final = 3  # runs at the load that gave most
_LIGHT: Final = 3
_KEPT_AT_FIRST: Final = 0.9  # of what one core can do
_DOWN: Final = 0.7
_NEAR: Final = 1.08  # a rate that is kept and one that is not, this near, are found
_STEPS: Final = 9
TRIES: Final = 3  # of a rate: a hiccup of the machine is not the engine's
_DRAINED: Final = 1.02  # of the time of sending: a queue that grows is no rate that is kept


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a case.

    Attributes:
        case: what it is of.
        most: packets a second forwarded by one core that is offered more than it can do.
        nanoseconds: CPU time of the measured core per packet forwarded to all its interfaces then: the best of its
            runs, as whatever else the machine does makes it worse.
        median_nanoseconds: the median of them.
        kept: packets a second of the highest rate tried at which no more than `TOLERANCE` were lost, 0 for none.
        busy: share of its time the core worked at that rate.
        light_nanoseconds: CPU time per packet at `LIGHT_RATE`, the best of its runs.
        how: how the engine worked, in words.
    """

    case: Case
    most: float
    nanoseconds: float
    median_nanoseconds: float
    kept: float
    busy: float
    light_nanoseconds: float
    how: str = ""


def measure(case: Case, prefix: str, seconds: float = SECONDS) -> Figures:
    """Measure a case, in ten seconds or so.

    Raises:
        RuntimeError: the engine cannot be had here, or nothing arrives; the message says why.
    """
    with rig(case, prefix) as running:
        full = overload(running, seconds)
        costs = [run.nanoseconds for run in full]
        most = max(run.rate for run in full)
        kept = keep(running, most, seconds)
        light = [running.run(LIGHT_RATE / case.interfaces, seconds) for _ in range(_LIGHT)]
        return Figures(
            case,
            most=most,
            nanoseconds=min(costs),
            median_nanoseconds=median(costs),
            kept=kept.rate if kept else 0.0,
            busy=kept.busy if kept else 0.0,
            light_nanoseconds=min(run.nanoseconds for run in light),
            how=running.subject.how,
        )


def overload(running: Rig, seconds: float = SECONDS) -> list[Run]:
    """Runs at the load, rising from one the engine can bear, at which it forwards most.

    That is not the highest load for an engine that spends its time on packets it then has to drop.

    Raises:
        RuntimeError: nothing arrives.
    """
    warm = running.run(_WARM_RATE, seconds)
    if not warm.forwarded:
        raise RuntimeError("nothing arrives")
    rate = 0.8e9 / warm.nanoseconds
    best, load = warm, _WARM_RATE
    failed = 0
    while failed < 2 and rate < MOST_RATE:
        run = running.run(rate, seconds)
        failed = 0 if run.rate > _GROWN * best.rate else failed + 1
        if run.rate > best.rate:
            best, load = run, rate
        if run.sent.rate < rate / _UP:  # the generator does not make more
            break
        rate *= _UP
    return [best, *(running.run(load, seconds) for _ in range(FULL - 1))]


def keep(running: Rig, most: float, seconds: float = SECONDS) -> Run | None:
    """The run of the highest rate that loses no more than `TOLERANCE`; None when every rate tried loses more."""
    best: Run | None = None
    rate, low, high = _KEPT_AT_FIRST * most, 0.0, 1.1 * most
    for _ in range(_STEPS):
        run = _try(running, rate, seconds)
        if is_kept(run):
            best, low = run, rate
        else:
            high = rate
        if low and high < _NEAR * low:
            break
        rate = sqrt(low * high) if low else rate * _DOWN
    return best


def is_kept(run: Run) -> bool:
    """Whether next to nothing was lost, and nothing put off for later."""
    return run.loss <= TOLERANCE and run.seconds <= _DRAINED * run.sent.seconds


def _try(running: Rig, rate: float, seconds: float) -> Run:
    for _ in range(TRIES):
        run = running.run(rate, seconds)
        if is_kept(run):
            break
    return run
