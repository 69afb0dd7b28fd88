"""The one table: who wants which channel, where it comes from, out of which interfaces.

Protocol machines tell the tree what each downstream owner wants of a group (`set_interest`); gateways, the native
joiner and the engine follow `plan(group)`, which answers for one group at once: what to ask of each upstream, and where
each channel goes.

    owners' filters --gates (DR, Assert)--> effective filters
        --merge (RFC 4605 §4.1)--> per tunnel filter, native joins --> gateway machines, PIM
        --per interface----------> outgoing interfaces             --> engine

A source listed by somebody comes from the upstream chosen for it. Any-source interest (EXCLUDE) is served by the
upstream chosen for (*,G); a tunnel is told to leave out the sources that come from elsewhere. What then arrives is
`learn`ed source by source, because engines forward exact (S,G) only. A native channel never goes back out of the
interface it comes in on, and one that nobody wants anywhere else is not carried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.protocol.channels import (
    NOTHING,
    Address,
    Channel,
    Family,
    Filter,
    FilterMode,
    is_forwardable_group,
    merge_filters,
)
from agent.protocol.pim_events import AssertOutcome
from agent.protocol.upstream import NativeUpstream, TunnelUpstream, Upstream
from agent.tree_gates import Gates, InterestKind, Owner

__all__ = [
    "EMPTY_PLAN",
    "LEARNED_SOURCES_PER_GROUP",
    "GroupPlan",
    "InterestKind",
    "NativeSelector",
    "Owner",
    "Route",
    "Tree",
    "UpstreamSelector",
]

LEARNED_SOURCES_PER_GROUP: Final = 1024

UpstreamSelector = Callable[[Channel], Upstream | None]
"""Where a channel comes from, or None when nothing brings it."""

NativeSelector = Callable[[Address], NativeUpstream | None]
"""The native upstream of a source, or None when it is not native."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where one channel comes from and goes."""

    upstream: Upstream
    interfaces: frozenset[str]


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What a group asks of tunnels, native neighbours and engine.

    Attributes:
        subscriptions: filter to report through each tunnel; tunnels not named get nothing.
        native: channels to join natively, (*,G) among them, and at which neighbour.
        routes: exact channels to forward.
        any_source: upstream whose new sources are to be learned, or None.
        unserved: channels nothing brings.
    """

    subscriptions: dict[str, Filter] = field(default_factory=dict)
    native: dict[Channel, NativeUpstream] = field(default_factory=dict)
    routes: dict[Channel, Route] = field(default_factory=dict)
    any_source: Upstream | None = None
    unserved: frozenset[Channel] = frozenset()

    def through(self, tunnel: str) -> int:
        """Channels that come through a tunnel, (*,G) as one beside its sources."""
        upstreams = [route.upstream for route in self.routes.values()]
        return sum(tunnel in tunnels_of(upstream) for upstream in (*upstreams, self.any_source))


EMPTY_PLAN: Final = GroupPlan()


def tunnels_of(upstream: Upstream | None) -> tuple[str, ...]:
    """Tunnels of an upstream; none for a native one."""
    return upstream.names if isinstance(upstream, TunnelUpstream) else ()


def _no_native(_source: Address) -> None:
    return None


class Tree:
    """Interests and learned sources of every group.

    Args:
        select: chooses the upstream of a channel somebody asks for.
        select_native: tells the native upstream of a source that any-source interest met; nothing is looked up for it
            anywhere else.
    """

    def __init__(self, select: UpstreamSelector, select_native: NativeSelector = _no_native) -> None:
        self._select = select
        self._select_native = select_native
        self._gates = Gates()
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

    def set_designated(self, interface: str, family: Family, *, designated: bool) -> None:
        """Say whether we are the DR of a link; if not, IGMP and MLD wishes there count only where we won the Assert."""
        if self._gates.set_designated(interface, family, designated=designated):
            self.mark(group for group, owners in self._interests.items() if _has_owner_on(owners, interface))

    def set_assert(self, interface: str, channel: Channel, outcome: AssertOutcome) -> None:
        """Say how an Assert stands: a loser's channel does not go out of the interface, whoever wants it there."""
        if self._gates.set_assert(interface, channel, outcome):
            self.mark((channel.group,))

    def learn(self, channel: Channel, interface: str | None = None) -> bool:
        """Take up a source that any-source interest met; False when the group is full or nobody is to get it.

        One met on an interface, not in a tunnel, must come from there: on any other it is no source but a stray.
        """
        if channel.source is None or not self.outgoing(channel) - {interface}:
            return False
        if interface is not None and not self._comes_natively(channel.source, channel.group, interface):
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
        """Interfaces that want an exact channel and may have it from us, wherever it comes from."""
        return _wanting(self._effective(channel.group), channel.source)

    def mark_all(self) -> None:
        """Have every group planned again, because tunnels or their selection changed."""
        self._dirty.update(dict.fromkeys(self._interests))

    def mark(self, groups: Iterable[Address]) -> None:
        """Have these groups planned again; those nobody wants are passed over."""
        self._dirty.update(dict.fromkeys(group for group in groups if group in self._interests))

    def changed(self) -> list[Address]:
        """Drain the groups whose plan may have changed."""
        groups = list(self._dirty)
        self._dirty.clear()
        return groups

    def plan(self, group: Address) -> GroupPlan:
        """What `group` asks of tunnels and engine now."""
        filters = self._effective(group)
        if not filters:
            return EMPTY_PLAN
        listed: set[Address] = set()
        for wanted in filters.values():
            if wanted.mode is FilterMode.INCLUDE:
                listed |= wanted.sources
        excludes = [wanted for wanted in filters.values() if wanted.mode is FilterMode.EXCLUDE]
        chosen = {source: self._select(Channel(source, group)) for source in listed}
        any_source = self._select(Channel(None, group)) if excludes else None
        unserved = {Channel(source, group) for source, upstream in chosen.items() if upstream is None}
        if excludes and any_source is None:
            unserved.add(Channel(None, group))
        if isinstance(any_source, NativeUpstream) and _wanting(filters, None) <= {any_source.interface}:
            any_source = None
        met = self._met(group, listed, any_source) if group in self._learned else {}
        own = chosen | {source: upstream for source, upstream in met.items() if upstream is not any_source}
        routes = {}
        for source, upstream in (chosen | met).items():
            interfaces = _wanting(filters, source) - _comes_in_on(upstream)
            if upstream is not None and interfaces:
                routes[Channel(source, group)] = Route(upstream, interfaces)
        return GroupPlan(
            subscriptions=_subscriptions(own, merge_filters(excludes), any_source),
            native=_native_joins(group, own, any_source, routes),
            routes=routes,
            any_source=any_source,
            unserved=frozenset(unserved),
        )

    def _comes_natively(self, source: Address, group: Address, interface: str) -> bool:
        own, shared = self._select_native(source), self._select(Channel(None, group))
        return interface in _comes_in_on(own) | _comes_in_on(shared)

    def _effective(self, group: Address) -> dict[Owner, Filter]:
        """Filters that count, those that want nothing left out."""
        owners = self._interests.get(group, {})
        if self._gates.is_open:
            return owners
        filters = {owner: self._gates.effective(owner, group, wanted) for owner, wanted in owners.items()}
        return {owner: wanted for owner, wanted in filters.items() if not wanted.wants_nothing}

    def _met(self, group: Address, listed: set[Address], any_source: Upstream | None) -> dict[Address, Upstream]:
        """Where each learned source that nobody lists comes from.

        One on a link of ours comes from there, any other native one from its neighbour, unless (*,G) is native too:
        then it stays on the shared tree (RFC 7761 §4.2.1, SwitchToSptDesired is false).
        """
        met: dict[Address, Upstream] = {}
        for source in self._learned.get(group, set()) - listed:
            native = self._select_native(source)
            if native is not None and (native.neighbor is None or not isinstance(any_source, NativeUpstream)):
                met[source] = native
            elif any_source is not None:
                met[source] = any_source
        return met


