"""From a captured frame to the inner IP packets a relay may send on: pure functions.

A relay forwards natively received multicast like any multicast router, the tunnel being its outgoing interface (RFC
7450 §4.1.2, §5.3.3.6), so the inner TTL or hop limit is decremented once and a packet that arrives with 1 goes no
further (RFC 1812 §5.3.1, RFC 8200 §3). The Linux kernel's relay does the same, its multicast routing being in front of
the tunnel device. Everything else in the inner packet stays as it was: options, fragments, DF, DSCP and ECN.
"""

from __future__ import annotations

import struct
from typing import Final

from agent.dataplane.engine import Refusal

_VIRTIO: Final = struct.Struct("=BBHHHH")
_NEEDS_CHECKSUM: Final = 1
_GSO_NONE: Final = 0
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
    if len(frame) < offset + 20:
        return Refusal.BAD_INNER_HEADER
    flags, gso_type, _, gso_size, checksum_start, checksum_offset = _VIRTIO.unpack_from(frame)
    packet = frame[offset:]
    version = packet[0] >> 4
    if version == 4:
        length = _check_ipv4(packet)
    elif version == 6:
        length = _check_ipv6(packet)
    else:
        return Refusal.BAD_INNER_HEADER
    if isinstance(length, Refusal):
        return length
    if gso_type & ~_GSO_ECN != _GSO_NONE:
        return _read_segments(packet[:length], gso_type, gso_size, packets)
    if flags & _NEEDS_CHECKSUM and not complete_checksum(
        packet[:length], checksum_start - link_header, checksum_offset
    ):
        return Refusal.BAD_INNER_HEADER
    packets.append(bytes(packet[:length]))
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


def _check_ipv4(packet: memoryview) -> int | Refusal:
    """Total length of a sound IPv4 packet whose TTL was decremented."""
    header = (packet[0] & 0x0F) * 4
    length = packet[2] << 8 | packet[3]
    if header < 20 or length < header or length > len(packet):
        return Refusal.BAD_INNER_HEADER
    if int.from_bytes(packet[:header], "big") % 0xFFFF:
        return Refusal.BAD_INNER_HEADER
    if packet[8] <= 1:
        return Refusal.TTL_EXPIRED
    packet[8] -= 1
    # RFC 1624 §3 eqn. 3, with m - m' = 0x0100.
    total = (0xFFFF ^ (packet[10] << 8 | packet[11])) + 0xFEFF
    total = (total & 0xFFFF) + (total >> 16) ^ 0xFFFF
    packet[10] = total >> 8
    packet[11] = total & 0xFF
    return length


def _check_ipv6(packet: memoryview) -> int | Refusal:
    """Length of a sound IPv6 packet whose hop limit was decremented; jumbograms are refused."""
    payload = packet[4] << 8 | packet[5]
    length = 40 + payload
    if not payload or length > len(packet):
        return Refusal.BAD_INNER_HEADER
    if packet[7] <= 1:
        return Refusal.TTL_EXPIRED
    packet[7] -= 1
    return length


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
