"""Lets what takes processor time on the event loop take turns with everything else that waits for the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

Result = TypeVar("Result")

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def in_turn(work: Callable[[], Result]) -> Result:
    """The result of `work`, some milliseconds of processor time: one caller's in each round of the loop, no more.

    Replies of many devices often come at the same time. Read one after the other in a single round, they would hold up
    a request that needs thirty rounds by thirty times as much.
    """
    turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    async with turn:
        result = work()
        await asyncio.sleep(0)
        return result
