"""A gateway in namespaces of its own, the relay as raw frames, and the wire behind every outgoing interface."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final, Self
from unittest.mock import patch

from vectors.forwarding.case import Case
from vectors.forwarding.frames import datagram, emitted, to_gateway
from vectors.forwarding.world import (
    ACCEPTED_GROUP,
    CHANNELS,
    GATEWAY,
    INTERFACES,
    LAX_SENTINEL,
    LOCAL_NETWORKS,
    MTU,
    PENDING_GROUP,
    RELAY,
    RELAY_MAC,
    RELAY_PORT,
    TUNNELS,
    UPLINK_MAC,
    UPLINK_MTU,
    Subscription,
    port_mac,
)

from agent.dataplane.accelerated import AcceleratedEngine
from agent.dataplane.engine import Engine, TunnelSocket
from agent.dataplane.fast import counters
from agent.dataplane.fast.layout import Plane
from agent.net.mroute import MulticastRouter, MulticastRoutingUnsupportedError
from agent.net.tap import Tap, TapSettings
from agent.net.udp import IcmpHint
from agent.protocol.channels import Channel, Endpoint, Family, Network
from lab.bench.engine_topology import (
    UPLINK_AT_GATEWAY,
    UPLINK_AT_RELAY,
    EngineTopology,
    host_interface,
    set_offload,
)
from lab.bench.inner_packets import datagram_ipv4
from lab.bench.relay_topology import inside, ip_lines

PATIENCE: Final = 5.0
"""Seconds until a sentinel is given up."""

_EVERY_PROTOCOL: Final = 3
_RECEIVE_BUFFER_FORCE: Final = 33
_GRO: Final = 0x2C
_TABLE: Final = 253


@dataclass(frozen=True)
class Parts:
    """What an engine is made of, in the gateway's namespace."""

    loop: asyncio.AbstractEventLoop
    tap: Tap
    routers: dict[Family, MulticastRouter]
    on_new_source: Callable[[Channel, str], None]
    local_networks: tuple[Network, ...]


MakeEngine = Callable[[Parts, ExitStack], Engine]


@dataclass(frozen=True)
class Kind:
    """A kind of engine.

    Attributes:
        make: makes one that the stack closes.
        lacks: abilities that vectors name and it has not.
        plane: who forwards every channel.
        links: kinds of link it works on.
    """

    make: MakeEngine
    lacks: frozenset[str]
    plane: Plane = Plane.USERSPACE
    links: frozenset[str] = frozenset(UPLINK_MTU)


