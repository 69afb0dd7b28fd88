"""Looks at the counters of tunnels and channels, and tells which fell silent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from agent.dataplane.engine import Engine
from agent.protocol.channels import Channel
from agent.service.config.failover_section import FailoverSection
from agent.service.silence import ChannelSilenceWatch, SilenceWatch
from agent.service.tunnel import Tunnel

_LONGEST_PERIOD: Final = 1.0


class RelayWatch:
    """Polled every `period` seconds while a tunnel carries something."""

    def __init__(self, engine: Engine, failover: FailoverSection) -> None:
        self._engine = engine
        self._tunnels = SilenceWatch(failover.relay_silence)
        self._channels = ChannelSilenceWatch(failover.channel_silence)
        self._next = 0

    @property
    def period(self) -> float:
        """Seconds between two looks."""
        return min(self._tunnels.silence / 4, _LONGEST_PERIOD)

    def reconfigure(self, failover: FailoverSection) -> None:
        """Take other times; what was seen stays."""
        self._tunnels.silence = failover.relay_silence
        self._channels.silence = failover.channel_silence

    def is_flowing(self, tunnel: str, now: float) -> bool:
        """Whether packets come through a tunnel."""
        return self._tunnels.is_flowing(tunnel, now)

    def silent_tunnels(self, tunnels: Mapping[str, Tunnel], now: float) -> list[str]:
        """Tunnels that carried packets and fell silent, whose relays are to be asked now."""
        counted = self._engine.tunnel_traffic()
        silent = []
        for name, tunnel in tunnels.items():
            if name not in counted:
                self._tunnels.forget(name)
            elif not tunnel.has_groups:
                self._tunnels.rest(name, counted[name].packets, now)
            elif self._tunnels.observe(name, counted[name].packets, now):
                silent.append(name)
        return silent

    def probed(self, tunnel: str, now: float) -> bool:
        """The relay of a silent tunnel was asked; True the first time in this silence."""
        return self._tunnels.probed(tunnel, now)

    def silent_channels(
        self, channels: list[Channel], through: Callable[[Channel], Iterable[str]], now: float
    ) -> list[tuple[Channel, str]]:
        """Channels that flowed and do not, with the tunnel that goes on carrying others; a share of `channels` a call.

        Each is looked at twice in the time that counts as silence.
        """
        if not self._channels.silence or not channels:
            return []
        first = self._next if self._next < len(channels) else 0
        share = math.ceil(len(channels) * min(1.0, 2 * self.period / self._channels.silence))
        self._next = first + share
        found = []
        for channel in channels[first : self._next]:
            fed = self._engine.feed_traffic(channel)
            packets = {name: fed.get(name, 0) for name in through(channel)}
            silent = self._channels.observe(channel, packets, now)
            found += [(channel, name) for name in silent if self._tunnels.is_flowing(name, now)]
        return found

    def tried_elsewhere(self, channel: Channel, tunnel: str) -> None:
        """A silent channel is tried through another tunnel."""
        self._channels.tell(channel, tunnel)

    def forget_tunnel(self, tunnel: str) -> None:
        """A tunnel was closed."""
        self._tunnels.forget(tunnel)

    def forget_channel(self, channel: Channel) -> None:
        """Nobody wants a channel any more."""
        self._channels.forget(channel)
