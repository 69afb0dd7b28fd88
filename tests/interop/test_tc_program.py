"""The TC program on an uplink: tunnelled packets leave stripped, byte for byte, or are left to the socket."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from agent.dataplane.engine import Refusal
from agent.dataplane.fast.layout import (
    EXCEPTIONS,
    REFUSALS,
    ChannelEntry,
    Plane,
    channel_key,
    index_key,
    interface_list,
    port_value,
    settings_value,
    tunnel_key,
    tunnel_value,
)
from agent.net.bpf.errors import BpfUnavailableError
from agent.net.bpf.links import attach_tc, has_tcx
from agent.net.bpf.objects import BpfObject, load
from agent.net.tap import Tap, TapSettings
from agent.protocol.channels import Channel, Endpoint
from lab.bench.engine_topology import (
    GATEWAY_IPV4,
    GATEWAY_IPV6,
    RELAY_IPV4,
    RELAY_IPV6,
    EngineTopology,
    downstream,
    host_interface,
)
from lab.bench.inner_packets import GROUP, SOURCE, datagram, datagram_ipv4, datagram_ipv6, one_hop_on
from lab.bench.relay_topology import inside

pytestmark = pytest.mark.root

PROGRAMS = ("gateway_tc", "gateway_tc_entry")
RELAY = {4: RELAY_IPV4, 6: RELAY_IPV6}
GATEWAY = {4: GATEWAY_IPV4, 6: GATEWAY_IPV6}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
PLAIN, KEEP_WHOLE = bytes.fromhex("024953540000"), bytes.fromhex("024953540001")
SECRET, SECRET_KEEP_WHOLE = bytes.fromhex("06a1b2c3d4e5"), bytes.fromhex("06a1b2c3d4e6")

ATTACH_AND_WAIT = """
import socket, sys, time
from agent.net.bpf.links import attach_tc
from agent.net.bpf.objects import load
from lab.bench.relay_topology import inside
with inside(sys.argv[1]):
    loaded = load("gateway", entries={"receive_cpus": 1}, programs=("gateway_tc", "gateway_tc_entry"))
    link = attach_tc(loaded, "gateway_tc", socket.if_nametoindex("uplink1"), clsact=True)
    print("attached", flush=True)
    time.sleep(60)
"""


@dataclass
class Uplink:
    """The program on the gateway's uplink, a tunnel of each family, and the wires behind the downstream interfaces."""

    topology: EngineTopology
    loaded: BpfObject
    stack: ExitStack
    sockets: dict[int, socket.socket] = field(default_factory=dict)
    senders: dict[int, socket.socket] = field(default_factory=dict)
    addresses: list[bytes] = field(default_factory=list)
    wires: list[socket.socket] = field(default_factory=list)

    def open(self, *, clsact: bool | None, attached: bool) -> None:
        if attached:
            with inside(self.topology.gateway):
                index = socket.if_nametoindex("uplink1")
                self.stack.enter_context(attach_tc(self.loaded, "gateway_tc", index, clsact=clsact))
        for version, slot in ((4, 1), (6, 2)):
            self._add_tunnel(version, slot)
        indexes = [self._add_port(number) for number in range(self.topology.downstreams)]
        self.loaded.map("set_interfaces").update(index_key(3), interface_list(tuple(indexes)))

    def _add_tunnel(self, version: int, slot: int) -> None:
        with inside(self.topology.gateway):
            near = self.stack.enter_context(socket.socket(FAMILY[version], socket.SOCK_DGRAM))
            near.bind((GATEWAY[version], 0))
            near.settimeout(5)
        with inside(self.topology.relay):
            far = self.stack.enter_context(socket.socket(FAMILY[version], socket.SOCK_DGRAM))
            far.bind((RELAY[version], 2268))
        self.sockets[version], self.senders[version] = near, far
        local = Endpoint(ip_address(GATEWAY[version]), near.getsockname()[1])
        relay = Endpoint(ip_address(RELAY[version]), 2268)
        value = tunnel_value(relay, slot, strict_port=True)
        self.loaded.map(f"tunnels{version}").update(tunnel_key(local), value)

    def _add_port(self, number: int) -> int:
        with inside(self.topology.gateway):
            index = socket.if_nametoindex(downstream(number))
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as probe:
                probe.bind((downstream(number), 0))
                address: bytes = probe.getsockname()[4]
        self.addresses.append(address)
        self.loaded.map("ports").update(index_key(index), port_value(address))
        with inside(self.topology.host):
            wire = self.stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
            wire.bind((host_interface(number), 0))
            wire.settimeout(0.02)
        self.wires.append(wire)
        return index

    def forward(self, inner: int, outer: int, limit: int = 1500) -> None:
        channel = Channel.parse(SOURCE[inner], GROUP[inner])
        entry = ChannelEntry(slot=5, tunnel=1 if outer == 4 else 2, set=3, limit=limit, plane=Plane.TC)
        self.loaded.map(f"channels{inner}").update(channel_key(channel), entry.pack())

    def send(self, outer: int, packet: bytes) -> None:
        self.senders[outer].sendto(b"\x06\x00" + packet, self.sockets[outer].getsockname()[:2])

    def frames(self, number: int, packet: bytes) -> list[bytes]:
        """Frames of the packet's group that arrive until the first, or none within three seconds."""
        deadline, group = time.monotonic() + 3, ip_address(GROUP[packet[0] >> 4]).packed
        while time.monotonic() < deadline:
            try:
                frame = self.wires[number].recv(70000)
            except TimeoutError:
                continue
            if group in frame[:54]:
                return [frame]
        return []

    def counted(self, name: str, index: int) -> int:
        return self.loaded.map(name).sums(index)[0]


