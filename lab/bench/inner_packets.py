"""Inner packets made by hand, byte by byte, for tests and benches of the gateway's data plane; all synthetic."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Final

SOURCE: Final = {4: "198.51.100.10", 6: "2001:db8:51::10"}
GROUP: Final = {4: "232.1.1.1", 6: "ff3e::8000:1"}


def checksum(data: bytes) -> int:
    """One's complement checksum, word by word (RFC 1071 §4.1)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(
    source: str, group: str, payload: bytes, ports: tuple[int, int] = (5000, 5004), *, summed: bool = True
) -> bytes:
    """A UDP datagram with its checksum, or zero in its place."""
    ends = ip_address(source).packed + ip_address(group).packed
    length = 8 + len(payload)
    head = struct.pack(">HHHH", *ports, length, 0)
    value = checksum(ends + struct.pack(">HH", 17, length) + head + payload) or 0xFFFF
    return head[:6] + struct.pack(">H", value if summed else 0) + payload


def ipv4(
    body: bytes,
    *,
    source: str = SOURCE[4],
    group: str = GROUP[4],
    identification: int = 7,
    flags: int = 0,
    ttl: int = 16,
    tos: int = 0,
    protocol: int = 17,
    options: bytes = b"",
) -> bytes:
    """An IPv4 packet; `flags` is the whole 16-bit field of flags and fragment offset."""
    size = 20 + len(options)
    head = (
        struct.pack(
            ">BBHHHBBH4s4s",
            0x40 | size // 4,
            tos,
            size + len(body),
            identification,
            flags,
            ttl,
            protocol,
            0,
            ip_address(source).packed,
            ip_address(group).packed,
        )
        + options
    )
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + body


def ipv6(
    body: bytes,
    *,
    source: str = SOURCE[6],
    group: str = GROUP[6],
    hop_limit: int = 16,
    traffic_class: int = 0,
    next_header: int = 17,
    label: int = 0x12345,
) -> bytes:
    """An IPv6 packet."""
    word = 6 << 28 | traffic_class << 20 | label
    head = struct.pack(">IHBB", word, len(body), next_header, hop_limit)
    return head + ip_address(source).packed + ip_address(group).packed + body


def datagram_ipv4(
    payload: bytes,
    *,
    source: str = SOURCE[4],
    group: str = GROUP[4],
    ports: tuple[int, int] = (5000, 5004),
    summed: bool = True,
    identification: int = 7,
    flags: int = 0,
    ttl: int = 16,
    tos: int = 0,
    options: bytes = b"",
) -> bytes:
    """A multicast UDP packet over IPv4."""
    body = udp(source, group, payload, ports, summed=summed)
    return ipv4(
        body, source=source, group=group, identification=identification, flags=flags, ttl=ttl, tos=tos, options=options
    )


def datagram_ipv6(
    payload: bytes,
    *,
    source: str = SOURCE[6],
    group: str = GROUP[6],
    ports: tuple[int, int] = (5000, 5004),
    summed: bool = True,
    hop_limit: int = 16,
    traffic_class: int = 0,
) -> bytes:
    """A multicast UDP packet over IPv6."""
    body = udp(source, group, payload, ports, summed=summed)
    return ipv6(body, source=source, group=group, hop_limit=hop_limit, traffic_class=traffic_class)


def datagram(version: int, payload: bytes) -> bytes:
    """A multicast UDP packet of the standard channel of an IP version."""
    return datagram_ipv4(payload) if version == 4 else datagram_ipv6(payload)


def one_hop_on(packet: bytes) -> bytes:
    """The packet as a router would emit it: hop limit one less, IPv4 header checksum to match, nothing else changed."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes((packet[7] - 1,)) + packet[8:]
    size = (packet[0] & 15) * 4
    head = packet[:8] + bytes((packet[8] - 1,)) + packet[9:10] + b"\0\0" + packet[12:size]
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + packet[size:]
