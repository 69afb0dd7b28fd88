"""The relay's data plane between namespaces: native multicast in, AMT data out, byte for byte.

The native side is real kernels' traffic (UDP sockets with checksum and segmentation offload) or hand-made frames; what
left is read by a plain UDP socket per gateway and, where the outer header matters, by a packet socket on the uplink.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest
import pytest_asyncio

from agent.dataplane.engine import Refusal
from agent.dataplane.fanout_oversize import Oversize
from agent.dataplane.joins import NativeJoins
from agent.dataplane.relay import RelayDataPlane
from agent.protocol.channels import NOTHING, Address, Channel, Endpoint, Family, Filter
from lab.bench.relay_topology import (
    GATEWAY_IPV4,
    GATEWAY_IPV6,
    NATIVE_AT_RELAY,
    NATIVE_AT_SOURCE,
    RELAY_IPV4,
    RELAY_IPV6,
    SOURCE_IPV4,
    SOURCE_IPV6,
    UPLINK_AT_GATEWAY,
    UPLINK_AT_RELAY,
    RelayTopology,
    inside,
    ip,
    run,
)

pytestmark = pytest.mark.root

SOURCE4, SOURCE6 = ip_address(SOURCE_IPV4), ip_address(SOURCE_IPV6)
GROUP4, GROUP6 = ip_address("232.1.1.1"), ip_address("ff3e::8000:1")
ALL = Filter.exclude()


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def udp_packet(payload: bytes, source: Address, group: Address, *, ttl: int = 9, flags: int = 0, tos: int = 0) -> bytes:
    addresses = source.packed + group.packed
    header = struct.pack("!HHHH", 4000, 5000, 8 + len(payload), 0)
    value = checksum(addresses + struct.pack("!HH", 17, 8 + len(payload)) + header + payload) or 0xFFFF
    return ip_packet(header[:6] + struct.pack("!H", value) + payload, source, group, ttl=ttl, flags=flags, tos=tos)


def ip_packet(
    body: bytes, source: Address, group: Address, *, ttl: int = 9, flags: int = 0, tos: int = 0, options: bytes = b""
) -> bytes:
    if group.version == 6:
        start = struct.pack("!IHBB", 6 << 28 | tos << 20, len(body), 17, ttl)
        return start + source.packed + group.packed + body
    length = 20 + len(options) + len(body)
    header = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, tos, length, 77, flags, ttl, 17, 0)
    header += source.packed + group.packed + options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def forwarded(packet: bytes) -> bytes:
    """The packet with its TTL one less, its checksum computed afresh."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([packet[7] - 1]) + packet[8:]
    length = (packet[0] & 15) * 4
    header = packet[:8] + bytes([packet[8] - 1, packet[9]]) + b"\0\0" + packet[12:length]
    return header[:10] + struct.pack("!H", checksum(header)) + packet[10 + 2 :]


@dataclass
class Gateway:
    socket: socket.socket
    endpoint: Endpoint
    received: list[bytes] = field(default_factory=list)

    def poll(self) -> list[bytes]:
        while True:
            try:
                data, source = self.socket.recvfrom(70_000)
            except BlockingIOError:
                return self.received
            assert data[:2] == b"\x06\x00"
            assert source[:2] in ((RELAY_IPV4, 2268), (RELAY_IPV6, 2268))
            self.received.append(data[2:])


