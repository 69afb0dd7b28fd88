"""From a captured frame to the inner IP packets a relay may send on: pure functions.

A relay forwards natively received multicast like any multicast router, the tunnel being its outgoing interface, so the
inner TTL or hop limit is decremented once and a packet that arrives with 1 goes no further (RFC 1812 §5.3.1, RFC 8200
§3). The Linux kernel's relay does the same, its multicast routing being in front of the tunnel device. Everything else
in the inner packet stays as it was: options, fragments, DF, DSCP and ECN.
"""

from __future__ import annotations

import struct
from typing import Final

from agent.dataplane.engine import Refusal

_VIRTIO: Final = struct.Struct("=BBHHHH")
_NEEDS_CHECKSUM: Final = 1
_GSO_UDP_SEGMENTS: Final = 5  # VIRTIO_NET_HDR_GSO_UDP_L4
_GSO_ECN: Final = 0x80
_UDP: Final = 17


def read_frame(frame: memoryview, link_header: int, packets: list[bytes]) -> Refusal | None:
    """Append the inner packets of one frame to `packets`, TTL decremented and checksums complete.

    Args:
        frame: virtio-net header, link header, IP packet, padding; changed in place.
        link_header: bytes of the link header.
        packets: what the packets are appended to; more than one when the sender left segmentation to the hardware.

    Returns:
        Why nothing was appended, or None.
    """
    offset = _VIRTIO.size + link_header
    head = bytes(frame[: offset + 20])
    if len(head) < offset + 20:
        return Refusal.BAD_INNER_HEADER
    version = head[offset] >> 4
    # Slicing a memoryview costs more than all of this arithmetic, hence the one copy of the header.
    if version == 4:
        length = head[offset + 2] << 8 | head[offset + 3]
        refusal = _route_ipv4(frame, head, offset, length)
    elif version == 6:
        length = 40 + (head[offset + 4] << 8 | head[offset + 5])
        refusal = _route_ipv6(frame, head, offset, length)
    else:
        return Refusal.BAD_INNER_HEADER
    if refusal is not None:
        return refusal
    if head[0] & _NEEDS_CHECKSUM or head[1] & ~_GSO_ECN:
        return _read_offloaded(frame, head, link_header, length, packets)
    packets.append(bytes(frame[offset : offset + length]))
    return None


def _read_offloaded(
    frame: memoryview, head: bytes, link_header: int, length: int, packets: list[bytes]
) -> Refusal | None:
    """A packet whose checksum or segmentation the sender left to the hardware."""
    _, gso_type, _, gso_size, checksum_start, checksum_offset = _VIRTIO.unpack_from(head)
    offset = _VIRTIO.size + link_header
    packet = frame[offset : offset + length]
    if gso_type & ~_GSO_ECN:
        return _read_segments(packet, gso_type, gso_size, packets)
    if not complete_checksum(packet, checksum_start - link_header, checksum_offset):
        return Refusal.BAD_INNER_HEADER
    packets.append(bytes(packet))
    return None


def complete_checksum(packet: memoryview, start: int, offset: int) -> bool:
    """Fill a checksum of which the sender's kernel computed only the pseudo-header part (CHECKSUM_PARTIAL).

    Args:
        packet: IP packet without padding; changed in place.
        start: where the sum starts.
        offset: where the checksum stands, from `start`.

    Returns:
        False when the positions lie outside the packet.
    """
    if start < 20 or start + offset + 2 > len(packet):
        return False
    struct.pack_into("!H", packet, start + offset, internet_checksum(packet[start:]))
    return True


def internet_checksum(data: memoryview | bytes) -> int:
    """RFC 1071 checksum, 1 to 0xffff: never the zero that means "no checksum" in UDP.

    2^16 is 1 modulo 65535, so the one's complement sum of the words is the number itself modulo 65535.
    """
    total = int.from_bytes(data, "big")
    if len(data) % 2:
        total <<= 8
    return 0xFFFF - total % 0xFFFF


def _route_ipv4(frame: memoryview, head: bytes, offset: int, length: int) -> Refusal | None:
    """Check an IPv4 header and decrement its TTL in `frame`; `head` is the frame up to the end of a plain header."""
    header_length = (head[offset] & 0x0F) * 4
    header = head[offset:] if header_length == 20 else bytes(frame[offset : offset + header_length])
    if header_length < 20 or length < header_length or offset + length > len(frame):
        return Refusal.BAD_INNER_HEADER
    if int.from_bytes(header, "big") % 0xFFFF:
        return Refusal.BAD_INNER_HEADER
    ttl = header[8]
    if ttl <= 1:
        return Refusal.TTL_EXPIRED
    # RFC 1624 §3 eqn. 3, with m - m' = 0x0100.
    total = (0xFFFF ^ (header[10] << 8 | header[11])) + 0xFEFF
    total = (total & 0xFFFF) + (total >> 16) ^ 0xFFFF
    frame[offset + 8] = ttl - 1
    frame[offset + 10] = total >> 8
    frame[offset + 11] = total & 0xFF
    return None


def _route_ipv6(frame: memoryview, head: bytes, offset: int, length: int) -> Refusal | None:
    """Check an IPv6 header and decrement its hop limit in `frame`; jumbograms are refused."""
    if length == 40 or offset + length > len(frame):
        return Refusal.BAD_INNER_HEADER
    hop_limit = head[offset + 7]
    if hop_limit <= 1:
        return Refusal.TTL_EXPIRED
    frame[offset + 7] = hop_limit - 1
    return None


def _read_segments(packet: memoryview, gso_type: int, gso_size: int, packets: list[bytes]) -> Refusal | None:
    """Cut a UDP super-packet into the datagrams the sender meant (linux/virtio_net.h, GSO_UDP_L4)."""
    header = _udp_offset(packet)
    if gso_type & ~_GSO_ECN != _GSO_UDP_SEGMENTS or gso_size == 0 or header is None or len(packet) <= header + 8:
        return Refusal.BAD_INNER_HEADER
    template = bytearray(packet[: header + 8])
    payload = bytes(packet[header + 8 :])
    with_checksum = template[header + 6] or template[header + 7]
    identification = template[4] << 8 | template[5]
    for index, start in enumerate(range(0, len(payload), gso_size)):
        piece = payload[start : start + gso_size]
        segment = bytearray(template) + piece
        struct.pack_into("!HH", segment, header + 4, 8 + len(piece), 0)
        if template[0] >> 4 == 4:
            # The kernel's own segmentation numbers them upwards from the first (inet_gso_segment).
            struct.pack_into("!HH", segment, 2, len(segment), (identification + index) & 0xFFFF)
            segment[10:12] = bytes(2)
            struct.pack_into("!H", segment, 10, internet_checksum(bytes(segment[:header])) % 0xFFFF)
            addresses = bytes(segment[12:20])
        else:
            struct.pack_into("!H", segment, 4, len(segment) - 40)
            addresses = bytes(segment[8:40])
        if with_checksum:
            pseudo_header = addresses + struct.pack("!HH", _UDP, 8 + len(piece))
            struct.pack_into("!H", segment, header + 6, internet_checksum(pseudo_header + segment[header:]))
        packets.append(bytes(segment))
    return None


def _udp_offset(packet: memoryview) -> int | None:
    """Where the UDP header stands; only what the kernel itself segments: UDP right after the IP header."""
    if packet[0] >> 4 == 4:
        return (packet[0] & 0x0F) * 4 if packet[9] == _UDP else None
    return 40 if packet[6] == _UDP else None