def expected(address: bytes, packet: bytes, outgoing: bytes) -> bytes:
    """The frame of a packet with a source address; the group's link address by RFC 1112 §6.4 and RFC 2464 §7."""
    if packet[0] >> 4 == 4:
        return b"\x01\x00\x5e" + bytes((packet[17] & 0x7F,)) + packet[18:20] + address + b"\x08\x00" + outgoing
    return b"\x33\x33" + packet[36:40] + address + b"\x86\xdd" + outgoing


@pytest.fixture
def make_uplink() -> Iterator[object]:
    with ExitStack() as stack:

        def make(downstreams: int = 1, *, clsact: bool | None = None, attached: bool = True) -> Uplink:
            topology = EngineTopology(f"tc{os.getpid()}", downstreams=downstreams, merging=False)
            stack.enter_context(topology)
            try:
                loaded = load("gateway", entries={"receive_cpus": 1}, programs=PROGRAMS)
            except BpfUnavailableError as error:
                pytest.skip(str(error))
            stack.callback(loaded.close)
            if clsact is False and not has_tcx(loaded.program("gateway_tc")):
                pytest.skip("no tcx in this kernel")
            uplink = Uplink(topology, loaded, stack)
            uplink.open(clsact=clsact, attached=attached)
            return uplink

        yield make


@pytest.mark.parametrize("clsact", [False, True], ids=["tcx", "clsact"])
@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("outer", [4, 6])
def test_a_packet_leaves_stripped_byte_for_byte(make_uplink, outer: int, inner: int, clsact: bool) -> None:
    """Sent over veth the outer checksum is left to do, and the downstream fills in what is: none may be."""
    uplink = make_uplink(clsact=clsact)
    uplink.forward(inner, outer)
    for payload in (b"", b"odd", bytes(range(200)), b"x" * 1316):
        packet = datagram(inner, payload)
        uplink.send(outer, packet)
        assert uplink.frames(0, packet) == [expected(uplink.addresses[0], packet, one_hop_on(packet))]
    assert uplink.counted("channel_counters", 5) == 4
    assert uplink.counted("tunnel_counters", 1 if outer == 4 else 2) == 4


@pytest.mark.parametrize("count", [2, 8])
def test_every_interface_of_a_set_gets_its_own_source_address(make_uplink, count: int) -> None:
    uplink = make_uplink(count)
    uplink.forward(4, 4)
    packet = datagram_ipv4(b"many", flags=0x4000)
    uplink.send(4, packet)
    for number in range(count):
        assert uplink.frames(number, packet) == [expected(uplink.addresses[number], packet, one_hop_on(packet))]