@dataclass
class Rig:
    topology: RelayTopology
    stack: ExitStack
    sockets: dict[Family, socket.socket]
    ports: Iterator[int] = field(default_factory=lambda: iter(range(6000, 9000)))

    def plane(self, **options: object) -> RelayDataPlane:
        plane = RelayDataPlane(asyncio.get_running_loop(), self.sockets, [NATIVE_AT_RELAY], **options)  # type: ignore[arg-type]
        self.stack.callback(plane.close)
        return plane

    def gateway(self, family: Family = Family.IPV4) -> Gateway:
        with inside(self.topology.gateway):
            if family is Family.IPV4:
                listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                address = GATEWAY_IPV4
            else:
                listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
                address = GATEWAY_IPV6
        self.stack.enter_context(listener)
        listener.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)
        listener.bind((address, next(self.ports)))
        listener.setblocking(False)
        return Gateway(listener, Endpoint(ip_address(address), listener.getsockname()[1]))

    def frames(self, *packets: bytes) -> None:
        """Send hand-made packets out of the source's interface."""
        with inside(self.topology.source), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((NATIVE_AT_SOURCE, 0))
            for packet in packets:
                if packet[0] >> 4 == 4:
                    link = b"\x01\x00\x5e" + bytes([packet[17] & 0x7F]) + packet[18:20] + b"\x02\0\0\0\0\x01\x08\x00"
                else:
                    link = b"\x33\x33" + packet[36:40] + b"\x02\0\0\0\0\x01\x86\xdd"
                raw.send(link + packet)

    def sender(self, source: Address) -> socket.socket:
        """A UDP socket of the source host, TTL 9."""
        with inside(self.topology.source):
            if source.version == 4:
                sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 9)
            else:
                sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
                sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 9)
            self.stack.enter_context(sender)
            sender.bind((str(source), 4000))
        return sender

    def uplink_capture(self) -> socket.socket:
        """Whole frames as they arrive at the gateways' host."""
        with inside(self.topology.gateway):
            capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.stack.enter_context(capture)
        capture.bind((UPLINK_AT_GATEWAY, 3))
        capture.setblocking(False)
        return capture

    def memberships(self) -> dict[str, tuple[str, set[str], set[str]]]:
        """Per IPv4 group on the native interface: filter mode, sources included, sources excluded."""
        found: dict[str, tuple[str, set[str], set[str]]] = {}
        for line in Path("/proc/net/mcfilter").read_text().splitlines()[1:]:
            index, _, group, source, included, excluded = line.split()
            if int(index) == socket.if_nametoindex(NATIVE_AT_RELAY):
                entry = found.setdefault(str(ip_address(int(group, 16))), ("sources", set(), set()))
                if int(included):
                    entry[1].add(str(ip_address(int(source, 16))))
                if int(excluded):
                    entry[2].add(str(ip_address(int(source, 16))))
        return found

    def ipv6_sources_joined(self) -> set[str]:
        """Sources of any IPv6 group on any interface, as hexadecimal digits."""
        lines = Path("/proc/net/mcfilter6").read_text().splitlines()[1:]
        return {line.split()[3].removeprefix("0x") for line in lines}

    def groups(self) -> set[str]:
        """Groups joined on the native interface."""
        listed = ip(self.topology.relay, "maddress", "show", "dev", NATIVE_AT_RELAY)
        return {line.split()[1] for line in listed.splitlines() if line.split()[0] in ("inet", "inet6")}


@pytest_asyncio.fixture
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    sizes = getattr(request, "param", {})
    with RelayTopology(f"isf{os.getpid()}", **sizes) as topology, inside(topology.relay), ExitStack() as stack:
        ipv4 = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        ipv4.bind(("0.0.0.0", 2268))
        ipv6 = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        ipv6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        ipv6.bind(("::", 2268))
        for one in (ipv4, ipv6):
            one.setblocking(False)
        yield Rig(topology, stack, {Family.IPV4: ipv4, Family.IPV6: ipv6})


