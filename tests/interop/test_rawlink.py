"""Raw links against the kernel's own IGMP and MLD, on veth pairs in a namespace of their own."""

import asyncio
import socket
import struct
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from agent.net.rawlink import RawLink
from agent.net.rawlink_filter import LinkProtocol
from agent.protocol.channels import Family
from agent.protocol.wire import group_packet
from agent.protocol.wire.groups import Query, RecordType, Report
from agent.protocol.wire.ip import IPPacket
from lab.own_namespace import ip, missing_for_own_namespace, run_in_own_namespace, until, wait_for_carrier

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_own_namespace()), reason=missing or "never"),
]

SOURCE = "192.0.2.7"
IPV4_GROUP, IPV6_GROUP = "232.1.2.3", "ff3e::8000:123"
MCAST_JOIN_SOURCE_GROUP, MCAST_LEAVE_SOURCE_GROUP = 46, 47


def make_pair():
    """`host` is the downstream machine, `router` the interface the link listens on."""
    ip(
        "link add host type veth peer name router",
        "link set host address 02:00:00:00:00:01",
        "link set router address 02:00:00:00:00:02",
        "addr add 10.0.0.1/24 dev host",
        "addr add fe80::1/64 dev host nodad",
        "addr add fe80::2/64 dev router nodad",
        "link set host up",
        "link set router up",
    )
    wait_for_carrier("host", "router")


def socket_address(address, family):
    if family == socket.AF_INET:
        return struct.pack("=HH4s", family, 0, address.packed).ljust(128, b"\0")
    return struct.pack("=HHI16sI", family, 0, 0, address.packed, 0).ljust(128, b"\0")


def source_group_request(source, group):
    source, group = ip_address(source), ip_address(group)
    family = socket.AF_INET if group.version == 4 else socket.AF_INET6
    index = struct.pack("=I4x", socket.if_nametoindex("host"))
    return index + socket_address(group, family) + socket_address(source, family)


def member(family):
    return socket.socket(socket.AF_INET if family is Family.IPV4 else socket.AF_INET6, socket.SOCK_DGRAM)


def change(listener, family, option):
    level = socket.IPPROTO_IP if family is Family.IPV4 else socket.IPPROTO_IPV6
    source, group = (SOURCE, IPV4_GROUP) if family is Family.IPV4 else ("2001:db8::7", IPV6_GROUP)
    listener.setsockopt(level, option, source_group_request(source, group))


def reports_for(packets, group):
    """Records about `group` in every whole report received; decoding verifies lengths and checksums."""
    messages = [group_packet.decode(packet).message for packet in packets]
    return [
        record
        for message in messages
        if isinstance(message, Report)
        for record in message.records
        if record.group == ip_address(group)
    ]


@pytest.mark.parametrize(("family", "group"), [(Family.IPV4, IPV4_GROUP), (Family.IPV6, IPV6_GROUP)])
def test_reports_of_a_joining_and_leaving_kernel_arrive_whole(family, group):
    async def scenario():
        make_pair()
        packets = []
        link = RawLink(asyncio.get_running_loop(), "router", family, packets.append)
        with member(family) as listener:
            change(listener, family, MCAST_JOIN_SOURCE_GROUP)
            await until(lambda: reports_for(packets, group))
            joined = reports_for(packets, group)[0]
            packets.clear()
            change(listener, family, MCAST_LEAVE_SOURCE_GROUP)
            await until(lambda: reports_for(packets, group))
            left = reports_for(packets, group)[0]
        link.close()
        assert joined.type is RecordType.ALLOW_NEW_SOURCES
        assert left.type is RecordType.BLOCK_OLD_SOURCES
        assert [str(source) for source in joined.sources] == [SOURCE if family is Family.IPV4 else "2001:db8::7"]
        assert link.counters.receive_errors == 0

    run_in_own_namespace(scenario)


def force_igmp_version_2():
    Path("/proc/sys/net/ipv4/conf/host/force_igmp_version").write_text("2")


