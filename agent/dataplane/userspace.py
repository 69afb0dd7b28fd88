"""The forwarding engine that is always there: sockets in, tap device and the kernel's multicast routing out."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from agent.dataplane.engine import Counters, EngineError, NewSource, Refusal, Traffic, TunnelSocket
from agent.dataplane.userspace_flow import DONT_FRAGMENT_SOURCE, Flow, flow_of
from agent.dataplane.userspace_output import TapOutput
from agent.dataplane.userspace_sources import SourceAnnouncer
from agent.dataplane.userspace_state import ChannelState, TunnelState
from agent.dataplane.userspace_trains import AMT_HEADER_SIZE, Key, Train, TrainSorter
from agent.net.dont_fragment import DontFragmentError, DontFragmentRule
from agent.net.mroute import MulticastRouter, MulticastRoutingError
from agent.net.receive_batch import (
    BatchReceiver,
    Message,
    dropped_by_socket,
    endpoint_of,
    messages_at_once,
)
from agent.net.tap import Tap
from agent.net.udp import read_error_queue
from agent.protocol.channels import Address, Channel, Family, Network

_MULTICAST_DATA: Final = 6
_ROUNDS_A_WAKEUP: Final = 4
_KNOWN_FLOWS: Final = 4096


class UserspaceEngine:
    """Forwards in userspace up to the tap device, and from there with the kernel's multicast routing.

    Implements `agent.dataplane.engine.Engine`. Closing it closes neither the tap nor the routers.

    Args:
        loop: the event loop; every method is called from its thread.
        tap: the device packets enter the kernel through.
        routers: multicast routing per family; a family without one cannot be forwarded.
        on_new_source: called when any-source interest meets a new source; `set_channel` from within the call lets the
            very packet through.
        local_networks: prefixes whose addresses may not be the source of a tunnelled packet.
    """

    name = "userspace"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tap: Tap,
        routers: Mapping[Family, MulticastRouter],
        on_new_source: NewSource,
        local_networks: Iterable[Network] = (),
    ) -> None:
        self._loop = loop
        self._tap = tap
        self._routers = dict(routers)
        self._on_new_source = on_new_source
        self._receiver = BatchReceiver()
        self._tunnels: dict[str, TunnelState] = {}
        self._channels: dict[bytes, ChannelState] = {}
        self._groups: dict[bytes, frozenset[str]] = {}
        self._flows: dict[tuple[Key, int], Flow | Refusal] = {}
        self._networks: tuple[Network, ...] = ()
        self._announcer = SourceAnnouncer()
        self._refused: Counter[Refusal] = Counter()
        self._departed = Traffic()
        self._rule: DontFragmentRule | None = None
        self._rule_state = self._keep_dont_fragment()
        self._output = TapOutput(
            tap.fd, self._receiver.memory, segmentation=tap.segmentation, dont_fragment=self._rule is not None
        )
        self.set_local_networks(local_networks)
        for router in self._routers.values():
            loop.add_reader(router.fileno(), router.drain)

    @property
    def details(self) -> dict[str, str]:
        """How the engine works on this host."""
        families = {family.name.lower(): f"table {router.table}" for family, router in self._routers.items()}
        missing = {family.name.lower(): "no multicast routing" for family in Family if family not in self._routers}
        trains = {tunnel.trains for tunnel in self._tunnels.values()}
        return {
            **self._tap.details,
            "receive": "recvmmsg with UDP_GRO" if trains != {False} else "recvmmsg, this kernel has no UDP_GRO",
            "dont_fragment": self._rule_state,
            **families,
            **missing,
        }

    def add_tunnel(self, tunnel: TunnelSocket) -> None:
        """Start reading a tunnel's socket; replaces a tunnel of the same name."""
        former = self._tunnels.get(tunnel.name)
        self.remove_tunnel(tunnel.name)
        state = TunnelState(tunnel)
        if former is not None:
            state.packets, state.bytes = former.packets, former.bytes
            self._departed.packets -= former.packets
            self._departed.bytes -= former.bytes
        self._tunnels[tunnel.name] = state
        self._receiver.forget_sockets()
        self._loop.add_reader(tunnel.socket.fileno(), self._read, state)

    def remove_tunnel(self, name: str) -> None:
        """Stop reading a tunnel's socket; the caller closes it."""
        state = self._tunnels.pop(name, None)
        if state is None:
            return
        self._loop.remove_reader(state.settings.socket.fileno())
        self._departed.packets += state.packets
        self._departed.bytes += state.bytes
        self._refused[Refusal.RECEIVE_OVERFLOW] += dropped_by_socket(state.settings.socket) - state.dropped

    def set_channel(self, channel: Channel, tunnels: frozenset[str], interfaces: frozenset[str]) -> None:
        """Forward `channel` from `tunnels` out of `interfaces`; replaces what was set before.

        Raises:
            EngineError: the kernel cannot forward it.
        """
        if channel.source is None:
            raise EngineError(f"{channel} has no source")
        key = channel.source.packed + channel.group.packed
        state = self._channels.get(key) or ChannelState(channel)
        if interfaces != state.interfaces:
            self._route(channel.source, channel.group, interfaces)
            state.interfaces = interfaces
        state.tunnels = tunnels
        self._channels[key] = state

    def remove_channel(self, channel: Channel) -> None:
        """Stop forwarding; nothing happens when the channel is unknown."""
        if channel.source is None:
            return
        state = self._channels.pop(channel.source.packed + channel.group.packed, None)
        if state is not None:
            self._routers[channel.family].remove_route(channel.source, channel.group)

    def set_group(self, group: Address, tunnels: frozenset[str]) -> None:
        """Report each new source of `group` arriving through `tunnels` to `on_new_source`."""
        self._groups[group.packed] = tunnels

    def remove_group(self, group: Address) -> None:
        """Forget any-source interest; channels already set stay."""
        self._groups.pop(group.packed, None)

    def interface_changed(self, name: str) -> None:
        """Attach a downstream interface again after it was created, removed or recreated."""
        for router in self._routers.values():
            router.interface_changed(name)

    def set_local_networks(self, networks: Iterable[Network]) -> None:
        """Replace the prefixes whose addresses may not be the source of a tunnelled packet."""
        wanted = tuple(networks)
        if wanted != self._networks:
            self._networks = wanted
            self._flows.clear()

    def traffic(self, channel: Channel) -> Traffic | None:
        """What was forwarded of one channel since it was set, None when it is not set."""
        if channel.source is None:
            return None
        state = self._channels.get(channel.source.packed + channel.group.packed)
        return None if state is None else Traffic(state.packets, state.bytes)

    def tunnel_traffic(self) -> dict[str, Traffic]:
        """What came through each tunnel."""
        return {name: Traffic(state.packets, state.bytes) for name, state in self._tunnels.items()}

    def counters(self) -> Counters:
        """A snapshot of the counters."""
        refused = self._refused.copy()
        for tunnel in self._tunnels.values():
            refused[Refusal.RECEIVE_OVERFLOW] += dropped_by_socket(tunnel.settings.socket) - tunnel.dropped
        refused[Refusal.OUTPUT_ERROR] += self._output.errors
        tunnels = self.tunnel_traffic()
        return Counters(
            channels={state.channel: Traffic(state.packets, state.bytes) for state in self._channels.values()},
            tunnels=tunnels,
            refused={refusal: count for refusal, count in refused.items() if count},
            forwarded=Traffic(
                self._departed.packets + sum(traffic.packets for traffic in tunnels.values()),
                self._departed.bytes + sum(traffic.bytes for traffic in tunnels.values()),
            ),
        )

    def close(self) -> None:
        """Stop reading and forwarding for good; routes, tunnels and the rule go. Safe to call twice."""
        for name in tuple(self._tunnels):
            self.remove_tunnel(name)
        for state in tuple(self._channels.values()):
            self.remove_channel(state.channel)
        for router in self._routers.values():
            self._loop.remove_reader(router.fileno())
        self._routers.clear()
        self._groups.clear()
        if self._rule is not None:
            self._rule.close()
            self._rule = None

    def _keep_dont_fragment(self) -> str:
        if not self._tap.segmentation:
            return "packets pass one by one"
        try:
            self._rule = DontFragmentRule(self._tap.index, DONT_FRAGMENT_SOURCE, f"isthmus-{self._tap.name}")
        except DontFragmentError as error:
            return f"packets carrying it pass one by one: {error}"
        return "restored on trains by nftables"

    def _route(self, source: Address, group: Address, interfaces: frozenset[str]) -> None:
        router = self._routers.get(Family.of(group))
        if router is None:
            raise EngineError(f"no multicast routing for {Family.of(group).name} on this host")
        try:
            router.set_route(source, group, self._tap.name, interfaces)
        except MulticastRoutingError as error:
            raise EngineError(str(error)) from error

    def _is_local(self, address: Address) -> bool:
        return any(address in network for network in self._networks if network.version == address.version)

    def _read(self, tunnel: TunnelState) -> None:
        """Take a bounded number of messages, so that the control plane never waits for long."""
        descriptor = tunnel.settings.socket.fileno()
        try:
            for _ in range(_ROUNDS_A_WAKEUP):
                messages = self._receiver.receive(descriptor, tunnel.vector)
                if not messages:
                    for hint in read_error_queue(tunnel.settings.socket):
                        tunnel.settings.on_error(hint)
                    return
                few = len(messages) < tunnel.vector
                tunnel.vector = messages_at_once(messages)
                self._forward(tunnel, messages)
                if few or self._tunnels.get(tunnel.settings.name) is not tunnel:
                    return
        except OSError:  # an ICMP error that the queue tells more about, next time round
            for hint in read_error_queue(tunnel.settings.socket):
                tunnel.settings.on_error(hint)

    def _forward(self, tunnel: TunnelState, messages: list[Message]) -> None:
        """Sort one batch into trains and pass them on; a change of the outer ECN mark starts a new sorting."""
        sorter = TrainSorter(self._receiver.memory)
        mark = messages[0][3] & 3
        known = b""
        for start, length, segment, traffic_class, sender in messages:
            if not length:
                self._refused[Refusal.BAD_AMT_HEADER] += 1
                continue
            if sender != known:
                if not tunnel.accepts(sender):
                    self._receive_stranger(tunnel, start, length, segment, sender)
                    continue
                known = sender
            if traffic_class & 3 != mark:
                self._forward_trains(tunnel, sorter, mark, known)
                sorter = TrainSorter(self._receiver.memory)
                mark = traffic_class & 3
            sorter.add(start, length, segment)
        self._forward_trains(tunnel, sorter, mark, known)

    def _receive_stranger(self, tunnel: TunnelState, start: int, length: int, segment: int, sender: bytes) -> None:
        """Control messages are judged by the protocol machine, whoever sent them; data from a stranger is refused."""
        for position in range(start, start + length, segment):
            if self._receiver.memory[position] == _MULTICAST_DATA:
                self._refused[Refusal.WRONG_RELAY] += 1
            else:
                self._receive_control(tunnel, position, min(position + segment, start + length), sender)

    def _receive_control(self, tunnel: TunnelState, start: int, end: int, sender: bytes) -> None:
        payload = bytes(self._receiver.memory[start:end])
        if payload[0] >> 4:
            self._refused[Refusal.BAD_AMT_HEADER] += 1
            return
        # Not at once: the machine may change tunnels and channels while a batch is in hand.
        self._loop.call_soon(self._deliver_control, tunnel, payload, sender)

    def _deliver_control(self, tunnel: TunnelState, payload: bytes, sender: bytes) -> None:
        if self._tunnels.get(tunnel.settings.name) is tunnel:
            tunnel.settings.on_control(payload, endpoint_of(sender))

    def _forward_trains(self, tunnel: TunnelState, sorter: TrainSorter, mark: int, sender: bytes) -> None:
        for train in sorter.trains:
            if train.kind == _MULTICAST_DATA:
                self._forward_train(tunnel, train, mark)
            else:
                for member in train.members:
                    self._receive_control(tunnel, member[0], member[0] + train.size, sender)

    def _forward_train(self, tunnel: TunnelState, train: Train, mark: int) -> None:
        key = (train.key, mark)
        flow = self._flows.get(key)
        if flow is None:
            flow = self._judge(train, 0, mark)
            if isinstance(flow, Refusal) or not flow.whole_datagram or train.family is not flow.family:
                self._forward_each(tunnel, train, mark)
                return
            if len(self._flows) >= _KNOWN_FLOWS:
                self._flows.clear()
            self._flows[key] = flow
        if isinstance(flow, Refusal):
            self._refused[flow] += len(train.members)
            return
        intact = [member for member in train.members if member[1] + member[2] in flow.valid_sums]
        if len(intact) != len(train.members):
            self._refused[Refusal.BAD_INNER_HEADER] += len(train.members) - len(intact)
            train.members = intact
        if intact:
            self._emit(tunnel, flow, train)

    def _forward_each(self, tunnel: TunnelState, train: Train, mark: int) -> None:
        """Judge and forward packet by packet: refused ones, fragments, options, anything but plain UDP."""
        for index, member in enumerate(train.members):
            flow = self._judge(train, index, mark)
            if isinstance(flow, Refusal):
                self._refused[flow] += 1
                continue
            alone = Train(train.key, train.kind, train.size)
            alone.members.append(member)
            self._emit(tunnel, flow, alone)

    def _judge(self, train: Train, index: int, mark: int) -> Flow | Refusal:
        start = train.members[index][0]
        return flow_of(bytes(self._receiver.memory[start + AMT_HEADER_SIZE : start + train.size]), mark, self._is_local)

    def _emit(self, tunnel: TunnelState, flow: Flow, train: Train) -> None:
        count = len(train.members)
        channel = self._admit(tunnel, flow)
        if isinstance(channel, Refusal):
            self._refused[channel] += count
            return
        taken = self._output.write(flow, train)
        octets = taken * (train.size - AMT_HEADER_SIZE)
        channel.packets += taken
        channel.bytes += octets
        tunnel.packets += taken
        tunnel.bytes += octets

    def _admit(self, tunnel: TunnelState, flow: Flow) -> ChannelState | Refusal:
        name = tunnel.settings.name
        channel = self._channels.get(flow.channel)
        if channel is not None and name in channel.tunnels:
            return channel
        group = flow.channel[len(flow.channel) // 2 :]
        if name not in self._groups.get(group, ()):
            return Refusal.NOT_SUBSCRIBED
        if self._announcer.admit(flow.channel, name, self._loop.time()):
            self._on_new_source(_channel_of(flow.channel), name)
            channel = self._channels.get(flow.channel)
            if channel is not None and name in channel.tunnels:
                return channel
        return Refusal.SOURCE_PENDING


def _channel_of(octets: bytes) -> Channel:
    half = len(octets) // 2
    family = socket.AF_INET if half == 4 else socket.AF_INET6
    return Channel.parse(socket.inet_ntop(family, octets[:half]), socket.inet_ntop(family, octets[half:]))
