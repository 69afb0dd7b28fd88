"""The relay's fan-out in the kernel between namespaces: what arrives is what userspace would have sent."""

from __future__ import annotations

import asyncio
import os
import struct
from ipaddress import ip_address

import pytest

from agent.dataplane.engine import Refusal
from agent.dataplane.fanout_oversize import Oversize
from agent.dataplane.relay import RelayDataPlane
from agent.net.bpf import BpfUnavailableError, load
from agent.protocol.channels import NOTHING, Channel, Endpoint, Family, Filter
from lab.bench.relay_topology import GATEWAY_IPV4, NATIVE_AT_RELAY, UPLINK_AT_GATEWAY, UPLINK_AT_RELAY, ip
from tests.interop.test_relay_fanout import (
    GROUP4,
    GROUP6,
    SOURCE4,
    SOURCE6,
    Gateway,
    Rig,
    forwarded,
    gets,
    ip_packet,
    local_of,
    rig,  # noqa: F401 - the fixture
    udp_packet,
    until,
)

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", autouse=True)
def bpf() -> None:
    try:
        load("relay").close()
    except BpfUnavailableError as error:
        pytest.skip(str(error))


def channel_of(family: Family):
    return (SOURCE4, GROUP4) if family is Family.IPV4 else (SOURCE6, GROUP6)


async def in_kernel(rig: Rig, plane: RelayDataPlane, family: Family, *gateways: Gateway) -> None:  # noqa: F811
    """Send packets until the kernel has the channel, then forget them."""
    source, group = channel_of(family)
    for _ in range(100):
        rig.frames(udp_packet(b"first", source, group))
        await asyncio.sleep(0.01)
        if not plane.details["kernel"].endswith(": 0"):
            break
    else:
        pytest.fail(plane.details["kernel"])
    expected = plane.counters().channels[Channel(source, group)].packets
    for gateway in gateways:
        await until(lambda gateway=gateway: len(gateway.poll()) >= expected)
        gateway.received.clear()


@pytest.mark.parametrize("outer", list(Family), ids=lambda family: f"outer{family.value}")
@pytest.mark.parametrize("inner", list(Family), ids=lambda family: f"inner{family.value}")
async def test_inner_packets_arrive_byte_for_byte(rig: Rig, inner: Family, outer: Family) -> None:  # noqa: F811
    source, group = channel_of(inner)
    plane, gateway = rig.plane(kernel=True), rig.gateway(outer)
    plane.set_interest(gateway.endpoint, local_of(outer), group, Filter.include([source]))
    await in_kernel(rig, plane, inner, gateway)
    before = plane.counters()
    packets = [udp_packet(os.urandom(size), source, group, tos=0xB9) for size in (*range(300), *range(1300, 1400))]
    packets += [udp_packet(os.urandom(1000), source, group, ttl=ttl, flags=0x4000) for ttl in (2, 64, 255)]
    bad = bytearray(udp_packet(os.urandom(700), source, group))
    bad[-1] ^= 0x55
    packets.append(bytes(bad))
    if inner is Family.IPV4:
        packets.append(ip_packet(os.urandom(300), source, group, flags=185))
        packets.append(ip_packet(struct.pack("!HHHH", 1, 2, 508, 0) + os.urandom(500), source, group))
    rig.frames(*packets)
    await gets(gateway, [forwarded(packet) for packet in packets])
    after = plane.counters()
    channel = Channel(source, group)
    assert after.channels[channel].packets - before.channels[channel].packets == len(packets)
    assert after.tunnels[gateway.endpoint].bytes - before.tunnels[gateway.endpoint].bytes == sum(map(len, packets))
    assert (after.refused, after.errors) == ({}, {})


@pytest.mark.parametrize("outer", list(Family), ids=lambda family: f"outer{family.value}")
@pytest.mark.parametrize("inner", list(Family), ids=lambda family: f"inner{family.value}")
async def test_unfinished_checksums_are_finished(rig: Rig, inner: Family, outer: Family) -> None:  # noqa: F811
    source, group = channel_of(inner)
    plane, gateway = rig.plane(kernel=True), rig.gateway(outer)
    plane.set_interest(gateway.endpoint, local_of(outer), group, Filter.include([source]))
    await in_kernel(rig, plane, inner, gateway)
    sender = rig.sender(source)
    sent = [os.urandom(size) for size in (1, 60, 100, 101, 1316)]
    for payload in sent:
        sender.sendto(payload, (str(group), 5000))
    await until(lambda: len(gateway.poll()) >= len(sent))
    start = 28 if inner is Family.IPV4 else 48
    assert {packet[start:] for packet in gateway.received} == set(sent)
    for packet in gateway.received:
        whole = udp_packet(packet[start:], source, group)
        assert packet[start - 2 : start] == whole[start - 2 : start]


