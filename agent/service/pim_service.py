"""PIM of router mode: every interface with multicast routers, in both families."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from agent.net.interfaces import Interface
from agent.net.link import OpenLink
from agent.net.rawlink import RawLink
from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_events import AssertChanged, AssertOutcome, BootstrapReceived, DesignatedRouterChanged
from agent.protocol.pim_packet import ALL_PIM_ROUTERS
from agent.protocol.upstream import NativeUpstream, Upstream
from agent.protocol.wire import pim
from agent.service.pim_asserts import AssertMetrics
from agent.service.pim_link import PimEvents, PimLink, Wishes
from agent.service.rendezvous_point import RendezvousPoint
from agent.tree import GroupPlan, Tree

_log = logging.getLogger(__name__)

REST: Final = 0.25
"""Seconds between two reports of changed neighbours: each has the sources behind them looked at anew."""

LinkKey = tuple[str, Family]


@dataclass(frozen=True, slots=True)
class PimCallbacks:
    """What PIM asks of its owner.

    Attributes:
        get_interface: the host's interface of a name, None while there is none.
        select: where a channel comes from.
        route_metric: metric of the unicast route to a source.
        towards: (interface, next router or None) of the unicast routes to an address.
        neighbors_changed: a neighbour on the interface came or went.
        source_met: a source of the domain sends to a group we are the RP for.
        tree_changed: the tree was told something new.
    """

    get_interface: Callable[[str], Interface | None]
    select: Callable[[Channel], Upstream | None]
    route_metric: Callable[[Address], int]
    towards: Callable[[Address], Iterable[tuple[str, Address | None]]]
    neighbors_changed: Callable[[str], None]
    source_met: Callable[[Channel], None]
    tree_changed: Callable[[], None]


class PimService:
    """All PIM links of the gateway; joins native channels upstream.

    Attributes:
        links: by interface and family, in configured order.
        config: what the machines run on.
        asserts: by channel and interface, where an Assert settled who forwards.
        rendezvous: where Registers come in, by our address.
        counts: of what is not one link's: bootstrap messages handed on or refused.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tree: Tree,
        wishes: Wishes,
        callbacks: PimCallbacks,
        open_link: OpenLink = RawLink,
    ) -> None:
        self.links: dict[LinkKey, PimLink] = {}
        self.asserts: dict[Channel, dict[str, AssertChanged]] = {}
        self.rendezvous: RendezvousPoint | None = None
        self.counts: Counter[str] = Counter()
        self._loop = loop
        self._tree = tree
        self._wishes = wishes
        self._callbacks = callbacks
        self._open_link = open_link
        self.config = PimConfig()
        self._rendezvous_addresses: tuple[Address, ...] = ()
        self._events = PimEvents(
            self._neighbors_changed, self._designated_changed, self._assert_changed, self._bootstrap_received
        )
        self._joined: dict[Channel, NativeUpstream] = {}
        self._metrics = AssertMetrics(tree, callbacks.select, callbacks.route_metric)
        self._untold: dict[str, None] = {}
        self._earliest = 0.0
        self._telling: asyncio.Handle | None = None

    def configure(self, config: PimConfig, keys: Iterable[LinkKey], rendezvous_addresses: Iterable[Address]) -> None:
        """Speak PIM on exactly these interfaces, and be the RP at these addresses.

        Links that stay go on with other timers and limits: nobody is told goodbye, nothing that was joined ends.

        Raises:
            PermissionError: the process lacks CAP_NET_RAW.
            OSError: an RP address cannot be used.
        """
        wanted, addresses = list(keys), tuple(rendezvous_addresses)
        self._configure_rendezvous(addresses if wanted else (), config)
        is_other = config != self.config
        self.config, self._rendezvous_addresses = config, addresses
        self._metrics.configure((config.assert_preference, config.assert_metric))
        for key in [key for key in self.links if key not in wanted]:
            self._close_link(key)
        for key in wanted:
            if key not in self.links:
                self._open(*key)
                continue
            self._tell_rendezvous(self.links[key])
            if is_other:
                self.links[key].configure(config)
        self.links = {key: self.links[key] for key in wanted}

    def follow(self, name: str) -> None:
        """An interface came, went or changed."""
        for (interface, _), link in self.links.items():
            if interface == name and link.follow(self._callbacks.get_interface(name)):
                self._tell_all(link)

    def find_neighbor(self, interface: str, address: Address) -> Address | None:
        """Primary address of the neighbour that has `address` on `interface`."""
        link = self.links.get((interface, Family.of(address)))
        return link.machine.find_neighbor(address) if link is not None else None

    def joined_by(self, interface: str, channel: Channel) -> Address | None:
        """The PIM neighbour on `interface` that asked for a channel last."""
        link = self.links.get((interface, channel.family))
        return link.machine.joined_by(channel) if link is not None else None

    def join(self, channel: Channel, upstream: NativeUpstream) -> None:
        """Ask a native neighbour for a channel; of what is on a link of ours there is nobody to ask."""
        before = self._joined.get(channel)
        if before is not None and before.interface != upstream.interface:
            self.prune(channel)
        self._joined[channel] = upstream
        link = self.links.get((upstream.interface, channel.family))
        if link is None or upstream.neighbor is None or channel.source is None:
            return
        link.machine.join_upstream(channel, upstream.neighbor, link.now)
        link.flush()

    def prune(self, channel: Channel) -> None:
        """Ask for it no longer."""
        upstream = self._joined.pop(channel, None)
        link = self.links.get((upstream.interface, channel.family)) if upstream is not None else None
        if link is not None and channel.source is not None:
            link.machine.prune_upstream(channel, link.now)
            link.flush()

    def group_applied(self, group: Address, plan: GroupPlan) -> None:
        """A group goes as `plan` says now: tell the links what we can assert there."""
        for interface, channel, metric in self._metrics.changes(group, plan, self.lost):
            link = self.links.get((interface, channel.family))
            if link is not None:
                link.machine.set_forwarding(channel, metric, link.now)
                link.flush()

        self._learn(group, plan)

    def lost(self, interface: str, channel: Channel) -> bool:
        """Whether another router forwards exactly this channel there."""
        settled = self.asserts.get(channel, {}).get(interface)
        return settled is not None and settled.outcome is AssertOutcome.LOSER

    def wrong_interface(self, channel: Channel, interface: str) -> None:
        """A packet of a channel came in where we may forward it to: an Assert settles who does."""
        link = self.links.get((interface, channel.family))
        if link is not None:
            link.machine.data_received(channel, link.now)
            link.flush()

    def close(self) -> None:
        """Say goodbye everywhere."""
        for key in list(self.links):
            self._close_link(key)
        if self._telling is not None:
            self._telling.cancel()
        if self.rendezvous is not None:
            self.rendezvous.close()
            self.rendezvous = None

    def _configure_rendezvous(self, addresses: tuple[Address, ...], config: PimConfig) -> None:
        if not addresses:
            if self.rendezvous is not None:
                self.rendezvous.close()
                self.rendezvous = None
        elif self.rendezvous is None:
            met = self._callbacks.source_met
            self.rendezvous = RendezvousPoint(self._loop, addresses, config.rendezvous_groups, met)
        else:
            self.rendezvous.configure(addresses, config.rendezvous_groups)

    def _tell_rendezvous(self, link: PimLink) -> None:
        ours = [address for address in self._rendezvous_addresses if address.version == link.family]
        link.machine.set_rendezvous_addresses(ours)

    def _open(self, interface: str, family: Family) -> None:
        link = PimLink(self._loop, interface, family, self.config, self._wishes, self._events, self._open_link)
        self._tell_rendezvous(link)
        self.links[interface, family] = link
        self._tell_all(link)
        link.follow(self._callbacks.get_interface(interface))

    def _tell_all(self, link: PimLink) -> None:
        """A machine that begins is told what to join and what can be asserted."""
        for channel, upstream in list(self._joined.items()):
            if upstream.interface == link.interface and channel.family is link.family:
                self.join(channel, upstream)
        for channel, metric in self._metrics.told(link.interface, link.family):
            link.machine.set_forwarding(channel, metric, link.now)
        link.flush()

    def _close_link(self, key: LinkKey) -> None:
        interface, family = key
        self.links.pop(key).close()
        settled = [channel for channel, here in self.asserts.items() if interface in here and channel.family is family]
        for channel in settled:
            self._settle(interface, channel, None)
            self._tree.set_assert(interface, channel, AssertOutcome.NO_INFO)
        self._tree.set_designated(interface, family, designated=True)
        self._tell(interface)

    def _neighbors_changed(self, link: PimLink) -> None:
        self._tell(link.interface)

    def _designated_changed(self, link: PimLink, event: DesignatedRouterChanged) -> None:
        # Without an address nobody was elected: hosts that ask are served as if PIM was not there.
        designated = event.is_ours or event.address is None
        self._tree.set_designated(link.interface, link.family, designated=designated)
        self._callbacks.tree_changed()

    def _assert_changed(self, link: PimLink, event: AssertChanged) -> None:
        _log.info(
            "pim assert interface=%s channel=%s outcome=%s winner=%s",
            link.interface,
            event.channel,
            event.outcome.value,
            event.winner,
            extra={"reason": f"assert_{event.outcome.value}"},
        )
        self._settle(link.interface, event.channel, None if event.outcome is AssertOutcome.NO_INFO else event)
        self._tree.set_assert(link.interface, event.channel, event.outcome)
        self._callbacks.tree_changed()

    def _settle(self, interface: str, channel: Channel, event: AssertChanged | None) -> None:
        here = self.asserts.setdefault(channel, {})
        if event is None:
            here.pop(interface, None)
        else:
            here[interface] = event
        if not here:
            del self.asserts[channel]

    def _bootstrap_received(self, link: PimLink, event: BootstrapReceived) -> None:
        """Hand a Bootstrap message on if it came from where its BSR is (RFC 5059 §3.1.3)."""
        towards = [
            link.machine.find_neighbor(event.bsr if gateway is None else gateway)
            for interface, gateway in self._callbacks.towards(event.bsr)
            if interface == link.interface
        ]
        if event.sender not in towards:
            self.counts["bootstrap_wrong_way"] += 1
            return
        message = pim.decode(event.message, event.sender, ALL_PIM_ROUTERS[link.family])
        for other in self.links.values():
            if other is not link and other.family is link.family and other.send(message):
                self.counts["bootstrap_forwarded"] += 1

    def _learn(self, group: Address, plan: GroupPlan) -> None:
        """Somebody wants any source of a group: those that registered before are met now."""
        if plan.any_source is None or self.rendezvous is None:
            return
        for source in self.rendezvous.sources(group):
            channel = Channel(source, group)
            if channel not in plan.routes:
                self._loop.call_soon(self._callbacks.source_met, channel)

    def _tell(self, interface: str) -> None:
        """Report changed neighbours once a turn of the loop, a restart being a loss and a gain at once.

        Somebody who comes and goes all the time is reported so often and no more.
        """
        if not self._untold:
            if self._loop.time() < self._earliest:
                self._telling = self._loop.call_at(self._earliest, self._told)
            else:
                self._telling = self._loop.call_soon(self._told)
        self._untold[interface] = None

    def _told(self) -> None:
        untold, self._untold = self._untold, {}
        self._earliest = self._loop.time() + REST
        for interface in untold:
            self._callbacks.neighbors_changed(interface)
