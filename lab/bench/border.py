"""The border beside its domain's routers: joins, many channels, the PIM machine alone, the loss of a relay."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.bench import border_channels, border_failover, border_joins, border_machine
from lab.bench.border_neighbor import Neighbor
from lab.bench.border_report import BorderResults
from lab.frr import FrrRouter, PimTimers, domain_router, missing_for_frr
from lab.namespaces import Lab, missing_for_namespaces, wait_until
from lab.scenario import Scenario
from lab.topology import Topology

PREFIX: Final = "islb"
_JOINS_BESIDE: Final = 100
_SHAPE: Final = (100, 100)
_PREFERRED: Final = -15
_NEIGHBOR_SECONDS: Final = 20.0
_SECTIONS: Final = "\n[pim]\nhello_interval = 10.0\n"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        channels: of one neighbour.
        joins: one after the other.
        states: of the PIM machine alone.
    """

    channels: int = border_channels.CHANNELS
    joins: int = border_joins.JOINS
    states: int = border_machine.CHANNELS


def measure(size: Size, tell: Callable[[str], None]) -> BorderResults:
    """Everything; what this machine has not what it needs for is left out and named."""
    results = BorderResults(machine_load=os.getloadavg()[0])
    tell(f"the PIM machine alone, {size.states:,} states")
    results.machine = border_machine.measure(size.states)
    if missing := missing_for_namespaces():
        results.left_out.append("the border in the lab: needs " + ", ".join(missing))
        return results
    _measure_scripted(size, results, tell)
    if missing := missing_for_frr():
        results.left_out.append("the border beside FRR: needs " + ", ".join(missing))
    else:
        _measure_frr(size, results, tell)
    tell("relays killed, swallowed and drained")
    results.failovers += border_failover.measure(PREFIX)
    return results


def _measure_scripted(size: Size, results: BorderResults, tell: Callable[[str], None]) -> None:
    with _scenario() as (scenario, _), Neighbor(scenario.lab.topology) as neighbor:
        neighbor.greet(scenario)
        tell(f"scripted neighbour, {size.joins} joins one after the other")
        results.joins.append(border_joins.scripted(scenario, neighbor, size.joins))

        def join_beside() -> None:
            load = f"{border_joins.SCRIPTED}, {size.channels:,} channels carried already"
            results.joins.append(border_joins.scripted(scenario, neighbor, _JOINS_BESIDE, load))

        tell(f"scripted neighbour, {size.channels:,} channels")
        results.channels.append(border_channels.scripted(scenario, neighbor, size.channels, meanwhile=join_beside))
        results.channels.append(border_channels.scripted(scenario, neighbor, *_SHAPE))


def _measure_frr(size: Size, results: BorderResults, tell: Callable[[str], None]) -> None:
    timers = PimTimers(hello=10, join_prune=border_channels.REFRESH_SECONDS, query=border_channels.REFRESH_SECONDS)
    with _scenario() as (scenario, directory):
        names = scenario.lab.topology
        with FrrRouter(scenario.lab, names.router, directory, domain_router(names, 1, timers=timers)):
            wait_until(scenario.pim_neighbors, _NEIGHBOR_SECONDS, "FRR is a neighbour")
            tell(f"FRR, {size.joins} joins one after the other")
            results.joins.append(border_joins.through_frr(scenario, size.joins))
            tell(f"FRR, {size.channels:,} channels")
            results.channels.append(border_channels.through_frr(scenario, size.channels))


@contextmanager
def _scenario() -> Iterator[tuple[Scenario, Path]]:
    """A relay and a border agent, preferred to what else the machine does, which is not what is measured."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isl-bench-")))
        lab = stack.enter_context(Lab(Topology(prefix=PREFIX, routed=1)))
        scenario = stack.enter_context(Scenario(lab, directory, relay=border_channels.RELAY, sections=_SECTIONS))
        before = os.getpriority(os.PRIO_PROCESS, 0)
        for process_id in (scenario.relay.process_id, scenario.border.process_id, 0):
            os.setpriority(os.PRIO_PROCESS, process_id, _PREFERRED)
        stack.callback(os.setpriority, os.PRIO_PROCESS, 0, before)
        yield scenario, directory
