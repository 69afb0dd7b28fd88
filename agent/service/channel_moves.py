"""Make before break: a channel that gets another upstream is asked of both until packets of the new one are there.

The old upstream forwards until the first packet of the new one was seen, or until it is clear that none will come soon.
Between tunnels both are forwarded meanwhile, each packet once (`agent.dataplane.engine`, live-live); copies are looked
for a little longer, because the tunnels' delays differ. Between a tunnel and a native interface the kernel's route
moves from one to the other in place: towards the native one the engine passes on what the tunnel was behind by
(`agent.dataplane.userspace_handover`), towards the tunnel what it is behind by is doubled.

A channel that turns back to a tunnel it left so lately that copies are still looked for keeps both for the whole time:
what is left of the old request would pass for the first packet of the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from agent.protocol.channels import Address, Channel, Filter
from agent.protocol.upstream import NativeUpstream, TunnelUpstream, Upstream
from agent.tree import Route, tunnels_of

MOVE_TIME: Final = 3.0
"""Seconds the old upstream goes on without a packet of the new one: a silent source must not keep two upstreams."""


@dataclass(slots=True)
class Move:
    """A channel between two upstreams.

    Attributes:
        old: what forwards it until the move is over.
        new: what shall.
        filters: what is still asked of the old tunnels.
        join: what is still asked of the old native neighbour.
        is_released: nothing is asked of the old upstream any more, only copies are still recognised.
    """

    old: Upstream
    new: Upstream
    filters: dict[str, Filter] = field(default_factory=dict)
    join: NativeUpstream | None = None
    is_released: bool = False
    timer: asyncio.TimerHandle | None = None

    @property
    def is_between_tunnels(self) -> bool:
        """Whether both upstreams may forward at once."""
        return isinstance(self.old, TunnelUpstream) and isinstance(self.new, TunnelUpstream)

    @property
    def awaits_nothing(self) -> bool:
        """Whether the new upstream is a part of the old one."""
        return self.is_between_tunnels and set(tunnels_of(self.new)) <= set(tunnels_of(self.old))

    def release(self) -> None:
        """Ask nothing more of the old upstream."""
        self.is_released = True
        self.filters, self.join = {}, None


@dataclass(frozen=True, slots=True)
class Feed:
    """What the engine is told of a channel."""

    tunnels: frozenset[str]
    interfaces: frozenset[str]
    incoming: str | None


def needs_move(old: Upstream, new: Upstream) -> bool:
    """Whether anything of `old` would be given up with the change."""
    if isinstance(old, NativeUpstream):
        return not isinstance(new, NativeUpstream) or new.interface != old.interface
    return not set(tunnels_of(old)) <= set(tunnels_of(new))


def feed_of(route: Route, move: Move | None) -> Feed:
    """How a channel is fed while it moves, or without a move."""
    tunnels = frozenset(tunnels_of(route.upstream))
    carrier = route.upstream if move is None else move.old
    if isinstance(carrier, NativeUpstream):
        return Feed(tunnels, route.interfaces - {carrier.interface}, carrier.interface)
    return Feed(tunnels | frozenset(carrier.names), route.interfaces, None)


class ChannelMoves:
    """Moves of all channels, (*,G) among them.

    Args:
        loop: the event loop.
        settle_time: seconds copies are recognised after the old tunnel was released; may be set anew.
        on_progress: called with a channel whose move went a step further, or is over.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settle_time: float, on_progress: Callable[[Channel], None]
    ) -> None:
        self._loop = loop
        self.settle_time = settle_time
        self._on_progress = on_progress
        self._moves: dict[Address, dict[Channel, Move]] = {}

    def get(self, channel: Channel) -> Move | None:
        """The move of a channel."""
        return self._moves.get(channel.group, {}).get(channel)

    def of_group(self, group: Address) -> dict[Channel, Move]:
        """Moves of a group's channels."""
        return self._moves.get(group, {})

    def begin(self, channel: Channel, move: Move) -> None:
        """Start a move; one that is under way ends."""
        self.cancel(channel)
        self._moves.setdefault(channel.group, {})[channel] = move
        if move.awaits_nothing:
            self._settle(channel, move)
        else:
            move.timer = self._loop.call_later(MOVE_TIME, self._end, channel)

    def cancel(self, channel: Channel) -> None:
        """Forget a move: the channel ended, or goes elsewhere."""
        moves = self._moves.get(channel.group, {})
        move = moves.pop(channel, None)
        if move is not None and move.timer is not None:
            move.timer.cancel()
        if not moves:
            self._moves.pop(channel.group, None)

    def seen_in_tunnel(self, channel: Channel, tunnel: str) -> None:
        """A tunnel's first packet of a channel came."""
        for each in (channel, Channel(None, channel.group)):
            move = self.get(each)
            if move is not None and tunnel in tunnels_of(move.new):
                self._advance(each, move)

    def seen_on_interface(self, channel: Channel, interface: str) -> None:
        """Packets of a channel come in on an interface that does not carry it."""
        for each in (channel, Channel(None, channel.group)):
            move = self.get(each)
            if move is not None and isinstance(move.new, NativeUpstream) and move.new.interface == interface:
                self._advance(each, move)

    def end_those(self, is_over: Callable[[Move], bool]) -> None:
        """End the moves of which a condition holds: their old upstream is dead."""
        for channel in [channel for moves in self._moves.values() for channel, move in moves.items() if is_over(move)]:
            self._end(channel)

    def close(self) -> None:
        """Forget all moves."""
        channels: Iterable[Channel] = [channel for moves in self._moves.values() for channel in moves]
        for channel in channels:
            self.cancel(channel)

    def _advance(self, channel: Channel, move: Move) -> None:
        if move.is_released:
            return
        if move.is_between_tunnels:
            self._settle(channel, move)
            self._on_progress(channel)
        else:
            self._end(channel)

    def _settle(self, channel: Channel, move: Move) -> None:
        move.release()
        if move.timer is not None:
            move.timer.cancel()
        move.timer = self._loop.call_later(self.settle_time, self._end, channel)

    def _end(self, channel: Channel) -> None:
        if self.get(channel) is not None:
            self.cancel(channel)
            self._on_progress(channel)
