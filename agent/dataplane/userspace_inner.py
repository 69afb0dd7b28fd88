"""Whether the packet inside an AMT data message may be forwarded, judged by its headers alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.dataplane.engine import Refusal
from agent.protocol.channels import Address, Family, is_forwardable_group, is_unicast

_UDP: Final = 17
_MORE_FRAGMENTS_OR_OFFSET: Final = 0x3FFF
_CHECKSUM_MODULUS: Final = 0xFFFF

IsLocal = Callable[[Address], bool]
"""Whether an address lies in a prefix of our own."""


@dataclass(frozen=True, slots=True)
class Inner:
    """An acceptable inner packet.

    Attributes:
        family: its IP version.
        channel: source and group as they stand in the header, 8 or 32 octets.
        hop_limit: TTL or Hop Limit on arrival.
        whole_datagram: True for an unfragmented UDP datagram whose IP header has neither options nor extensions and
            whose UDP length fills the packet: such packets may travel in trains.
    """

    family: Family
    channel: bytes
    hop_limit: int
    whole_datagram: bool


def inspect(packet: bytes, is_local: IsLocal) -> Inner | Refusal:
    """Judge one inner packet, given from its first octet to its last."""
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        return _inspect_ipv4(packet, is_local)
    if version == 6:
        return _inspect_ipv6(packet, is_local)
    return Refusal.BAD_INNER_HEADER


def _inspect_ipv4(packet: bytes, is_local: IsLocal) -> Inner | Refusal:
    """RFC 791 §3.1, RFC 1812 §5.2.2: header length, total length, checksum; then the addresses."""
    header_size = (packet[0] & 0xF) * 4
    if not 20 <= header_size <= len(packet) or int.from_bytes(packet[2:4], "big") != len(packet):
        return Refusal.BAD_INNER_HEADER
    if int.from_bytes(packet[:header_size], "big") % _CHECKSUM_MODULUS:
        return Refusal.BAD_INNER_HEADER
    refusal = _judge_addresses(IPv4Address(packet[12:16]), IPv4Address(packet[16:20]), is_local)
    if refusal is not None:
        return refusal
    if packet[8] <= 1:
        return Refusal.TTL_EXPIRED
    whole = (
        header_size == 20
        and packet[9] == _UDP
        and not int.from_bytes(packet[6:8], "big") & _MORE_FRAGMENTS_OR_OFFSET
        and len(packet) > 28
        and int.from_bytes(packet[24:26], "big") == len(packet) - 20
    )
    return Inner(Family.IPV4, packet[12:20], packet[8], whole)


def _inspect_ipv6(packet: bytes, is_local: IsLocal) -> Inner | Refusal:
    """RFC 8200 §3; jumbograms (RFC 2675) do not fit a UDP datagram and are refused by their zero length."""
    if len(packet) < 40 or int.from_bytes(packet[4:6], "big") != len(packet) - 40:
        return Refusal.BAD_INNER_HEADER
    refusal = _judge_addresses(IPv6Address(packet[8:24]), IPv6Address(packet[24:40]), is_local)
    if refusal is not None:
        return refusal
    if packet[7] <= 1:
        return Refusal.TTL_EXPIRED
    whole = packet[6] == _UDP and len(packet) > 48 and int.from_bytes(packet[44:46], "big") == len(packet) - 40
    return Inner(Family.IPV6, packet[8:40], packet[7], whole)


def _judge_addresses(source: Address, group: Address, is_local: IsLocal) -> Refusal | None:
    if not group.is_multicast or not is_unicast(source) or source.is_link_local:
        return Refusal.BAD_INNER_HEADER  # link-local sources are never forwarded: RFC 3927 §7, RFC 4291 §2.5.6
    if not is_forwardable_group(group):
        return Refusal.LINK_LOCAL_GROUP
    return Refusal.SPOOFED_LOCAL_SOURCE if is_local(source) else None


def decapsulated_ecn(outer: int, inner: int) -> int | None:
    """ECN field of a packet leaving a tunnel, or None when it must be dropped (RFC 6040 §4.2, figure 4).

    Args:
        outer: ECN bits of the outer header.
        inner: ECN bits of the inner header.
    """
    not_capable, capable_1, congested = 0, 1, 3
    if outer == congested:
        return None if inner == not_capable else congested
    if outer == capable_1 and inner not in (not_capable, congested):
        return capable_1
    return inner


def with_ecn(packet: bytes, ecn: int) -> bytes:
    """A copy of an IP packet with its ECN field set, and the IPv4 header checksum following (RFC 1624)."""
    changed = bytearray(packet)
    if packet[0] >> 4 == 6:
        changed[1] = changed[1] & 0xCF | ecn << 4
        return bytes(changed)
    changed[1] = changed[1] & 0xFC | ecn
    changed[10:12] = b"\0\0"
    changed[10:12] = internet_checksum(bytes(changed[: (packet[0] & 0xF) * 4])).to_bytes(2, "big")
    return bytes(changed)


def internet_checksum(data: bytes) -> int:
    """The one's complement checksum of an even number of octets (RFC 1071), as a header field holds it."""
    return _CHECKSUM_MODULUS - ones_complement_sum(data)


def ones_complement_sum(data: bytes) -> int:
    """One's complement sum of 16-bit words; 0 only for data that is all zero (RFC 1071)."""
    remainder = int.from_bytes(data, "big") % _CHECKSUM_MODULUS
    return remainder or (_CHECKSUM_MODULUS if any(data) else 0)
