"""Plans carried out a few at a time, so that nothing else in the loop waits for thousands of channels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, Protocol

from agent.dataplane.fast.channels import FastChannel, FastChannels
from agent.dataplane.fast.planning import Planner

SLICE: Final = 0.002
"""Seconds of one turn of the loop that channels are planned in, and as many for those that leave userspace."""

TRY_AGAIN: Final = 5.0
"""Seconds after which channels that the maps had no room for are tried again."""

_MOST_RETRIED: Final = 1024
_MOST_PROMOTED: Final = 256  # in one turn: the sockets of their tunnels are emptied first

_log = logging.getLogger(__name__)


class Drain(Protocol):
    """Has userspace forward what waits in a tunnel's socket."""

    def __call__(self, name: str) -> None:
        """Forward it."""


class Replanning:
    """Decides again about channels, and brings the decisions into the maps.

    What a channel's entry says stays good until it is replaced, so what it names must not go before `when_done` tells.

    Args:
        loop: the event loop.
        planner: makes the plans.
        channels: the maps.
        drain: empties the socket of a tunnel whose channels leave userspace.
        is_local: whether a channel's source is one of our own addresses.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        planner: Planner,
        channels: FastChannels,
        drain: Drain,
        is_local: Callable[[FastChannel], bool],
    ) -> None:
        self._loop = loop
        self._planner = planner
        self._channels = channels
        self._drain = drain
        self._is_local = is_local
        self._queue: dict[FastChannel, None] = {}
        self._waiting: dict[FastChannel, None] = {}
        self._faulty: dict[FastChannel, None] = {}
        self._when_done: list[Callable[[], None]] = []
        self._turn: asyncio.Handle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._is_closed = False

    def again(self, states: Iterable[FastChannel]) -> None:
        """Decide again about channels: a few at once, the rest in the loop's next turns."""
        if self._is_closed:
            return
        self._queue.update(dict.fromkeys(states))
        if self._turn is None:
            self._work()

    def later(self, states: Iterable[FastChannel]) -> None:
        """Decide again about channels, but not from within this call."""
        if not self._is_closed:
            self._queue.update(dict.fromkeys(states))
            self._go_on()

    def when_done(self, call: Callable[[], None]) -> None:
        """Call once everything that is to be decided again was: at once when nothing is."""
        self._when_done.append(call)
        self._tell_done()

    def apply(self, state: FastChannel, *, at_once: bool = False) -> None:
        """Carry out what is planned now; what waits in the socket goes first where userspace forwarded until now."""
        self._queue.pop(state, None)
        state.is_local = self._is_local(state)
        plan = self._planner.plan(state.channel, state.wish)
        if plan.is_fast and not state.plan.is_fast and not at_once:
            if state.entry is None:
                self._channels.leave_to_userspace(state, plan.reason)
            self._waiting[state] = None
            self._go_on()
            return
        self._waiting.pop(state, None)
        self._channels.apply(state, plan)
        self._note(state)

    def drop(self, state: FastChannel) -> None:
        """A channel is set no longer."""
        for each in (self._queue, self._waiting, self._faulty):
            each.pop(state, None)

    def close(self) -> None:
        """Decide nothing more."""
        self._is_closed = True
        for handle in (self._turn, self._retry):
            if handle is not None:
                handle.cancel()
        self._turn = self._retry = None
        for each in (self._queue, self._waiting, self._faulty):
            each.clear()
        self._when_done.clear()

    def _go_on(self) -> None:
        if self._turn is None and not self._is_closed:
            self._turn = self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        self._promote()
        self._work()

    def _work(self) -> None:
        until = self._loop.time() + SLICE
        while self._queue and self._loop.time() < until:
            self.apply(next(iter(self._queue)))
        if self._queue or self._waiting:
            self._go_on()
        self._tell_done()

    def _promote(self) -> None:
        """Channels leave userspace: their tunnels' sockets are emptied before, and once more behind them."""
        promoted = tuple(islice(self._waiting, _MOST_PROMOTED))
        tunnels = {name for state in promoted for name in state.wish.tunnels}
        for name in tunnels:
            self._drain(name)
        until = self._loop.time() + SLICE
        for state in promoted:
            if state in self._waiting:  # what was forwarded may have changed channels
                self.apply(state, at_once=True)
            if self._loop.time() >= until:
                break
        for name in tunnels:
            self._drain(name)

    def _tell_done(self) -> None:
        while self._when_done and not self._queue and not self._waiting:
            self._when_done.pop(0)()

    def _note(self, state: FastChannel) -> None:
        if not state.fault:
            self._faulty.pop(state, None)
            return
        if not self._faulty:
            _log.warning("channel stays in userspace channel=%s: %s", state.channel, state.fault)
        self._faulty[state] = None
        self._expect_room()

    def _expect_room(self) -> None:
        if self._retry is None and self._faulty and not self._is_closed:
            self._retry = self._loop.call_later(TRY_AGAIN, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.again(list(self._faulty)[:_MOST_RETRIED])
        self._expect_room()
