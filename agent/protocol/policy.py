"""Which channels may be carried: rules on who asks for what, rates and limits. Pure; the owner tells time and measures.

A channel is asked for by an asker: an interface, or a PIM neighbour on one. What was taken is given back by `release`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.protocol.channels import Address, Channel, Network


class Refusal(Enum):
    """Why a wish is not fulfilled; the value is what `channels` and the log show."""

    DENIED = "policy_denied"
    JOIN_RATE = "join_rate"
    NEIGHBOR_LIMIT = "neighbor_limit"
    CHANNEL_LIMIT = "channel_limit"
    BANDWIDTH = "bandwidth"
    METADATA_PENDING = "metadata_pending"  # the source's server is being asked for the channel's bandwidth


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: a PIM neighbour on an interface, or with no neighbour the hosts of the interface."""

    interface: str
    neighbor: Address | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows or denies what matches in every field that is not empty; a (*,G) never matches a source prefix."""

    allow: bool
    sources: tuple[Network, ...] = ()
    groups: tuple[Network, ...] = ()
    neighbors: tuple[Network, ...] = ()
    interfaces: tuple[str, ...] = ()

    def matches(self, channel: Channel, asker: Asker) -> bool:
        """Whether the rule decides about this wish."""
        return (
            _within(channel.source, self.sources)
            and _within(channel.group, self.groups)
            and _within(asker.neighbor, self.neighbors)
            and (not self.interfaces or asker.interface in self.interfaces)
        )


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """Rules and limits.

    Attributes:
        rules: the first that matches decides.
        allow_by_default: what happens when none does.
        joins_per_second: new channels an asker may ask for in the long run; 0 for no limit.
        join_burst: new channels an asker may ask for at once.
        channels_per_neighbor: channels a PIM neighbour may have; 0 for no limit.
        bandwidth: bits per second of all channels together; 0 for no limit.
    """

    rules: tuple[Rule, ...] = ()
    allow_by_default: bool = True
    joins_per_second: float = 0.0
    join_burst: int = 1000
    channels_per_neighbor: int = 0
    bandwidth: float = 0.0


_FORGOTTEN: Final = 1024
"""Askers whose rate is remembered; beyond it those that are back at a full burst are forgotten."""


class Policy:
    """Decides about new wishes.

    Args:
        config: rules and limits.
        room: whether the agent has room for one more channel (its own limit on channels in all).
        expected: bits per second a channel is announced to need; None while that is being asked for, 0 when nobody
            announced anything.
    """

    def __init__(
        self,
        config: PolicyConfig,
        room: Callable[[Channel], bool] = lambda _: True,
        expected: Callable[[Channel], float | None] = lambda _: 0.0,
    ) -> None:
        self.config = config
        self.measured = 0.0
        self._room = room
        self._expected = expected
        self._per_neighbor: dict[Asker, int] = {}
        self._reserved: dict[Channel, float] = {}
        self._reserved_in_all = 0.0
        self._holders: dict[Channel, int] = {}
        self._tokens: dict[Asker, tuple[float, float]] = {}

    @property
    def committed(self) -> float:
        """Bits per second in use: what is measured, or what the carried channels announced if that is more."""
        return max(self.measured, self._reserved_in_all)

    @property
    def count(self) -> int:
        """Channels taken up, each once."""
        return len(self._holders)

    @property
    def asks_for_neighbors(self) -> bool:
        """Whether what one PIM neighbour may not have another one on its link may."""
        return any(rule.neighbors for rule in self.config.rules) or bool(self.config.channels_per_neighbor)

    def permits(self, channel: Channel, asker: Asker) -> bool:
        """What the rules say."""
        for rule in self.config.rules:
            if rule.matches(channel, asker):
                return rule.allow
        return self.config.allow_by_default

    def take(self, channel: Channel, asker: Asker, now: float) -> Refusal | None:
        """Take up a new wish; what comes back is why not. `now` in seconds."""
        if not self.permits(channel, asker):
            return Refusal.DENIED
        limit = self.config.channels_per_neighbor
        if limit and asker.neighbor is not None and self._per_neighbor.get(asker, 0) >= limit:
            return Refusal.NEIGHBOR_LIMIT
        if (refusal := self._lacks_bandwidth(channel)) is not None:
            return refusal
        tokens = self._tokens_of(asker, now)
        if tokens < 1:
            return Refusal.JOIN_RATE
        if channel not in self._holders and not self._room(channel):
            return Refusal.CHANNEL_LIMIT
        if self.config.joins_per_second:
            self._tokens[asker] = (tokens - 1, now)
        self._hold(channel, asker)
        return None

    def adopt(self, channel: Channel, asker: Asker) -> bool:
        """Go on with what an earlier policy took, whatever the limits are now; False when a rule denies it."""
        if not self.permits(channel, asker):
            return False
        self._hold(channel, asker)
        return True

    def release(self, channel: Channel, asker: Asker) -> None:
        """Give back what `take` took."""
        left = self._per_neighbor.get(asker, 0) - 1
        if left > 0:
            self._per_neighbor[asker] = left
        else:
            self._per_neighbor.pop(asker, None)
        holders = self._holders.get(channel, 0) - 1
        if holders > 0:
            self._holders[channel] = holders
        else:
            self._holders.pop(channel, None)
            self._reserved_in_all -= self._reserved.pop(channel, 0.0)
            if not self._reserved:
                self._reserved_in_all = 0.0  # whatever rounding left

    def _lacks_bandwidth(self, channel: Channel) -> Refusal | None:
        limit = self.config.bandwidth
        if not limit or channel in self._holders:
            return None
        needed = self._expected(channel)
        if needed is None:
            return Refusal.METADATA_PENDING
        committed = self.committed
        return Refusal.BANDWIDTH if committed >= limit or committed + needed > limit else None

    def _hold(self, channel: Channel, asker: Asker) -> None:
        self._per_neighbor[asker] = self._per_neighbor.get(asker, 0) + 1
        self._holders[channel] = self._holders.get(channel, 0) + 1
        if self.config.bandwidth and channel not in self._reserved and (needed := self._expected(channel)):
            self._reserved[channel] = needed
            self._reserved_in_all += needed

    def _tokens_of(self, asker: Asker, now: float) -> float:
        """What is left in an asker's token bucket."""
        rate, burst = self.config.joins_per_second, float(self.config.join_burst)
        if not rate:
            return burst
        if len(self._tokens) > _FORGOTTEN:
            self._tokens = {one: held for one, held in self._tokens.items() if held[0] + (now - held[1]) * rate < burst}
        tokens, since = self._tokens.get(asker, (burst, now))
        return min(burst, tokens + (now - since) * rate)


def _within(address: Address | None, prefixes: tuple[Network, ...]) -> bool:
    return not prefixes or (address is not None and any(address in prefix for prefix in prefixes))