async def test_refusals_are_counted_as_userspace_counts_them(rig: Rig) -> None:  # noqa: F811
    plane, gateway = rig.plane(kernel=True), rig.gateway()
    plane.set_interest(gateway.endpoint, None, GROUP4, Filter.include([SOURCE4]))
    await in_kernel(rig, plane, Family.IPV4, gateway)
    bad = bytearray(udp_packet(b"x" * 100, SOURCE4, GROUP4))
    bad[10] ^= 1
    rig.frames(udp_packet(b"x", SOURCE4, GROUP4, ttl=1), udp_packet(b"x", SOURCE4, GROUP4, ttl=0), bytes(bad))
    expected = {Refusal.TTL_EXPIRED: 2, Refusal.BAD_INNER_HEADER: 1}
    await until(lambda: plane.counters().refused == expected)
    assert gateway.poll() == []


@pytest.mark.parametrize("oversize", list(Oversize))
async def test_what_does_not_fit_is_left_to_userspace(rig: Rig, oversize: Oversize) -> None:  # noqa: F811
    plane, gateway = rig.plane(kernel=True, oversize=oversize), rig.gateway()
    plane.set_interest(gateway.endpoint, None, GROUP4, Filter.include([SOURCE4]))
    await in_kernel(rig, plane, Family.IPV4, gateway)
    fits, large = (udp_packet(os.urandom(size), SOURCE4, GROUP4) for size in (1442, 1443))
    rig.frames(fits, large)
    if oversize is Oversize.FRAGMENT:
        await gets(gateway, [forwarded(fits), forwarded(large)])
    else:
        await until(lambda: len(gateway.poll()) >= 3)
        assert forwarded(fits) in gateway.received


async def test_each_of_many_tunnels_gets_each_packet_once(rig: Rig) -> None:  # noqa: F811
    plane = rig.plane(kernel=True)
    gateways = [rig.gateway(family) for family in Family for _ in range(300)]  # more than one run sends
    for gateway in gateways:
        plane.set_interest(gateway.endpoint, None, GROUP4, Filter.include([SOURCE4]))
    await in_kernel(rig, plane, Family.IPV4, *gateways)
    packets = [udp_packet(os.urandom(1316), SOURCE4, GROUP4) for _ in range(20)]
    for number, packet in enumerate(packets, 1):  # one at a time: a veth pair queues a thousand copies at most
        rig.frames(packet)
        await until(lambda number=number: all(len(gateway.poll()) >= number for gateway in gateways))
    for gateway in gateways:
        await gets(gateway, [forwarded(packet) for packet in packets])
    counters = plane.counters()
    native = counters.channels[Channel(SOURCE4, GROUP4)].packets
    assert {traffic.packets for traffic in counters.tunnels.values()} == {native}
    assert counters.errors == {}


async def test_tunnels_come_and_go_while_packets_flow(rig: Rig) -> None:  # noqa: F811
    plane, stays, goes = rig.plane(kernel=True), rig.gateway(), rig.gateway()
    wanted = Filter.include([SOURCE4])
    plane.set_interest(stays.endpoint, None, GROUP4, wanted)
    await in_kernel(rig, plane, Family.IPV4, stays)
    packets = [udp_packet(struct.pack("!I", number), SOURCE4, GROUP4) for number in range(200)]
    for number, packet in enumerate(packets):
        plane.set_interest(goes.endpoint, None, GROUP4, NOTHING if number % 10 == 5 else wanted)
        rig.frames(packet)
        await asyncio.sleep(0)
    await gets(stays, [forwarded(packet) for packet in packets])
    await until(lambda: len(goes.poll()) >= 180)
    counters = plane.counters()
    assert counters.tunnels[goes.endpoint].packets == len(goes.received) == 180


async def test_a_neighbour_with_another_address_is_followed(rig: Rig) -> None:  # noqa: F811
    plane, gateway = rig.plane(kernel=True), rig.gateway()
    plane.set_interest(gateway.endpoint, None, GROUP4, Filter.include([SOURCE4]))
    await in_kernel(rig, plane, Family.IPV4, gateway)
    ip(rig.topology.gateway, "link", "set", UPLINK_AT_GATEWAY, "address", "02:00:00:00:77:77")
    ip(
        rig.topology.relay,
        *("neighbour", "replace", GATEWAY_IPV4, "lladdr", "02:00:00:00:77:77", "dev", UPLINK_AT_RELAY),
    )
    await asyncio.sleep(0.05)
    packet = udp_packet(b"x" * 200, SOURCE4, GROUP4)
    rig.frames(packet)
    await gets(gateway, [forwarded(packet)])


