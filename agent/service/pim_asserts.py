"""What we can assert on each link: the preference and metric of every channel we forward, or would (RFC 7761 §4.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from agent.protocol.channels import Address, Channel, Family, FilterMode
from agent.protocol.upstream import NativeUpstream, Upstream
from agent.tree import GroupPlan, Tree

Metric = tuple[int, int]
"""Metric preference and metric; lower wins."""

ON_LINK_PREFERENCE: Final = 0
ROUTED_PREFERENCE: Final = 100
"""Preferences of native channels: the kernel tells that there is a route, not which protocol found it."""


class AssertMetrics:
    """Compares what can be asserted with what was told the links.

    CouldAssert holds while somebody on the link wants the channel and we have it, whether an Assert is lost or not. The
    plan leaves lost ones out; what was told of them stays until nobody on the link wants them any more.
    """

    def __init__(
        self, tree: Tree, select: Callable[[Channel], Upstream | None], route_metric: Callable[[Address], int]
    ) -> None:
        self._tree = tree
        self._select = select
        self._route_metric = route_metric
        self._of_tunnels: Metric = (200, 0)
        self._told: dict[Address, dict[tuple[str, Channel], Metric]] = {}

    def configure(self, of_tunnels: Metric) -> None:
        """Assert channels out of tunnels with this; it counts for what changes from now on."""
        self._of_tunnels = of_tunnels

    def changes(
        self, group: Address, plan: GroupPlan, lost: Callable[[str, Channel], bool]
    ) -> Iterator[tuple[str, Channel, Metric | None]]:
        """(interface, channel, metric or None for no longer) that differ from what was told of a group."""
        told = self._told.get(group, {})
        wanted = self._assertable(group, plan)
        for key in told.keys() - wanted.keys():
            if lost(*key) and self._would_forward(*key):
                wanted[key] = told[key]
        if wanted:
            self._told[group] = wanted
        else:
            self._told.pop(group, None)
        for key in told.keys() - wanted.keys():
            yield (*key, None)
        for key, metric in wanted.items():
            if told.get(key) != metric:
                yield (*key, metric)

    def told(self, interface: str, family: Family) -> Iterator[tuple[Channel, Metric]]:
        """Everything told of a link."""
        for group, told in self._told.items():
            if Family.of(group) is family:
                yield from ((channel, metric) for (name, channel), metric in told.items() if name == interface)

    def _assertable(self, group: Address, plan: GroupPlan) -> dict[tuple[str, Channel], Metric]:
        wanted: dict[tuple[str, Channel], Metric] = {}
        for channel, route in plan.routes.items():
            metric = self._metric(channel, route.upstream)
            wanted.update(((interface, channel), metric) for interface in route.interfaces)
        if plan.any_source is not None:
            any_source = Channel(None, group)
            metric = self._metric(any_source, plan.any_source)
            wanted.update(((interface, any_source), metric) for interface in self._tree.outgoing(any_source))
        return wanted

    def _metric(self, channel: Channel, upstream: Upstream) -> Metric:
        if not isinstance(upstream, NativeUpstream) or channel.source is None:
            return self._of_tunnels
        if upstream.neighbor is None:
            return (ON_LINK_PREFERENCE, 0)
        return (ROUTED_PREFERENCE, self._route_metric(channel.source) & 0x7FFFFFFF)

    def _would_forward(self, interface: str, channel: Channel) -> bool:
        upstream = self._select(channel)
        if upstream is None or (isinstance(upstream, NativeUpstream) and upstream.interface == interface):
            return False
        return any(
            wanted.mode is FilterMode.EXCLUDE if channel.source is None else wanted.admits(channel.source)
            for owner, wanted in self._tree.owners(channel.group).items()
            if owner.interface == interface
        )