async def until(condition, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come about in time"
        await asyncio.sleep(0.005)


async def gets(gateway: Gateway, expected: list[bytes]) -> None:
    await until(lambda: len(gateway.poll()) >= len(expected))
    assert gateway.received == expected


def local_of(family: Family) -> Address:
    return ip_address(RELAY_IPV4 if family is Family.IPV4 else RELAY_IPV6)


@pytest.mark.parametrize("outer", list(Family), ids=lambda family: f"outer{family.value}")
@pytest.mark.parametrize("inner", list(Family), ids=lambda family: f"inner{family.value}")
async def test_inner_packets_arrive_byte_for_byte(rig: Rig, inner: Family, outer: Family) -> None:
    source, group = (SOURCE4, GROUP4) if inner is Family.IPV4 else (SOURCE6, GROUP6)
    plane, gateway = rig.plane(), rig.gateway(outer)
    plane.set_interest(gateway.endpoint, local_of(outer), group, Filter.include([source]))
    packets = [udp_packet(os.urandom(size), source, group, tos=0xB9) for size in (0, 1, 18, 1316, 1316, 1316, 1200)]
    packets += [udp_packet(os.urandom(1000), source, group, ttl=ttl, flags=0x4000) for ttl in (2, 64, 255)]
    if inner is Family.IPV4:
        packets += [
            ip_packet(os.urandom(1480), source, group, flags=0x2000),
            ip_packet(os.urandom(300), source, group, flags=185),
            ip_packet(os.urandom(100), source, group, options=bytes([0x94, 4, 0, 0])),
        ]
    rig.frames(*packets)
    await gets(gateway, [forwarded(packet) for packet in packets])
    counters = plane.counters()
    assert counters.channels[Channel(source, group)].packets == len(packets)
    assert counters.tunnels[gateway.endpoint].bytes == sum(map(len, packets))
    assert counters.refused == {}
    assert counters.errors == {}


@pytest.mark.parametrize("source", [SOURCE4, SOURCE6], ids=str)
async def test_offloaded_checksums_are_completed(rig: Rig, source: Address) -> None:
    group = GROUP4 if source.version == 4 else GROUP6
    plane, gateway = rig.plane(), rig.gateway()
    plane.set_interest(gateway.endpoint, None, group, ALL)
    sender = rig.sender(source)
    sent = [os.urandom(size) for size in (1, 100, 1316, 8000)]
    for payload in sent:
        sender.sendto(payload, (str(group), 5000))
    await until(lambda: len(gateway.poll()) >= len(sent))
    assert payloads_of_whole(gateway.received, source, group) == sent


@pytest.mark.parametrize("source", [SOURCE4, SOURCE6], ids=str)
async def test_segments_left_to_the_hardware_are_cut_or_their_loss_is_told(rig: Rig, source: Address) -> None:
    """Before Linux 6.2 a packet socket cannot describe them (linux/virtio_net.h knows no GSO_UDP_L4 there)."""
    group = GROUP4 if source.version == 4 else GROUP6
    plane, gateway = rig.plane(), rig.gateway()
    plane.set_interest(gateway.endpoint, None, group, ALL)
    sender = rig.sender(source)
    block = os.urandom(10_000)
    segment_size = [(17, 103, struct.pack("H", 1300))]  # SOL_UDP, UDP_SEGMENT
    sender.sendmsg([block], segment_size, 0, (str(group), 5000))
    sender.sendto(b"the next", (str(group), 5000))
    pieces = [block[start : start + 1300] for start in range(0, len(block), 1300)]
    readable = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 2)
    sent = [*pieces, b"the next"] if readable else [b"the next"]
    await until(lambda: len(gateway.poll()) >= len(sent))
    assert payloads_of_whole(gateway.received, source, group) == sent
    assert plane.counters().capture_errors == ({} if readable else {"segments_unreadable": 1})
    assert ("Linux 6.2" in plane.details["capture"]) is not readable


def payloads_of_whole(packets: list[bytes], source: Address, group: Address) -> list[bytes]:
    """UDP payloads of packets whose checksums and lengths are right."""
    header = 28 if source.version == 4 else 48
    addresses = source.packed + group.packed
    for packet in packets:
        body = packet[header - 8 :]
        assert checksum(addresses + struct.pack("!HH", 17, len(body)) + body) == 0
        if source.version == 4:
            assert checksum(packet[:20]) == 0
            assert struct.unpack_from("!H", packet, 2)[0] == len(packet)
    return [packet[header:] for packet in packets]


