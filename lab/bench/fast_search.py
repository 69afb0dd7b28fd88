"""The figures of one case: the highest rate without loss, what a packet costs, and what is left when more comes."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Final

from lab.bench.fast_generator import MOST_RATE
from lab.bench.fast_rig import Case, Rig, Run, rig

_SECONDS: Final = 0.4
_WARM_RATE: Final = 20_000.0
_FIRST_RATE: Final = 50_000.0
_LEAST_RATE: Final = 2_000.0
_UP, _DOWN = 1.1, 0.88
_STEPS: Final = 12
_TRIES: Final = 3  # of a rate: a hiccup of the machine is not the engine's
_REPEATS: Final = 3
_OVERLOAD: Final = 2.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a case.

    Attributes:
        case: what it is of.
        lossless: packets a second of the highest rate tried at which everything arrived, 0 when there was none.
        nanoseconds: CPU time of the measured core per packet forwarded to all its interfaces, at that rate: the best of
            its runs, as whatever else the machine does makes it worse.
        median_nanoseconds: the median of them.
        overloaded: packets a second when twice as many were sent.
        overloaded_nanoseconds: CPU time of each of those.
        how: how the engine worked, in words.
    """

    case: Case
    lossless: float
    nanoseconds: float
    median_nanoseconds: float
    overloaded: float
    overloaded_nanoseconds: float
    how: str = ""


def measure(case: Case, prefix: str, seconds: float = _SECONDS) -> Figures:
    """Measure a case, in ten seconds or so.

    Raises:
        RuntimeError: the engine cannot be had here, or nothing arrives; the message says why.
    """
    with rig(case, prefix) as running:
        if not running.run(_WARM_RATE, seconds / 2).forwarded:
            raise RuntimeError("nothing arrives")
        found = search(running, seconds)
        rate = found.sent.rate if found else 0.0
        runs = [found] if found else []
        while rate and len(runs) < _REPEATS:
            runs.append(running.run(rate, seconds))
        over = [running.run(min(MOST_RATE, _OVERLOAD * (rate or _FIRST_RATE)), seconds) for _ in range(_REPEATS - 1)]
        costs = [run.nanoseconds for run in runs or over]
        most = max(over, key=lambda run: run.rate)
        return Figures(
            case,
            lossless=max((run.rate for run in runs if run.is_lossless), default=0.0),
            nanoseconds=min(costs),
            median_nanoseconds=median(costs),
            overloaded=most.rate,
            overloaded_nanoseconds=most.nanoseconds,
            how=running.subject.how,
        )


def search(running: Rig, seconds: float) -> Run | None:
    """The run of the highest rate without loss, in steps from what the cost of a packet promises."""
    cost = running.run(_FIRST_RATE, seconds / 2).nanoseconds
    rate = min(MOST_RATE, max(_LEAST_RATE, 0.8e9 / cost))
    best: Run | None = None
    for _ in range(_STEPS):
        run = _try(running, rate, seconds)
        if run.is_lossless:
            best, rate = run, rate * _UP
            if run.sent.rate < 0.8 * rate:  # the generator does not make more
                break
        elif best is not None:
            break
        else:
            rate *= _DOWN if run.forwarded > 0.9 * run.sent.packets else _DOWN**3
    return best


def _try(running: Rig, rate: float, seconds: float) -> Run:
    for _ in range(_TRIES):
        run = running.run(rate, seconds)
        if run.is_lossless:
            break
    return run
