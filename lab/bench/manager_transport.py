"""What one poll of a Junos relay costs over PyEZ and over our own NETCONF session, everything else being equal."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from lab.bench.manager_fleet import CREDENTIAL, Device
from relaymgr.drivers.junos import JunosDriver, observation
from relaymgr.drivers.junos.pyez_session import PyezSession
from relaymgr.drivers.protocol import DriverContext

PYEZ: Final = "PyEZ"
OWN: Final = "our own on asyncssh"
POLLS: Final = 5


@dataclass(frozen=True, slots=True)
class Transport:
    """Cost of polling over one transport.

    Attributes:
        name: PYEZ or OWN.
        sessions: kept open at the same time.
        tunnels: of each relay.
        processor_seconds: of one poll.
        seconds: that one poll took.
        threads: more than before, for all sessions together.
    """

    name: str
    sessions: int
    tunnels: int
    processor_seconds: float
    seconds: float
    threads: int


class _Poller(Protocol):
    async def observe(self) -> object: ...

    async def close(self) -> None: ...


class _PyezPoller:
    """The poll of `JunosDriver`, RPC by RPC, over a session of PyEZ."""

    def __init__(self, device: Device, context: DriverContext) -> None:
        self._session = PyezSession(device.target, CREDENTIAL, context)
        self._is_open = False

    async def observe(self) -> object:
        if not self._is_open:
            await self._session.open()
            self._is_open = True
        ask = self._session.query
        tunnels, joined = observation.tunnels_and_memberships(await ask(observation.TUNNELS))
        channels = observation.channels(await ask(observation.CHANNELS), joined)
        neighbors = observation.neighbors(await ask(observation.NEIGHBORS))
        gauges = observation.summary(await ask(observation.SUMMARY))
        return tunnels, channels, neighbors, observation.statistics(gauges, await ask(observation.STATISTICS))

    async def close(self) -> None:
        await self._session.close()


def measure(devices: Sequence[Device], tunnels: int) -> list[Transport]:
    """Both transports on the same simulators, one after the other; the simulators run in other processes."""
    return [asyncio.run(_measure(name, devices, tunnels)) for name in (PYEZ, OWN)]


async def _measure(name: str, devices: Sequence[Device], tunnels: int) -> Transport:
    with ThreadPoolExecutor(len(devices)) as executor:
        context = DriverContext(executor)
        threads = threading.active_count()
        pollers: list[_Poller] = [
            _PyezPoller(device, context) if name == PYEZ else JunosDriver(device.target, CREDENTIAL, context)
            for device in devices
        ]
        try:
            await asyncio.gather(*(poller.observe() for poller in pollers))  # logs in
            used, took = time.process_time(), 0.0
            for _ in range(POLLS):
                for poller in pollers:  # one at a time: otherwise one poll's time is mostly others' processor time
                    started = time.monotonic()
                    await poller.observe()
                    took += time.monotonic() - started
            used = time.process_time() - used
            threads = threading.active_count() - threads
        finally:
            await asyncio.gather(*(poller.close() for poller in pollers))
    polls = POLLS * len(devices)
    return Transport(name, len(devices), tunnels, used / polls, took / polls, threads)