async def test_filters_decide_per_tunnel_and_their_union_is_joined(rig: Rig) -> None:
    plane = rig.plane()
    included, excluded, everything = rig.gateway(), rig.gateway(), rig.gateway(Family.IPV6)
    other = ip_address("10.71.0.99")
    plane.set_interest(included.endpoint, None, GROUP4, Filter.include([SOURCE4]))
    assert rig.memberships() == {str(GROUP4): ("sources", {SOURCE_IPV4}, set())}
    plane.set_interest(excluded.endpoint, None, GROUP4, Filter.exclude([SOURCE4, ip_address("10.71.0.98")]))
    # RFC 4605 §4.1 over both: everything but 10.71.0.98.
    assert rig.memberships()[str(GROUP4)][2] == {"10.71.0.98"}
    plane.set_interest(everything.endpoint, None, GROUP4, ALL)
    assert str(GROUP4) in rig.groups()
    first, second = udp_packet(b"one", SOURCE4, GROUP4), udp_packet(b"two", other, GROUP4)
    rig.frames(first, second)
    await gets(included, [forwarded(first)])
    await gets(excluded, [forwarded(second)])
    await gets(everything, [forwarded(first), forwarded(second)])
    for gateway in (included, excluded, everything):
        plane.remove_tunnel(gateway.endpoint)
    assert str(GROUP4) not in rig.groups()
    rig.frames(first)
    await until(lambda: plane.counters().refused.get(Refusal.NOT_SUBSCRIBED) == 1)
    assert not included.poll()[1:]


async def test_what_no_router_forwards_stays_out_of_the_tunnels(rig: Rig) -> None:
    plane, gateway = rig.plane(), rig.gateway()
    for group in (GROUP4, GROUP6, ip_address("224.0.0.9"), ip_address("ff02::9")):
        plane.set_interest(gateway.endpoint, None, group, ALL)
    wanted = udp_packet(b"wanted", SOURCE4, GROUP4)
    igmp = bytearray(ip_packet(bytes(8), SOURCE4, GROUP4))
    igmp[9] = 2
    igmp[10:12] = b"\0\0"
    igmp[10:12] = struct.pack("!H", checksum(bytes(igmp[:20])))
    broken = bytearray(wanted)
    broken[10] ^= 0xFF
    tagged = b"\x01\x00\x5e\x01\x01\x01\x02\0\0\0\0\x01\x81\x00\x00\x07\x08\x00" + wanted
    with inside(rig.topology.source), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((NATIVE_AT_SOURCE, 0))
        raw.send(tagged)
    rig.frames(
        udp_packet(b"x", SOURCE4, ip_address("224.0.0.9")),
        udp_packet(b"x", SOURCE6, ip_address("ff02::9")),
        udp_packet(b"x", ip_address("fe80::1"), GROUP6),
        udp_packet(b"x", ip_address("169.254.1.1"), GROUP4),
        bytes(igmp),
        udp_packet(b"x", SOURCE4, GROUP4, ttl=1),
        udp_packet(b"x", SOURCE6, GROUP6, ttl=1),
        udp_packet(b"x", ip_address("127.0.0.1"), GROUP4),
        bytes(broken),
        wanted,
    )
    await gets(gateway, [forwarded(wanted)])
    assert plane.counters().refused == {Refusal.TTL_EXPIRED: 2, Refusal.BAD_INNER_HEADER: 2}


@pytest.mark.parametrize("outer", list(Family), ids=lambda family: f"outer{family.value}")
@pytest.mark.parametrize("segmentation", ["alone", "in bursts"])
async def test_sizes_around_the_path_mtu_and_jumbo_arrive_whole(rig: Rig, outer: Family, segmentation: str) -> None:
    plane, gateway, wide = rig.plane(), rig.gateway(outer), rig.gateway()
    plane.set_interest(gateway.endpoint, None, GROUP4, ALL)
    plane.set_interest(wide.endpoint, None, GROUP4, ALL)
    inner_sizes = [1449, 1450, 1451, 1470, 1471, 1472, 1473, 1474, 1500, 9000]
    packets = [udp_packet(os.urandom(size - 28), SOURCE4, GROUP4, flags=0x4000) for size in inner_sizes]
    if segmentation == "in bursts":
        packets = [packet for packet in packets for _ in range(3)]
        rig.frames(*packets)
    else:
        for count, packet in enumerate(packets, 1):
            rig.frames(packet)
            await until(lambda count=count: len(gateway.poll()) == count)
    await gets(gateway, [forwarded(packet) for packet in packets])
    await gets(wide, [forwarded(packet) for packet in packets])
    assert plane.counters().errors == {}


