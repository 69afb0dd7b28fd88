"""The door to devices, with drivers that only remember what was asked of them."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest

from relaymgr.domain.platforms import Platform
from relaymgr.drivers.access import DeviceAccess
from relaymgr.drivers.breaker import BreakerLimits
from relaymgr.drivers.errors import CircuitOpen, ConfigurationRefused, DeviceBusy, LoginRefused, Unreachable
from relaymgr.drivers.protocol import Credential, DeviceTarget


class RecordedDriver:
    def __init__(self, target: DeviceTarget, credential: Credential, context: Any) -> None:
        self.target = target
        self.closed = False
        self.made_by = threading.current_thread()
        made.append(self)

    async def close(self) -> None:
        self.closed = True


made: list[RecordedDriver] = []


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def access(clock: Clock):
    made.clear()

    async def load(relay_id: str) -> tuple[DeviceTarget, Credential]:
        return DeviceTarget(relay_id, Platform.JUNOS, "192.0.2.1"), Credential("admin")

    access = DeviceAccess(
        load,
        threads=2,
        factory=RecordedDriver,  # type: ignore[arg-type]
        limits=BreakerLimits(failures=2, open_seconds=30.0),
        clock=clock,
    )
    yield access
    await access.close()


async def use(access: DeviceAccess, error: Exception | None = None, *, urgent: bool = False) -> RecordedDriver:
    async with access.configuring("a", urgent=urgent) as driver:
        if error is not None:
            raise error
        return driver  # type: ignore[return-value]


async def test_the_same_driver_serves_one_use_after_the_other(access: DeviceAccess):
    assert await use(access) is await use(access)
    assert len(made) == 1


async def test_making_a_driver_does_not_hold_up_the_event_loop(access: DeviceAccess):
    assert (await use(access)).made_by is not threading.current_thread()


async def test_two_jobs_wait_for_each_other(access: DeviceAccess):
    inside = 0
    most = 0

    async def job() -> None:
        nonlocal inside, most
        async with access.configuring("a"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(job() for _ in range(5)))
    assert most == 1


async def test_a_poll_never_waits_for_a_job(access: DeviceAccess):
    async with access.configuring("a"):
        with pytest.raises(DeviceBusy):
            async with access.monitoring("a"):
                pass
        async with access.monitoring("b"):
            pass


async def test_a_job_waits_for_the_poll_and_no_other_poll_goes_before_it(access: DeviceAccess):
    order = []
    async with access.monitoring("a"):
        job = asyncio.create_task(use(access))
        await asyncio.sleep(0)
        order.append("poll")
        with pytest.raises(DeviceBusy):
            async with access.monitoring("a"):
                pass
    await job
    assert not made[0].closed


async def test_a_broken_session_is_closed_and_made_anew(access: DeviceAccess):
    with pytest.raises(Unreachable):
        await use(access, Unreachable("a", "gone"))
    assert made[0].closed
    await use(access)
    assert len(made) == 2


async def test_the_circuit_opens_names_its_reason_and_closes_after_the_pause(access: DeviceAccess, clock: Clock):
    for _ in range(2):
        with pytest.raises(Unreachable):
            await use(access, Unreachable("a", "no route"))
    with pytest.raises(CircuitOpen, match="no route"):
        await use(access)
    assert access.circuit("a") is not None
    clock.now = 30.0
    assert access.circuit("a") is None
    await use(access)


async def test_an_open_confirm_window_does_not_wait_for_the_circuit(access: DeviceAccess):
    for _ in range(2):
        with pytest.raises(Unreachable):
            await use(access, Unreachable("a", "no route"))
    await use(access, urgent=True)


async def test_a_refused_login_is_not_tried_again_for_minutes(access: DeviceAccess, clock: Clock):
    with pytest.raises(LoginRefused):
        await use(access, LoginRefused("a", "denied"))
    clock.now = 200.0
    with pytest.raises(CircuitOpen):
        await use(access)


async def test_an_edited_relay_gets_a_new_driver_and_a_clean_slate(access: DeviceAccess):
    with pytest.raises(LoginRefused):
        await use(access, LoginRefused("a", "denied"))
    access.forget("a")
    await use(access)
    first = made[-1]
    access.forget("a")
    assert await use(access) is not first
    assert first.closed


async def test_a_refused_configuration_is_an_answer_and_keeps_the_session(access: DeviceAccess):
    for _ in range(5):
        with pytest.raises(ConfigurationRefused):
            await use(access, ConfigurationRefused("a", "syntax error"))
    assert len(made) == 1


async def test_a_cancelled_use_drops_the_session(access: DeviceAccess):
    entered = asyncio.Event()

    async def hang() -> None:
        async with access.configuring("a"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await entered.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert made[0].closed


async def test_closing_ends_every_session(access: DeviceAccess):
    await use(access)
    await access.close()
    assert made[0].closed
