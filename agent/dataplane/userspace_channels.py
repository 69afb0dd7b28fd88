"""The userspace engine's channels: which packets of which tunnels are forwarded, and how many were."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator

from agent.dataplane.engine import EngineError, FirstPacket, NewSource, Refusal, Traffic
from agent.dataplane.userspace_routes import KernelRoutes
from agent.dataplane.userspace_sources import SourceAnnouncer
from agent.dataplane.userspace_state import ChannelState
from agent.protocol.channels import Address, Channel


class ChannelTable:
    """Channels and any-source groups.

    Args:
        loop: the event loop, for its clock.
        routes: the kernel's routes under them.
        on_new_source: see `agent.dataplane.engine`.
        on_first_packet: likewise.
        duplicate_window: seconds two copies of a packet may be apart; may be set anew.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        routes: KernelRoutes,
        on_new_source: NewSource,
        on_first_packet: FirstPacket,
        duplicate_window: float,
    ) -> None:
        self._now: Callable[[], float] = loop.time
        self._routes = routes
        self._on_new_source = on_new_source
        self._on_first_packet = on_first_packet
        self.duplicate_window = duplicate_window
        self._channels: dict[bytes, ChannelState] = {}
        self._groups: dict[bytes, frozenset[str]] = {}
        self._announcer = SourceAnnouncer()

    def __iter__(self) -> Iterator[ChannelState]:
        return iter(tuple(self._channels.values()))

    def set(
        self, channel: Channel, tunnels: frozenset[str], interfaces: frozenset[str], incoming: str | None = None
    ) -> None:
        """Forward `channel` out of `interfaces`, from `tunnels` or natively from `incoming`.

        Raises:
            EngineError: the kernel cannot forward it.
        """
        if channel.source is None:
            raise EngineError(f"{channel} has no source")
        key = channel.source.packed + channel.group.packed
        state = self._channels.get(key) or ChannelState(channel)
        if interfaces != state.interfaces or incoming != state.incoming:
            turns = incoming != state.incoming
            counted = self._routes.counted(channel) if turns else Traffic()  # the kernel may have packets waiting
            self._routes.set(channel, interfaces, incoming)
            if turns:
                state.set_native(incoming, counted)
            state.interfaces = interfaces
        state.set_tunnels(tunnels, self.duplicate_window)
        self._channels[key] = state

    def remove(self, channel: Channel) -> None:
        """Stop forwarding; nothing happens when the channel is unknown."""
        if channel.source is None:
            return
        state = self._channels.pop(channel.source.packed + channel.group.packed, None)
        if state is not None:
            self._routes.remove(channel)

    def set_group(self, group: Address, tunnels: frozenset[str]) -> None:
        """Report each new source of `group` arriving through `tunnels`."""
        self._groups[group.packed] = tunnels

    def remove_group(self, group: Address) -> None:
        """Forget any-source interest; channels already set stay."""
        self._groups.pop(group.packed, None)

    def get(self, channel: Channel) -> ChannelState | None:
        """A channel that is set."""
        source = channel.source
        return None if source is None else self._channels.get(source.packed + channel.group.packed)

    def traffic(self, state: ChannelState) -> Traffic:
        """What was forwarded of a channel."""
        return state.traffic(Traffic() if state.native_since is None else self._routes.counted(state.channel))

    def admit(self, key: bytes, tunnel: str, count: int) -> ChannelState | Refusal:
        """The channel to forward `count` packets as that came through `tunnel`; counts them as fed.

        Args:
            key: source and group, 8 or 32 octets.
            tunnel: its name.
            count: packets.
        """
        channel = self._feed(key, tunnel, count)
        if channel is not None:
            return channel
        if tunnel not in self._groups.get(key[len(key) // 2 :], ()):
            return Refusal.NOT_SUBSCRIBED
        if self._announcer.admit(key, tunnel, self._now()):
            self._on_new_source(_channel_of(key), tunnel)
            channel = self._feed(key, tunnel, count)
            if channel is not None:
                return channel
        return Refusal.SOURCE_PENDING

    def close(self) -> None:
        """Remove everything."""
        for state in self:
            self.remove(state.channel)
        self._groups.clear()

    def _feed(self, key: bytes, tunnel: str, count: int) -> ChannelState | None:
        """Count packets of a channel that takes them from this tunnel; the first ones may change what is set."""
        channel = self._channels.get(key)
        if channel is None or tunnel not in channel.tunnels:
            return None
        fed = channel.feeds[tunnel]
        channel.feeds[tunnel] = fed + count
        if fed:
            return channel
        self._on_first_packet(channel.channel, tunnel)
        channel = self._channels.get(key)
        return channel if channel is not None and tunnel in channel.tunnels else None


def key_of(channel: Channel) -> bytes:
    """Source and group as they stand in packets, 8 or 32 octets; the group alone for (*,G)."""
    return (b"" if channel.source is None else channel.source.packed) + channel.group.packed


def _channel_of(octets: bytes) -> Channel:
    half = len(octets) // 2
    family = socket.AF_INET if half == 4 else socket.AF_INET6
    return Channel.parse(socket.inet_ntop(family, octets[:half]), socket.inet_ntop(family, octets[half:]))
