"""The packet filters of raw links, run by a small interpreter of classic BPF over synthetic packets."""

import struct
from ipaddress import ip_address

import pytest

from agent.net.rawlink import multicast_mac, without_padding
from agent.net.rawlink_filter import PROGRAMS, LinkProtocol, Step, assemble, link_filter
from agent.protocol.channels import Family
from agent.protocol.wire.ip import ROUTER_ALERT_IPV4, ROUTER_ALERT_IPV6, IPPacket

MULTICAST, OTHER_HOST, OUTGOING = 2, 3, 4
GROUPS = LinkProtocol.GROUP_MEMBERSHIP
ANCILLARY_PACKET_TYPE, ANCILLARY_INDEX, ANCILLARY_VLAN_TAG = 0xFFFFF004, 0xFFFFF008, 0xFFFFF030
INDEX = 7
FILTERS = {key: link_filter(*key, INDEX) for key in PROGRAMS}


LOADS = {0x20: 4, 0x28: 2, 0x30: 1, 0x50: 1}
CHANGES = {0x04: lambda accumulator, value: accumulator + value, 0x64: lambda accumulator, value: accumulator << value}
JUMPS = {
    0x15: lambda accumulator, value: accumulator == value,
    0x25: lambda accumulator, value: accumulator > value,
    0x45: lambda accumulator, value: bool(accumulator & value),
}


def accepts(program, packet, packet_type=MULTICAST, vlan_tag=0, index_of_interface=INDEX):
    """What the kernel would do: loads beyond the packet refuse it, and an instruction not known here is an error."""
    instructions = list(struct.iter_unpack("=HBBI", program))
    ancillary = {
        ANCILLARY_PACKET_TYPE: packet_type,
        ANCILLARY_INDEX: index_of_interface,
        ANCILLARY_VLAN_TAG: vlan_tag,
    }
    accumulator = index = position = 0
    while True:
        code, then, otherwise, value = instructions[position]
        position += 1
        if code in LOADS and value in ancillary:
            accumulator = ancillary[value]
        elif code in LOADS:
            start, size = value + (index if code == 0x50 else 0), LOADS[code]
            if start + size > len(packet):
                return False
            accumulator = int.from_bytes(packet[start : start + size])
        elif code in JUMPS:
            position += then if JUMPS[code](accumulator, value) else otherwise
        elif code == 0x07:
            index = accumulator
        elif code == 0x06:
            return value > 0
        else:
            accumulator = CHANGES[code](accumulator, value)


def ipv4(protocol, payload=b"\x22" + bytes(15), **fields):
    return IPPacket(ip_address("10.0.0.1"), ip_address("224.0.0.22"), protocol, payload, **fields).encode()


def ipv6(protocol, payload=b"\x8f" + bytes(15), **fields):
    return IPPacket(ip_address("fe80::1"), ip_address("ff02::16"), protocol, payload, **fields).encode()


def test_igmp_passes_with_and_without_options():
    program = FILTERS[GROUPS, Family.IPV4]
    assert accepts(program, ipv4(2))
    assert accepts(program, ipv4(2, options=ROUTER_ALERT_IPV4))


@pytest.mark.parametrize("protocol", [1, 6, 17, 89, 103])
def test_other_ipv4_protocols_do_not_pass_as_igmp(protocol):
    assert not accepts(FILTERS[GROUPS, Family.IPV4], ipv4(protocol))


@pytest.mark.parametrize("fields", [{"more_fragments": True}, {"fragment_offset": 8}])
def test_fragments_of_igmp_do_not_pass(fields):
    assert not accepts(FILTERS[GROUPS, Family.IPV4], ipv4(2, **fields))


def test_igmp_that_forbids_fragmentation_passes():
    assert accepts(FILTERS[GROUPS, Family.IPV4], ipv4(2, dont_fragment=True))


@pytest.mark.parametrize("message_type", [130, 131, 132, 143])
@pytest.mark.parametrize("options", [b"", ROUTER_ALERT_IPV6, ROUTER_ALERT_IPV6 + bytes((1, 6, 0, 0, 0, 0, 0, 0))])
def test_mld_passes_behind_a_hop_by_hop_header_of_any_length_or_none(message_type, options):
    packet = ipv6(58, bytes((message_type,)) + bytes(23), options=options)
    assert accepts(FILTERS[GROUPS, Family.IPV6], packet)


