"""What happened to each channel over time: since when it is wanted, when its first packet came, if it still flows.

Native sources met when nobody wanted them are kept beside it for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from agent.dataplane.engine import Traffic
from agent.protocol.channels import Address, Channel

FAST_SAMPLING: Final = 10.0
"""Seconds after a join in which its first packet is looked for closely."""


HEARD_KEPT: Final = 4096
"""Unwanted native sources remembered; of more the oldest are forgotten."""

HEARD_TIME: Final = 12.0
"""Seconds an unwanted native source is remembered; the kernel tells again of one that goes on after 10."""


@dataclass(slots=True)
class ChannelRecord:
    """Times of one channel, on the loop's clock in seconds.

    Attributes:
        since: when the first interest came.
        first_packet: when its counter was first seen above zero, None before.
        last_moved: when its counter last moved, None before the first packet.
        traffic: counters at the last look.
    """

    since: float
    first_packet: float | None = None
    last_moved: float | None = None
    traffic: Traffic | None = None

    @property
    def join_latency(self) -> float | None:
        """Seconds from the first interest to the first packet, None before it."""
        return None if self.first_packet is None else self.first_packet - self.since


class ChannelLedger:
    """Records of every channel wanted now, oldest first."""

    def __init__(self) -> None:
        self._records: dict[Channel, ChannelRecord] = {}
        self._awaited: dict[Channel, float] = {}
        self._promised: set[Channel] = set()

    def __len__(self) -> int:
        return len(self._records)

    def open(self, channel: Channel, now: float) -> None:
        """Begin a record; an open one goes on."""
        self._promised.discard(channel)
        if channel not in self._records:
            self._records[channel] = ChannelRecord(now)
            self._awaited[channel] = now

    def close(self, channel: Channel) -> None:
        """End a record."""
        self._records.pop(channel, None)
        self._awaited.pop(channel, None)

    def promise(self, channels: Iterable[Channel], limit: int) -> bool:
        """Keep room for channels that may be opened soon; False when that were more than `limit` in all."""
        new = {channel for channel in channels if channel not in self._records and channel not in self._promised}
        if new and len(self._records) + len(self._promised) + len(new) > limit:
            return False
        self._promised |= new
        return True

    def drop_promises(self) -> None:
        """Whatever was promised and not opened will not be."""
        self._promised.clear()

    def get(self, channel: Channel) -> ChannelRecord | None:
        """The record of a channel, None when it is not wanted."""
        return self._records.get(channel)

    def channels(self) -> list[Channel]:
        """Every channel with a record, oldest first."""
        return list(self._records)

    @property
    def is_awaiting(self) -> bool:
        """Whether there are young channels whose first packet has not come."""
        return bool(self._awaited)

    def awaited(self, now: float, most: int) -> list[Channel]:
        """Up to `most` young channels whose first packet has not come, those looked at longest ago.

        Those that waited too long to be watched closely are forgotten on the way.
        """
        found = list(islice(self._awaited.items(), most))
        for channel, since in found:
            del self._awaited[channel]
            if now - since <= FAST_SAMPLING:
                self._awaited[channel] = since  # to the end of the queue
        return [channel for channel, since in found if now - since <= FAST_SAMPLING]

    def take(self, channel: Channel, traffic: Traffic, now: float) -> Traffic | None:
        """Compare a channel's counters with the last look; returns what came since, None for nothing."""
        record = self._records.get(channel)
        if record is None:
            return None
        before = record.traffic
        if before is None or traffic.packets < before.packets:  # the engine counts anew since the channel was set again
            before = Traffic()
        if traffic.packets == before.packets:
            return None
        record.traffic = Traffic(traffic.packets, traffic.bytes)
        record.last_moved = now
        if record.first_packet is None:
            record.first_packet = now
            self._awaited.pop(channel, None)
        return Traffic(traffic.packets - before.packets, traffic.bytes - before.bytes)

    def silent_since(self, channel: Channel) -> float | None:
        """When a channel last moved, or was opened if it never did; None when it is not wanted."""
        record = self._records.get(channel)
        if record is None:
            return None
        return record.since if record.last_moved is None else record.last_moved


class HeardSources:
    """Native sources the kernel told of when nobody wanted them."""

    def __init__(self) -> None:
        self._heard: dict[Address, dict[Channel, tuple[str, float]]] = {}
        self._order: dict[Channel, None] = {}

    def add(self, channel: Channel, interface: str, now: float) -> None:
        """Remember where a channel was heard."""
        self._drop(channel)
        if len(self._order) >= HEARD_KEPT:
            self._drop(next(iter(self._order)))
        self._order[channel] = None
        self._heard.setdefault(channel.group, {})[channel] = (interface, now)

    def take(self, group: Address, now: float) -> Iterator[tuple[Channel, str]]:
        """Channels of a group heard lately, each with its interface; they are forgotten."""
        found = self._heard.pop(group, {})
        for channel in found:
            del self._order[channel]
        return ((channel, interface) for channel, (interface, since) in found.items() if now - since <= HEARD_TIME)

    def _drop(self, channel: Channel) -> None:
        if channel in self._order:
            del self._order[channel]
            of_group = self._heard[channel.group]
            del of_group[channel]
            if not of_group:
                del self._heard[channel.group]