async def test_refusing_fragments_inside_or_tells_the_source(rig: Rig) -> None:
    plane, gateway = rig.plane(oversize=Oversize.REFUSE), rig.gateway()
    for group in (GROUP4, GROUP6):
        plane.set_interest(gateway.endpoint, None, group, ALL)
    with inside(rig.topology.source):
        icmp4 = rig.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        icmp6 = rig.stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    for listener in (icmp4, icmp6):
        listener.setblocking(False)
    fits = udp_packet(bytes(1470 - 28), SOURCE4, GROUP4, flags=0x4000)
    fragmentable = udp_packet(os.urandom(1471 - 28), SOURCE4, GROUP4)
    too_big4 = udp_packet(bytes(1471 - 28), SOURCE4, GROUP4, flags=0x4000)
    too_big6 = udp_packet(bytes(1471 - 48), SOURCE6, GROUP6)
    rig.frames(fits, fragmentable, too_big4, too_big6, fits)
    await until(lambda: len(gateway.poll()) >= 4)
    first, piece, rest, last = gateway.received
    assert first == last == forwarded(fits)
    assert len(piece) <= 1470
    assert piece[20:] + rest[20:] == fragmentable[20:]
    assert struct.unpack_from("!H", piece, 6)[0] == 0x2000
    assert struct.unpack_from("!H", rest, 6)[0] == (len(piece) - 20) // 8
    assert plane.counters().errors == {"too_big": 2}
    got4, got6 = b"", b""
    for _ in range(100):
        await asyncio.sleep(0.01)
        try:
            while got4[20:22] != b"\x03\x04":
                got4 = icmp4.recv(2000)
        except BlockingIOError:
            pass
        try:
            while got6[:1] != b"\x02":
                got6 = icmp6.recv(2000)
        except BlockingIOError:
            pass
        if got4[20:22] == b"\x03\x04" and got6[:1] == b"\x02":
            break
    assert struct.unpack_from("!H", got4, 26)[0] == 1470
    assert got4[28:48][12:20] == SOURCE4.packed + GROUP4.packed
    assert struct.unpack_from("!I", got6, 4)[0] == 1470


@pytest.mark.parametrize("outer", list(Family), ids=lambda family: f"outer{family.value}")
async def test_outer_header_on_the_wire(rig: Rig, outer: Family) -> None:
    # Checksums are computed by the kernel when the veth does not pretend to have hardware for it.
    for feature in ("tx-checksum-ip-generic", "tx-udp-segmentation"):
        if shutil.which("ethtool") is None:
            pytest.skip("needs ethtool")
        with inside(rig.topology.relay):
            run("ethtool", "-K", UPLINK_AT_RELAY, feature, "off")
    plane, gateway = rig.plane(), rig.gateway(outer)
    plane.set_interest(gateway.endpoint, local_of(outer), GROUP4, ALL)
    capture = rig.uplink_capture()
    packets = [udp_packet(os.urandom(1316), SOURCE4, GROUP4, tos=2) for _ in range(5)]
    rig.frames(*packets)
    await gets(gateway, [forwarded(packet) for packet in packets])
    seen = []
    while True:
        try:
            frame = capture.recv(2000)
        except BlockingIOError:
            break
        header = 34 if outer is Family.IPV4 else 54
        if frame[header : header + 2] == struct.pack("!H", 2268):
            seen.append(frame)
    assert len(seen) == 5
    for frame in seen:
        addresses = frame[26:34] if outer is Family.IPV4 else frame[22:54]
        body = frame[34:] if outer is Family.IPV4 else frame[54:]
        assert body[6:8] != b"\0\0"
        assert checksum(addresses + struct.pack("!HH", 17, len(body)) + body) == 0
        if outer is Family.IPV4:
            assert frame[20] & 0x40 == 0, "the outer packet may be fragmented on the way"
            assert frame[15] & 3 == 0, "RFC 9601 compatibility mode: the outer packet is not ECN-capable"


