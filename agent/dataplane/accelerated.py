"""The engine of the fast data planes: it fills the maps of programs in the kernel, above the userspace engine."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack

from agent.dataplane.engine import Counters, FirstPacket, InterfaceUpcall, Refusal, Traffic, TunnelSocket, ignore
from agent.dataplane.fast.channels import FastChannel, FastChannels, sum_of
from agent.dataplane.fast.counters import CounterArray
from agent.dataplane.fast.events import FirstPackets
from agent.dataplane.fast.groups import FastGroups
from agent.dataplane.fast.layout import (
    EXCEPTIONS,
    MOST_TUNNELS,
    REFUSALS,
    Plane,
)
from agent.dataplane.fast.outgoing import Outgoing
from agent.dataplane.fast.planning import PLANE_NAMES, Planner, Wish
from agent.dataplane.fast.port import Ports
from agent.dataplane.fast.port_table import PortTable
from agent.dataplane.fast.programs import Programs
from agent.dataplane.fast.redirected import Redirected
from agent.dataplane.fast.registry import NOTHING, ChannelRegistry
from agent.dataplane.fast.replanning import Replanning
from agent.dataplane.fast.sets import InterfaceSets
from agent.dataplane.fast.slots import Slots
from agent.dataplane.fast.tunnels import FastTunnels
from agent.dataplane.fast.uplinks import Uplinks
from agent.dataplane.userspace import UserspaceEngine
from agent.protocol.channels import Address, Channel, Network

_log = logging.getLogger(__name__)


class AcceleratedEngine:
    """Forwards in the kernel what it wholly understands; the userspace engine takes everything else.

    Implements `agent.dataplane.engine.Engine`. Closing it closes all it was given.

    A channel that turns from userspace to a program does so in the loop's next turn, after what waits in its tunnel's
    socket was forwarded. What the kernel has in hand at that moment, a few packets between the driver and the socket,
    is forwarded after packets that came later. In the other direction the order is kept.

    Args:
        loop: the event loop; every method is called from its thread.
        slow: the userspace engine, which has every tunnel's socket and every route.
        programs: the loaded object.
        ports: what is known of outgoing interfaces.
        uplinks: where tunnels come in.
        planes: the planes that may be used, the best first.
        outgoing: another daemon routes (FRR) and this says where; None when routes are those of `set_channel`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        slow: UserspaceEngine,
        programs: Programs,
        ports: Ports,
        uplinks: Uplinks,
        planes: Sequence[Plane],
        *,
        outgoing: Outgoing | None = None,
    ) -> None:
        self.on_first_packet: FirstPacket = ignore
        self.on_wrong_interface: InterfaceUpcall = ignore
        self.on_unknown_source: InterfaceUpcall = ignore
        self._slow, self._programs = slow, programs
        self._ports, self._uplinks, self._outgoing = ports, uplinks, outgoing
        self._registry = ChannelRegistry(ports.want)
        self._networks: tuple[Network, ...] = ()
        self._wished = tuple(planes)
        self._is_closed = False
        now = loop.time
        slots = Slots(loop, CounterArray(programs.map("channel_counters"), 2, now), programs.channel_slots, "channel")
        through = Slots(loop, CounterArray(programs.map("tunnel_counters"), 2, now), MOST_TUNNELS, "tunnel")
        self._all_slots = (slots, through)
        self._refused = CounterArray(programs.map("refused"), 1, now, len(REFUSALS))
        self._exceptions = CounterArray(programs.map("exceptions"), 1, now, len(EXCEPTIONS))
        self._events = FirstPackets(loop, programs, self._first_seen, slots.counted)
        with ExitStack() as opened:
            opened.callback(self._events.close)
            self._set_up(loop, slow, slots, through, tuple(planes))
            opened.pop_all()

    def _set_up(
        self,
        loop: asyncio.AbstractEventLoop,
        slow: UserspaceEngine,
        slots: Slots,
        through: Slots,
        planes: tuple[Plane, ...],
    ) -> None:
        """Put together what reads events and what they are about."""
        programs, ports, uplinks, outgoing = self._programs, self._ports, self._uplinks, self._outgoing
        slots.before_reuse = self._events.drain
        self._tunnels = FastTunnels(programs, uplinks, through)
        self._groups = FastGroups(programs, self._bar)
        self._sets = InterfaceSets(programs, loop.time)
        table = PortTable(loop, programs)
        self._table = table
        self._channels = FastChannels(
            programs, slots, self._tunnels, self._groups, self._sets, table, self._events, slow.set_trains
        )
        self._planner = Planner(ports, self._tunnels, outgoing, planes)
        self._plans = Replanning(loop, self._planner, self._channels, slow.drain, self._is_local)
        self._redirected = Redirected(self._registry.all, slots)
        slow.on_first_packet = self._tell_first_packet
        slow.on_wrong_interface = self._tell_wrong_interface
        slow.on_unknown_source = self._tell_unknown_source
        ports.on_changed = self._port_changed
        uplinks.on_changed = self._uplink_changed
        if outgoing is not None:
            outgoing.on_changed = self._outgoing_changed
        uplinks.wish(planes)

    @property
    def name(self) -> str:
        """The best plane in use; before any channel is set, the best one a tunnel allows."""
        wish = self._planner.planes
        for plane in wish:
            if self._channels.planes[plane]:
                return PLANE_NAMES[plane]
        if not self._registry:
            seen = {plane for name in self._tunnels for plane in self._uplinks.planes(name)}
            return next((PLANE_NAMES[plane] for plane in wish if plane in seen), PLANE_NAMES[Plane.USERSPACE])
        return PLANE_NAMES[Plane.USERSPACE]

    @property
    def details(self) -> dict[str, str]:
        """How the engine works on this host."""
        return {
            **self._slow.details,
            **({"lost_events": str(self._events.lost)} if self._events.lost else {}),
        }

    def channels(self) -> dict[Plane, int]:
        """How many channels each plane forwards; planes without any are left out."""
        return {plane: count for plane, count in self._channels.planes.items() if count}

    def exceptions(self) -> dict[str, int]:
        """Data of tunnels that the programs left to the sockets, by reason (`fast.layout.EXCEPTIONS`)."""
        return {name: count for name, count in zip(EXCEPTIONS, self._exceptions.all()[0], strict=False) if count}

    def forwarded_by_userspace(self) -> Traffic:
        """What the programs left to the sockets, and userspace handed on."""
        return self._slow.counters().forwarded

    def choose(self, planes: Sequence[Plane]) -> None:
        """Use these planes from now on, the best first; channels move over with no gap.

        Programs of planes no longer wished for stay attached until no channel's entry names them.
        """
        self._planner.planes = tuple(planes)
        self._wish((*planes, *(plane for plane in self._wished if plane not in planes)))
        self._plans.again(self._registry.all())
        self._plans.when_done(lambda: self._wish(self._planner.planes))

    def explain(self, channel: Channel) -> tuple[Plane, str]:
        """Who forwards a channel, and why no better plane does; the reason is empty for the first wish."""
        state = self._registry.get(channel)
        if state is None:
            return Plane.USERSPACE, "is not set"
        return state.plan.plane, state.fault or state.plan.reason

    def add_tunnel(self, tunnel: TunnelSocket) -> None:
        """Start reading a tunnel's socket; replaces a tunnel of the same name."""
        self._slow.add_tunnel(tunnel)
        if self._channels.wants_whole(tunnel.name):
            self._slow.set_trains(tunnel.name, wanted=False)
        self._uplinks.add_tunnel(tunnel)
        self._tunnels.add(tunnel)
        self._plans.again(self._registry.of_tunnel(tunnel.name))

    def remove_tunnel(self, name: str) -> None:
        """Stop reading a tunnel's socket; the caller closes it."""
        self._tunnels.remove(name)
        self._plans.again(self._registry.of_tunnel(name))
        self._plans.when_done(self._tunnels.release)
        self._uplinks.remove_tunnel(name)
        self._slow.remove_tunnel(name)

    def set_channel(
        self, channel: Channel, tunnels: frozenset[str], interfaces: frozenset[str], incoming: str | None = None
    ) -> None:
        """Forward `channel` out of `interfaces`, from `tunnels` or natively from `incoming`.

        Raises:
            EngineError: the kernel cannot forward it.
        """
        wish = Wish(tunnels, interfaces, incoming)
        state = self._registry.get(channel)
        if state is not None and state.plan.is_fast and not self._planner.plan(channel, wish).is_fast:
            # What comes meanwhile waits in the socket until the slow path is ready for it.
            self._channels.leave_to_userspace(state, "is about to change")
        try:
            self._slow.set_channel(channel, tunnels, interfaces, incoming)
        except BaseException:
            if state is not None:
                self._plans.again((state,))
            raise
        is_new = state is None
        if state is None:
            state = FastChannel(channel, NOTHING)
            self._registry.add(state)
        self._registry.use(state, wish, self._planner.interfaces(channel, wish))
        self._channels.set_wish(state, wish)
        self._plans.apply(state, at_once=is_new and channel.group not in self._groups)

    def remove_channel(self, channel: Channel) -> None:
        """Stop forwarding; nothing happens when the channel is unknown."""
        state = self._registry.remove(channel)
        if state is not None:
            self._channels.remove(state)
            self._plans.drop(state)
        self._slow.remove_channel(channel)

    def set_group(self, group: Address, tunnels: frozenset[str]) -> None:
        """Report each new source of `group` arriving through `tunnels` to `on_new_source`."""
        self._slow.set_group(group, tunnels)
        self._groups.set(group)

    def remove_group(self, group: Address) -> None:
        """Forget any-source interest; channels already set stay."""
        self._groups.remove(group)
        self._slow.remove_group(group)

    def watch_interface(self, name: str) -> None:
        """Take part in multicast routing on an interface before any channel uses it.

        Raises:
            EngineError: the kernel cannot route on it, or too many interfaces are in use.
        """
        self._slow.watch_interface(name)

    def unwatch_interface(self, name: str) -> None:
        """Watch an interface no longer; channels set stay."""
        self._slow.unwatch_interface(name)

    def interface_changed(self, name: str) -> None:
        """Attach an interface again after it was created, removed or recreated."""
        self._slow.interface_changed(name)
        self._port_changed(name)

    def set_local_networks(self, networks: Iterable[Network]) -> None:
        """Replace the prefixes whose addresses may not be the source of a tunnelled packet."""
        wanted = tuple(networks)
        self._slow.set_local_networks(wanted)
        if wanted == self._networks:
            return
        self._networks = wanted
        self._plans.again(self._registry.all())

    def set_duplicate_window(self, seconds: float) -> None:
        """Recognise copies of packets this far apart, for channels that have several tunnels from now on."""
        self._slow.set_duplicate_window(seconds)

    def traffic(self, channel: Channel) -> Traffic | None:
        """What was forwarded of one channel since it was set, None when it is not set."""
        total, state = self._slow.traffic(channel), self._registry.get(channel)
        if total is not None and state is not None:
            self._channels.add_traffic(state, total)
        return total

    def feed_traffic(self, channel: Channel) -> dict[str, int]:
        """Packets of a channel that came through each of its tunnels since it was set for it, forwarded or not."""
        fed, state = self._slow.feed_traffic(channel), self._registry.get(channel)
        for name, packets in self._channels.feeds(state).items() if state is not None else ():
            fed[name] = fed.get(name, 0) + packets
        return fed

    def tunnel_traffic(self) -> dict[str, Traffic]:
        """What came through each tunnel for channels set."""
        fast = self._tunnels.traffic()
        return {
            name: sum_of(slow, (fast[name],)) if name in fast else slow
            for name, slow in self._slow.tunnel_traffic().items()
        }

    def counters(self) -> Counters:
        """A snapshot of the counters."""
        found = self._slow.counters()
        self._channels.add_all_traffic(self._registry.all(), found.channels)
        refused: Counter[Refusal] = Counter(found.refused)
        for refusal, count in zip(REFUSALS, self._refused.all()[0], strict=False):
            refused[refusal] += count
        found.refused = {refusal: count for refusal, count in refused.items() if count}
        found.tunnels = self.tunnel_traffic()
        found.forwarded = sum_of(found.forwarded, (self._tunnels.forwarded(),))
        return found

    def close(self) -> None:
        """Stop reading and forwarding, leave nothing in the kernel. Safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._uplinks.close()
        self._plans.close()
        self._events.close()
        for slots in self._all_slots:
            slots.close()
        self._slow.close()
        self._table.close()
        if self._outgoing is not None:
            self._outgoing.close()
        self._ports.close()
        self._programs.close()

    def by_programs(self) -> dict[Channel, int]:
        """Packets that programs have forwarded of each channel they forward now."""
        packets, _ = self._all_slots[0].read_all()
        states = [state for state in self._registry.all() if state.plan.is_fast and state.entry is not None]
        return {state.channel: packets[state.entry.slot] for state in states if state.entry is not None}

    def redirected(self) -> Mapping[str, int]:
        """Packets that went to the driver of each interface, by name: a lower bound, for the watchdog."""
        return self._redirected.count()

    def _is_local(self, state: FastChannel) -> bool:
        source = state.channel.source
        return source is not None and any(source in each for each in self._networks if each.version == source.version)

    def _bar(self, reason: str) -> None:
        """Everything goes to the sockets as long as the maps cannot say what is right."""
        self._tunnels.bar(reason)
        if reason:
            _log.warning("all channels stay in userspace: %s", reason)
        self._plans.later(self._registry.all())

    def _wish(self, planes: tuple[Plane, ...]) -> None:
        if planes != self._wished:
            self._wished = planes
            self._uplinks.wish(planes)

    def _port_changed(self, name: str) -> None:
        """Another index, another address, another size: whatever the maps had of it is written anew."""
        if self._is_closed:
            return
        port = self._ports.get(name)
        for index in self._table.indexes(name):
            if port is None or port.index != index:
                self._sets.forget(index)
            self._table.forget(index)
        self._plans.again(self._registry.of_interface(name))

    def _uplink_changed(self, name: str) -> None:
        if not self._is_closed:
            self._tunnels.refresh(name)
            self._plans.again(self._registry.of_tunnel(name))

    def _outgoing_changed(self, channel: Channel | None) -> None:
        if self._is_closed:
            return
        found = self._registry.get(channel) if channel is not None else None
        concerned = self._registry.all() if channel is None else (found,) if found is not None else ()
        for state in concerned:
            self._registry.use(state, state.wish, self._planner.interfaces(state.channel, state.wish))
        self._plans.again(concerned)

    def _first_seen(self, slot: int) -> None:
        found = self._channels.owner(slot)
        if found is not None and self._registry.get(found[0].channel) is found[0]:
            self._tell_first_packet(found[0].channel, found[1])

    def _tell_first_packet(self, channel: Channel, tunnel: str) -> None:
        state = self._registry.get(channel)
        if state is None or self._channels.announce_to(state, tunnel):
            self.on_first_packet(channel, tunnel)

    def _tell_wrong_interface(self, channel: Channel, interface: str) -> None:
        self.on_wrong_interface(channel, interface)

    def _tell_unknown_source(self, channel: Channel, interface: str) -> None:
        self.on_unknown_source(channel, interface)
