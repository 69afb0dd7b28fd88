"""What the gateway role knows of the domain's routers: PIM on the links, unicast routes, native sources."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from agent.dataplane.engine import Engine, EngineError
from agent.net.interfaces import Interface
from agent.net.link import OpenLink
from agent.net.mroute_layout import SLOTS
from agent.net.rawlink import RawLink
from agent.net.rpf import UnicastRoutes
from agent.protocol.channels import Address, Channel, Family
from agent.protocol.upstream import NativeUpstream, Upstream
from agent.service.config import Configuration
from agent.service.config.sections import GatewayMode
from agent.service.native import NativeFirst, Selector
from agent.service.pim_link import Wishes
from agent.service.pim_service import PimCallbacks, PimService
from agent.service.pim_settings import pim_config, pim_interfaces, rendezvous_addresses
from agent.tree import GroupPlan, Tree

_log = logging.getLogger(__name__)

_SAMPLES_BETWEEN_SWEEPS: Final = 60


class GatewayPim:
    """PIM and native first of a gateway.

    Attributes:
        service: the PIM links.
        native_first: where channels come from.
        routes: the unicast routes to their sources.
        interfaces: where sources of any-source groups are to be noticed; none beside FRR, which knows them.
        on_source: called with a channel that registered with us, and the interface its packets will come in on.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tree: Tree,
        wishes: Wishes,
        get_interface: Callable[[str], Interface | None],
        relays: Selector,
        on_changed: Callable[[], None],
        open_link: OpenLink = RawLink,
    ) -> None:
        """Follow routes; nothing is spoken before `configure`.

        Args:
            loop: the event loop.
            tree: who wants what; its selectors are `select` and `native` of this.
            wishes: takes what PIM neighbours want.
            get_interface: the host's interface of a name.
            relays: chooses the tunnels of what is not native.
            on_changed: called when the tree was told something new.
            open_link: opens the link of an interface; beside FRR, that of the tunnel interface.

        Raises:
            OSError: no rtnetlink socket could be had.
        """
        self._tree = tree
        self.interfaces: frozenset[str] = frozenset()
        self.on_source: Callable[[Channel, str], None] = lambda _channel, _interface: None
        self._on_changed = on_changed
        self._watched: frozenset[str] = frozenset()
        self._samples = 0
        self.routes = UnicastRoutes(loop, self._routes_changed)
        callbacks = PimCallbacks(
            get_interface=get_interface,
            select=self.select,
            route_metric=self._route_metric,
            towards=self._towards,
            neighbors_changed=self._neighbors_changed,
            source_met=self.source_met,
            tree_changed=on_changed,
        )
        self.service = PimService(loop, tree, wishes, callbacks, open_link)
        self.native_first = NativeFirst(self.routes, self.service, relays, self._mark)

    def configure(self, configuration: Configuration, families: tuple[Family, ...]) -> None:
        """Take over a configuration.

        Raises:
            PermissionError: the process lacks CAP_NET_RAW.
        """
        gateway = configuration.gateway
        is_router = gateway.mode is GatewayMode.ROUTER
        keys = [(name, family) for name in pim_interfaces(configuration) for family in families]
        self.interfaces = self._watchable((*gateway.downstream, *gateway.native) if is_router else ())
        addresses = rendezvous_addresses(configuration, families)
        self.service.configure(pim_config(configuration), keys, addresses if keys else ())
        self.native_first.configure(gateway.downstream if is_router else (), gateway.native if is_router else ())

    def watch(self, engine: Engine) -> None:
        """Have the engine tell of sources on our interfaces, and only there."""
        for name in self._watched - self.interfaces:
            engine.unwatch_interface(name)
        for name in self.interfaces - self._watched:
            try:
                engine.watch_interface(name)
            except EngineError as error:
                _log.warning("native sources are not noticed interface=%s: %s", name, error)
        self._watched = self.interfaces

    def select(self, channel: Channel) -> Upstream | None:
        """Where a channel comes from."""
        return self.native_first.select(channel)

    def native(self, source: Address) -> NativeUpstream | None:
        """The native upstream of a source, None when it has none."""
        return self.native_first.native(source)

    def follow(self, name: str) -> None:
        """An interface came, went or changed."""
        self.service.follow(name)

    def group_applied(self, group: Address, plan: GroupPlan) -> None:
        """A group goes as `plan` says now."""
        self.service.group_applied(group, plan)

    def source_met(self, channel: Channel) -> None:
        """A source registered with us: whoever wants every source of the group gets it, if it comes natively."""
        native = self.native(channel.source) if channel.source is not None else None
        if native is not None:
            self.on_source(channel, native.interface)

    def wrong_interface(self, channel: Channel, interface: str) -> None:
        """A packet of a channel we forward came in on another interface than it should."""
        self.service.wrong_interface(channel, interface)

    def sampled(self) -> None:
        """Once a sampling interval: now and then forget sources nobody wants any more."""
        self._samples += 1
        if self._samples % _SAMPLES_BETWEEN_SWEEPS == 0:
            learned = {channel.source for channel in self._tree.learned() if channel.source is not None}
            self.native_first.forget_unused(lambda channel: bool(self._tree.outgoing(channel)), learned)

    def close(self) -> None:
        """Say goodbye to the neighbours, follow nothing any more."""
        self.service.close()
        self.routes.close()

    def _watchable(self, names: Iterable[str]) -> frozenset[str]:
        """All of them, or none when they alone would fill the kernel's table, one slot being the tunnel interface's."""
        found = frozenset(names)
        if len(found) < SLOTS:
            return found
        _log.warning(
            "native sources of any-source groups are not noticed: %d interfaces, %d fit", len(found), SLOTS - 1
        )
        return frozenset()

    def _towards(self, address: Address) -> Iterator[tuple[str, Address | None]]:
        route = self.routes.towards(address)
        for hop in route.hops if route is not None else ():
            yield hop.interface, hop.gateway

    def _route_metric(self, source: Address) -> int:
        route = self.routes.towards(source)
        return route.metric if route is not None else 0

    def _routes_changed(self, addresses: frozenset[Address]) -> None:
        self.native_first.reconsider(addresses)

    def _neighbors_changed(self, interface: str) -> None:
        self.native_first.neighbors_changed(interface)

    def _mark(self, groups: Iterable[Address], sources: frozenset[Address]) -> None:
        learned = {channel.group for channel in self._tree.learned() if channel.source in sources}
        self._tree.mark({*groups, *learned})
        self._on_changed()