async def test_order_is_kept_under_load(rig: Rig) -> None:
    plane, gateways = rig.plane(), [rig.gateway() for _ in range(20)]
    for gateway in gateways:
        plane.set_interest(gateway.endpoint, None, GROUP4, ALL)
    sender = rig.sender(SOURCE4)
    for start in range(0, 2000, 50):
        for number in range(start, start + 50):
            sender.sendto(struct.pack("!I", number) + bytes(600 + number % 3), (str(GROUP4), 5000))
        await asyncio.sleep(0.001)
    for gateway in gateways:
        await until(lambda gateway=gateway: len(gateway.poll()) >= 2000)
        assert [struct.unpack_from("!I", packet, 28)[0] for packet in gateway.received] == list(range(2000))
    assert plane.counters().capture_dropped == {NATIVE_AT_RELAY: 0}


async def test_the_stream_goes_on_when_the_native_interface_is_made_again(rig: Rig) -> None:
    plane, gateway = rig.plane(), rig.gateway()
    plane.set_interest(gateway.endpoint, None, GROUP4, Filter.include([SOURCE4]))
    plane.set_interest(gateway.endpoint, None, GROUP6, ALL)
    packet = udp_packet(b"before", SOURCE4, GROUP4)
    rig.frames(packet)
    await gets(gateway, [forwarded(packet)])
    rig.topology.disconnect_native()
    plane.interface_changed(NATIVE_AT_RELAY)
    assert plane.counters().join_failures
    rig.topology.connect_native()
    # Nobody says so this time: the data plane looks by itself.
    await until(lambda: {str(GROUP4), str(GROUP6)} <= rig.groups())
    assert rig.memberships()[str(GROUP4)][1] == {SOURCE_IPV4}
    again = udp_packet(b"after", SOURCE4, GROUP4)
    rig.frames(again)
    await gets(gateway, [forwarded(packet), forwarded(again)])
    assert plane.counters().join_failures == {}


async def test_the_stream_goes_on_after_the_interface_was_down(rig: Rig) -> None:
    plane, gateway = rig.plane(), rig.gateway()
    plane.set_interest(gateway.endpoint, None, GROUP4, ALL)
    ip(rig.topology.relay, "link", "set", NATIVE_AT_RELAY, "down")
    await asyncio.sleep(0.05)
    ip(rig.topology.relay, "link", "set", NATIVE_AT_RELAY, "up")
    packet = udp_packet(b"after", SOURCE4, GROUP4)
    deadline = time.monotonic() + 3
    while not gateway.poll() and time.monotonic() < deadline:
        rig.frames(packet)
        await asyncio.sleep(0.02)
    assert gateway.received[:1] == [forwarded(packet)]


async def test_vlan_traffic_is_captured_on_the_vlan_interface_only(rig: Rig) -> None:
    try:
        ip(
            rig.topology.relay,
            "link",
            "add",
            "link",
            NATIVE_AT_RELAY,
            "name",
            "native1.7",
            "type",
            "vlan",
            "id",
            "7",
        )
    except RuntimeError as error:
        pytest.skip(f"needs VLAN devices ({error})")
    ip(rig.topology.relay, "link", "set", "native1.7", "up")
    plane = RelayDataPlane(asyncio.get_running_loop(), rig.sockets, [NATIVE_AT_RELAY, "native1.7"])
    rig.stack.callback(plane.close)
    gateway = rig.gateway()
    plane.set_interest(gateway.endpoint, None, GROUP4, ALL)
    packet = udp_packet(b"tagged", SOURCE4, GROUP4)
    with inside(rig.topology.source), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((NATIVE_AT_SOURCE, 0))
        raw.send(b"\x01\x00\x5e\x01\x01\x01\x02\0\0\0\0\x01\x81\x00\x00\x07\x08\x00" + packet)
    plain = udp_packet(b"plain", SOURCE4, GROUP4)
    rig.frames(plain)
    await gets(gateway, [forwarded(packet), forwarded(plain)])


