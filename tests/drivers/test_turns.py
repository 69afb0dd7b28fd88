"""Work on the event loop takes turns, round by round."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from relaymgr.drivers.turns import in_turn


async def test_another_task_runs_between_any_two_pieces_of_work():
    seen = []

    async def other():
        while len(seen) < 40:
            seen.append("other")
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await asyncio.gather(*(in_turn(lambda: seen.append("work")) for _ in range(10)))
    await task
    assert seen.count("work") == 10
    assert all(pair != ("work", "work") for pair in pairwise(seen))


async def test_what_work_raises_comes_out_and_the_next_one_has_its_turn():
    def fail() -> None:
        raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"):
        await in_turn(fail)
    assert await in_turn(lambda: 7) == 7


async def test_a_cancelled_turn_is_given_up():
    waiting = [asyncio.create_task(in_turn(lambda: 1)) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await asyncio.wait_for(in_turn(lambda: 2), 5.0) == 2


def test_every_loop_has_turns_of_its_own():
    async def contended() -> list[int]:
        return await asyncio.gather(*(in_turn(lambda: 1) for _ in range(3)))

    assert [asyncio.run(contended()) for _ in range(2)] == [[1, 1, 1], [1, 1, 1]]
