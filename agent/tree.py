"""The one table: who wants which channel, from which tunnel, out of which interfaces.

Protocol machines tell the tree what each downstream owner wants of a group (`set_interest`); gateways and the engine
follow `plan(group)`, which answers for one group at once: what to ask of each tunnel, and where each channel goes.

    owners' filters --merge (RFC 4605 §4.1)--> per tunnel filter    --> gateway machines
                    --per interface--------> outgoing interfaces --> engine

A source listed by somebody travels through the tunnel chosen for it. Any-source interest (EXCLUDE) travels through the
tunnel chosen for (*,G), which is told to leave out the sources that come through other tunnels; what then arrives is
`learn`ed source by source, because engines forward exact (S,G) only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from agent.protocol.channels import (
    NOTHING,
    Address,
    Channel,
    Filter,
    FilterMode,
    is_forwardable_group,
    merge_filters,
)

LEARNED_SOURCES_PER_GROUP: Final = 1024

TunnelSelector = Callable[[Channel], str | None]
"""Name of the tunnel that brings a channel, or None when no relay serves it."""


class InterestKind(Enum):
    """Where an interest comes from; the value is what `channels` shows."""

    IGMP = "igmp"
    MLD = "mld"
    STATIC = "static"
    API = "api"


@dataclass(frozen=True, slots=True)
class Owner:
    """Somebody downstream who wants groups: a protocol on an interface, or an operator for an interface."""

    kind: InterestKind
    interface: str


@dataclass(frozen=True, slots=True)
class Route:
    """Where one channel comes from and goes."""

    tunnel: str
    interfaces: frozenset[str]


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What a group asks of tunnels and engine.

    Attributes:
        subscriptions: filter to report through each tunnel; tunnels not named get nothing.
        routes: exact channels to forward.
        any_source: tunnel whose new sources are to be learned, or None.
        unserved: channels no relay serves.
    """

    subscriptions: dict[str, Filter] = field(default_factory=dict)
    routes: dict[Channel, Route] = field(default_factory=dict)
    any_source: str | None = None
    unserved: frozenset[Channel] = frozenset()


EMPTY_PLAN: Final = GroupPlan()


class Tree:
    """Interests and learned sources of every group."""

    def __init__(self, select: TunnelSelector) -> None:
        self._select = select
        self._interests: dict[Address, dict[Owner, Filter]] = {}
        self._learned: dict[Address, set[Address]] = {}
        self._dirty: dict[Address, None] = {}

    def set_interest(self, owner: Owner, group: Address, wanted: Filter) -> None:
        """Replace what `owner` wants of `group`; `NOTHING` withdraws it.

        Raises:
            ValueError: the group may not cross a router.
        """
        if not is_forwardable_group(group):
            raise ValueError(f"{group} is not a group that may be forwarded")
        owners = self._interests.get(group, {})
        if owners.get(owner, NOTHING) == wanted:
            return
        if wanted.wants_nothing:
            owners.pop(owner, None)
        else:
            self._interests.setdefault(group, owners)[owner] = wanted
        if not owners:
            self._interests.pop(group, None)
            self._learned.pop(group, None)
        self._dirty[group] = None

    def interest(self, owner: Owner, group: Address) -> Filter:
        """What `owner` wants of `group`."""
        return self._interests.get(group, {}).get(owner, NOTHING)

    def withdraw_interface(self, interface: str) -> None:
        """Withdraw every interest on `interface`."""
        for group, owners in list(self._interests.items()):
            for owner in [owner for owner in owners if owner.interface == interface]:
                self.set_interest(owner, group, NOTHING)

    def learn(self, channel: Channel) -> bool:
        """Take up a source that any-source interest brought; False when the group is full or does not want it."""
        if channel.source is None or not self.outgoing(channel):
            return False
        learned = self._learned.setdefault(channel.group, set())
        if channel.source in learned:
            return True
        if len(learned) >= LEARNED_SOURCES_PER_GROUP:
            return False
        learned.add(channel.source)
        self._dirty[channel.group] = None
        return True

    def forget(self, channel: Channel) -> None:
        """Drop a learned source that went silent."""
        learned = self._learned.get(channel.group)
        if learned is not None and channel.source in learned:
            learned.discard(channel.source)
            self._dirty[channel.group] = None

    def learned(self) -> Iterator[Channel]:
        """Channels that are there only because any-source interest met their source."""
        for group, sources in self._learned.items():
            for source in sources:
                yield Channel(source, group)

    def groups(self) -> Iterator[Address]:
        """Groups somebody wants."""
        return iter(self._interests)

    def owners(self, group: Address) -> dict[Owner, Filter]:
        """Who wants what of `group`."""
        return dict(self._interests.get(group, {}))

    def membership(self, group: Address) -> Filter:
        """The merged filter of all owners (RFC 4605 §4.1)."""
        return merge_filters(self._interests.get(group, {}).values())

    def outgoing(self, channel: Channel) -> frozenset[str]:
        """Interfaces that want an exact channel."""
        owners = self._interests.get(channel.group, {})
        source = channel.source
        if source is None:
            return frozenset(owner.interface for owner, wanted in owners.items() if wanted.mode is FilterMode.EXCLUDE)
        return frozenset(owner.interface for owner, wanted in owners.items() if wanted.admits(source))

    def mark_all(self) -> None:
        """Have every group planned again, because tunnels or their selection changed."""
        self._dirty.update(dict.fromkeys(self._interests))

    def changed(self) -> list[Address]:
        """Drain the groups whose plan may have changed."""
        groups = list(self._dirty)
        self._dirty.clear()
        return groups

    def plan(self, group: Address) -> GroupPlan:
        """What `group` asks of tunnels and engine now."""
        owners = self._interests.get(group)
        if not owners:
            return EMPTY_PLAN
        listed: set[Address] = set()
        for wanted in owners.values():
            if wanted.mode is FilterMode.INCLUDE:
                listed |= wanted.sources
        excludes = [wanted for wanted in owners.values() if wanted.mode is FilterMode.EXCLUDE]
        chosen = {source: self._select(Channel(source, group)) for source in listed}
        any_source = self._select(Channel(None, group)) if excludes else None
        unserved = {Channel(source, group) for source, tunnel in chosen.items() if tunnel is None}
        if excludes and any_source is None:
            unserved.add(Channel(None, group))
        subscriptions = self._subscriptions(chosen, merge_filters(excludes), any_source)
        routes = {
            Channel(source, group): Route(tunnel, self.outgoing(Channel(source, group)))
            for source, tunnel in chosen.items()
            if tunnel is not None
        }
        if any_source is not None:
            for source in self._learned.get(group, set()) - listed:
                channel = Channel(source, group)
                interfaces = self.outgoing(channel)
                if interfaces:
                    routes[channel] = Route(any_source, interfaces)
        return GroupPlan(subscriptions, routes, any_source, frozenset(unserved))

    @staticmethod
    def _subscriptions(
        chosen: dict[Address, str | None], excluded: Filter, any_source: str | None
    ) -> dict[str, Filter]:
        by_tunnel: dict[str, set[Address]] = {}
        for source, tunnel in chosen.items():
            if tunnel is not None:
                by_tunnel.setdefault(tunnel, set()).add(source)
        filters = {tunnel: Filter.include(sources) for tunnel, sources in by_tunnel.items()}
        if any_source is not None:
            here = by_tunnel.get(any_source, set())
            elsewhere = {source for source, tunnel in chosen.items() if tunnel not in (None, any_source)}
            filters[any_source] = Filter.exclude((excluded.sources - here) | elsewhere)
        return filters