async def test_thousands_of_channels_are_joined_over_many_sockets(rig: Rig) -> None:
    joins = NativeJoins()
    rig.stack.callback(joins.close)
    groups = [ip_address(0xE801_0000 + number) for number in range(3000)]
    for group in groups:
        joins.set_filter(NATIVE_AT_RELAY, group, Filter.include([SOURCE4]))
    assert joins.failures == {}
    assert joins.sockets == 150
    assert {str(group) for group in groups} <= rig.groups()
    for group in groups:
        joins.set_filter(NATIVE_AT_RELAY, group, NOTHING)
    assert joins.sockets == 0
    assert not rig.memberships()


async def test_more_sources_than_a_socket_takes(rig: Rig) -> None:
    joins = NativeJoins()
    rig.stack.callback(joins.close)
    sources = [ip_address(f"10.71.1.{number}") for number in range(1, 36)]
    joins.set_filter(NATIVE_AT_RELAY, GROUP4, Filter.include(sources))
    assert rig.memberships()[str(GROUP4)][1] == set(map(str, sources))
    joins.set_filter(NATIVE_AT_RELAY, GROUP4, Filter.include(sources[20:]))
    assert rig.memberships()[str(GROUP4)][1] == set(map(str, sources[20:]))
    joins.set_filter(NATIVE_AT_RELAY, GROUP4, Filter.exclude(sources))
    assert str(GROUP4) in rig.groups()
    excluded = rig.memberships()[str(GROUP4)][2]
    assert len(excluded) == 10
    assert excluded <= set(map(str, sources))
    joins.set_filter(NATIVE_AT_RELAY, GROUP4, Filter.include(sources[:3]))
    assert rig.memberships()[str(GROUP4)] == ("sources", set(map(str, sources[:3])), set())
    ipv6_sources = [ip_address(f"2001:db8::{number:x}") for number in range(1, 101)]
    joins.set_filter(NATIVE_AT_RELAY, GROUP6, Filter.include(ipv6_sources))
    assert rig.ipv6_sources_joined() == {address.packed.hex() for address in ipv6_sources}
    assert joins.failures == {}


async def test_a_source_that_stays_is_never_left(rig: Rig) -> None:
    """What goes out natively while the filter changes: no report may say that the source that stays is unwanted."""
    joins = NativeJoins()
    rig.stack.callback(joins.close)
    stays, comes, goes = (ip_address(f"10.71.1.{number}") for number in (1, 2, 3))
    joins.set_filter(NATIVE_AT_RELAY, GROUP4, Filter.include([stays, goes]))
    with inside(rig.topology.source):
        capture = rig.stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800)))
    capture.bind((NATIVE_AT_SOURCE, 0x0800))
    capture.setblocking(False)
    for wanted in (
        Filter.include([stays, comes]),
        Filter.exclude([goes]),
        Filter.include([stays]),
        Filter.exclude(),
        Filter.include([stays, comes]),
    ):
        joins.set_filter(NATIVE_AT_RELAY, GROUP4, wanted)
        records = await igmp_records(capture, 0.6)
        assert records, f"no report after {wanted}"
        for kind, group, sources in records:
            if group == GROUP4.packed:
                assert not (kind in (1, 3) and stays.packed not in sources), "an INCLUDE record left it out"
                assert not (kind in (2, 4, 6) and stays.packed in sources), "EXCLUDE or BLOCK of it"


