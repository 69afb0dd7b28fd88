"""IPv4 (RFC 791), IPv6 (RFC 8200) and UDP (RFC 768) headers around the messages we speak.

IPv6 extension headers known here are those a multicast packet may carry on its way: hop-by-hop options, routing,
destination options and fragment. Anything else ends the chain and is the packet's `protocol`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.protocol.channels import Address
from agent.protocol.wire.checksum import internet_checksum, ones_complement_sum, pseudo_header, verifies
from agent.protocol.wire.errors import BadChecksum, Malformed, Truncated

PROTOCOL_HOP_BY_HOP: Final = 0
PROTOCOL_IGMP: Final = 2
PROTOCOL_UDP: Final = 17
PROTOCOL_ROUTING: Final = 43
PROTOCOL_FRAGMENT: Final = 44
PROTOCOL_ICMPV6: Final = 58
PROTOCOL_DESTINATION_OPTIONS: Final = 60

ROUTER_ALERT_IPV4: Final = bytes((0x94, 4, 0, 0))
"""IPv4 Router Alert option (RFC 2113 §2.1)."""

ROUTER_ALERT_IPV6: Final = bytes((5, 2, 0, 0, 1, 0))
"""Hop-by-hop options of an MLD message: Router Alert with value 0 (RFC 2711 §2.1), then PadN of two bytes."""

_SKIPPED_EXTENSIONS: Final = frozenset((PROTOCOL_ROUTING, PROTOCOL_DESTINATION_OPTIONS))
_LONGEST_CHAIN: Final = 8


@dataclass(frozen=True, slots=True)
class IPPacket:
    """One IP packet.

    Attributes:
        source: source address; its version is the packet's.
        destination: destination address.
        protocol: protocol of `payload` (after IPv6 extension headers).
        payload: bytes behind the headers; of a fragment, that fragment's part.
        ttl: TTL or hop limit.
        traffic_class: TOS or traffic class, DSCP and ECN together.
        options: IPv4 options as on the wire, or the options of the IPv6 hop-by-hop header without its first two bytes.
        identification: fragment identification (16 or 32 bits).
        dont_fragment: IPv4 DF; False on IPv6.
        more_fragments: M flag.
        fragment_offset: in bytes.
    """

    source: Address
    destination: Address
    protocol: int
    payload: bytes
    ttl: int = 64
    traffic_class: int = 0
    options: bytes = b""
    identification: int = 0
    dont_fragment: bool = False
    more_fragments: bool = False
    fragment_offset: int = 0

    @property
    def is_fragment(self) -> bool:
        """Whether this is one of several parts."""
        return self.more_fragments or self.fragment_offset > 0

    @property
    def router_alert(self) -> bool:
        """Whether a Router Alert option is present (RFC 2113, RFC 2711)."""
        wanted = (0x94, 4) if self.source.version == 4 else (5, 4)  # type, and length with its header
        return wanted in _options(self.options, self.source.version)

    def encode(self) -> bytes:
        """The packet as bytes, header checksum filled.

        Raises:
            ValueError: too long for the length fields, or IPv4 options that are not a multiple of four bytes.
        """
        return _encode_ipv4(self) if self.source.version == 4 else _encode_ipv6(self)


def decode(packet: bytes) -> IPPacket:
    """Decode one IP packet; bytes after its own length are link padding and dropped.

    Raises:
        Truncated: shorter than its header or the length in it.
        Malformed: unknown version, impossible header length or extension chain.
        BadChecksum: IPv4 header checksum wrong.
    """
    if not packet:
        raise Truncated("empty IP packet", packet)
    version = packet[0] >> 4
    if version == 4:
        return _decode_ipv4(packet)
    if version == 6:
        return _decode_ipv6(packet)
    raise Malformed(f"IP version {version}", packet)


@dataclass(frozen=True, slots=True)
class UDPDatagram:
    """One UDP datagram."""

    source_port: int
    destination_port: int
    payload: bytes


def decode_udp(packet: IPPacket) -> UDPDatagram:
    """UDP datagram of an unfragmented packet; a zero checksum is accepted (RFC 768; RFC 6935 for tunnels).

    Raises:
        Truncated: shorter than its header or the length in it.
        Malformed: not UDP, or an impossible length.
        BadChecksum: checksum present and wrong.
    """
    data = packet.payload
    if packet.protocol != PROTOCOL_UDP or packet.is_fragment:
        raise Malformed(f"protocol {packet.protocol}, not a whole UDP datagram", data)
    if len(data) < 8:
        raise Truncated(f"UDP header of {len(data)} bytes", data)
    source_port, destination_port, length, checksum = struct.unpack_from("!HHHH", data)
    if length < 8:
        raise Malformed(f"UDP length {length}", data)
    if length > len(data):
        raise Truncated(f"UDP says {length} bytes, {len(data)} are there", data)
    data = data[:length]
    if checksum:
        head = pseudo_header(packet.source, packet.destination, PROTOCOL_UDP, length)
        if ones_complement_sum(head + data) != 0xFFFF:
            raise BadChecksum("UDP checksum", data)
    return UDPDatagram(source_port, destination_port, data[8:])


def encode_udp(source: Address, destination: Address, datagram: UDPDatagram) -> bytes:
    """UDP header and payload with the checksum filled; a computed zero is sent as 0xffff (RFC 768).

    Raises:
        ValueError: too long for the length field.
    """
    length = 8 + len(datagram.payload)
    if length > 0xFFFF:
        raise ValueError(f"UDP datagram of {length} bytes")
    ports = struct.pack("!HHHH", datagram.source_port, datagram.destination_port, length, 0)
    head = pseudo_header(source, destination, PROTOCOL_UDP, length)
    checksum = internet_checksum(head + ports + datagram.payload) or 0xFFFF
    return ports[:6] + checksum.to_bytes(2, "big") + datagram.payload


def _decode_ipv4(packet: bytes) -> IPPacket:
    if len(packet) < 20:
        raise Truncated(f"IPv4 header of {len(packet)} bytes", packet)
    _, tos, total, identification, flags, ttl, protocol = struct.unpack_from("!BBHHHBB", packet)
    header = (packet[0] & 0x0F) * 4
    if header < 20 or total < header:
        raise Malformed(f"IPv4 header length {header} of total {total}", packet)
    if total > len(packet):
        raise Truncated(f"IPv4 says {total} bytes, {len(packet)} are there", packet)
    if not verifies(packet[:header]):
        raise BadChecksum("IPv4 header checksum", packet)
    return IPPacket(
        IPv4Address(packet[12:16]),
        IPv4Address(packet[16:20]),
        protocol,
        packet[header:total],
        ttl=ttl,
        traffic_class=tos,
        options=packet[20:header],
        identification=identification,
        dont_fragment=bool(flags & 0x4000),
        more_fragments=bool(flags & 0x2000),
        fragment_offset=(flags & 0x1FFF) * 8,
    )


def _encode_ipv4(packet: IPPacket) -> bytes:
    if len(packet.options) % 4 or len(packet.options) > 40:
        raise ValueError(f"IPv4 options of {len(packet.options)} bytes")
    header = 20 + len(packet.options)
    total = header + len(packet.payload)
    if total > 0xFFFF:
        raise ValueError(f"IPv4 packet of {total} bytes")
    flags = packet.dont_fragment << 14 | packet.more_fragments << 13 | packet.fragment_offset // 8
    fixed = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | header // 4,
        packet.traffic_class,
        total,
        packet.identification,
        flags,
        packet.ttl,
        packet.protocol,
        0,
        packet.source.packed,
        packet.destination.packed,
    )
    head = fixed + packet.options
    checksum = internet_checksum(head).to_bytes(2, "big")
    return head[:10] + checksum + head[12:] + packet.payload


def _decode_ipv6(packet: bytes) -> IPPacket:
    if len(packet) < 40:
        raise Truncated(f"IPv6 header of {len(packet)} bytes", packet)
    first, length, protocol, hop_limit = struct.unpack_from("!IHBB", packet)
    if 40 + length > len(packet):
        raise Truncated(f"IPv6 says {40 + length} bytes, {len(packet)} are there", packet)
    end = 40 + length
    offset, options, identification, fragment = 40, b"", 0, 0
    for position in range(_LONGEST_CHAIN):
        if protocol == PROTOCOL_HOP_BY_HOP:
            if position:
                raise Malformed("IPv6 hop-by-hop options behind another extension header (RFC 8200 §4.1)", packet)
            following, size = _extension(packet, offset, end)
            options = packet[offset + 2 : offset + size]
        elif protocol in _SKIPPED_EXTENSIONS and not fragment & 0xFFF8:
            following, size = _extension(packet, offset, end)
        elif protocol == PROTOCOL_FRAGMENT and not fragment:
            if offset + 8 > end:
                raise Truncated("IPv6 fragment header", packet)
            following, size = packet[offset], 8
            fragment, identification = struct.unpack_from("!HI", packet, offset + 2)
        else:
            break
        protocol, offset = following, offset + size
    else:
        raise Malformed("IPv6 extension chain too long", packet)
    return IPPacket(
        IPv6Address(packet[8:24]),
        IPv6Address(packet[24:40]),
        protocol,
        packet[offset:end],
        ttl=hop_limit,
        traffic_class=(first >> 20) & 0xFF,
        options=options,
        identification=identification,
        more_fragments=bool(fragment & 1),
        fragment_offset=fragment & 0xFFF8,
    )


def _extension(packet: bytes, offset: int, end: int) -> tuple[int, int]:
    """Next protocol and size in bytes of the extension header at `offset` (RFC 8200 §4.2)."""
    if offset + 8 > end:
        raise Truncated("IPv6 extension header", packet)
    size = 8 + packet[offset + 1] * 8
    if offset + size > end:
        raise Truncated(f"IPv6 extension header of {size} bytes", packet)
    return packet[offset], size


def _encode_ipv6(packet: IPPacket) -> bytes:
    """Hop-by-hop and fragment headers as the packet's fields ask for them."""
    extensions, protocol = b"", packet.protocol
    if packet.is_fragment or packet.identification:
        field = packet.fragment_offset & 0xFFF8 | packet.more_fragments
        extensions = struct.pack("!BBHI", protocol, 0, field, packet.identification)
        protocol = PROTOCOL_FRAGMENT
    if packet.options:
        size = 2 + len(packet.options)
        if size % 8:
            raise ValueError(f"IPv6 hop-by-hop options of {len(packet.options)} bytes do not fill eight-byte units")
        extensions = bytes((protocol, size // 8 - 1)) + packet.options + extensions
        protocol = PROTOCOL_HOP_BY_HOP
    length = len(extensions) + len(packet.payload)
    if length > 0xFFFF:
        raise ValueError(f"IPv6 payload of {length} bytes")
    first = 0x6000_0000 | packet.traffic_class << 20
    head = struct.pack("!IHBB", first, length, protocol, packet.ttl)
    return head + packet.source.packed + packet.destination.packed + extensions + packet.payload


def _options(options: bytes, version: int) -> set[tuple[int, int]]:
    """Types in an option list, each with its length in bytes, header included (RFC 791 §3.1, RFC 8200 §4.2).

    A broken list ends where it breaks.
    """
    end_of_list, padding = (0, 1) if version == 4 else (None, 0)
    header = 0 if version == 4 else 2
    found: set[tuple[int, int]] = set()
    position = 0
    while position < len(options):
        kind = options[position]
        if kind == end_of_list:
            break
        if kind == padding:
            position += 1
            continue
        if position + 1 >= len(options):
            break
        size = options[position + 1] + header
        if size < 2 or position + size > len(options):
            break
        found.add((kind, size))
        position += size
    return found
