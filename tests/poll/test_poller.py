"""The poller with devices that answer, fail, hang or are in use, on real time with short intervals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import pytest

from relaymgr.domain.observed import Facts, Observation
from relaymgr.domain.platforms import Capabilities
from relaymgr.drivers.errors import CircuitOpen, DeviceBusy, Unreachable
from relaymgr.poll.poller import Poller


class Device:
    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.polls = 0
        self.asked_who = 0

    async def facts(self) -> Facts:
        self.asked_who += 1
        return Facts(hostname="mx")

    async def device_capabilities(self) -> Capabilities:
        return Capabilities(frozenset())

    async def observe(self) -> Observation:
        self.polls += 1
        if self.behaviour == "hang":
            await asyncio.Event().wait()
        if self.behaviour == "dead":
            raise Unreachable("mx", "no route to host")
        if self.behaviour == "full":
            raise DeviceBusy("mx", "no free line")
        if self.behaviour == "bug":
            raise ZeroDivisionError
        return Observation(tunnels=())


class Devices:
    def __init__(self, **behaviours: str) -> None:
        self.devices = {name: Device(behaviour) for name, behaviour in behaviours.items()}

    @asynccontextmanager
    async def monitoring(self, relay_id: str) -> AsyncIterator[Any]:
        device = self.devices[relay_id]
        if device.behaviour == "busy":
            raise DeviceBusy(relay_id, "in use")
        if device.behaviour == "open":
            raise CircuitOpen(relay_id, "left alone for 30 s more after: no route")
        yield device


class Sink:
    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.failures: dict[str, list[str]] = {}
        self.known: set[str] = set()
        self.lost: set[str] = set()

    async def observed(self, relay_id: str, observation: Observation, started: datetime, ended: datetime) -> None:
        self.seen[relay_id] = self.seen.get(relay_id, 0) + 1

    async def failed(
        self, relay_id: str, reason: str, started: datetime, ended: datetime, *, unreachable: bool
    ) -> None:
        self.failures.setdefault(relay_id, []).append(reason)
        if unreachable:
            self.lost.add(relay_id)

    async def identified(self, relay_id: str, facts: Facts, capabilities: Capabilities) -> None:
        self.known.add(relay_id)


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def polling(devices: Devices, interval: float = 0.05, **options: Any) -> AsyncIterator[tuple[Poller, Sink]]:
    sink = Sink()

    async def intervals() -> dict[str, float]:
        return dict.fromkeys(devices.devices, interval)

    poller = Poller(devices, sink, intervals, reload_seconds=0.05, **options)
    task = asyncio.create_task(poller.run())
    try:
        yield poller, sink
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_every_relay_is_polled_again_and_again():
    async with polling(Devices(a="ok", b="ok")) as (poller, sink):
        await until(lambda: sink.seen.get("a", 0) >= 3 and sink.seen.get("b", 0) >= 3)
    assert poller.counters.succeeded >= 6


async def test_hanging_and_dead_devices_delay_nobody_else():
    behaviours = {f"hang{n}": "hang" for n in range(5)} | {"dead": "dead", "a": "ok"}
    async with polling(Devices(**behaviours), concurrency=7) as (poller, sink):
        await until(lambda: sink.seen.get("a", 0) >= 3 and "dead" in sink.failures and poller.counters.running >= 5)
    assert "no route to host" in sink.failures["dead"][0]


async def test_a_hanging_poll_is_not_started_twice():
    devices = Devices(a="hang", b="ok")
    async with polling(devices) as (_, sink):
        await until(lambda: sink.seen.get("b", 0) >= 4)
    assert devices.devices["a"].polls == 1


async def test_a_device_in_use_by_a_job_is_stale_but_not_lost():
    async with polling(Devices(a="busy")) as (poller, sink):
        await until(lambda: poller.counters.skipped >= 2)
    assert "in use" in sink.failures["a"][0]
    assert sink.lost == set()
    assert poller.counters.failed == 0


async def test_a_device_without_a_free_line_is_lost_with_that_reason():
    async with polling(Devices(a="full")) as (poller, sink):
        await until(lambda: poller.counters.failed >= 1)
    assert sink.failures["a"][0] == "device_busy: no free line"
    assert sink.lost == {"a"}


async def test_an_open_circuit_is_told_as_the_reason_of_staleness():
    async with polling(Devices(a="open")) as (_, sink):
        await until(lambda: "a" in sink.failures)
    assert "no route" in sink.failures["a"][0]
    assert sink.lost == {"a"}


async def test_a_bug_in_one_driver_is_told_and_polling_goes_on():
    async with polling(Devices(a="bug", b="ok")) as (poller, sink):
        await until(lambda: "a" in sink.failures and sink.seen.get("b", 0) >= 3)
    assert poller.counters.failures["internal"] >= 1


async def test_a_device_is_asked_who_it_is_once_until_somebody_says_soon():
    devices = Devices(a="ok")
    async with polling(devices) as (poller, sink):
        await until(lambda: sink.seen.get("a", 0) >= 3)
        assert devices.devices["a"].asked_who == 1
        poller.soon("a")
        await until(lambda: devices.devices["a"].asked_who == 2)


async def test_soon_does_not_wait_for_the_beat():
    devices = Devices(a="ok")
    async with polling(devices, interval=3600.0) as (poller, sink):
        await until(lambda: len(poller._schedule) == 1)
        poller.soon("a")
        await until(lambda: sink.seen.get("a", 0) == 1)


@pytest.mark.parametrize("removed", ["a"])
async def test_a_relay_that_is_deleted_is_polled_no_more(removed: str):
    devices = Devices(a="ok", b="ok")
    async with polling(devices) as (_, sink):
        await until(lambda: sink.seen.get(removed, 0) >= 1 and "b" in sink.seen)
        del devices.devices[removed]
        before = sink.seen["b"]
        await until(lambda: sink.seen["b"] >= before + 5)
        count = sink.seen[removed]
        await until(lambda: sink.seen["b"] >= before + 10)
    assert sink.seen[removed] == count
