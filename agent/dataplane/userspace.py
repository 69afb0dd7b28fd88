"""The forwarding engine that is always there: sockets in, tap device and the kernel's multicast routing out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from agent.dataplane.engine import (
    DUPLICATE_WINDOW,
    Counters,
    EngineError,
    FirstPacket,
    InterfaceUpcall,
    NewSource,
    Refusal,
    Traffic,
    TunnelSocket,
    ignore,
)
from agent.dataplane.userspace_channels import ChannelTable, key_of
from agent.dataplane.userspace_flow import DONT_FRAGMENT_SOURCE, Flow, flow_of
from agent.dataplane.userspace_handover import Handover, Handovers
from agent.dataplane.userspace_output import TapOutput
from agent.dataplane.userspace_reading import TunnelReader
from agent.dataplane.userspace_routes import KernelRoutes
from agent.dataplane.userspace_state import TunnelState
from agent.dataplane.userspace_trains import AMT_HEADER_SIZE, Key, Train, TrainSorter
from agent.net.dont_fragment import DontFragmentError, DontFragmentRule
from agent.net.mroute import MulticastRouter
from agent.net.receive_batch import (
    BatchReceiver,
    Message,
    ask_for_trains,
    dropped_by_socket,
    endpoint_of,
)
from agent.net.tap import Tap
from agent.protocol.channels import Address, Channel, Family, Network

_MULTICAST_DATA: Final = 6
_DATA_HEADER: Final = 2  # octets before the inner packet, RFC 7450 §5.1.6
_KNOWN_FLOWS: Final = 4096


class UserspaceEngine:
    """Forwards in userspace up to the tap device, and from there with the kernel's multicast routing.

    Implements `agent.dataplane.engine.Engine`. Closing it closes neither the tap nor the routers.

    Args:
        loop: the event loop; every method is called from its thread.
        tap: the device packets enter the kernel through.
        routers: multicast routing per family; a family without one cannot be forwarded. None: another daemon (FRR)
            routes what the engine writes into the tap, every channel that is set.
        on_new_source: called when any-source interest meets a new source; `set_channel` from within the call lets the
            very packet through.
        local_networks: prefixes whose addresses may not be the source of a tunnelled packet.
        duplicate_window: seconds two copies of a packet that comes through several tunnels may be apart.
    """

    name = "userspace"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tap: Tap,
        routers: Mapping[Family, MulticastRouter] | None,
        on_new_source: NewSource,
        local_networks: Iterable[Network] = (),
        duplicate_window: float = DUPLICATE_WINDOW,
    ) -> None:
        self.on_first_packet: FirstPacket = ignore
        self.on_wrong_interface: InterfaceUpcall = ignore
        self.on_unknown_source: InterfaceUpcall = ignore
        self._loop = loop
        self._tap = tap
        self._routes = KernelRoutes(loop, tap.name, routers, self._tell_wrong_interface, self._tell_unknown_source)
        self._channels = ChannelTable(loop, self._routes, on_new_source, self._tell_first_packet, duplicate_window)
        self._handovers = Handovers(loop)
        self._receiver = BatchReceiver()
        self._tunnels: dict[str, TunnelState] = {}
        self._reader = TunnelReader(self._receiver, self._forward, self._is_read)
        self._flows: dict[tuple[Key, int], Flow | Refusal] = {}
        self._networks: tuple[Network, ...] = ()
        self._refused: Counter[Refusal] = Counter()
        self._departed = Traffic()
        self._rule: DontFragmentRule | None = None
        self._rule_state = self._keep_dont_fragment()
        self._output = TapOutput(
            tap.fd, self._receiver.memory, segmentation=tap.segmentation, dont_fragment=self._rule is not None
        )
        self.set_local_networks(local_networks)

    @property
    def tunnel_interface(self) -> int:
        """Index of the interface its packets enter the kernel by."""
        return self._tap.index

    @property
    def details(self) -> dict[str, str]:
        """How the engine works on this host."""
        trains = {tunnel.trains for tunnel in self._tunnels.values()}
        return {
            **self._tap.details,
            "receive": "recvmmsg with UDP_GRO" if trains != {False} else "recvmmsg, this kernel has no UDP_GRO",
            "dont_fragment": self._rule_state,
            **self._routes.details,
        }

    def add_tunnel(self, tunnel: TunnelSocket) -> None:
        """Start reading a tunnel's socket; replaces a tunnel of the same name."""
        former = self._tunnels.get(tunnel.name)
        self.remove_tunnel(tunnel.name)
        state = TunnelState(tunnel)
        if former is not None:
            state.packets, state.bytes, state.withheld = former.packets, former.bytes, former.withheld
            self._departed.packets -= former.packets
            self._departed.bytes -= former.bytes
        self._tunnels[tunnel.name] = state
        self._receiver.forget_sockets()
        self._loop.add_reader(tunnel.socket.fileno(), self._reader.read, state)

    def remove_tunnel(self, name: str) -> None:
        """Stop reading a tunnel's socket; the caller closes it."""
        state = self._tunnels.pop(name, None)
        if state is None:
            return
        self._loop.remove_reader(state.settings.socket.fileno())
        self._departed.packets += state.packets
        self._departed.bytes += state.bytes
        self._refused[Refusal.RECEIVE_OVERFLOW] += dropped_by_socket(state.settings.socket) - state.dropped

    def drain(self, name: str) -> None:
        """Forward what waits in a tunnel's socket, as far as a bounded number of reads goes."""
        tunnel = self._tunnels.get(name)
        if tunnel is not None:
            self._reader.drain(tunnel)

    def set_trains(self, name: str, *, wanted: bool) -> None:
        """Let the kernel join datagrams of a tunnel to trains, or not: then programs behind the driver see each."""
        if (tunnel := self._tunnels.get(name)) is not None:
            ask_for_trains(tunnel.settings.socket, wanted=wanted)

    def set_channel(
        self, channel: Channel, tunnels: frozenset[str], interfaces: frozenset[str], incoming: str | None = None
    ) -> None:
        """Forward `channel` out of `interfaces`, from `tunnels` or natively from `incoming`.

        Raises:
            EngineError: the kernel cannot forward it.
        """
        handover = self._prepare_handover(channel, interfaces, incoming)
        try:
            self._channels.set(channel, tunnels, interfaces, incoming)
        except EngineError:
            if handover is not None:
                handover.close()
            raise
        if handover is not None:
            self._handovers.begin(key_of(channel), handover)

    def remove_channel(self, channel: Channel) -> None:
        """Stop forwarding; nothing happens when the channel is unknown."""
        self._handovers.end(key_of(channel))
        self._channels.remove(channel)

    def set_group(self, group: Address, tunnels: frozenset[str]) -> None:
        """Report each new source of `group` arriving through `tunnels` to `on_new_source`."""
        self._channels.set_group(group, tunnels)

    def remove_group(self, group: Address) -> None:
        """Forget any-source interest; channels already set stay."""
        self._channels.remove_group(group)

    def interface_changed(self, name: str) -> None:
        """Attach an interface again after it was created, removed or recreated."""
        self._routes.interface_changed(name)

    def watch_interface(self, name: str) -> None:
        """Take part in multicast routing on an interface before any channel uses it.

        Raises:
            EngineError: the kernel cannot route on it, or too many interfaces are in use.
        """
        self._routes.watch(name)

    def unwatch_interface(self, name: str) -> None:
        """Watch an interface no longer; channels set stay."""
        self._routes.unwatch(name)

    def set_local_networks(self, networks: Iterable[Network]) -> None:
        """Replace the prefixes whose addresses may not be the source of a tunnelled packet."""
        wanted = tuple(networks)
        if wanted != self._networks:
            self._networks = wanted
            self._flows.clear()

    def set_duplicate_window(self, seconds: float) -> None:
        """Recognise copies of packets this far apart, for channels that have several tunnels from now on."""
        self._channels.duplicate_window = seconds

    def traffic(self, channel: Channel) -> Traffic | None:
        """What was forwarded of one channel since it was set, None when it is not set."""
        state = self._channels.get(channel)
        return None if state is None else self._channels.traffic(state)

    def feed_traffic(self, channel: Channel) -> dict[str, int]:
        """Packets of a channel that came through each of its tunnels since it was set for it, forwarded or not."""
        state = self._channels.get(channel)
        return {} if state is None else dict(state.feeds)

    def tunnel_traffic(self) -> dict[str, Traffic]:
        """What came through each tunnel for channels set, copies not forwarded included."""
        return {name: state.traffic for name, state in self._tunnels.items()}

    def counters(self) -> Counters:
        """A snapshot of the counters."""
        refused = self._refused.copy()
        for tunnel in self._tunnels.values():
            refused[Refusal.RECEIVE_OVERFLOW] += dropped_by_socket(tunnel.settings.socket) - tunnel.dropped
        refused[Refusal.OUTPUT_ERROR] += self._output.errors
        return Counters(
            channels={state.channel: self._channels.traffic(state) for state in self._channels},
            tunnels=self.tunnel_traffic(),
            refused={refusal: count for refusal, count in refused.items() if count},
            forwarded=Traffic(
                self._departed.packets + sum(tunnel.packets for tunnel in self._tunnels.values()),
                self._departed.bytes + sum(tunnel.bytes for tunnel in self._tunnels.values()),
            ),
        )

    def close(self) -> None:
        """Stop reading and forwarding for good; routes, tunnels and the rule go. Safe to call twice."""
        for name in tuple(self._tunnels):
            self.remove_tunnel(name)
        self._channels.close()
        self._handovers.close()
        self._routes.close()
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

    def _tell_first_packet(self, channel: Channel, tunnel: str) -> None:
        self.on_first_packet(channel, tunnel)

    def _tell_wrong_interface(self, channel: Channel, interface: str) -> None:
        self.on_wrong_interface(channel, interface)

    def _tell_unknown_source(self, channel: Channel, interface: str) -> None:
        self.on_unknown_source(channel, interface)

    def _prepare_handover(self, channel: Channel, interfaces: frozenset[str], incoming: str | None) -> Handover | None:
        """Get ready for a channel that turns native; one that comes from tunnels (again) needs nothing passed on."""
        state = self._channels.get(channel)
        if incoming is None:
            self._handovers.end(key_of(channel))
        if incoming is None or state is None or state.incoming is not None or not state.tunnels:
            return None
        return self._handovers.prepare(channel, frozenset(state.tunnels), incoming, interfaces)

    def _is_read(self, tunnel: TunnelState) -> bool:
        return self._tunnels.get(tunnel.settings.name) is tunnel

    def _is_local(self, address: Address) -> bool:
        return any(address in network for network in self._networks if network.version == address.version)

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
        if self._is_read(tunnel):
            tunnel.settings.on_control(payload, endpoint_of(sender))

    def _forward_trains(self, tunnel: TunnelState, sorter: TrainSorter, mark: int, sender: bytes) -> None:
        for train in sorter.trains:
            if train.kind == _MULTICAST_DATA and train.size < _DATA_HEADER:
                self._refused[Refusal.BAD_AMT_HEADER] += len(train.members)
            elif train.kind == _MULTICAST_DATA:
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

    def _packets(self, flow: Flow, train: Train) -> Iterator[bytes]:
        for position, *_ in train.members:
            yield bytes(flow.settled(self._receiver.memory[position + AMT_HEADER_SIZE : position + train.size]))

    def _emit(self, tunnel: TunnelState, flow: Flow, train: Train) -> None:
        count = len(train.members)
        channel = self._channels.admit(flow.channel, tunnel.settings.name, count)
        size = train.size - AMT_HEADER_SIZE
        if flow.channel in self._handovers:
            passed = self._handovers.pass_on(flow.channel, tunnel.settings.name, self._packets(flow, train))
            tunnel.packets += passed
            tunnel.bytes += passed * size
            count -= passed
        if isinstance(channel, Refusal):
            self._refused[channel] += count
            return
        if channel.incoming is not None:
            train.members = []
        elif channel.copies is not None:
            name, now = tunnel.settings.name, self._loop.time()
            train.members = channel.copies.first_copies(self._receiver.memory, flow, train, name, now)
        if copies := count - len(train.members):
            self._refused[Refusal.DUPLICATE] += copies
            tunnel.withheld.packets += copies
            tunnel.withheld.bytes += copies * size
        if not train.members:
            return
        taken = self._output.write(flow, train)
        octets = taken * size
        channel.packets += taken
        channel.bytes += octets
        tunnel.packets += taken
        tunnel.bytes += octets