def _has_owner_on(owners: Iterable[Owner], interface: str) -> bool:
    return any(owner.interface == interface for owner in owners)


def _wanting(filters: Mapping[Owner, Filter], source: Address | None) -> frozenset[str]:
    """Interfaces whose filters admit a source, or for none every source."""
    if source is None:
        return frozenset(owner.interface for owner, wanted in filters.items() if wanted.mode is FilterMode.EXCLUDE)
    return frozenset(owner.interface for owner, wanted in filters.items() if wanted.admits(source))


def _comes_in_on(upstream: Upstream | None) -> frozenset[str]:
    """The interface an upstream's packets come in on, where they never go out again; none for tunnels."""
    return frozenset((upstream.interface,)) if isinstance(upstream, NativeUpstream) else frozenset()


def _subscriptions(
    chosen: Mapping[Address, Upstream | None], excluded: Filter, any_source: Upstream | None
) -> dict[str, Filter]:
    by_tunnel: dict[str, set[Address]] = {}
    for source, upstream in chosen.items():
        for tunnel in tunnels_of(upstream):
            by_tunnel.setdefault(tunnel, set()).add(source)
    filters = {tunnel: Filter.include(sources) for tunnel, sources in by_tunnel.items()}
    for tunnel in tunnels_of(any_source):
        here = by_tunnel.get(tunnel, set())
        elsewhere = {source for source, upstream in chosen.items() if upstream is not None} - here
        filters[tunnel] = Filter.exclude((excluded.sources - here) | elsewhere)
    return filters


def _native_joins(
    group: Address,
    chosen: Mapping[Address, Upstream | None],
    any_source: Upstream | None,
    routes: Mapping[Channel, Route],
) -> dict[Channel, NativeUpstream]:
    """Channels to ask a neighbour for; what is on a link of ours comes unasked."""
    joins = {Channel(source, group): upstream for source, upstream in chosen.items()}
    wanted: dict[Channel, Upstream | None] = {channel: joins[channel] for channel in joins if channel in routes}
    wanted[Channel(None, group)] = any_source
    return {
        channel: upstream
        for channel, upstream in wanted.items()
        if isinstance(upstream, NativeUpstream) and upstream.neighbor is not None
    }
