"""Which channels tunnels subscribe to, since when and who: kept with each change, so that reading is cheap."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from agent.protocol.channels import NOTHING, Address, Channel, Endpoint, Filter, FilterMode


@dataclass(slots=True)
class Subscribers:
    """Tunnels of one channel.

    Attributes:
        since: when the first subscribed, on the loop's clock in seconds.
        tunnels: oldest first, as the keys of a dictionary.
    """

    since: float
    tunnels: dict[Endpoint, None] = field(default_factory=dict)


class RelayChannels:
    """Subscriptions by channel: listed sources as (S,G), any-source interest as (*,G)."""

    def __init__(self) -> None:
        self._channels: dict[Channel, Subscribers] = {}
        self._filters: dict[tuple[Endpoint, Address], Filter] = {}
        self._counts: Counter[Endpoint] = Counter()

    def __len__(self) -> int:
        return len(self._channels)

    def set_interest(self, tunnel: Endpoint, group: Address, wanted: Filter, now: float) -> None:
        """Replace what a tunnel wants of a group."""
        before = self._filters.pop((tunnel, group), NOTHING)
        if not wanted.wants_nothing:
            self._filters[tunnel, group] = wanted
        old, new = _channels(group, before), _channels(group, wanted)
        for channel in old - new:
            self._unsubscribe(tunnel, channel)
        for channel in new - old:
            self._channels.setdefault(channel, Subscribers(now)).tunnels[tunnel] = None
            self._counts[tunnel] += 1

    def channels(self) -> list[Channel]:
        """Every channel, oldest first."""
        return list(self._channels)

    def subscribers(self, channel: Channel) -> Subscribers | None:
        """Who subscribed to a channel, None when nobody did."""
        return self._channels.get(channel)

    def filter(self, tunnel: Endpoint, group: Address) -> Filter:
        """What a tunnel wants of a group."""
        return self._filters.get((tunnel, group), NOTHING)

    def count(self, tunnel: Endpoint) -> int:
        """Channels a tunnel subscribed to."""
        return self._counts[tunnel]

    def _unsubscribe(self, tunnel: Endpoint, channel: Channel) -> None:
        subscribers = self._channels[channel]
        del subscribers.tunnels[tunnel]
        if not subscribers.tunnels:
            del self._channels[channel]
        self._counts[tunnel] -= 1
        if not self._counts[tunnel]:
            del self._counts[tunnel]


def _channels(group: Address, wanted: Filter) -> set[Channel]:
    if wanted.mode is FilterMode.EXCLUDE:
        return {Channel(None, group)}
    return {Channel(source, group) for source in wanted.sources}
