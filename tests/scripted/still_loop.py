"""An event loop whose time stands still, for what must not depend on how fast a machine is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class StillTimer:
    """What `call_later` gives: runs when `advance` comes past it, unless cancelled."""

    def __init__(self, due: float, run: Callable[[], object]) -> None:
        self.due = due
        self.run = run
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class StillLoop:
    """The running loop, but for its clock and timers, which move when a test calls `advance`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timers: list[StillTimer] = []
        self.now = 1000.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: object) -> StillTimer:
        timer = StillTimer(self.now + delay, lambda: callback(*arguments))
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass; every timer that was set before and is due runs once, earliest first."""
        self.now += seconds
        due = sorted((timer for timer in self._timers if timer.due <= self.now), key=lambda timer: timer.due)
        self._timers = [timer for timer in self._timers if timer.due > self.now]
        for timer in due:
            if not timer.is_cancelled:
                timer.run()
