"""The packets of the generator: heads of frames, and what their checksums need."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from lab.bench.engine_topology import GATEWAY_IPV4, GATEWAY_IPV6, RELAY_IPV4, RELAY_IPV6
from lab.bench.inner_packets import SOURCE, datagram_ipv4, datagram_ipv6, ipv4, ipv6, udp

AMT_PORT: Final = 2268
HEAD: Final = 144
"""Octets written anew in each frame (lab/bpf/generator.bpf.c)."""

PAYLOAD: Final = struct.Struct("=IIQQ")
"""struct payload: mark, flow, sequence, time."""

MARK: Final = 0x49535448
MOST_FLOWS: Final = 64
SMALLEST: Final = 128
"""Octets of UDP payload: shorter frames have no room for the head."""

_ETHERNET: Final = 14
_UDP_CHECK: Final = 6  # in the UDP header
_flow = struct.Struct(f"={HEAD}sHHHHII")


@dataclass(frozen=True, slots=True)
class Stream:
    """What is sent.

    Attributes:
        channels: how many, one packet of each in turn.
        size: octets of UDP payload.
        version: IP version of the multicast packets.
        outer: IP version of the tunnel, 0 for native multicast.
        inner_sums: whether inner UDP checksums are filled, else zero.
        outer_sums: the same of the tunnel's.
        keep_whole: set Don't Fragment in IPv4, as Linux senders do.
        neighbour: source of native multicast, where it is not the relay of the gateway's links.
    """

    channels: int = 8
    size: int = 1316
    version: int = 4
    outer: int = 4
    inner_sums: bool = True
    outer_sums: bool = True
    keep_whole: bool = True
    neighbour: str = ""

    @property
    def source(self) -> str:
        """Source of the multicast packets: for native ones a neighbour, so that RPF and the route agree."""
        if self.outer:
            return SOURCE[self.version]
        if self.neighbour:
            return self.neighbour
        return RELAY_IPV4 if self.version == 4 else RELAY_IPV6

    def group(self, channel: int) -> str:
        """The group of a channel."""
        return f"232.1.1.{channel + 1}" if self.version == 4 else f"ff3e::8000:{channel + 1:x}"


@dataclass(frozen=True, slots=True)
class Link:
    """Addresses of the link the stream takes: MAC addresses of both ends, and the tunnel's port at the gateway."""

    sender: bytes
    receiver: bytes
    port: int = 0


@dataclass(frozen=True, slots=True)
class Flow:
    """One channel's frames.

    Attributes:
        frame: one of them, mark, flow, sequence and time being zero.
        payload: where those are.
        inner_check: where the inner UDP checksum is, 0 when it stays as it is.
        outer_check: the same of the tunnel's.
        inner_sum: sum, in the host's order, of what the inner checksum covers and does not change.
        outer_sum: the same of the tunnel's; with inner checksums of all it covers.
    """

    frame: bytes
    payload: int
    inner_check: int
    outer_check: int
    inner_sum: int
    outer_sum: int

    def pack(self) -> bytes:
        """The value of struct flow."""
        head = self.frame[:HEAD]
        return _flow.pack(head, self.payload, self.inner_check, self.outer_check, 0, self.inner_sum, self.outer_sum)


def flow(stream: Stream, link: Link, channel: int) -> Flow:
    """The frames of one channel."""
    inner = _inner(stream, channel)
    inner_headers = 20 if stream.version == 4 else 40
    group = ip_address(stream.group(channel)).packed
    if not stream.outer:
        mac = _multicast_mac(group)
        frame = mac + link.sender + _protocol(stream.version) + inner
        before, outer_check, outer_sum = _ETHERNET, 0, 0
    else:
        packet = _tunnelled(stream, link, inner)
        frame = link.receiver + link.sender + _protocol(stream.outer) + packet
        outer_headers = 20 if stream.outer == 4 else 40
        before = _ETHERNET + outer_headers + 10
        outer_check = _ETHERNET + outer_headers + _UDP_CHECK if stream.outer_sums else 0
        outer_sum = _checksummed(packet, outer_headers)
    udp_at = before + inner_headers
    return Flow(
        frame,
        payload=udp_at + 8,
        inner_check=udp_at + _UDP_CHECK if stream.inner_sums else 0,
        outer_check=outer_check,
        inner_sum=_checksummed(inner, inner_headers),
        outer_sum=outer_sum,
    )


def _inner(stream: Stream, channel: int) -> bytes:
    payload, source, group = bytes(stream.size), stream.source, stream.group(channel)
    if stream.version == 4:
        flags = 0x4000 if stream.keep_whole else 0
        return datagram_ipv4(
            payload, source=source, group=group, summed=stream.inner_sums, identification=0, flags=flags
        )
    return datagram_ipv6(payload, source=source, group=group, summed=stream.inner_sums)


def _tunnelled(stream: Stream, link: Link, inner: bytes) -> bytes:
    ends = (RELAY_IPV4, GATEWAY_IPV4) if stream.outer == 4 else (RELAY_IPV6, GATEWAY_IPV6)
    body = udp(*ends, b"\x06\0" + inner, (AMT_PORT, link.port), summed=stream.outer_sums)
    if stream.outer == 4:
        return ipv4(body, source=ends[0], group=ends[1], identification=0, flags=0x4000, ttl=64)
    return ipv6(body, source=ends[0], group=ends[1], hop_limit=64)


def _protocol(version: int) -> bytes:
    return b"\x08\x00" if version == 4 else b"\x86\xdd"


def _multicast_mac(group: bytes) -> bytes:
    if len(group) == 4:
        return b"\x01\x00\x5e" + bytes((group[1] & 0x7F,)) + group[2:]
    return b"\x33\x33" + group[-4:]


def _checksummed(packet: bytes, headers: int) -> int:
    """Sum of what the UDP checksum of an IP packet covers, the field itself left out; not complemented."""
    addresses = packet[headers - 8 : headers] if headers == 20 else packet[8:40]
    datagram = packet[headers:]
    without = datagram[:_UDP_CHECK] + b"\0\0" + datagram[_UDP_CHECK + 2 :]
    covered = addresses + struct.pack(">HH", 17, len(datagram)) + without
    covered += b"\0" * (len(covered) % 2)
    total: int = sum(struct.unpack(f"={len(covered) // 2}H", covered))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