async def igmp_records(capture: socket.socket, seconds: float) -> list[tuple[int, bytes, list[bytes]]]:
    """Group records of IGMPv3 reports seen within `seconds` (RFC 3376 §4.2)."""
    found = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            packet = capture.recv(2000)
        except BlockingIOError:
            await asyncio.sleep(0.01)
            continue
        report = packet[(packet[0] & 15) * 4 :]
        if packet[9] != 2 or report[0] != 0x22:
            continue
        position = 8
        for _ in range(struct.unpack_from("!H", report, 6)[0]):
            kind, auxiliary, count = struct.unpack_from("!BBH", report, position)
            sources = [report[position + 8 + 4 * index : position + 12 + 4 * index] for index in range(count)]
            found.append((kind, report[position + 4 : position + 8], sources))
            position += 8 + 4 * count + 4 * auxiliary
    return found


async def test_joins_beyond_the_socket_limit_are_refused_and_made_up_for(rig: Rig) -> None:
    told: list[tuple[str, Address, OSError]] = []
    joins = NativeJoins(max_sockets=2, on_failure=lambda *what: told.append(what))
    rig.stack.callback(joins.close)
    groups = [ip_address(0xE801_0000 + number) for number in range(41)]
    for group in groups:
        joins.set_filter(NATIVE_AT_RELAY, group, ALL)
    assert list(joins.failures) == [(NATIVE_AT_RELAY, groups[40])]
    assert [(name, group) for name, group, _ in told] == [(NATIVE_AT_RELAY, groups[40])]
    assert "file descriptor limit" in str(told[0][2])
    joins.set_filter(NATIVE_AT_RELAY, groups[0], NOTHING)
    joins.retry()
    assert joins.failures == {}
    assert str(groups[40]) in rig.groups()


async def test_a_lowered_kernel_limit_is_lived_with(rig: Rig) -> None:
    joins = NativeJoins()
    rig.stack.callback(joins.close)
    rig.topology.sysctl(rig.topology.relay, "net.ipv4.igmp_max_memberships", "5")
    rig.topology.sysctl(rig.topology.relay, "net.ipv4.igmp_max_msf", "3")
    groups = [ip_address(0xE801_0000 + number) for number in range(30)]
    sources = [ip_address(f"10.71.1.{number}") for number in range(1, 12)]
    for group in groups:
        joins.set_filter(NATIVE_AT_RELAY, group, Filter.include(sources))
    assert joins.failures == {}
    assert {str(group): set(map(str, sources)) for group in groups} == {
        group: included for group, (_, included, _) in rig.memberships().items()
    }


@pytest.mark.parametrize("outer", list(Family), ids=lambda family: f"outer{family.value}")
async def test_tshark_reads_multicast_data_and_the_packet_in_it(rig: Rig, outer: Family, tmp_path: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("needs tshark")
    plane, gateway = rig.plane(), rig.gateway(outer)
    for group in (GROUP4, GROUP6):
        plane.set_interest(gateway.endpoint, local_of(outer), group, ALL)
    capture = rig.uplink_capture()
    packets = [udp_packet(b"a" * 100, SOURCE4, GROUP4), udp_packet(b"b" * 100, SOURCE6, GROUP6)]
    for count, packet in enumerate(packets, 1):
        rig.frames(packet)
        await until(lambda count=count: len(gateway.poll()) == count)
    port = struct.pack("!H", 2268)
    frames = []
    while len(frames) < 2:
        frame = capture.recv(2000)
        if port in (frame[34:36], frame[54:56]):
            frames.append(frame)
    file = tmp_path / "data.pcap"
    records = [struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame for frame in frames]
    file.write_bytes(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1) + b"".join(records))
    shown = run(
        *("tshark", "-r", str(file), "-T", "fields", "-E", "separator=;", "-E", "occurrence=l"),
        *("-e", "amt.type", "-e", "ip.dst", "-e", "ipv6.dst", "-e", "udp.dstport", "-e", "_ws.malformed"),
    )
    lines = [line.split(";") for line in shown.splitlines()]
    assert [line[0] for line in lines] == ["6", "6"]
    assert lines[0][1] == str(GROUP4)
    assert lines[1][2] == str(GROUP6)
    assert [line[3] for line in lines] == ["5000", "5000"]
    assert [line[4] for line in lines] == ["", ""]
