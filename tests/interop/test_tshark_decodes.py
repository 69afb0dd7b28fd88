"""tshark reads every message type we send: no malformed mark, no bad checksum, and the values we meant."""

from __future__ import annotations

import shutil
from contextlib import suppress
from ipaddress import ip_address

import pytest

from agent.protocol.wire import amt, igmp, mld
from agent.protocol.wire.groups import GroupRecord, Query, RecordType, Report
from agent.protocol.wire.ip import (
    PROTOCOL_ICMPV6,
    PROTOCOL_IGMP,
    PROTOCOL_UDP,
    ROUTER_ALERT_IPV4,
    ROUTER_ALERT_IPV6,
    IPPacket,
    UDPDatagram,
    encode_udp,
)
from lab.captures import complaints, dissect, missing_for_dissection, write_capture
from lab.namespaces import LabError, wait_until
from lab.topology import BORDER_UPLINK, RELAY_UPLINK, SSM_GROUP_IPV4, SSM_GROUP_IPV6

GATEWAY4, RELAY4 = ip_address("203.0.113.1"), ip_address("192.0.2.1")
GATEWAY6, RELAY6 = ip_address("2001:db8:b::1"), ip_address("2001:db8:a::1")
MAC = bytes.fromhex("a1b2c3d4e5f6")
NONCE = 0x12345678


@pytest.fixture(autouse=True, scope="module")
def _tshark():
    if missing := missing_for_dissection():
        pytest.skip("needs " + ", ".join(missing))


def igmp_packet(message, source="192.0.2.1", destination="224.0.0.1"):
    ends = ip_address(source), ip_address(destination)
    return IPPacket(*ends, PROTOCOL_IGMP, igmp.encode(message), ttl=1, traffic_class=0xC0, options=ROUTER_ALERT_IPV4)


def mld_packet(message, source="fe80::1", destination="ff02::1"):
    ends = ip_address(source), ip_address(destination)
    return IPPacket(*ends, PROTOCOL_ICMPV6, mld.encode(message, *ends), ttl=1, options=ROUTER_ALERT_IPV6)


def data_packet(source, group, size):
    ends = ip_address(source), ip_address(group)
    return IPPacket(*ends, PROTOCOL_UDP, encode_udp(*ends, UDPDatagram(5000, 5004, bytes(size))), ttl=16)


QUERY4 = igmp_packet(Query(max_response_time=10.0, robustness=2, interval=125)).encode()
QUERY6 = mld_packet(Query(max_response_time=10.0, robustness=2, interval=125)).encode()
REPORT4 = igmp_packet(
    Report(
        (
            GroupRecord(RecordType.ALLOW_NEW_SOURCES, ip_address("232.1.1.1"), (ip_address("198.51.100.10"),)),
            GroupRecord(RecordType.CHANGE_TO_EXCLUDE, ip_address("239.1.1.1")),
        )
    ),
    "0.0.0.0",
    "224.0.0.22",
).encode()
REPORT6 = mld_packet(
    Report((GroupRecord(RecordType.BLOCK_OLD_SOURCES, ip_address("ff3e::8000:1"), (ip_address("2001:db8:51::10"),)),)),
    "fe80::2",
    "ff02::16",
).encode()

