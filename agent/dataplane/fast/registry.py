"""The channels that are set, and which of them a tunnel or an interface concerns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agent.dataplane.fast.channels import FastChannel
from agent.dataplane.fast.planning import Wish
from agent.protocol.channels import Channel

NOTHING: Final = Wish(frozenset(), frozenset())
"""What is wished for a channel that was only just made."""


class ChannelRegistry:
    """Finds channels without looking at all of them.

    Args:
        want: called with the names of all interfaces channels go out of whenever these are others.
    """

    def __init__(self, want: Callable[[frozenset[str]], None]) -> None:
        self._want = want
        self._channels: dict[Channel, FastChannel] = {}
        self._by_tunnel: dict[str, dict[FastChannel, None]] = {}
        self._by_interface: dict[str, dict[FastChannel, None]] = {}

    def __len__(self) -> int:
        return len(self._channels)

    def get(self, channel: Channel) -> FastChannel | None:
        """A channel that is set."""
        return self._channels.get(channel)

    def all(self) -> tuple[FastChannel, ...]:
        """Every channel."""
        return tuple(self._channels.values())

    def of_tunnel(self, name: str) -> tuple[FastChannel, ...]:
        """Channels that come through a tunnel."""
        return tuple(self._by_tunnel.get(name, ()))

    def of_interface(self, name: str) -> tuple[FastChannel, ...]:
        """Channels that go out of an interface."""
        return tuple(self._by_interface.get(name, ()))

    def add(self, state: FastChannel) -> None:
        """A channel is set, as yet with the wish for nothing; `use` tells of its tunnels and interfaces."""
        self._channels[state.channel] = state

    def use(self, state: FastChannel, wish: Wish, interfaces: frozenset[str]) -> None:
        """A channel has these tunnels and interfaces, in place of those of `state.wish` and `state.names`."""
        _move(self._by_tunnel, state, state.wish.tunnels, wish.tunnels)
        known = len(self._by_interface)
        is_new = _move(self._by_interface, state, state.names, interfaces)
        state.names = interfaces
        if is_new or len(self._by_interface) != known:
            self._want(frozenset(self._by_interface))

    def remove(self, channel: Channel) -> FastChannel | None:
        """A channel is set no longer; None when it was not."""
        state = self._channels.pop(channel, None)
        if state is not None:
            self.use(state, NOTHING, frozenset())
        return state


def _move(
    index: dict[str, dict[FastChannel, None]], state: FastChannel, before: frozenset[str], after: frozenset[str]
) -> bool:
    """Enter a channel under other names; whether one of them is new."""
    if before == after:
        return False
    is_new = False
    for name in after - before:
        is_new = is_new or name not in index
        index.setdefault(name, {})[state] = None
    for name in before - after:
        del index[name][state]
        if not index[name]:
            del index[name]
    return is_new
