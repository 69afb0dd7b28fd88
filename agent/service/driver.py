"""Runs a sans-IO machine on the event loop: its deadlines become one timer, its outputs are drained after each step.

A machine is stepped by whoever feeds it (a socket, a link, the tree): call the machine, then `flush()`. Several steps
in one turn of the loop may share a flush by calling `flush_soon()`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

_CLOCK_SLACK: Final = 0.0005
"""Seconds by which the loop's timers may fire early; a machine called too early would only ask to be called again."""


_AFTER_FAILURE: Final = 1.0
"""Seconds until a machine whose timer failed is called again: it must neither stand still nor spin."""

_log = logging.getLogger(__name__)


class Machine(Protocol):
    """The part of a protocol machine that concerns time."""

    def handle_timer(self, now: float) -> None:
        """Do whatever is due."""

    def next_deadline(self) -> float | None:
        """When to be called next, or None."""


class Driver:
    """One machine's timer and output.

    `drain` sends what the machine wants sent and hands on its events; it may call the machine again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, machine: Machine, drain: Callable[[], None]) -> None:
        self._loop = loop
        self._machine = machine
        self._drain = drain
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._is_flush_pending = False
        self._is_closed = False

    @property
    def now(self) -> float:
        """The clock all machines share, in seconds."""
        return self._loop.time()

    def flush(self) -> None:
        """Drain the outputs and set the timer to the machine's next deadline."""
        self._is_flush_pending = False
        if self._is_closed:
            return
        try:
            self._drain()
        finally:
            self._arm(self._machine.next_deadline())

    def flush_soon(self) -> None:
        """Flush once in the loop's next turn, however often this is called until then."""
        if not self._is_flush_pending:
            self._is_flush_pending = True
            self._loop.call_soon(self._flush_pending)

    def close(self) -> None:
        """Drop the timer; later flushes do nothing."""
        self._is_closed = True
        self._cancel()

    def _flush_pending(self) -> None:
        if self._is_flush_pending:
            self.flush()

    def _arm(self, deadline: float | None) -> None:
        if self._is_closed or (deadline == self._deadline and self._timer is not None):
            return
        self._cancel()
        if deadline is not None:
            self._deadline = deadline
            self._timer = self._loop.call_at(deadline + _CLOCK_SLACK, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._deadline = None
        try:
            self._machine.handle_timer(self._loop.time())
        except Exception:  # noqa: BLE001 - whatever it was, the timer goes on
            _log.exception("timer failed machine=%s", type(self._machine).__name__)
            self._timer = self._loop.call_later(_AFTER_FAILURE, self._fire)
            return
        self.flush()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._deadline = None
