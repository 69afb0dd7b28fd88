"""The relay's fan-out in the kernel and the links around it: trains, two native interfaces, a neighbour that moves."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import suppress
from ipaddress import ip_address

import pytest

from agent.dataplane.relay import RelayDataPlane
from agent.protocol.channels import Channel, Family, Filter
from lab.bench.relay_topology import (
    GATEWAY_IPV4,
    NATIVE_AT_RELAY,
    RELAY_IPV4,
    UPLINK_AT_GATEWAY,
    UPLINK_AT_RELAY,
    inside,
    ip,
    ip_lines,
    run,
)
from tests.interop.test_relay_fanout import (
    GROUP4,
    GROUP6,
    SOURCE4,
    SOURCE6,
    Rig,
    forwarded,
    gets,
    payloads_of_whole,
    rig,  # noqa: F401 - the fixture
    udp_packet,
    until,
)
from tests.interop.test_relay_kernel import (
    bpf,  # noqa: F401 - the fixture
    in_kernel,
)

pytestmark = pytest.mark.root

SECOND_AT_SOURCE = "native2"
SECOND_AT_RELAY = "native3"
SOURCE_OF_SECOND = ip_address("10.73.0.1")
UDP_SEGMENT = 103
MOVED = b"\x02\0\0\0\x77\x77"
TRAINS_CAN_BE_READ = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 2)
"""By a packet socket: linux/virtio_net.h knows GSO_UDP_L4 from there on."""


@pytest.mark.parametrize("inner", list(Family), ids=lambda family: f"inner{family.value}")
async def test_trains_are_cut_by_userspace_and_the_channel_stays_in_the_kernel(rig: Rig, inner: Family) -> None:  # noqa: F811
    source, group = (SOURCE4, GROUP4) if inner is Family.IPV4 else (SOURCE6, GROUP6)
    plane, gateway = rig.plane(kernel=True), rig.gateway()
    plane.set_interest(gateway.endpoint, None, group, Filter.include([source]))
    await in_kernel(rig, plane, inner, gateway)
    before, channel = plane.counters(), Channel(source, group)
    train = [bytes([number]) * 1000 for number in range(12)] if TRAINS_CAN_BE_READ else []
    segments = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1000))]
    if train:
        rig.sender(source).sendmsg([b"".join(train)], segments, 0, (str(group), 5000))
        await until(lambda: len(gateway.poll()) >= len(train))
    single = udp_packet(os.urandom(1000), source, group)
    rig.frames(single)
    await until(lambda: len(gateway.poll()) > len(train))
    assert payloads_of_whole(gateway.received[:-1], source, group) == train
    assert gateway.received[-1] == forwarded(single)
    after = plane.counters()
    assert after.channels[channel].packets - before.channels[channel].packets == len(train) + 1
    assert after.tunnels[gateway.endpoint].packets - before.tunnels[gateway.endpoint].packets == len(train) + 1
    assert plane.details["kernel"].endswith(": 1")


def make_second_native(rig: Rig) -> None:  # noqa: F811
    one, other = rig.topology.source, rig.topology.relay
    run(
        *("ip", "link", "add", SECOND_AT_SOURCE, "netns", one, "type", "veth"),
        *("peer", "name", SECOND_AT_RELAY, "netns", other),
    )
    ip_lines(one, f"address add {SOURCE_OF_SECOND}/16 dev {SECOND_AT_SOURCE}", f"link set {SECOND_AT_SOURCE} up")
    ip_lines(other, f"address add 10.73.0.2/16 dev {SECOND_AT_RELAY}", f"link set {SECOND_AT_RELAY} up")


def send_by_second(rig: Rig, packet: bytes) -> None:  # noqa: F811
    link = b"\x01\x00\x5e" + bytes([packet[17] & 0x7F]) + packet[18:20] + b"\x02\0\0\0\0\x01\x08\x00"
    with inside(rig.topology.source), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((SECOND_AT_SOURCE, 0))
        raw.send(link + packet)


async def test_two_native_interfaces_are_served_each_for_its_own_channels(rig: Rig) -> None:  # noqa: F811
    make_second_native(rig)
    natives = [NATIVE_AT_RELAY, SECOND_AT_RELAY]
    plane = RelayDataPlane(asyncio.get_running_loop(), rig.sockets, natives, kernel=True)
    rig.stack.callback(plane.close)
    gateway = rig.gateway()
    plane.set_interest(gateway.endpoint, None, GROUP4, Filter.include([SOURCE4, SOURCE_OF_SECOND]))

    def are_served() -> bool:
        rig.frames(udp_packet(b"first", SOURCE4, GROUP4))
        send_by_second(rig, udp_packet(b"first", SOURCE_OF_SECOND, GROUP4))
        return plane.details["kernel"].endswith(": 2")

    await until(are_served)
    first, second = Channel(SOURCE4, GROUP4), Channel(SOURCE_OF_SECOND, GROUP4)
    before = plane.counters()
    await until(lambda: len(gateway.poll()) >= sum(before.channels[each].packets for each in (first, second)))
    gateway.received.clear()
    packets = [udp_packet(os.urandom(500), source, GROUP4) for source in (SOURCE4, SOURCE_OF_SECOND) * 10]
    for packet in packets:
        if packet[12:16] == SOURCE4.packed:
            rig.frames(packet)
        else:
            send_by_second(rig, packet)
    await gets(gateway, [forwarded(packet) for packet in packets])
    after = plane.counters()
    assert [after.channels[each].packets - before.channels[each].packets for each in (first, second)] == [10, 10]
    assert after.tunnels[gateway.endpoint].packets - before.tunnels[gateway.endpoint].packets == 20


async def test_an_arp_reply_from_another_station_moves_the_tunnel(rig: Rig) -> None:  # noqa: F811
    plane, gateway = rig.plane(kernel=True), rig.gateway()
    rig.topology.sysctl(rig.topology.relay, f"net.ipv4.neigh.{UPLINK_AT_RELAY}.locktime", "0")
    plane.set_interest(gateway.endpoint, None, GROUP4, Filter.include([SOURCE4]))
    await in_kernel(rig, plane, Family.IPV4, gateway)
    capture = rig.uplink_capture()
    ip(rig.topology.gateway, "link", "set", UPLINK_AT_GATEWAY, "address", MOVED.hex(":"))
    relays = ip_address(RELAY_IPV4).packed
    address = ip_address(GATEWAY_IPV4).packed
    reply = b"\xff" * 6 + MOVED + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
    reply += MOVED + address + b"\xff" * 6 + relays
    with inside(rig.topology.gateway), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((UPLINK_AT_GATEWAY, 0))
        raw.send(reply)
    packet = udp_packet(b"x" * 200, SOURCE4, GROUP4)

    def arrives_there() -> bool:
        rig.frames(packet)
        return gateway.poll()[-1:] == [forwarded(packet)]

    await until(arrives_there)
    assert plane.details["kernel"].endswith(": 1")
    frames = []
    with suppress(BlockingIOError):
        while True:
            frames.append(capture.recv(2000))
    assert [frame for frame in frames if frame[:6] == MOVED and frame.endswith(forwarded(packet))]
