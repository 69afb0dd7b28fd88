"""`python -m lab.bench manager`: what the relay manager costs, and how fast it is."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpx

from lab.bench import manager_changes, manager_polling, manager_transport
from lab.bench.manager_api import Reader
from lab.bench.manager_fleet import Device, enrol, simulators, sizes
from lab.bench.manager_polling import Polling
from lab.bench.manager_report import SHARE_ON_TIME, ManagerResults
from lab.manager import Manager
from lab.namespaces import LabError

IOSXE_SHARE: Final = 0.1
FAULTY_SHARE: Final = 0.05
_SESSIONS: Final = 8
_API_SECONDS: Final = 15.0
_HALVINGS: Final = 3

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        relays: polled.
        tunnels: of each.
        interval: seconds between two polls of a relay, 5 or more.
        seconds: each stretch of polling; whole intervals.
        waves: relays of each wave.
    """

    relays: int = 1000
    tunnels: int = 100
    interval: int = 30
    seconds: float = 30.0
    waves: tuple[int, ...] = manager_changes.WAVES

    @property
    def faulty(self) -> int:
        """Relays that die or hang."""
        return max(2, round(self.relays * FAULTY_SHARE))


def measure(size: Size, say: Say) -> ManagerResults:
    """All parts; `say` is told what is under way.

    Raises:
        LabError: something did not start, or did not end.
    """
    results = ManagerResults()
    _measure_devices(size, results, say)
    _measure_waves(size, results, say)
    _measure_fleet(size, results, say)
    return results


def _measure_devices(size: Size, results: ManagerResults, say: Say) -> None:
    say(f"polls over PyEZ and over our own transport, {_SESSIONS} sessions")
    with ExitStack() as stack:
        mx80 = stack.enter_context(simulators("mx80", _SESSIONS, "--tunnels", str(size.tunnels)))
        results.transports += manager_transport.measure(mx80, size.tunnels)
        say("plans on one device")
        iosxe = stack.enter_context(simulators("iosxe", 1))
        results.plans += manager_changes.measure_plans(mx80[0], iosxe[0])


def _measure_waves(size: Size, results: ManagerResults, say: Say) -> None:
    count = sum(size.waves)
    say(f"change of {count} relays in waves")
    with simulators("mx80", count) as devices, _manager() as manager:
        identifiers = enrol(manager, devices, size.interval)
        manager_polling.wait_until_polled(manager, count, 0)
        results.waves.append(manager_changes.measure_waves(manager, identifiers, devices, size.waves))


def _measure_fleet(size: Size, results: ManagerResults, say: Say) -> None:
    """At the size asked for; where this machine cannot, at half of it, and half again."""
    for _ in range(_HALVINGS):
        try:
            if _measure_one_fleet(size, results, say):
                return
        except (LabError, httpx.TransportError) as error:  # it was too busy to answer in time
            results.left_out.append(f"the manager with {size.relays:,} relays: {str(error).splitlines()[0]}")
        say(f"{size.relays} relays are too many for this machine")
        size = replace(size, relays=size.relays // 2)


def _measure_one_fleet(size: Size, results: ManagerResults, say: Say) -> bool:
    """Everything that needs a fleet; False after the first stretch when the beat is not kept."""
    with ExitStack() as stack:
        say(f"starting {size.relays} simulated relays and enrolling them")
        fleet = _fleet(stack, size)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isl-manager-")))
        with _manager(directory) as manager:
            enrol(manager, fleet.devices, size.interval)
            manager_polling.wait_until_polled(manager, size.relays, size.interval)
            if not _poll(manager, size, fleet, results, say):
                return False
            token = manager.token
        say("listing tunnels without polling")
        with _manager(directory, "--no-poll", token=token) as manager:
            reader = Reader(manager, "without polling")
            reader.read(_API_SECONDS)
            _note(reader, results)
    return True


@dataclass(frozen=True, slots=True)
class _Fleet:
    """Relays that stay healthy, that will hang, and that will die."""

    healthy: list[Device]
    hanging: list[Device]
    dying: list[Device]

    @property
    def devices(self) -> list[Device]:
        return [*self.healthy, *self.hanging, *self.dying]

    @property
    def process_ids(self) -> set[int]:
        """Of the healthy ones."""
        return {device.process.pid for device in self.healthy}

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Stopped simulators take connections and say nothing; killed ones refuse them."""
        for device in self.dying:
            device.process.kill()
        hanging = {device.process for device in self.hanging}
        for process in hanging:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in hanging:
                process.send_signal(signal.SIGCONT)


def _fleet(stack: ExitStack, size: Size) -> _Fleet:
    tunnels = ("--tunnels", str(size.tunnels))
    hanging, dying = sizes(size.faulty, -(-size.faulty // 2))
    iosxe = round(size.relays * IOSXE_SHARE)
    healthy = stack.enter_context(simulators("mx80", size.relays - iosxe - hanging - dying, *tunnels))
    healthy += stack.enter_context(simulators("iosxe", iosxe, *tunnels))
    return _Fleet(
        healthy,
        stack.enter_context(simulators("mx80", hanging, *tunnels, name="hanging")),
        stack.enter_context(simulators("mx80", dying, *tunnels, name="dying")),
    )


def _poll(manager: Manager, size: Size, fleet: _Fleet, results: ManagerResults, say: Say) -> bool:
    """Three stretches; False when the first one shows that this machine cannot."""

    def stretch(load: str, faulty: int = 0, meanwhile: Callable[[float], None] = time.sleep) -> Polling:
        relays = size.relays - faulty
        say(f"polling {relays} relays, {load}")
        found = manager_polling.measure(
            manager,
            load,
            relays,
            interval=size.interval,
            seconds=size.seconds,
            faulty=faulty,
            simulators=fleet.process_ids,
            meanwhile=meanwhile,
        )
        results.polling.append(found)
        return found

    if stretch("all answer").share_on_time < SHARE_ON_TIME:
        return False
    reader = Reader(manager, "while polling")
    stretch("tunnels are listed meanwhile", meanwhile=reader.read)
    _note(reader, results)
    with fleet.broken():
        time.sleep(size.interval)
        stretch(f"{size.faulty} more hang or are dead", size.faulty)
    return True


def _note(reader: Reader, results: ManagerResults) -> None:
    tunnels = results.polling[-1].tunnels
    results.requests += [replace(requests, tunnels=tunnels) for requests in (reader.pages, reader.whole)]


@contextmanager
def _manager(directory: Path | None = None, *options: str, token: str = "") -> Iterator[Manager]:
    """A manager until left; with `token` one that another life made."""
    with ExitStack() as stack:
        place = directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isl-manager-")))
        manager = Manager(place, options=options)
        manager.token = token
        stack.callback(manager.stop)
        manager.start()
        yield manager
