"""The fast data planes beside the kernel's own forwarding, side by side in one run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable
from itertools import product
from typing import Final

from agent.net.bpf import BpfUnavailableError
from lab.bench import fast_guest, fast_joins, fast_latency, fast_relay, fast_search, fast_soak, relay
from lab.bench.engine_needs import missing_for_engine
from lab.bench.fast_objects import missing_for_objects
from lab.bench.fast_report import DataplaneResults
from lab.bench.fast_rig import Case
from lab.bench.fast_subject import ENGINES, NATIVE

PREFIX: Final = "isf"
_FAST: Final = ("xdp", "xdp-mfc", "tc")
_CHANNELS, _INTERFACES, _SIZES, _VERSIONS = (1, 8, 64), (1, 2, 8), (200, 1316), (4, 6)
_RELAY_SEARCH_SECONDS, _RELAY_STREAM_SECONDS = 0.5, 6.0
_FAILURES: Final = (RuntimeError, OSError, ValueError, subprocess.SubprocessError, BpfUnavailableError)
"""Of one part, which is left out then; ValueError is what half an answer of a process that died makes."""

Tell = Callable[[str], None]


def cases(*, full: bool, quick: bool = False) -> list[Case]:
    """What is measured of each engine: all combinations, or the usual one with one thing changed at a time."""
    usual = Case(NATIVE)
    if quick:
        return [usual]
    if full:
        return [Case(NATIVE, *each) for each in product(_CHANNELS, _INTERFACES, _SIZES, _VERSIONS)]
    return [
        usual,
        Case(NATIVE, channels=1),
        Case(NATIVE, channels=64),
        Case(NATIVE, interfaces=2),
        Case(NATIVE, interfaces=8),
        Case(NATIVE, size=200),
        Case(NATIVE, version=6),
        Case(NATIVE, version=6, interfaces=8),
    ]


def measure(
    tell: Tell, *, full: bool = False, quick: bool = False, engines: Iterable[str] = ENGINES
) -> DataplaneResults:
    """Everything; what this machine has not what it needs for is left out and named.

    Args:
        tell: told of each figure.
        full: every combination of what can be varied.
        quick: the usual case alone, to see that everything works.
        engines: which.
    """
    results = DataplaneResults(machine_load=os.getloadavg()[0])
    if missing := _missing():
        results.left_out.append("the data planes: " + missing)
        return results
    prefix = f"{PREFIX}{os.getpid()}"
    chosen = list(engines)
    for case, engine in product(cases(full=full, quick=quick), chosen):
        _gateway(results, case.of(engine), prefix, tell)
    for engine in chosen:
        _latency(results, Case(engine), prefix, tell)
    for engine in chosen:
        if engine in (*_FAST, "userspace"):
            _joins(results, engine, prefix, tell)
    _relay(results, tell)
    _guest(results, prefix, tell)
    results.left_out += [
        "real network cards, several cores, machines of another architecture: not to be had here",
    ]
    return results


def soak(seconds: float, tell: Tell, engines: Iterable[str] = ()) -> DataplaneResults:
    """The soak alone: of these engines, else of xdp and, a fifth as long, of tc."""
    results = DataplaneResults(machine_load=os.getloadavg()[0])
    if missing := _missing():
        results.left_out.append("the soak: " + missing)
        return results
    wanted = dict.fromkeys(engines, seconds) or {"xdp": seconds, "tc": seconds / 5}
    for engine, long in wanted.items():
        try:
            results.soak.append(fast_soak.soak(engine, f"{PREFIX}{os.getpid()}", long, tell))
        except _FAILURES as error:
            _leave_out(results, f"soak of {engine}", error, tell)
    return results


def _missing() -> str:
    lacks = [each for each in (missing_for_engine(), *missing_for_objects()) if each]
    return ", ".join(lacks)


def _leave_out(results: DataplaneResults, what: str, error: Exception, tell: Tell) -> None:
    tell(f"left out: {what}: {error}")
    results.left_out.append(f"{what}: {error}")


def _gateway(results: DataplaneResults, case: Case, prefix: str, tell: Tell) -> None:
    name = f"{case.engine}, IPv{case.version}, {case.channels} channels, {case.interfaces} interfaces, {case.size}"
    try:
        figures = fast_search.measure(case, prefix)
    except _FAILURES as error:
        _leave_out(results, name, error, tell)
        return
    results.figures.append(figures)
    tell(f"{name}: {figures.nanoseconds:,.0f} ns, {figures.most:,.0f} packets/s, {figures.kept:,.0f} of them kept up")


def _latency(results: DataplaneResults, case: Case, prefix: str, tell: Tell) -> None:
    try:
        row = fast_latency.measure(case, prefix)
    except _FAILURES as error:
        _leave_out(results, f"latency of {case.engine}", error, tell)
        return
    results.latencies.append(row)
    tell(f"latency of {case.engine}: " + ", ".join(f"{each / 1e3:.1f} µs" for each in row.nanoseconds))


def _joins(results: DataplaneResults, engine: str, prefix: str, tell: Tell) -> None:
    try:
        row = fast_joins.measure(engine, prefix)
    except _FAILURES as error:
        _leave_out(results, f"joins of {engine}", error, tell)
        return
    results.joins.append(row)
    tell(f"joins of {engine}: p99 {row.percentile(0.99) * 1e6:.0f} µs")


def _relay(results: DataplaneResults, tell: Tell) -> None:
    if missing := relay.missing():
        results.left_out.append("the relay: needs " + ", ".join(missing))
        return
    for tunnels, is_flood, plane in fast_relay.LOADS:
        name = f"relay, {plane}, {tunnels} tunnels"
        seconds = _RELAY_SEARCH_SECONDS if is_flood else _RELAY_STREAM_SECONDS
        try:
            row = fast_relay.measure(plane, tunnels, is_flood=is_flood, seconds=seconds)
        except _FAILURES as error:
            _leave_out(results, name, error, tell)
            continue
        results.relay.append(row)
        tell(f"{name}: {row.tunnel_packets_per_second:,.0f} tunnel packets/s, {row.nanoseconds:,.0f} ns each")


def _guest(results: DataplaneResults, prefix: str, tell: Tell) -> None:
    try:
        results.guest = fast_guest.measure(prefix)
    except _FAILURES as error:
        _leave_out(results, "the kernel's own AMT gateway in User Mode Linux", error, tell)
        return
    tell(f"the kernel's AMT gateway: {results.guest.ratio:.2f} times native routing")
