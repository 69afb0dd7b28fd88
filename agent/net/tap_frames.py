"""Ethernet frames of the tunnel interface: what they are, and the answers to questions for our MAC address.

ARP is RFC 826, neighbour discovery RFC 4861. Bytes in, bytes out; frames come from the host's own kernel, and are
checked all the same.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address
from typing import Final

from agent.net.rawlink_filter import IGMP_PROTOCOL, MLD_TYPES, PIM_PROTOCOL
from agent.protocol.channels import Family
from agent.protocol.wire.checksum import internet_checksum, pseudo_header, verifies
from agent.protocol.wire.ip import PROTOCOL_HOP_BY_HOP, PROTOCOL_ICMPV6, IPPacket

ETHERTYPE: Final = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}

_ETHERTYPE_ARP: Final = 0x0806
_ETHERNET: Final = struct.Struct("!6s6sH")
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_ARP_REQUEST, _ARP_REPLY = 1, 2
_NEIGHBOR_SOLICITATION: Final = 135
_NEIGHBOR_ADVERTISEMENT: Final = 136
_SOLICITED, _ROUTER, _OVERRIDE = 0x40, 0x80, 0x20
_TARGET_LINK_LAYER_ADDRESS: Final = 2
_ALL_NODES: Final = IPv6Address("ff02::1")
_UNSPECIFIED: Final = bytes(16)
_FRAGMENT: Final = 0x3FFF


class FrameKind(Enum):
    """What a frame is to us; the values name counters."""

    PIM = "pim"
    GROUP_MEMBERSHIP = "group_membership"
    ADDRESS_QUESTION = "address_question"
    MULTICAST = "multicast"
    UNICAST = "unicast"
    MALFORMED = "malformed"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame taken apart.

    Attributes:
        kind: what it is.
        source: MAC address of the sender.
        family: IP version, None for what is no IP.
        packet: all behind the Ethernet header.
    """

    kind: FrameKind
    source: bytes = b""
    family: Family | None = None
    packet: bytes = b""


def ethernet_frame(destination: bytes, source: bytes, ethertype: int, packet: bytes) -> bytes:
    """A frame without padding, which a tap needs none of."""
    return _ETHERNET.pack(destination, source, ethertype) + packet


def is_multicast(packet: bytes) -> bool:
    """Whether an IP packet goes to a group."""
    return packet[16:17] >= b"\xe0" if packet[0] >> 4 == Family.IPV4 else packet[24:25] == b"\xff"


def parse_frame(frame: bytes, ours: bytes) -> Frame:
    """Take a frame apart.

    Args:
        frame: from its destination address on.
        ours: our MAC address; unicast to another one is not for us.
    """
    if len(frame) < _ETHERNET.size:
        return Frame(FrameKind.MALFORMED)
    destination, source, ethertype = _ETHERNET.unpack_from(frame)
    packet = frame[_ETHERNET.size :]
    if not destination[0] & 1 and destination != ours:
        return Frame(FrameKind.UNICAST, source, None, packet)
    if ethertype == _ETHERTYPE_ARP:
        return Frame(FrameKind.ADDRESS_QUESTION, source, None, packet)
    for family, number in ETHERTYPE.items():
        if ethertype == number:
            kind = _kind_ipv4(packet) if family is Family.IPV4 else _kind_ipv6(packet)
            return Frame(kind, source, family, packet)
    return Frame(FrameKind.OTHER, source, None, packet)


def answer_address_question(frame: Frame, ours: bytes, addresses: frozenset[bytes]) -> bytes | None:
    """The frame that answers an ARP request or a neighbour solicitation for one of `addresses`; None when none asks."""
    if frame.family is Family.IPV6:
        return _answer_solicitation(frame, ours, addresses)
    if len(frame.packet) < _ARP.size:
        return None
    hardware, protocol, hardware_size, size, operation, asker, asker_ip, _, target = _ARP.unpack_from(frame.packet)
    if (hardware, protocol, hardware_size, size, operation) != (1, 0x0800, 6, 4, _ARP_REQUEST):
        return None
    if target not in addresses:
        return None
    reply = _ARP.pack(1, 0x0800, 6, 4, _ARP_REPLY, ours, target, asker, asker_ip)
    return ethernet_frame(frame.source, ours, _ETHERTYPE_ARP, reply)


def _kind_ipv4(packet: bytes) -> FrameKind:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return FrameKind.MALFORMED
    is_whole = not int.from_bytes(packet[6:8]) & _FRAGMENT
    if is_whole and packet[9] == PIM_PROTOCOL:
        return FrameKind.PIM
    if is_whole and packet[9] == IGMP_PROTOCOL:
        return FrameKind.GROUP_MEMBERSHIP
    return FrameKind.MULTICAST if is_multicast(packet) else FrameKind.UNICAST


def _kind_ipv6(packet: bytes) -> FrameKind:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return FrameKind.MALFORMED
    protocol, at = packet[6], 40
    if protocol == PIM_PROTOCOL:
        return FrameKind.PIM
    if protocol == PROTOCOL_HOP_BY_HOP and len(packet) >= 48:
        protocol, at = packet[40], 48 + packet[41] * 8
    if protocol == PROTOCOL_ICMPV6 and len(packet) > at:
        if packet[at] in MLD_TYPES:
            return FrameKind.GROUP_MEMBERSHIP
        if packet[at] == _NEIGHBOR_SOLICITATION and at == 40:
            return FrameKind.ADDRESS_QUESTION
        if 133 <= packet[at] <= 137:  # router discovery, advertisements and redirects (RFC 4861 §4)
            return FrameKind.OTHER
    return FrameKind.MULTICAST if is_multicast(packet) else FrameKind.UNICAST


def _answer_solicitation(frame: Frame, ours: bytes, addresses: frozenset[bytes]) -> bytes | None:
    packet = frame.packet
    length = int.from_bytes(packet[4:6])
    message = packet[40 : 40 + length]
    if packet[7] != 255 or len(message) < 24 or message[1] or message[8:24] not in addresses:  # RFC 4861 §7.1.1
        return None
    asker, target = IPv6Address(packet[8:24]), IPv6Address(message[8:24])
    asked = IPv6Address(packet[24:40])
    if not verifies(pseudo_header(asker, asked, PROTOCOL_ICMPV6, len(message)) + message):
        return None
    is_probe = asker.packed == _UNSPECIFIED  # duplicate address detection: everybody hears that it is taken
    flags = _ROUTER | _OVERRIDE | (0 if is_probe else _SOLICITED)
    body = bytes((_NEIGHBOR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0)) + target.packed
    body += bytes((_TARGET_LINK_LAYER_ADDRESS, 1)) + ours
    to = _ALL_NODES if is_probe else asker
    checksum = internet_checksum(pseudo_header(target, to, PROTOCOL_ICMPV6, len(body)) + body)
    body = body[:2] + checksum.to_bytes(2) + body[4:]
    reply = IPPacket(target, to, PROTOCOL_ICMPV6, body, ttl=255).encode()
    destination = b"\x33\x33\x00\x00\x00\x01" if is_probe else frame.source
    return ethernet_frame(destination, ours, ETHERTYPE[Family.IPV6], reply)