def test_an_any_source_join_and_leave_of_igmp_version_2_arrive():
    async def scenario():
        make_pair()
        force_igmp_version_2()
        packets = []
        link = RawLink(asyncio.get_running_loop(), "router", Family.IPV4, packets.append)
        with member(Family.IPV4) as listener:
            request = socket.inet_aton("239.1.2.3") + socket.inet_aton("10.0.0.1")
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
            await until(lambda: any(packet[24] == 0x16 for packet in packets))
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, request)
            await until(lambda: any(packet[24] == 0x17 for packet in packets))
        link.close()
        assert {len(packet) for packet in packets if packet[24] in {0x16, 0x17}} == {32}

    run_in_own_namespace(scenario)


def query(family):
    router = "10.0.0.2" if family is Family.IPV4 else "fe80::2"
    return group_packet.encode(Query(max_response_time=1.0), ip_address(router))


@pytest.mark.parametrize(("family", "group"), [(Family.IPV4, IPV4_GROUP), (Family.IPV6, IPV6_GROUP)])
def test_a_query_sent_through_the_link_is_answered_by_the_kernel(family, group):
    async def scenario():
        make_pair()
        packets = []
        link = RawLink(asyncio.get_running_loop(), "router", family, packets.append)
        with member(family) as listener:
            change(listener, family, MCAST_JOIN_SOURCE_GROUP)
            await until(lambda: reports_for(packets, group))
            assert link.send(query(family))
            await until(lambda: any(item.type is RecordType.MODE_IS_INCLUDE for item in reports_for(packets, group)))
        link.close()

    run_in_own_namespace(scenario)


def test_a_link_survives_down_up_and_a_new_device_of_the_same_name():
    async def scenario():
        make_pair()
        packets = []
        link = RawLink(asyncio.get_running_loop(), "router", Family.IPV4, packets.append)

        async def joins_are_heard():
            packets.clear()
            with member(Family.IPV4) as listener:
                change(listener, Family.IPV4, MCAST_JOIN_SOURCE_GROUP)
                await until(lambda: reports_for(packets, IPV4_GROUP))

        await joins_are_heard()
        ip("link set router down")
        assert not link.send(query(Family.IPV4))
        await until(lambda: link.counters.receive_errors == 1)
        ip("link set router up")
        assert link.is_open
        await joins_are_heard()

        ip("link delete router")
        assert not link.is_open
        assert not link.reopen()
        assert not link.send(query(Family.IPV4))
        assert (link.counters.open_errors, link.counters.send_errors) == (1, 2)
        make_pair()
        assert link.reopen()
        await joins_are_heard()
        assert link.send(query(Family.IPV4))
        link.close()

    run_in_own_namespace(scenario)


def test_a_link_made_before_its_interface_waits_for_it():
    async def scenario():
        packets = []
        link = RawLink(asyncio.get_running_loop(), "router", Family.IPV4, packets.append)
        assert not link.is_open
        make_pair()
        assert link.reopen()
        with member(Family.IPV4) as listener:
            change(listener, Family.IPV4, MCAST_JOIN_SOURCE_GROUP)
            await until(lambda: reports_for(packets, IPV4_GROUP))
        link.close()

    run_in_own_namespace(scenario)


def ethernet(payload, *, vlan=None):
    head = bytes.fromhex("01005e000016020000000001")
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    return head + tag + b"\x08\x00" + payload.ljust(46, b"\0")


def test_frames_of_a_vlan_and_of_this_host_are_not_the_parents_own():
    marker, report, end = (
        IPPacket(ip_address("10.0.0.9"), ip_address("224.0.0.22"), 2, b"\x22" + bytes((number,) * 7)).encode()
        for number in range(3)
    )

    async def scenario():
        make_pair()
        packets = []
        link = RawLink(asyncio.get_running_loop(), "router", Family.IPV4, packets.append)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("host", 0))
            wire.send(ethernet(marker))
            wire.send(ethernet(report, vlan=100))
            wire.send(ethernet(IPPacket(ip_address("10.0.0.1"), ip_address("224.0.0.22"), 17, bytes(8)).encode()))
            link.send(report)  # what the host says itself does not come back
            wire.send(ethernet(report))
            wire.send(ethernet(end))
            await until(lambda: end in packets)
            assert packets.count(report) == 1  # and without the padding of a short frame
            assert set(packets) <= {marker, report, end}
        link.close()

    run_in_own_namespace(scenario)


