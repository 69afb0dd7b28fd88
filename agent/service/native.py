"""Native first: no relay is asked for a source whose native router is known (RFC 8313 §3.3).

The unicast route to a source decides (RFC 7761 §4.2, RPF). It is native when the route leads onto a downstream or
native link, or to a PIM neighbour there; a default route out of a downstream interface says nothing, since whatever is
behind nobody's border has one. Otherwise the relays are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from agent.net.rpf import Hop, UnicastRoute
from agent.protocol.channels import Address, Channel
from agent.protocol.upstream import NativeUpstream, Upstream

Selector = Callable[[Channel], Upstream | None]


class Routes(Protocol):
    """The unicast routing table, as agent.net.rpf follows it."""

    def towards(self, address: Address) -> UnicastRoute | None:
        """The route to an address, whose changes are reported from now on."""

    def forget(self, address: Address) -> None:
        """Report them no longer."""


class Neighbors(Protocol):
    """The PIM neighbours, as agent.service.pim_service knows them."""

    def find_neighbor(self, interface: str, address: Address) -> Address | None:
        """Primary address of the neighbour that has `address` on `interface`."""


class NativeFirst:
    """Chooses where channels come from, and tells which have to be planned again.

    Args:
        routes: the unicast routing table.
        neighbors: the PIM neighbours.
        relays: chooses the tunnels of a channel that is not native.
        mark: called with the groups whose channels come from elsewhere now, and with the sources that moved.
    """

    def __init__(
        self,
        routes: Routes,
        neighbors: Neighbors,
        relays: Selector,
        mark: Callable[[frozenset[Address], frozenset[Address]], None],
    ) -> None:
        self._routes = routes
        self._neighbors = neighbors
        self._relays = relays
        self._mark = mark
        self._downstream: frozenset[str] = frozenset()
        self._native: frozenset[str] = frozenset()
        self._chosen: dict[Address, NativeUpstream | None] = {}
        self._groups: dict[Address, set[Address]] = {}
        self._behind: dict[str, set[Address]] = {}

    def configure(self, downstream: Iterable[str], native: Iterable[str]) -> None:
        """Use these interfaces; every source is looked at again."""
        self._downstream, self._native = frozenset(downstream), frozenset(native)
        self.reconsider()

    def select(self, channel: Channel) -> Upstream | None:
        """Where `channel` comes from; (*,G) always comes from the relays, its sources each from where they are."""
        source = channel.source
        if source is None:
            return self._relays(channel)
        native = self.native(source)
        self._groups.setdefault(source, set()).add(channel.group)
        return native or self._relays(channel)

    def native(self, source: Address) -> NativeUpstream | None:
        """The native upstream of a source; None when it is to come from the relays."""
        if source not in self._chosen:
            self._chosen[source] = self._upstream(source)
        return self._chosen[source]

    def reconsider(self, sources: Iterable[Address] | None = None) -> None:
        """Routes to `sources` changed, or to every source: mark what comes from elsewhere now."""
        groups: set[Address] = set()
        moved = set()
        for source in list(self._chosen if sources is None else sources):
            if source not in self._chosen:
                continue
            upstream = self._upstream(source)
            if upstream != self._chosen[source]:
                self._chosen[source] = upstream
                groups |= self._groups.get(source, set())
                moved.add(source)
        if moved:
            self._mark(frozenset(groups), frozenset(moved))

    def neighbors_changed(self, interface: str) -> None:
        """A neighbour on an interface came, went or has other addresses: look at the sources behind it."""
        self.reconsider(list(self._behind.get(interface, ())))

    def forget_unused(self, is_wanted: Callable[[Channel], bool], learned: Iterable[Address] = ()) -> None:
        """Drop sources of which no channel is wanted any more, save those that were learned."""
        kept = set(learned)
        for source in list(self._chosen):
            groups = self._groups.get(source, set())
            groups -= {group for group in groups if not is_wanted(Channel(source, group))}
            if not groups and source not in kept:
                self._groups.pop(source, None)
                for behind in self._behind.values():
                    behind.discard(source)
                del self._chosen[source]
                self._routes.forget(source)

    def _upstream(self, source: Address) -> NativeUpstream | None:
        route = self._routes.towards(source)
        if route is None:
            return None
        for hop in route.hops:
            if hop.gateway is not None and (hop.interface in self._native or hop.interface in self._downstream):
                self._behind.setdefault(hop.interface, set()).add(source)
        found = [upstream for hop in route.hops if (upstream := self._through(hop, is_default=not route.prefix_length))]
        # Of equal paths the one with the highest neighbour is taken (RFC 7761 §4.1.6 leaves it open), on link first.
        return max(found, key=lambda item: (item.neighbor is None, int(item.neighbor or 0)), default=None)

    def _through(self, hop: Hop, *, is_default: bool) -> NativeUpstream | None:
        if hop.gateway is None:
            is_ours = hop.interface in self._downstream or hop.interface in self._native
            return NativeUpstream(hop.interface) if is_ours and not is_default else None
        if hop.interface not in self._native and (is_default or hop.interface not in self._downstream):
            return None
        neighbor = self._neighbors.find_neighbor(hop.interface, hop.gateway)
        return NativeUpstream(hop.interface, neighbor) if neighbor is not None else None