async def test_userspace_and_kernel_take_over_from_each_other_while_packets_flow(rig: Rig) -> None:  # noqa: F811
    plane, gateway = rig.plane(kernel=True), rig.gateway()
    plane.set_interest(gateway.endpoint, None, GROUP4, Filter.include([SOURCE4]))
    await in_kernel(rig, plane, Family.IPV4, gateway)
    packets = [udp_packet(struct.pack("!I", number) * 30, SOURCE4, GROUP4) for number in range(60)]
    for number, packet in enumerate(packets):
        if number in {20, 40}:
            await until(lambda number=number: len(gateway.poll()) == number)
            plane.set_kernel(enabled=number == 40)
            assert plane.details["kernel"].startswith("in the kernel" if number == 40 else "no: switched off")
            assert plane.name == ("tc" if number == 40 else "userspace")
        rig.frames(packet)
        await asyncio.sleep(0)
    await gets(gateway, [forwarded(packet) for packet in packets])
    counters = plane.counters()
    assert counters.tunnels[gateway.endpoint].packets == counters.channels[Channel(SOURCE4, GROUP4)].packets


@pytest.mark.slow
async def test_two_thousand_tunnels_of_a_channel_get_each_packet_once(rig: Rig) -> None:  # noqa: F811
    plane = rig.plane(kernel=True)
    gateways = [rig.gateway() for _ in range(2000)]
    for gateway in gateways:
        plane.set_interest(gateway.endpoint, None, GROUP4, Filter.include([SOURCE4]))
    await in_kernel(rig, plane, Family.IPV4, *gateways)
    packets = [udp_packet(os.urandom(1316), SOURCE4, GROUP4) for _ in range(5)]
    for packet in packets:
        rig.frames(packet)
        await asyncio.sleep(0.005)
    for gateway in gateways:
        await gets(gateway, [forwarded(packet) for packet in packets])
    assert plane.counters().errors == {}


async def test_an_interface_made_again_under_its_name_is_served_again(rig: Rig) -> None:  # noqa: F811
    plane, gateway = rig.plane(kernel=True), rig.gateway()
    plane.set_interest(gateway.endpoint, None, GROUP4, Filter.include([SOURCE4]))
    await in_kernel(rig, plane, Family.IPV4, gateway)
    rig.topology.disconnect_native()
    rig.topology.connect_native()
    plane.interface_changed(NATIVE_AT_RELAY)
    packets = [udp_packet(bytes([number]) * 200, SOURCE4, GROUP4) for number in range(10)]
    before = plane.counters().channels[Channel(SOURCE4, GROUP4)].packets
    rig.frames(*packets)
    await gets(gateway, [forwarded(packet) for packet in packets])
    assert plane.counters().channels[Channel(SOURCE4, GROUP4)].packets == before + len(packets)


async def test_a_gateway_that_answers_no_more_costs_the_others_nothing(rig: Rig) -> None:  # noqa: F811
    plane, gateway = rig.plane(kernel=True), rig.gateway()
    lost = Endpoint(ip_address("10.72.9.9"), 6000)
    for endpoint in (gateway.endpoint, lost):
        plane.set_interest(endpoint, None, GROUP4, Filter.include([SOURCE4]))
    for _ in range(500):
        rig.frames(udp_packet(b"first", SOURCE4, GROUP4))
        await asyncio.sleep(0.02)
        if plane.details["kernel"].endswith(": 1"):
            break
    before = plane.counters()
    gateway.poll()
    await asyncio.sleep(0.05)
    gateway.poll()
    gateway.received.clear()
    packets = [udp_packet(bytes([number]) * 200, SOURCE4, GROUP4) for number in range(10)]
    rig.frames(*packets)
    await gets(gateway, [forwarded(packet) for packet in packets])
    after = plane.counters()
    unreachable = [counters.tunnel_errors.get(lost, {}).get("EHOSTUNREACH", 0) for counters in (before, after)]
    assert unreachable[1] - unreachable[0] == len(packets)
    assert gateway.endpoint not in after.tunnel_errors
    assert plane.details["kernel"].endswith(": 1")
