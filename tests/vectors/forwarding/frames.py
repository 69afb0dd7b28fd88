"""Frames made by hand: what the relay sends, and what a router is to make of it."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from vectors.forwarding.world import GATEWAY, RELAY, RELAY_MAC, RELAY_PORT, TUNNELS, UPLINK_MAC, port_mac

from lab.bench.inner_packets import checksum, ipv4, ipv6, one_hop_on

ETHER_TYPE = {4: 0x0800, 6: 0x86DD}


def counting(size: int, start: int = 0) -> bytes:
    """Octets that say where they are: 0 to 250 and again, which no shift by a power of two leaves the same."""
    return bytes((start + n) % 251 for n in range(size))


def udp(
    family: int,
    message: bytes,
    ends: bytes,
    ports: tuple[int, int],
    length: int | None = None,
    summed: int | None = None,
) -> bytes:
    """RFC 768, with the pseudo-header of RFC 768 or RFC 8200 §8.1; `length` and `summed` replace what is right."""
    size = 8 + len(message) if length is None else length
    head = struct.pack(">HHH", *ports, size)
    pseudo = struct.pack(">BBH", 0, 17, size) if family == 4 else struct.pack(">IHBB", size, 0, 0, 17)
    value = checksum(ends + pseudo + head + b"\0\0" + message) or 0xFFFF
    return head + struct.pack(">H", value if summed is None else summed) + message


def datagram(
    family: int,
    message: bytes,
    *,
    tunnel: str = "relay",
    source: str = "",
    port: int = RELAY_PORT,
    target: str = "",
    target_port: int = 0,
    tos: int = 0,
    ttl: int = 64,
    flags: int = 0,
    options: bytes = b"",
    extension: tuple[int, bytes] = (17, b""),
    length: int | None = None,
    summed: int | None = None,
    behind: bytes = b"",
) -> bytes:
    """The outer packet: `extension` is the first next-header value and the IPv6 headers before UDP's."""
    source, target = source or RELAY[family], target or GATEWAY[family]
    ends = ip_address(source).packed + ip_address(target).packed
    body = udp(family, message, ends, (port, target_port or TUNNELS[tunnel]), length, summed) + behind
    if family == 4:
        return ipv4(
            body, source=source, group=target, identification=0x4D54, flags=flags, ttl=ttl, tos=tos, options=options
        )
    following, headers = extension
    return ipv6(
        headers + body, source=source, group=target, hop_limit=ttl, traffic_class=tos, next_header=following, label=0
    )


def to_gateway(
    packet: bytes, *, destination: bytes = UPLINK_MAC, tag: int | None = None, padding: bytes = b""
) -> bytes:
    """The Ethernet frame of an outer packet, with an 802.1Q tag when there is one."""
    kind = struct.pack(">H", ETHER_TYPE[packet[0] >> 4])
    between = b"" if tag is None else struct.pack(">HH", 0x8100, tag)
    return destination + RELAY_MAC + between + kind + packet + padding


def group_mac(group: bytes) -> bytes:
    """RFC 1112 §6.4: the low 23 bits of the group; RFC 2464 §7: its last four octets."""
    if len(group) == 4:
        return b"\x01\x00\x5e" + bytes((group[1] & 0x7F,)) + group[2:]
    return b"\x33\x33" + group[12:]


def group_of(packet: bytes) -> bytes:
    """The destination of an IP packet."""
    return packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]


def emitted(packet: bytes, interface: str) -> bytes:
    """What leaves by an interface: one hop on, to the group's MAC address."""
    kind = struct.pack(">H", ETHER_TYPE[packet[0] >> 4])
    return group_mac(group_of(packet)) + port_mac(interface) + kind + one_hop_on(packet)


def with_header_sum(packet: bytes) -> bytes:
    """An IPv4 packet whose header checksum is right whatever else is wrong with it."""
    head = packet[:10] + b"\0\0" + packet[12:20]
    return head[:10] + struct.pack(">H", checksum(head)) + packet[12:]


def with_ecn(packet: bytes, ecn: int) -> bytes:
    """The packet with another ECN field."""
    if packet[0] >> 4 == 6:
        return packet[:1] + bytes((packet[1] & 0xCF | ecn << 4,)) + packet[2:]
    return with_header_sum(packet[:1] + bytes((packet[1] & 0xFC | ecn,)) + packet[2:])


def fragments_ipv4(packet: bytes, mtu: int) -> list[bytes]:
    """The procedure of RFC 791 §3.2, "An Example Fragmentation Procedure"; the packet has no options."""
    room = (mtu - 20) // 8 * 8
    body = packet[20:]
    first = struct.unpack_from(">H", packet, 6)[0]
    pieces = []
    for at in range(0, len(body), room):
        piece = body[at : at + room]
        more = 0x2000 if at + room < len(body) else first & 0x2000
        field = more | (first & 0x1FFF) + at // 8
        head = packet[:2] + struct.pack(">H", 20 + len(piece)) + packet[4:6] + struct.pack(">H", field) + packet[8:20]
        pieces.append(with_header_sum(head + piece))
    return pieces


def fragments_ipv6(packet: bytes, mtu: int, identification: int = 0x414D5400) -> list[bytes]:
    """RFC 8200 §4.5; the packet has no headers for every hop."""
    room = (mtu - 48) // 8 * 8
    body = packet[40:]
    pieces = []
    for at in range(0, len(body), room):
        piece = body[at : at + room]
        more = at + room < len(body)
        header = struct.pack(">BBHI", packet[6], 0, at | more, identification)
        pieces.append(packet[:4] + struct.pack(">HB", 8 + len(piece), 44) + packet[7:40] + header + piece)
    return pieces


def fragments(packet: bytes, mtu: int) -> list[bytes]:
    """The packet as it is, or the fragments of it."""
    if len(packet) <= mtu:
        return [packet]
    return fragments_ipv4(packet, mtu) if packet[0] >> 4 == 4 else fragments_ipv6(packet, mtu)