MESSAGES = {
    "discovery": (amt.RelayDiscovery(NONCE), {"amt.type": ["1"], "amt.discovery_nonce": ["0x12345678"]}),
    "advertisement of IPv4": (
        amt.RelayAdvertisement(NONCE, RELAY4),
        {"amt.type": ["2"], "amt.discovery_nonce": ["0x12345678"], "amt.relay_address.ipv4": ["192.0.2.1"]},
    ),
    "advertisement of IPv6": (
        amt.RelayAdvertisement(NONCE, RELAY6),
        {"amt.type": ["2"], "amt.relay_address.ipv6": ["2001:db8:a::1"]},
    ),
    "request for IGMP": (
        amt.Request(NONCE),
        {"amt.type": ["3"], "amt.request.p": ["0"], "amt.request_nonce": ["0x12345678"]},
    ),
    "request for MLD": (amt.Request(NONCE, mld=True), {"amt.type": ["3"], "amt.request.p": ["1"]}),
    "query for IGMP": (
        amt.MembershipQuery(MAC, NONCE, QUERY4),
        {
            "amt.type": ["4"],
            "amt.membership_query.l": ["0"],
            "amt.membership_query.g": ["0"],
            "amt.response_mac": ["0x0000a1b2c3d4e5f6"],
            "amt.request_nonce": ["0x12345678"],
            "igmp.version": ["3"],
            "igmp.type": ["0x11"],
            "igmp.qrv": ["2"],
            "igmp.qqic": ["125"],
            "igmp.max_resp": ["100"],
        },
    ),
    "query for MLD with L and G": (
        amt.MembershipQuery(MAC, NONCE, QUERY6, limit=True, gateway=(GATEWAY6, 40000)),
        {
            "amt.membership_query.l": ["1"],
            "amt.membership_query.g": ["1"],
            "amt.gateway.port_number": ["40000"],
            "amt.gateway.ip_address": ["2001:db8:b::1"],
            "icmpv6.type": ["130"],
            "icmpv6.mld.maximum_response_code": ["10000"],
            "icmpv6.mld.flag.qrv": ["2"],
            "icmpv6.mld.qqi": ["125"],
        },
    ),
    "query with an IPv4 gateway": (
        amt.MembershipQuery(MAC, NONCE, QUERY4, gateway=(GATEWAY4, 40001)),
        {"amt.gateway.port_number": ["40001"], "amt.gateway.ip_address": ["::203.0.113.1"]},
    ),
    "update with IGMP": (
        amt.MembershipUpdate(MAC, NONCE, REPORT4),
        {
            "amt.type": ["5"],
            "amt.response_mac": ["0x0000a1b2c3d4e5f6"],
            "amt.request_nonce": ["0x12345678"],
            "igmp.type": ["0x22"],
            "igmp.num_grp_recs": ["2"],
            "igmp.record_type": ["5", "4"],
            "igmp.maddr": ["232.1.1.1", "239.1.1.1"],
            "igmp.saddr": ["198.51.100.10"],
        },
    ),
    "update with MLD": (
        amt.MembershipUpdate(MAC, NONCE, REPORT6),
        {
            "icmpv6.type": ["143"],
            "icmpv6.mldr.nb_mcast_records": ["1"],
            "icmpv6.mldr.mar.record_type": ["6"],
            "icmpv6.mldr.mar.multicast_address": ["ff3e::8000:1"],
            "icmpv6.mldr.mar.source_address": ["2001:db8:51::10"],
        },
    ),
    "data of IPv4": (
        amt.MulticastData(data_packet("198.51.100.10", "232.1.1.1", 1316).encode()),
        {"amt.type": ["6"], "ip.dst": ["192.0.2.1", "232.1.1.1"], "udp.dstport": ["2268", "5004"]},
    ),
    "data of IPv6": (
        amt.MulticastData(data_packet("2001:db8:51::10", "ff3e::8000:1", 1316).encode()),
        {"amt.type": ["6"], "ipv6.dst": ["ff3e::8000:1"], "udp.dstport": ["2268", "5004"]},
    ),
    "teardown": (
        amt.Teardown(MAC, NONCE, (GATEWAY4, 40002)),
        {
            "amt.type": ["7"],
            "amt.response_mac": ["0x0000a1b2c3d4e5f6"],
            "amt.request_nonce": ["0x12345678"],
            "amt.gateway.port_number": ["40002"],
            "amt.gateway.ip_address": ["::203.0.113.1"],
        },
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_reads_as_meant(tmp_path, name):
    message, expected = MESSAGES[name]
    datagram = UDPDatagram(40000, amt.PORT, message.encode())
    packet = IPPacket(GATEWAY4, RELAY4, PROTOCOL_UDP, encode_udp(GATEWAY4, RELAY4, datagram))
    write_capture(tmp_path / "message.pcap", [packet.encode()])
    frames = dissect(tmp_path / "message.pcap", expected)
    assert complaints(frames) == []
    assert [{field: frame.get(field) for field in expected} for frame in frames] == [expected]


@pytest.mark.parametrize("spoiled", [bytes.fromhex("0400") + MAC + bytes(4) + QUERY4[:20], b"\x07\x00" + MAC])
def test_the_check_sees_a_broken_message(tmp_path, spoiled):
    """The assertion above can fail: a cut message is complained about."""
    packet = IPPacket(
        GATEWAY4, RELAY4, PROTOCOL_UDP, encode_udp(GATEWAY4, RELAY4, UDPDatagram(40000, amt.PORT, spoiled))
    )
    write_capture(tmp_path / "spoiled.pcap", [packet.encode()])
    assert len(complaints(dissect(tmp_path / "spoiled.pcap", ["amt.type"]))) == 1


@pytest.mark.root
@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs the program tcpdump")
def test_a_whole_session_reads_without_complaint(make_scenario, tmp_path):
    """From Discovery to Teardown, both families, on the wire of the relay's uplink."""
    scenario = make_scenario()
    names, file = scenario.lab.topology, tmp_path / "session.pcap"
    command = ["tcpdump", "-i", RELAY_UPLINK, "--immediate-mode", "-U", "-w", str(file), "udp port 2268"]
    for namespace, interface in ((names.relay, RELAY_UPLINK), (names.border, BORDER_UPLINK)):
        # A veth promises to fill checksums and never does: what leaves would look broken here.
        scenario.lab.run(namespace, "ethtool", "-K", interface, "tx", "off")
    capture = scenario.lab.start(names.relay, *command)
    wait_until(lambda: file.exists() and file.stat().st_size, 10.0, "tcpdump captures")
    scenario.border.kill()
    scenario.border.start()
    for group in (SSM_GROUP_IPV4, SSM_GROUP_IPV6):
        scenario.send(group, "--rate", "50", "--size", "200")
        scenario.receive(group).wait_for_more(15.0)
    scenario.border.stop()
    wait_until(lambda: not scenario.relay.tunnels(), 5.0, "the tunnels are torn down")

    def types():
        with suppress(LabError):  # a packet half written
            return {value for frame in dissect(file, ["amt.type"]) for value in frame["amt.type"]}
        return set()

    wait_until(lambda: types() == set("1234567"), 10.0, "every message type is on record", interval=0.5)
    capture.terminate()
    capture.wait(10)
    frames = dissect(file, ["igmp.type", "icmpv6.type"])
    assert complaints(frames) == []
    kinds = {value for frame in frames for value in [*frame.get("igmp.type", []), *frame.get("icmpv6.type", [])]}
    assert kinds == {"0x11", "0x22", "130", "143"}
