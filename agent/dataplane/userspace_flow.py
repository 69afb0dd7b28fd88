"""What the engine knows of an inner flow: verdict, link header, and the header of a train."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from agent.dataplane.engine import Refusal
from agent.dataplane.userspace_inner import (
    Inner,
    IsLocal,
    decapsulated_ecn,
    inspect,
    ones_complement_sum,
    with_ecn,
)
from agent.net.tap import VIRTIO_HEADER_SIZE
from agent.protocol.channels import Family

PLAIN_SOURCE: Final = bytes.fromhex("024953540000")
"""Source MAC address of frames that the kernel forwards as they are."""

DONT_FRAGMENT_SOURCE: Final = bytes.fromhex("024953540001")
"""Source MAC address of trains whose packets carry Don't Fragment."""

_ETHERNET_SIZE: Final = 14
_NEEDS_CHECKSUM: Final = 1  # VIRTIO_NET_HDR_F_NEEDS_CSUM
_UDP_SEGMENTS: Final = 5  # VIRTIO_NET_HDR_GSO_UDP_L4
_UDP: Final = 17
_DONT_FRAGMENT: Final = 0x40
_HEADER_SIZES: Final = {Family.IPV4: 20, Family.IPV6: 40}
_ETHERTYPES: Final = {Family.IPV4: b"\x08\x00", Family.IPV6: b"\x86\xdd"}
_virtio_header: Final = struct.Struct("=BBHHHH")
_ipv4_lengths: Final = struct.Struct(">HHHBBH")
_udp_end: Final = struct.Struct(">HH")


@dataclass(frozen=True, slots=True)
class Flow:
    """One inner flow with one outer ECN mark, as it leaves.

    Attributes:
        family: inner IP version.
        channel: source and group, 8 or 32 octets.
        frame_start: virtio-net and Ethernet header of a packet forwarded by itself.
        ecn: the ECN field to write into each packet, or None when it stays as it is.
        whole_datagram: packets may travel in trains.
        dont_fragment: the packets carry the IPv4 flag.
        valid_sums: what identification and header checksum of an intact IPv4 packet of this flow add up to.
        headers: IP and UDP header of the flow's first packet, ECN settled.
        addresses_sum: one's complement sum of source and group.
        constant_sum: one's complement sum of what does not vary in the IPv4 header of a train.
    """

    family: Family
    channel: bytes
    frame_start: bytes
    ecn: int | None
    whole_datagram: bool
    dont_fragment: bool
    valid_sums: frozenset[int]
    headers: bytes
    addresses_sum: int
    constant_sum: int

    @property
    def payload_at(self) -> int:
        """Offset of the UDP payload in an inner packet."""
        return len(self.headers)

    def settled(self, packet: memoryview) -> memoryview | bytes:
        """The packet with its ECN field settled."""
        return packet if self.ecn is None else with_ecn(bytes(packet), self.ecn)

    def train_start(self, identification: int, payload_size: int, count: int) -> bytes:
        """Virtio-net, Ethernet, IP and UDP header of a train.

        Args:
            identification: IPv4 identification of the first packet; the kernel counts up from it.
            payload_size: octets of UDP payload of each packet.
            count: packets.
        """
        headers, udp_length = self.headers, 8 + count * payload_size
        # The kernel completes a checksum that so far covers the pseudo-header only (RFC 768, RFC 8200 §8.1).
        pseudo_header = _folded(self.addresses_sum + _UDP + udp_length)
        if self.family is Family.IPV4:
            length = 20 + udp_length
            checksum = 0xFFFF - _folded(self.constant_sum + length + identification)
            lengths = _ipv4_lengths.pack(length, identification, 0, headers[8], headers[9], checksum)
            middle = headers[:2] + lengths + headers[12:24]
        else:
            middle = headers[:4] + udp_length.to_bytes(2, "big") + headers[6:44]
        return self.train_frame_start(payload_size) + middle + _udp_end.pack(udp_length, pseudo_header)

    def train_frame_start(self, payload_size: int) -> bytes:
        """Virtio-net and Ethernet header of a train."""
        checksum_start = _ETHERNET_SIZE + _HEADER_SIZES[self.family]
        virtio = _virtio_header.pack(
            _NEEDS_CHECKSUM, _UDP_SEGMENTS, checksum_start + 8, payload_size, checksum_start, 6
        )
        source = DONT_FRAGMENT_SOURCE if self.dont_fragment else PLAIN_SOURCE
        return virtio + self.frame_start[VIRTIO_HEADER_SIZE:-8] + source + self.frame_start[-2:]


def flow_of(packet: bytes, outer_ecn: int, is_local: IsLocal) -> Flow | Refusal:
    """Judge a packet and prepare the forwarding of its like."""
    inner = inspect(packet, is_local)
    if isinstance(inner, Refusal):
        return inner
    ecn = _ecn_to_write(packet, inner, outer_ecn)
    if ecn is None:
        return Refusal.CONGESTION_LOST
    settled = packet if ecn < 0 else with_ecn(packet, ecn)
    addresses_sum = ones_complement_sum(inner.channel)
    return Flow(
        family=inner.family,
        channel=inner.channel,
        frame_start=bytes(VIRTIO_HEADER_SIZE) + ethernet_header(inner),
        ecn=None if ecn < 0 else ecn,
        whole_datagram=inner.whole_datagram,
        dont_fragment=inner.family is Family.IPV4 and bool(packet[6] & _DONT_FRAGMENT),
        valid_sums=_valid_sums(packet) if inner.family is Family.IPV4 else frozenset((0,)),
        headers=settled[: _HEADER_SIZES[inner.family] + 8],
        addresses_sum=addresses_sum,
        constant_sum=ones_complement_sum(settled[:2] + settled[8:10]) + addresses_sum,
    )


def ethernet_header(inner: Inner) -> bytes:
    """Header towards the group's MAC address (RFC 1112 §6.4, RFC 2464 §7)."""
    if inner.family is Family.IPV4:
        destination = b"\x01\x00\x5e" + bytes((inner.channel[5] & 0x7F,)) + inner.channel[6:]
    else:
        destination = b"\x33\x33" + inner.channel[-4:]
    return destination + PLAIN_SOURCE + _ETHERTYPES[inner.family]


def _ecn_to_write(packet: bytes, inner: Inner, outer: int) -> int | None:
    """The ECN field to write, -1 when the packet has it already, None when it must be dropped."""
    present = packet[1] & 3 if inner.family is Family.IPV4 else packet[1] >> 4 & 3
    wanted = decapsulated_ecn(outer, present)
    return -1 if wanted == present else wanted


def _folded(total: int) -> int:
    """One's complement sum of 16 bits out of a sum of at most 32 (RFC 1071 §2)."""
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


def _valid_sums(packet: bytes) -> frozenset[int]:
    """Sums of identification and header checksum that make the one's complement sum of the header come out as zero."""
    varying = int.from_bytes(packet[4:6], "big") + int.from_bytes(packet[10:12], "big")
    modulus = 0xFFFF
    return frozenset(range(varying % modulus, 2 * modulus + 1, modulus))
