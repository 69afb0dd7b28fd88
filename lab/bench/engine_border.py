"""A forwarding engine in the gateway's namespace, a relay that feeds it, and the wire behind it."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, Self

from agent.dataplane.accelerated import AcceleratedEngine
from agent.dataplane.engine import Engine, Refusal, TunnelSocket
from agent.dataplane.fast.attachments import KernelUplinks
from agent.dataplane.fast.interfaces import KernelPorts
from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.loaded import LoadedPrograms
from agent.dataplane.userspace import UserspaceEngine
from agent.dataplane.userspace_flow import DONT_FRAGMENT_SOURCE
from agent.net.dont_fragment import DontFragmentRule
from agent.net.mroute import MulticastRouter, MulticastRoutingUnsupportedError
from agent.net.tap import Tap, TapSettings
from agent.net.udp import IcmpHint
from agent.protocol.channels import Channel, Endpoint, Family, Network
from lab.bench.engine_topology import GATEWAY_IPV4, GATEWAY_IPV6, RELAY_IPV4, RELAY_IPV6, EngineTopology, host_interface
from lab.bench.inner_packets import GROUP, SOURCE
from lab.bench.relay_topology import inside
from lab.namespaces import LabError

AMT_PORT: Final = 2268


class Wire:
    """What arrives on one of the host's interfaces: the IP packets of multicast frames."""

    def __init__(self, topology: EngineTopology, index: int = 0) -> None:
        with inside(topology.host):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self._socket.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
            self._socket.bind((host_interface(index), 0))
        self._socket.setblocking(False)
        self.packets: list[bytes] = []
        self.destinations: set[bytes] = set()

    def collect(self) -> list[bytes]:
        """Everything seen so far, without what hosts say of themselves (link-local groups, fe80::)."""
        while True:
            try:
                frame = self._socket.recv(70000)
            except BlockingIOError:
                return self.packets
            packet = frame[14:]
            if frame[0] & 1 and frame[12:14] in (b"\x08\x00", b"\x86\xdd") and not _of_the_host(packet):
                self.packets.append(packet)
                self.destinations.add(frame[:6])

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _of_the_host(packet: bytes) -> bool:
    if packet[0] >> 4 == 6:
        return packet[24] == 0xFF and packet[25] & 15 <= 2
    return packet[16:19] == bytes((224, 0, 0))


def _give_up(reason: str) -> None:
    raise LabError(reason)


