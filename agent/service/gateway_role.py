"""The gateway role: downstream listeners feed the tree, the tree drives tunnels and the engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final

from agent.dataplane.engine import Engine, EngineError
from agent.net.interfaces import ChangeKind, Interface, InterfaceChange, InterfaceMonitor, local_networks
from agent.net.link import OpenLink
from agent.net.mroute import MulticastRoutingError
from agent.net.rawlink import RawLink
from agent.protocol.channels import Address, Channel, Family, Network
from agent.protocol.discovery import Outcome
from agent.protocol.policy import Policy
from agent.protocol.upstream import NativeUpstream, Upstream
from agent.service.admission import AdmissionControl
from agent.service.channel_metadata import ChannelMetadata
from agent.service.config import Configuration, FrrSection
from agent.service.discovery_service import RelayDiscovery
from agent.service.downstream import Listener
from agent.service.engines import build_engine
from agent.service.fixed_keys import refuse_fixed
from agent.service.frr_mode import wish_interfaces
from agent.service.gateway_channels import ChannelControl
from agent.service.gateway_pim import GatewayPim
from agent.service.gateway_settings import (
    configured_joins,
    families,
    querier_config,
)
from agent.service.joins import StaticJoins
from agent.service.model import JoinRequest, JoinStatus
from agent.service.policy_settings import policy_config
from agent.service.port import RefusedError
from agent.service.port_store import PortStore
from agent.service.relay_directory import RelayDirectory
from agent.service.tunnel import Tunnel
from agent.service.unserved import NO_RELAY, PENDING, UNUSABLE
from agent.tree import Tree

_log = logging.getLogger(__name__)

_FIXED: Final = ("mode", "state_dir", "mroute_table", "tunnel_interface", "tunnel_addresses", "ipv4", "ipv6")
"""Keys of [gateway] that take a restart."""

_LOGGED: Final = frozenset(ChangeKind) - {ChangeKind.ADDRESSES, ChangeKind.PROPERTIES}
_WAY_BACK: Final = {ChangeKind.ADDED, ChangeKind.RENAMED, ChangeKind.UP, ChangeKind.ADDRESSES}
"""Changes of an uplink after which a relay may be reached again."""


class GatewayRole:
    """Everything of a running gateway.

    Attributes:
        configuration: what it runs on.
        tree: who wants what.
        engine: what forwards.
        fast: the choice of planes it forwards by.
        relays: the tunnels, and which channel goes through which.
        discovery: finds relays for sources the configuration names none for.
        listeners: by interface and family.
        joins: static joins.
        admission: what of everybody's wishes goes into the tree.
        control: plans, channel records and counters.
        monitor: the host's interfaces.
        missing_families: why families the configuration wants are not carried.
        frr: our side of the tunnel interface in mode `frr`, None in the other.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, configuration: Configuration, on_lost: Callable[[str], None]
    ) -> None:
        """Open everything; what was opened is closed again when something fails.

        Args:
            loop: the event loop.
            configuration: of role gateway.
            on_lost: called with the reason when something is gone that only a new start brings back.

        Raises:
            OSError: a socket or interface is not to be had.
            agent.net.tap.TapError: the tunnel interface is not to be had.
            agent.net.mroute.MulticastRoutingError: multicast routing is not to be had.
        """
        self._loop = loop
        self._on_lost = on_lost
        self._is_draining = False
        self._counted_bytes = (loop.time(), 0)
        self.configuration = configuration
        self.tree = Tree(self._upstream_of, self._native_upstream_of)
        self.listeners: dict[tuple[str, Family], Listener] = {}
        self._opened = ExitStack()
        self._farewell = False
        built = build_engine(loop, configuration, self._new_source)
        self.engine: Engine = built.engine
        self.fast = built.fast
        self._opened.callback(built.release)
        self._opened.callback(self.engine.close)
        self.missing_families = built.missing
        self.frr = built.frr
        self._open_link: OpenLink = RawLink if built.frr is None else built.frr.open_link
        self._families = tuple(family for family in families(configuration) if family not in built.missing)
        try:
            self._build(configuration)
            self._start()
        except BaseException:
            self.close(farewell=False)
            raise

    def _build(self, configuration: Configuration) -> None:
        """Make the parts and tell them of each other; each is closed with the others once it is there."""
        loop, state_dir, opened = self._loop, configuration.gateway.state_dir, self._opened
        interfaces = wish_interfaces(configuration)
        self.joins = StaticJoins(state_dir / "joins.journal", self.tree, interfaces, self._families)
        self._policed = policy_config(configuration)
        self.admission = AdmissionControl(self.tree, self._policy(), loop.time, self.changed)
        self.monitor = InterfaceMonitor(loop, self._interface_changed)
        opened.callback(self.monitor.close)
        self.pim = GatewayPim(
            loop, self.tree, self.admission, self._interface, self._select, self.changed, self._open_link
        )
        opened.callback(self.pim.close)
        opened.callback(self._close_listeners)
        self.discovery = RelayDiscovery(loop, configuration, self._relays_found)
        opened.callback(self._close_discovery)
        self.relays = RelayDirectory(
            loop, configuration, self.engine, PortStore(state_dir / "ports.json"), self._relays_changed, self.discovery
        )
        opened.callback(lambda: self.relays.close(farewell=self._farewell))
        self.control = ChannelControl(loop, self.tree, self.engine, self.tunnels, self.pim.service)
        opened.callback(self.control.close)
        self.relays.on_closing = self.control.forget_tunnel
        self.relays.on_lost = self.control.upstream_failed
        self.relays.on_established = self.control.upstream_recovered
        self.control.on_sample = self._sampled
        self.control.explain_unserved = self._why_unserved
        self.control.on_group_applied = self.pim.group_applied
        self.engine.on_first_packet = self._first_packet
        self.engine.on_wrong_interface = self._wrong_interface
        self.engine.on_unknown_source = self.pim.on_source = self._unknown_source
        self.metadata = ChannelMetadata(loop, self.discovery.servers_of, self._metadata_came)
        opened.callback(self.metadata.close)

    @property
    def draining(self) -> bool:
        """Whether receivers' interest is turned away."""
        return self._is_draining

    @property
    def tunnels(self) -> Mapping[str, Tunnel]:
        """Tunnels by name, those of the file first and in its order."""
        return self.relays.tunnels

    def set_drain(self, enabled: bool) -> None:
        """Leave every channel while draining, so that another border takes over; take them again afterwards.

        PIM neighbours are told goodbye first: until then they count on us as their upstream, DR or Assert winner.
        """
        if enabled == self._is_draining:
            return
        self._is_draining = enabled
        _log.info("drain %s", "begins" if enabled else "ends")
        self._configure_pim()
        self.control.set_paused(enabled)

    def add_join(self, join: JoinRequest) -> tuple[JoinStatus, bool]:
        """Add a join of the API; the flag tells whether it is new.

        Raises:
            RefusedError: it makes no sense here, or the channel limit is reached.
        """
        limit = self.configuration.gateway.channel_limit
        if not self.control.has_room([Channel(join.source, join.group)], limit):
            raise RefusedError("limit_reached", f"gateway.channel_limit of {limit} channels is reached")
        added = self.joins.add(join)
        self.changed()
        return added

    def changed(self) -> None:
        """The tree was changed by a listener or by the API."""
        self.control.changed()

    def reconfigure(self, configuration: Configuration) -> None:
        """Run with another configuration; streams it does not concern flow on.

        Raises:
            RefusedError: it changes what only a restart can change.
        """
        refuse_fixed(self.configuration, configuration, "gateway", _FIXED, movable=("engine",))
        refuse_fixed(self.configuration, configuration, "frr", tuple(FrrSection.model_fields), movable=("engine",))
        self.discovery.reconfigure(configuration)
        self.control.set_duplicate_window(configuration.failover.duplicate_window)
        self.relays.reconfigure(configuration)
        self.fast.choose(configuration)
        self.configuration = configuration
        self.engine.set_local_networks(self._local_networks())
        self._replace_listeners()
        self._configure_pim()
        if policy_config(configuration) != self._policed:
            self._policed = policy_config(configuration)
            self.admission.reconfigure(self._policy())
        self.joins.configure(configured_joins(configuration), wish_interfaces(configuration))
        self.tree.mark_all()
        self.control.apply()

    def close(self, *, farewell: bool = True) -> None:
        """Leave every channel, tear tunnels down and take everything out of the kernel, whatever fails on the way."""
        self._farewell = farewell
        self._opened.close()

    def _close_discovery(self) -> None:
        self._closing = self._loop.create_task(self.discovery.close())

    def _close_listeners(self) -> None:
        for listener in self.listeners.values():
            listener.close()

    def _start(self) -> None:
        self.engine.set_local_networks(self._local_networks())
        self.control.set_duplicate_window(self.configuration.failover.duplicate_window)
        self.relays.start()
        self._replace_listeners()
        self._configure_pim()
        self.joins.configure(configured_joins(self.configuration), wish_interfaces(self.configuration))
        self.control.apply()

    def _replace_listeners(self) -> None:
        wanted = [(interface, family) for interface in wish_interfaces(self.configuration) for family in self._families]
        for key in [key for key in self.listeners if key not in wanted]:
            self.listeners.pop(key).close()
        for interface, family in wanted:
            config = querier_config(self.configuration, family)
            listener = self.listeners.get((interface, family))
            if listener is not None:
                listener.reconfigure(config)
                continue
            listener = Listener(self._loop, interface, family, config, self.admission, self._open_link)
            self.listeners[interface, family] = listener
            listener.follow(self._interface(interface))
        gateway = self.configuration.gateway
        for name in (*gateway.downstream, *gateway.native, *gateway.uplink):
            if self.monitor.get(name) is None:
                _log.warning("interface absent, waiting for it interface=%s", name)

    def _configure_pim(self) -> None:
        """Speak PIM where the configuration says, and hear of sources there."""
        self.pim.configure(self.configuration, () if self._is_draining else self._families)
        self.pim.watch(self.engine)

    def _interface(self, name: str) -> Interface | None:
        """An interface as we have it, which beside FRR is the far end of the tunnel interface."""
        interface = self.monitor.get(name)
        if self.frr is not None and name == self.configuration.gateway.tunnel_interface:
            return self.frr.as_neighbor(interface)
        return interface

    def _upstream_of(self, channel: Channel) -> Upstream | None:
        return self.pim.select(channel)

    def _native_upstream_of(self, source: Address) -> NativeUpstream | None:
        return self.pim.native(source)

    def _select(self, channel: Channel) -> Upstream | None:
        return self.relays.select(channel)

    def _new_source(self, channel: Channel, tunnel: str) -> None:
        if self.admission.permits_source(channel) and self._has_room(channel):
            self.control.new_source(channel, tunnel)

    def _has_room(self, channel: Channel) -> bool:
        """Whether one more channel may be wanted; those asked for count while we are no DR, or drain, all the same."""
        limit = self.configuration.gateway.channel_limit
        return self.admission.policy.count < limit and self.control.has_room([channel], limit)

    def _policy(self) -> Policy:
        return Policy(self._policed, self._has_room, self._expected_bandwidth)

    def _expected_bandwidth(self, channel: Channel) -> float | None:
        return self.metadata.expected(channel) if self.configuration.policy.use_metadata else 0.0

    def _metadata_came(self, channel: Channel) -> None:
        self.admission.retry_channel(channel)

    def _measure(self) -> None:
        """Tell the policy what bandwidth is in use, by what came through tunnels and natively since the last sample."""
        through_tunnels = sum(traffic.bytes for traffic in self.engine.tunnel_traffic().values())
        now, counted = self._loop.time(), through_tunnels + self.control.native_bytes
        since, before = self._counted_bytes
        if now > since:
            self.admission.policy.measured = max(counted - before, 0) * 8 / (now - since)
        self._counted_bytes = (now, counted)

    def _why_unserved(self, channel: Channel) -> str:
        """Why nothing brings a wanted channel; asking is a sign of interest, which a wanted channel is anyway."""
        if channel.source is None or not self.discovery.is_enabled:
            return NO_RELAY
        answer = self.discovery.lookup(channel.source)
        if answer is None:
            return PENDING
        return UNUSABLE if answer.outcome is Outcome.FOUND else f"discovery: {answer.outcome.value}"

    def _first_packet(self, channel: Channel, tunnel: str) -> None:
        self.control.first_packet(channel, tunnel)
        self.relays.first_packet(channel, tunnel)

    def _unknown_source(self, channel: Channel, interface: str) -> None:
        if self.admission.permits_source(channel) and self._has_room(channel):
            self.control.unknown_source(channel, interface)

    def _wrong_interface(self, channel: Channel, interface: str) -> None:
        self.control.wrong_interface(channel, interface)
        self.pim.wrong_interface(channel, interface)

    def _relays_found(self, source: Address) -> None:
        self.relays.answered(source)

    def _relays_changed(self, groups: frozenset[Address]) -> None:
        self.tree.mark(groups)
        self.control.changed()

    def _interface_changed(self, change: InterfaceChange) -> None:
        """Never raises: the monitor has more changes to tell."""
        names = {change.interface.name} if change.previous is None else {change.interface.name, change.previous.name}
        gateway = self.configuration.gateway
        if change.kind in _LOGGED and not names.isdisjoint((*gateway.downstream, *gateway.native, *gateway.uplink)):
            _log.info(
                "interface %s interface=%s index=%d", change.kind.value, change.interface.name, change.interface.index
            )
        if change.kind is ChangeKind.REMOVED and change.interface.name == gateway.tunnel_interface:
            self._on_lost(f"{gateway.tunnel_interface} was removed; a new start makes it again")
            return
        self.engine.set_local_networks(self._local_networks())
        for name in names.intersection((*wish_interfaces(self.configuration), *gateway.native)):
            try:
                self._follow_multicast(name, change.kind)
            except (OSError, EngineError, MulticastRoutingError) as error:
                _log.error("interface cannot be used interface=%s: %s", name, error)
        is_uplink = not names.isdisjoint(gateway.uplink) if gateway.uplink else names.isdisjoint(gateway.downstream)
        if is_uplink and change.kind in _WAY_BACK:
            self.relays.refresh()

    def _follow_multicast(self, name: str, kind: ChangeKind) -> None:
        self.pim.follow(name)
        for (interface, _), listener in self.listeners.items():
            if interface == name:
                listener.follow(self._interface(name))
        if kind in {ChangeKind.ADDED, ChangeKind.REMOVED, ChangeKind.RENAMED}:
            self.engine.interface_changed(name)

    def _local_networks(self) -> tuple[Network, ...]:
        """Prefixes of the downstream interfaces: a tunnelled packet from there is spoofed."""
        names = self.configuration.gateway.downstream
        return local_networks(self.monitor.interfaces[name] for name in names if name in self.monitor.interfaces)

    def _sampled(self) -> None:
        """Once a sampling interval: make use of room that became free, and let go what nobody wants."""
        self._measure()
        self.pim.sampled()
        self.admission.retry()
        self.relays.sampled(lambda channel: self.control.ledger.get(channel) is not None)