def test_what_is_not_wholly_understood_reaches_the_socket_untouched(make_uplink) -> None:
    uplink = make_uplink()
    uplink.forward(4, 4, limit=500)
    options, long = datagram_ipv4(b"options", options=bytes(4)), datagram_ipv4(bytes(600))
    for packet in (options, long):
        uplink.send(4, packet)
        assert uplink.sockets[4].recv(70000) == b"\x06\x00" + packet
    for name in ("inner_options", "too_big"):
        assert uplink.counted("exceptions", EXCEPTIONS.index(name)) == 1


def test_refusals_are_counted(make_uplink) -> None:
    uplink = make_uplink()
    uplink.forward(4, 4)
    uplink.forward(6, 6)
    uplink.send(4, datagram_ipv4(b"late", ttl=1))
    uplink.send(6, datagram_ipv6(b"late", hop_limit=1))
    uplink.send(4, datagram_ipv4(b"other", group="232.9.9.9"))
    for version in (4, 6):  # the first packet over IPv6 waits for its neighbour, the next behind it
        last = datagram(version, b"good")
        uplink.send(version, last)
        assert uplink.frames(0, last) == [expected(uplink.addresses[0], last, one_hop_on(last))]
    assert uplink.counted("refused", REFUSALS.index(Refusal.TTL_EXPIRED)) == 2
    assert uplink.counted("refused", REFUSALS.index(Refusal.NOT_SUBSCRIBED)) == 1


def test_a_train_of_the_sender_goes_to_the_socket(make_uplink) -> None:
    uplink = make_uplink()
    uplink.forward(4, 4)
    message = b"\x06\x00" + datagram_ipv4(bytes(300))
    target = uplink.sockets[4].getsockname()
    uplink.senders[4].sendmsg([message * 3], [(17, 103, struct.pack("=H", len(message)))], 0, target)
    assert [uplink.sockets[4].recv(70000) for _ in range(3)] == [message] * 3
    assert uplink.counted("exceptions", EXCEPTIONS.index("aggregate")) >= 1


@pytest.mark.parametrize(
    ("secret", "shown"), [(SECRET, PLAIN), (SECRET_KEEP_WHOLE, KEEP_WHOLE)], ids=["plain", "whole"]
)
def test_what_xdp_stripped_comes_in_by_the_tunnel_interface(make_uplink, secret: bytes, shown: bytes) -> None:
    uplink = make_uplink()
    packet = datagram_ipv4(b"stripped")
    with inside(uplink.topology.gateway):
        tap = Tap(TapSettings())
        uplink.stack.callback(tap.remove)
        inside_tap = uplink.stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        inside_tap.bind((tap.name, 0))
        inside_tap.settimeout(0.02)
    uplink.wires = [inside_tap]
    values = settings_value(tap.index, 0, PLAIN, KEEP_WHOLE, SECRET, SECRET_KEEP_WHOLE)
    uplink.loaded.map("settings").update(index_key(0), values)
    with inside(uplink.topology.relay), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as far:
        far.bind(("uplink0", 0))
        far.send(secret + expected(bytes(6), packet, packet)[6:])
    assert uplink.frames(0, packet) == [expected(shown, packet, packet)]


def test_a_filter_left_by_a_killed_process_does_nothing(make_uplink) -> None:
    """The filter stays on the interface; the program array it jumps through is empty, and packets reach the socket."""
    uplink = make_uplink(attached=False)
    gateway = uplink.topology.gateway
    with subprocess.Popen([sys.executable, "-c", ATTACH_AND_WAIT, gateway], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "attached\n"
        other.kill()
    with inside(gateway):
        shown = subprocess.run(
            ["tc", "filter", "show", "dev", "uplink1", "ingress"], capture_output=True, text=True, check=True
        )
    assert "isthmus" in shown.stdout
    packet = datagram_ipv4(b"not subscribed, were a program there")
    uplink.send(4, packet)
    assert uplink.sockets[4].recv(70000) == b"\x06\x00" + packet