@pytest.mark.parametrize("message_type", [1, 128, 129, 133, 135, 136, 142, 144])
@pytest.mark.parametrize("options", [b"", ROUTER_ALERT_IPV6])
def test_other_icmpv6_does_not_pass_as_mld(message_type, options):
    packet = ipv6(58, bytes((message_type,)) + bytes(23), options=options)
    assert not accepts(FILTERS[GROUPS, Family.IPV6], packet)


@pytest.mark.parametrize("options", [b"", ROUTER_ALERT_IPV6])
def test_udp_that_looks_like_mld_does_not_pass(options):
    assert not accepts(FILTERS[GROUPS, Family.IPV6], ipv6(17, b"\x8f" + bytes(23), options=options))


def test_a_hop_by_hop_header_that_runs_out_of_the_packet_does_not_pass():
    packet = bytearray(ipv6(58, b"\x8f" + bytes(23), options=ROUTER_ALERT_IPV6))
    packet[41] = 255
    assert not accepts(FILTERS[GROUPS, Family.IPV6], bytes(packet))


@pytest.mark.parametrize(
    ("family", "packet", "other"), [(Family.IPV4, ipv4(103), ipv4(2)), (Family.IPV6, ipv6(103), ipv6(58))]
)
def test_pim_passes_alone(family, packet, other):
    program = FILTERS[LinkProtocol.PIM, family]
    assert accepts(program, packet)
    assert not accepts(program, other)


@pytest.mark.parametrize("key", FILTERS, ids=str)
def test_no_filter_passes_what_is_not_the_interfaces_own(key):
    protocol, family = key
    number = 103 if protocol is LinkProtocol.PIM else {Family.IPV4: 2, Family.IPV6: 58}[family]
    packet = (ipv4 if family is Family.IPV4 else ipv6)(number)
    assert accepts(FILTERS[key], packet)
    assert accepts(FILTERS[key], packet, packet_type=0)
    assert not accepts(FILTERS[key], packet, packet_type=OTHER_HOST)
    assert not accepts(FILTERS[key], packet, packet_type=OUTGOING)
    assert not accepts(FILTERS[key], packet, vlan_tag=1)
    assert not accepts(FILTERS[key], packet, index_of_interface=INDEX + 1)


@pytest.mark.parametrize("key", FILTERS, ids=str)
@pytest.mark.parametrize("length", [0, 1, 6, 9, 20, 39, 40])
def test_truncated_packets_do_not_pass(key, length):
    assert not accepts(FILTERS[key], (b"\x60" + bytes(39))[:length])


def test_a_jump_backwards_is_refused():
    with pytest.raises(ValueError, match="out of reach"):
        assemble([Step(0x30, 0, label="start"), Step(0x15, 1, then="start")])


@pytest.mark.parametrize(
    ("destination", "mac"),
    [
        ("224.0.0.1", "01005e000001"),
        ("239.255.255.250", "01005e7ffffa"),
        ("232.129.1.2", "01005e010102"),
        ("ff02::1", "333300000001"),
        ("ff3e::8000:1", "333380000001"),
    ],
)
def test_the_multicast_mac_follows_from_the_group(destination, mac):
    group = ip_address(destination)
    source = ip_address("192.0.2.1" if group.version == 4 else "fe80::1")
    assert multicast_mac(IPPacket(source, group, 2, b"").encode()).hex() == mac


@pytest.mark.parametrize("packet", [b"", b"\x45", bytes(60), b"\x45" + bytes(40), b"\x60" + bytes(60)])
def test_what_is_not_multicast_has_no_multicast_mac(packet):
    with pytest.raises(ValueError, match="multicast destination"):
        multicast_mac(packet)


@pytest.mark.parametrize("packet", [ipv4(2), ipv6(58)], ids=["ipv4", "ipv6"])
def test_link_padding_is_cut_off(packet):
    assert without_padding(packet + bytes(20)) == packet
