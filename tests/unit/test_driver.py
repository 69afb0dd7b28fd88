"""A machine's deadline becomes one timer of the loop."""

import asyncio

import pytest

from agent.service.driver import Driver


class Machine:
    """Wants to be called at the deadlines given, one after the other."""

    def __init__(self, *deadlines: float) -> None:
        self.deadlines = list(deadlines)
        self.called: list[float] = []
        self.drained = 0
        self.done = asyncio.Event()

    def handle_timer(self, now: float) -> None:
        self.called.append(now)
        self.deadlines.pop(0)
        if not self.deadlines:
            self.done.set()

    def next_deadline(self) -> float | None:
        return self.deadlines[0] if self.deadlines else None

    def drain(self) -> None:
        self.drained += 1


async def test_a_machine_is_called_at_each_deadline_and_never_early():
    loop = asyncio.get_running_loop()
    start = loop.time()
    machine = Machine(start + 0.01, start + 0.02, start + 0.03)
    deadlines = list(machine.deadlines)
    driver = Driver(loop, machine, machine.drain)
    driver.flush()
    await asyncio.wait_for(machine.done.wait(), 30)
    assert len(machine.called) == 3
    assert all(called >= deadline for called, deadline in zip(machine.called, deadlines, strict=True))
    assert machine.drained == 4
    driver.close()


async def test_flushes_of_one_turn_are_one():
    loop = asyncio.get_running_loop()
    machine = Machine()
    driver = Driver(loop, machine, machine.drain)
    for _ in range(5):
        driver.flush_soon()
    await asyncio.sleep(0)
    assert machine.drained == 1
    driver.close()


async def test_a_closed_driver_calls_nobody():
    loop = asyncio.get_running_loop()
    machine = Machine(loop.time())
    driver = Driver(loop, machine, machine.drain)
    driver.flush()
    driver.close()
    driver.flush_soon()
    await asyncio.sleep(0.02)
    assert machine.called == []
    assert machine.drained == 1


class Failing(Machine):
    """Fails the first time it is called."""

    def handle_timer(self, now: float) -> None:
        super().handle_timer(now)
        if len(self.called) == 1:
            raise RuntimeError("a fault nobody thought of")


async def test_a_machine_that_fails_is_called_again_and_does_not_spin():
    loop = asyncio.get_running_loop()
    machine = Failing(loop.time(), loop.time())
    driver = Driver(loop, machine, machine.drain)
    driver.flush()
    await asyncio.wait_for(machine.done.wait(), 30)
    assert machine.called[1] - machine.called[0] > 0.5
    driver.close()


async def test_a_failing_drain_costs_no_deadline():
    loop = asyncio.get_running_loop()
    machine = Machine(loop.time() + 0.01)

    def drain() -> None:
        raise RuntimeError("a fault nobody thought of")

    loop.set_exception_handler(lambda *_: None)  # the timer's own flush fails too
    driver = Driver(loop, machine, drain)
    with pytest.raises(RuntimeError):
        driver.flush()
    await asyncio.wait_for(machine.done.wait(), 30)
    driver.close()
