"""What the kernel's two multicast routing interfaces read and write, as bytes.

The layouts are those of linux/mroute.h and linux/mroute6.h. IPv4 says `vif`, IPv6 says `mif`; here both are an index
below 32, called slot.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Protocol

from agent.net.socket_options import attach_filter
from agent.protocol.channels import Address, Family

SLOTS: Final = 32
"""Interfaces one multicast routing table holds (MAXVIFS, MAXMIFS)."""

MRT_INIT, MRT_DONE, MRT_ADD_VIF, MRT_DEL_VIF, MRT_ADD_MFC, MRT_DEL_MFC = range(200, 206)
MRT_ASSERT: Final = 207
MRT_PIM: Final = 208
MRT_TABLE: Final = 209
SIOCGETSGCNT: Final = 0x89E1  # the same number for both families

_VIFF_USE_IFINDEX: Final = 8
_TTL_THRESHOLD: Final = 1
_NO_CACHE: Final = 1  # IGMPMSG_NOCACHE and MRT6MSG_NOCACHE
_WRONG_INTERFACE: Final = 2  # IGMPMSG_WRONGVIF and MRT6MSG_WRONGMIF
_UPCALLS_ONLY: Final = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 9),  # load the IP protocol
        (0x15, 0, 1, 0),  # 0?
        (0x06, 0, 0, 0xFFFF),  # accept
        (0x06, 0, 0, 0),  # drop
    )
)


@dataclass(frozen=True, slots=True)
class Upcall:
    """What the kernel asks or tells about a packet it could not forward.

    Attributes:
        slot: slot of the interface the packet came in on.
        unresolved: True when no route is known, False when one is but for another incoming interface.
    """

    source: Address
    group: Address
    slot: int
    unresolved: bool


class Layout(Protocol):
    """The differences between the two families."""

    family: Family
    level: int

    def open_socket(self) -> socket.socket:
        """A raw socket that can own the family's multicast routing."""

    def silence(self, owner: socket.socket) -> None:
        """Keep everything but upcalls out of the socket's queue."""

    def interface(self, slot: int, index: int) -> bytes:
        """Argument of MRT_ADD_VIF and MRT_DEL_VIF."""

    def route(self, source: Address, group: Address, incoming: int, outgoing: Iterable[int]) -> bytes:
        """Argument of MRT_ADD_MFC and MRT_DEL_MFC."""

    def count_request(self, source: Address, group: Address) -> bytes:
        """Argument of SIOCGETSGCNT."""

    def counts(self, answer: bytes) -> tuple[int, int, int]:
        """Packets, octets and packets from a wrong interface out of an answer to SIOCGETSGCNT."""

    def upcall(self, message: bytes) -> Upcall | None:
        """An upcall out of a message read from the socket, or None when it is something else."""


class LayoutIPv4:
    """linux/mroute.h."""

    family = Family.IPV4
    level = socket.IPPROTO_IP

    def open_socket(self) -> socket.socket:
        """A raw IGMP socket."""
        return socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_IGMP)

    def silence(self, owner: socket.socket) -> None:
        """Accept only upcalls, which carry IP protocol 0 where an IGMP message carries 2."""
        attach_filter(owner, _UPCALLS_ONLY)

    def interface(self, slot: int, index: int) -> bytes:
        """The `struct vifctl`."""
        return struct.pack("=HBBIi4x", slot, _VIFF_USE_IFINDEX, _TTL_THRESHOLD, 0, index)

    def route(self, source: Address, group: Address, incoming: int, outgoing: Iterable[int]) -> bytes:
        """The `struct mfcctl`."""
        thresholds = bytearray(SLOTS)
        for slot in outgoing:
            thresholds[slot] = _TTL_THRESHOLD
        return struct.pack("=4s4sH32s2x16x", source.packed, group.packed, incoming, bytes(thresholds))

    def count_request(self, source: Address, group: Address) -> bytes:
        """The `struct sioc_sg_req`."""
        return struct.pack("@4s4sLLL", source.packed, group.packed, 0, 0, 0)

    def counts(self, answer: bytes) -> tuple[int, int, int]:
        """The last three fields of struct sioc_sg_req."""
        _, _, packets, octets, wrong = struct.unpack("@4s4sLLL", answer)
        return packets, octets, wrong

    def upcall(self, message: bytes) -> Upcall | None:
        """The `struct igmpmsg`, shaped like an IP header with protocol 0."""
        if len(message) < 20 or message[9] != 0:
            return None
        kind, slot = message[8], message[10] | message[11] << 8
        if kind not in (_NO_CACHE, _WRONG_INTERFACE):
            return None
        return Upcall(IPv4Address(message[12:16]), IPv4Address(message[16:20]), slot, kind == _NO_CACHE)


class LayoutIPv6:
    """linux/mroute6.h."""

    family = Family.IPV6
    level = socket.IPPROTO_IPV6

    def open_socket(self) -> socket.socket:
        """A raw ICMPv6 socket."""
        return socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMPV6)

    def silence(self, owner: socket.socket) -> None:
        """Block every ICMPv6 type (RFC 3542 §3.2); upcalls do not pass that filter."""
        icmp6_filter = 1
        owner.setsockopt(socket.IPPROTO_ICMPV6, icmp6_filter, b"\xff" * 32)

    def interface(self, slot: int, index: int) -> bytes:
        """The `struct mif6ctl`."""
        return struct.pack("@HBBHI", slot, 0, _TTL_THRESHOLD, index, 0)

    def route(self, source: Address, group: Address, incoming: int, outgoing: Iterable[int]) -> bytes:
        """The `struct mf6cctl`."""
        slots = sum(1 << slot for slot in outgoing)
        ends = _socket_address(source) + _socket_address(group)
        return ends + struct.pack("=H2xI28x", incoming, slots)

    def count_request(self, source: Address, group: Address) -> bytes:
        """The `struct sioc_sg_req6`."""
        return _socket_address(source) + _socket_address(group) + struct.pack("@LLL", 0, 0, 0)

    def counts(self, answer: bytes) -> tuple[int, int, int]:
        """The last three fields of struct sioc_sg_req6."""
        packets, octets, wrong = struct.unpack_from("@LLL", answer, 56)
        return packets, octets, wrong

    def upcall(self, message: bytes) -> Upcall | None:
        """The `struct mrt6msg`, shaped like an MLD header of type 0."""
        if len(message) < 40 or message[0] != 0:
            return None
        kind = message[1]
        if kind not in (_NO_CACHE, _WRONG_INTERFACE):
            return None
        (slot,) = struct.unpack_from("=H", message, 2)
        return Upcall(IPv6Address(message[8:24]), IPv6Address(message[24:40]), slot, kind == _NO_CACHE)


def _socket_address(address: Address) -> bytes:
    """The `struct sockaddr_in6` with neither port, flow label nor scope."""
    return struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, address.packed, 0)


def layout_of(family: Family) -> Layout:
    """The layout of one family."""
    return LayoutIPv4() if family is Family.IPV4 else LayoutIPv6()