@dataclass
class Border:
    """The engine in the gateway's namespace; used with the calling thread inside that namespace.

    A family this kernel does not route is left out, as the agent leaves it out; `on_unsupported` is told why once
    somebody wants to forward it, and raises. Without `routes` the engine only writes into the tap.

    With a `plane` of the kernel the engine forwards by it what it can, else it is the userspace engine alone; `forward`
    then waits until the channel is there, if so wanted by `waits`. Tunnels come in on `uplinks` too, beside those their
    relays' routes lead to.
    """

    topology: EngineTopology
    outer: int = 4
    segmentation: bool = True
    strict_port: bool = True
    table: int = 253
    families: tuple[Family, ...] = (Family.IPV4, Family.IPV6)
    local_networks: tuple[Network, ...] = ()
    routes: bool = True
    control: list[tuple[bytes, Endpoint]] = field(default_factory=list)
    errors: list[IcmpHint] = field(default_factory=list)
    new_sources: list[tuple[Channel, str]] = field(default_factory=list)
    on_new_source: Callable[[Border, Channel, str], None] | None = None
    on_unsupported: Callable[[str], object] = _give_up
    unsupported: dict[Family, str] = field(default_factory=dict)
    plane: Plane | None = None
    waits: bool = True
    uplinks: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        """Open the tap, the routers and the engine, with one tunnel named `relay`; all of them or none."""
        with ExitStack() as stack:
            self.sockets: list[socket.socket] = []
            self._opened: list[Relay | Wire] = []
            self.routers: dict[Family, MulticastRouter] = {}
            self.loop = asyncio.new_event_loop()
            stack.callback(self.loop.close)
            stack.callback(self._close_sockets)
            self.tap = Tap(TapSettings(segmentation=self.segmentation))
            stack.callback(self.tap.remove)
            for family in self.families if self.routes else ():
                self._open_router(family, stack)
            routers = self.routers if self.routes else None
            slow = UserspaceEngine(self.loop, self.tap, routers, self._new_source, self.local_networks)
            stack.callback(slow.close)
            self.fast: AcceleratedEngine | None = None
            if self.plane is not None:
                self.fast = self._accelerated(slow, self.plane)
                stack.callback(self.fast.close)
                if self.plane is Plane.XDP_MFC:
                    stack.callback(DontFragmentRule(self.tap.index, DONT_FRAGMENT_SOURCE, "isthmus-mfc").close)
            self.engine: Engine = slow if self.fast is None else self.fast
            self.add_tunnel("relay")
            self._stack = stack.pop_all()
        return self

    def _accelerated(self, slow: UserspaceEngine, plane: Plane) -> AcceleratedEngine:
        self.programs = LoadedPrograms(self.tap.index, 0)
        uplinks = KernelUplinks(self.loop, self.programs.gateway, self.uplinks)
        ports = KernelPorts(self.loop, self.programs.send)
        fast = AcceleratedEngine(self.loop, slow, self.programs, ports, uplinks, (plane,))
        fast.set_local_networks(self.local_networks)
        return fast

    def _open_router(self, family: Family, stack: ExitStack) -> None:
        try:
            self.routers[family] = MulticastRouter(family, self.table)
        except MulticastRoutingUnsupportedError as error:
            self.unsupported[family] = str(error)
        else:
            stack.callback(self.routers[family].close)

    def _close_sockets(self) -> None:
        for each in (*self.sockets, *self._opened):
            each.close()

    def __exit__(self, *_: object) -> None:
        """Close them; the tap device goes too."""
        self._stack.close()

    def add_tunnel(self, name: str, relay_port: int = AMT_PORT) -> socket.socket:
        """Add a tunnel with a socket of its own."""
        family, address = (socket.AF_INET, GATEWAY_IPV4) if self.outer == 4 else (socket.AF_INET6, GATEWAY_IPV6)
        receiving = socket.socket(family, socket.SOCK_DGRAM)
        receiving.bind((address, 0))
        self.sockets.append(receiving)
        relay = Endpoint(ip_address(RELAY_IPV4 if self.outer == 4 else RELAY_IPV6), relay_port)
        self.engine.add_tunnel(
            TunnelSocket(
                name,
                receiving,
                relay,
                lambda data, source: self.control.append((data, source)),
                self.errors.append,
                strict_port=self.strict_port,
            )
        )
        return receiving

    def forward(
        self, version: int, *interfaces: str, tunnels: Sequence[str] = ("relay",), source: str = "", group: str = ""
    ) -> Channel:
        """Set a channel; by default the standard one, from the first tunnel to the first downstream interface."""
        channel = Channel.parse(source or SOURCE[version], group or GROUP[version])
        if reason := self.unsupported.get(Family(version)):
            self.on_unsupported(reason)
        self.engine.set_channel(channel, frozenset(tunnels), frozenset(interfaces or ("down0",)))
        if self.waits and len(tunnels) == 1:
            self.run_until(lambda: self.plane_of(channel) is (self.plane or Plane.USERSPACE))
        return channel

    @property
    def limit(self) -> int | None:
        """Octets of the longest packet of the channels in the kernel's maps; None for the userspace engine alone."""
        if self.fast is None:
            return None
        channels = self.programs.map("channels4")
        entries = [channels.lookup(key) or bytes(18) for key in tuple(channels.keys())]
        return max(int.from_bytes(entry[16:18], sys.byteorder) for entry in entries)

    def plane_of(self, channel: Channel) -> Plane:
        """Who forwards a channel."""
        return Plane.USERSPACE if self.fast is None else self.fast.explain(channel)[0]

    def _new_source(self, channel: Channel, tunnel: str) -> None:
        self.new_sources.append((channel, tunnel))
        if self.on_new_source is not None:
            self.on_new_source(self, channel, tunnel)

    def run_until(self, condition: Callable[[], object], seconds: float = 5.0) -> None:
        """Run the loop until the condition holds."""

        async def poll() -> None:
            deadline = time.monotonic() + seconds
            while not condition():
                assert time.monotonic() < deadline, f"not in {seconds} s; counters: {self.engine.counters()}"
                await asyncio.sleep(0.005)

        self.loop.run_until_complete(poll())

    def relay(self, port: int = AMT_PORT, receiving: int = 0) -> Relay:
        """A relay that sends to socket number `receiving`; it closes with the border."""
        relay = Relay(self, port, receiving)
        self._opened.append(relay)
        return relay

    def wire(self, index: int = 0) -> Wire:
        """The wire behind downstream interface `index`; it closes with the border."""
        wire = Wire(self.topology, index)
        self._opened.append(wire)
        return wire

    def refused(self, refusal: Refusal) -> int:
        """How many packets were refused for a reason."""
        return self.engine.counters().refused.get(refusal, 0)


class Relay:
    """Sends AMT data messages to the gateway from the relay's namespace."""

    def __init__(self, border: Border, port: int = AMT_PORT, receiving: int = 0) -> None:
        family, address = (socket.AF_INET, RELAY_IPV4) if border.outer == 4 else (socket.AF_INET6, RELAY_IPV6)
        with inside(border.topology.relay):
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
            self.socket.bind((address, port))
        self.target = border.sockets[receiving].getsockname()[:2]
        self._keeps_trains = border.plane is Plane.TC  # veth hands them over whole, and TC leaves them to the socket

    def send(self, *packets: bytes) -> None:
        """Send inner packets, each in a datagram of its own."""
        for packet in packets:
            self.send_raw(b"\x06\x00" + packet)

    def send_raw(self, *messages: bytes) -> None:
        """Send AMT messages as they are."""
        for message in messages:
            self.socket.sendto(message, self.target)

    def send_train(self, packets: list[bytes]) -> None:
        """Hand equal-sized packets to the kernel in one piece; the gateway receives them as one train.

        To the plane behind the driver they come one by one, as a network card hands them over.
        """
        if self._keeps_trains:
            self.send(*packets)
            return
        messages = [b"\x06\x00" + packet for packet in packets]
        control = [(17, 103, struct.pack("=H", len(messages[0])))]
        self.socket.sendmsg(messages, control, 0, self.target)

    def without_checksum(self) -> None:
        """Leave the outer checksum zero from here on (SO_NO_CHECK, UDP_NO_CHECK6_TX)."""
        self.socket.setsockopt(socket.SOL_SOCKET, 11, 1)
        if self.socket.family == socket.AF_INET6:
            self.socket.setsockopt(17, 101, 1)

    def mark(self, ecn: int) -> None:
        """Set the outer ECN field from here on."""
        if self.socket.family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, ecn)
        else:
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, ecn)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