@dataclass
class Outcome:
    """What an engine made of a case."""

    leaves: dict[str, list[bytes]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    control: list[bytes] = field(default_factory=list)
    forwarded: int = 0


class Gateway:
    """One engine with the tunnels and channels of `vectors.forwarding.world`; the calling thread moves in."""

    def __init__(self, prefix: str, outer: int, link: str, kind: Kind) -> None:
        self.topology = EngineTopology(
            prefix, len(INTERFACES), UPLINK_MTU[link], max(MTU[link].values()), offloads=False, merging=True
        )
        self._outer = outer
        self._link = link
        self._kind = kind
        self._control: list[bytes] = []
        self._errors: list[IcmpHint] = []
        self._serial = 0
        self._channels: list[Channel] = []
        self.unrouted: set[int] = set()

    def __enter__(self) -> Self:
        """Make the namespaces, the engine and its subscriptions."""
        with ExitStack() as stack:
            stack.enter_context(self.topology)
            self._prepare_links()
            self._wires = {name: stack.enter_context(self._wire(index)) for index, name in enumerate(INTERFACES)}
            self._sender = stack.enter_context(self._open(self.topology.relay, UPLINK_AT_RELAY))
            stack.enter_context(inside(self.topology.gateway))
            stack.enter_context(_on_one_processor())
            stack.enter_context(patch.object(counters, "LONGEST_AGE", 0.0))  # each packet is counted at once
            self._loop = asyncio.new_event_loop()
            stack.callback(self._loop.close)
            sockets = [stack.enter_context(self._tunnel_socket(port)) for port in TUNNELS.values()]
            self.engine = self._open_engine(stack)
            for name, opened in zip(TUNNELS, sockets, strict=True):
                self._add_tunnel(name, opened)
            self._subscribe()
            if isinstance(self.engine, AcceleratedEngine):
                self._wait_for_plane(self.engine)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Take everything away."""
        self._stack.close()

    def _prepare_links(self) -> None:
        topology = self.topology
        ip_lines(topology.relay, f"link set {UPLINK_AT_RELAY} address {RELAY_MAC.hex(':')}")
        lines = [f"link set {UPLINK_AT_GATEWAY} address {UPLINK_MAC.hex(':')}"]
        for name, mtu in MTU[self._link].items():
            lines += [f"link set {name} address {port_mac(name).hex(':')}", f"link set {name} mtu {mtu}"]
        ip_lines(topology.gateway, *lines)
        with inside(topology.host):
            for index in range(len(INTERFACES)):
                # Frames that XDP redirects to a veth vanish unless its far end has NAPI, which GRO gives it.
                set_offload(host_interface(index), _GRO, enabled=True)

    @contextmanager
    def _open(self, namespace: str, interface: str) -> Iterator[socket.socket]:
        with inside(namespace):
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
            opened.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, 16 << 20)
            opened.bind((interface, 0))
        opened.setblocking(False)
        with opened:
            yield opened

    def _wire(self, index: int) -> Any:
        return self._open(self.topology.host, host_interface(index))

    def _tunnel_socket(self, port: int) -> socket.socket:
        opened = socket.socket(socket.AF_INET if self._outer == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        opened.bind((GATEWAY[self._outer], port))
        return opened

    def _open_engine(self, stack: ExitStack) -> Engine:
        tap = Tap(TapSettings())
        stack.callback(tap.remove)
        routers: dict[Family, MulticastRouter] = {}
        for family in Family:
            try:
                routers[family] = MulticastRouter(family, _TABLE)
            except MulticastRoutingUnsupportedError:
                self.unrouted.add(int(family))
            else:
                stack.callback(routers[family].close)
        networks = tuple(ip_network(text) for text in LOCAL_NETWORKS)
        return self._kind.make(Parts(self._loop, tap, routers, self._new_source, networks), stack)

    def _add_tunnel(self, name: str, opened: socket.socket) -> None:
        self.engine.add_tunnel(
            TunnelSocket(
                name,
                opened,
                Endpoint(ip_address(RELAY[self._outer]), RELAY_PORT),
                lambda data, _: self._control.append(data),
                self._errors.append,
                strict_port=name != "lax",
            )
        )

    def _subscribe(self) -> None:
        families = [family for family in (4, 6) if family not in self.unrouted]
        for each in (*CHANNELS.values(), LAX_SENTINEL):
            for family in families:
                self._set(each[family])
        for groups in (ACCEPTED_GROUP, PENDING_GROUP):
            for family in families:
                self.engine.set_group(ip_address(groups[family]), frozenset({"relay"}))

    def _wait_for_plane(self, engine: AcceleratedEngine) -> None:
        """Until no channel is forwarded by another plane: a test of userspace would be none of the programs."""

        async def poll() -> None:
            deadline = time.monotonic() + PATIENCE
            while others := {
                str(channel): found
                for channel in self._channels
                if (found := engine.explain(channel))[0] is not self._kind.plane
            }:
                assert time.monotonic() < deadline, f"not by {self._kind.plane.name}: {others}"
                await asyncio.sleep(0.005)

        self._loop.run_until_complete(poll())

    def _set(self, there: Subscription) -> None:
        channel = Channel(ip_address(there.source), ip_address(there.group))
        self._channels.append(channel)
        self.engine.set_channel(channel, frozenset({there.tunnel}), frozenset(there.interfaces))

    def _new_source(self, channel: Channel, tunnel: str) -> None:
        if str(channel.group) in ACCEPTED_GROUP.values():
            self.engine.set_channel(channel, frozenset({tunnel}), frozenset({"down0"}))

    def carries(self, case: Case) -> bool:
        """Whether this kernel can route what a case carries; of a family it cannot, no channel is set."""
        octets = b"".join(case.frames)
        groups = [each[family].group for each in CHANNELS.values() for family in self.unrouted]
        groups += [each[family] for each in (ACCEPTED_GROUP, PENDING_GROUP) for family in self.unrouted]
        return not any(ip_address(group).packed in octets for group in groups)

    def judge(self, case: Case) -> str:
        """Send a case; what is not as it should be, empty when everything is."""
        outcome = self.send(case)
        return complaint(case, outcome, unseen=case.needs in self._kind.lacks)

    def send(self, case: Case) -> Outcome:
        """Send a case, and then one packet more through each tunnel, which come out behind it."""
        before = self.engine.counters()
        self._control.clear()
        self._drain({})
        for frame in case.frames:
            self._sender.send(frame)
        sentinels = self._send_sentinels()
        outcome = Outcome()
        self._wait_for(sentinels, outcome.leaves)
        after = self.engine.counters()
        for reason, count in after.refused.items():
            if more := count - before.refused.get(reason, 0):
                outcome.refused[reason.value] = more
        outcome.control = list(self._control)
        outcome.forwarded = after.forwarded.packets - before.forwarded.packets - 2
        return outcome

    def _send_sentinels(self) -> Counter[tuple[str, bytes]]:
        """IPv4 options send them through the socket whatever is in front of it."""
        expected: Counter[tuple[str, bytes]] = Counter()
        for there in (CHANNELS["sentinel"][4], LAX_SENTINEL[4]):
            self._serial += 1
            payload = b"sentinel" + self._serial.to_bytes(8, "big")
            packet = datagram_ipv4(payload, source=there.source, group=there.group, options=b"\x01" * 4)
            self._sender.send(to_gateway(datagram(self._outer, b"\x06\0" + packet, tunnel=there.tunnel)))
            expected.update((name, emitted(packet, name)) for name in there.interfaces)
        return expected

    def _wait_for(self, sentinels: Counter[tuple[str, bytes]], leaves: dict[str, list[bytes]]) -> None:
        async def poll() -> None:
            deadline = time.monotonic() + PATIENCE
            missing = sentinels
            while missing:
                await asyncio.sleep(0)
                missing = missing - self._drain(leaves, sentinels)
                assert time.monotonic() < deadline, f"lost: {sorted(name for name, _ in missing)}"
            await asyncio.sleep(0)
            self._drain(leaves)

        self._loop.run_until_complete(poll())

    def _drain(
        self, leaves: dict[str, list[bytes]], sentinels: Counter[tuple[str, bytes]] | None = None
    ) -> Counter[tuple[str, bytes]]:
        """Read the wires; the sentinels found."""
        found: Counter[tuple[str, bytes]] = Counter()
        for name, wire in self._wires.items():
            for frame in _frames(wire):
                if sentinels is not None and (name, frame) in sentinels:
                    found[name, frame] += 1
                elif frame[0] & 1 and not _of_hosts(frame):
                    leaves.setdefault(name, []).append(frame)
        return found


def complaint(case: Case, outcome: Outcome, *, unseen: bool = False) -> str:
    """What of an outcome is not as the case says; empty when everything is."""
    expected: dict[str, list[bytes]] = case.leaves_unseen if unseen else case.leaves
    wrong = [
        f"{name}: {_show(got)}\n      instead of {_show(wanted)}"
        for name in INTERFACES
        if (got := outcome.leaves.get(name, [])) != (wanted := expected.get(name, []))
    ]
    if outcome.control != ([case.message] if case.message is not None else []):
        wrong.append(f"control: {_show(outcome.control)}")
    reasons = [case.counted] if unseen and case.counted else case.reasons
    allowed = [dict.fromkeys([reason], 1) for reason in reasons]
    if case.expect != "refuse" or (unseen and not case.counted):
        allowed.append({})
    if outcome.refused not in allowed:
        wrong.append(f"refused: {outcome.refused or 'nothing'}, instead of {' or '.join(map(str, allowed))}")
    if case.expect in {"forward", "refuse", "control"} and outcome.forwarded != bool(expected):
        wrong.append(f"counted as forwarded: {outcome.forwarded}")
    return "\n    ".join([f"{case.name} ({case.rfc})", *wrong]) if wrong else ""


def _show(frames: list[bytes]) -> str:
    return " | ".join(f"{frame[:96].hex()}{'…' if len(frame) > 96 else ''} ({len(frame)})" for frame in frames) or "-"


def _frames(wire: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield wire.recv(70000)
        except BlockingIOError:
            return


def _of_hosts(frame: bytes) -> bool:
    """What hosts say for themselves: ICMPv6 of the link, IGMP."""
    packet = frame[14:]
    if frame[12:14] == b"\x86\xdd":
        return packet[24:26] == b"\xff\x02" and 58 in (packet[6], packet[40] if packet[6] == 0 else 0)
    return frame[12:14] != b"\x08\x00" or (packet[9] == 2 and packet[16:19] == b"\xe0\x00\x00")


@contextmanager
def _on_one_processor() -> Iterator[None]:
    """What this thread sends is queued on its processor: on one of them nothing overtakes."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