def test_frames_of_a_vlan_with_a_device_are_that_devices_own():
    inside, outside = (
        IPPacket(ip_address("10.0.0.9"), ip_address("224.0.0.22"), 2, b"\x22" + bytes((number,) * 7)).encode()
        for number in range(2)
    )

    async def scenario():
        make_pair()
        try:
            ip("link add link router name router.100 type vlan id 100", "link set router.100 up")
        except subprocess.CalledProcessError:
            pytest.skip("needs VLAN devices (8021q)")
        loop = asyncio.get_running_loop()
        on_parent, on_vlan = [], []
        parent = RawLink(loop, "router", Family.IPV4, on_parent.append)
        vlan = RawLink(loop, "router.100", Family.IPV4, on_vlan.append)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("host", 0))
            wire.send(ethernet(inside, vlan=100))
            wire.send(ethernet(outside))
            await until(lambda: on_parent and on_vlan)
        assert (on_parent, on_vlan) == ([outside], [inside])
        parent.close()
        vlan.close()

    run_in_own_namespace(scenario)


def test_pim_hellos_pass_a_pim_link_only():
    hello = IPPacket(
        ip_address("10.0.0.1"), ip_address("224.0.0.13"), 103, bytes((0x20, 0, 0xDF, 0xFF)), ttl=1
    ).encode()

    async def scenario():
        make_pair()
        loop = asyncio.get_running_loop()
        heard, others = set(), []
        sender = RawLink(loop, "host", Family.IPV4, lambda _packet: None, LinkProtocol.PIM)
        pim = RawLink(loop, "router", Family.IPV4, heard.add, LinkProtocol.PIM)
        igmp = RawLink(loop, "router", Family.IPV4, others.append)
        await until(lambda: sender.send(hello) and heard == {hello})
        assert hello not in others
        for link in (sender, pim, igmp):
            link.close()

    run_in_own_namespace(scenario)


HELLO = IPPacket(ip_address("10.0.0.1"), ip_address("224.0.0.13"), 103, bytes((0x20, 0, 0xDF, 0xFF)), ttl=1).encode()


async def two_pim_links():
    """One at the host and one at the router, which has heard something."""
    make_pair()
    loop = asyncio.get_running_loop()
    sender = RawLink(loop, "host", Family.IPV4, lambda _packet: None, LinkProtocol.PIM)
    pim = RawLink(loop, "router", Family.IPV4, lambda _packet: None, LinkProtocol.PIM)
    await until(lambda: sender.send(HELLO) and pim.counters.received)
    return sender, pim


def test_ten_thousand_packets_wait_for_a_busy_loop():
    """FRR says each Join in a packet of its own."""

    async def scenario():
        sender, pim = await two_pim_links()
        sent = sender.counters.sent
        assert all(sender.send(HELLO) for _ in range(10_000))
        await until(lambda: pim.counters.received >= sent + 10_000, seconds=20.0)
        assert pim.overflows == 0
        for link in (sender, pim):
            link.close()

    run_in_own_namespace(scenario)


def test_packets_beyond_what_waits_are_counted_also_after_the_link_was_closed(monkeypatch):
    monkeypatch.setattr("agent.net.rawlink._RECEIVE_BUFFER", 1 << 16)

    async def scenario():
        sender, pim = await two_pim_links()
        sent = sender.counters.sent
        assert all(sender.send(HELLO) for _ in range(2000))
        await until(lambda: pim.counters.received + pim.overflows >= sent + 2000)
        assert pim.overflows > 0
        known = pim.overflows
        for link in (sender, pim):
            link.close()
        assert pim.overflows == known

    run_in_own_namespace(scenario)
