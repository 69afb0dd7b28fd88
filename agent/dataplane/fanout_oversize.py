"""What happens to a packet that does not fit its tunnel: pure parts and the ICMP messages.

RFC 7450 §5.3.3.6.2 lets a relay fragment an inner IPv4 packet without DF before encapsulation, and has it drop an IPv4
packet with DF or an IPv6 packet and tell the source the tunnel's MTU; §5.3.3.6.3.2 forbids a Fragment header outside.
That is `Oversize.REFUSE`. The default, `Oversize.FRAGMENT`, fragments the outer packet instead, DF never set on it:
sources of video hardly ever follow ICMP errors about a multicast destination (RFC 1812 §4.3.2.7 even keeps routers from
sending them), so a standard 1500-byte packet would simply be lost, while every known gateway reassembles, its socket or
its kernel doing that below it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from agent.dataplane.capture_frame import internet_checksum
from agent.protocol.channels import Address, Endpoint

_IP_MTU: Final = 14
_IPV6_MTU: Final = 24
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_DONT: Final = 0
_PMTUDISC_DO: Final = 2
_MESSAGES_PER_SECOND: Final = 10
_IPV6_MINIMUM_MTU: Final = 1280


class Oversize(Enum):
    """What to do with a packet too big for a tunnel; the value is the word in the configuration."""

    FRAGMENT = "fragment"
    REFUSE = "refuse"


def apply_oversize(sender: socket.socket, oversize: Oversize) -> None:
    """Make a UDP socket fragment outer packets itself, DF clear, or refuse what exceeds the path MTU, DF set."""
    mode = _PMTUDISC_DONT if oversize is Oversize.FRAGMENT else _PMTUDISC_DO
    if sender.family == socket.AF_INET:
        sender.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, mode)
    else:
        sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, mode)


def path_mtu(endpoint: Endpoint, local: Address | None) -> int:
    """Path MTU the kernel knows towards `endpoint`, in bytes of outer IP packet; 1280 when there is no route now."""
    family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        apply_oversize(probe, Oversize.REFUSE)
        try:
            if local is not None:
                probe.bind((str(local), 0))
            probe.connect((str(endpoint.address), endpoint.port))
            if family == socket.AF_INET:
                return probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
            return probe.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
        except OSError:
            return _IPV6_MINIMUM_MTU


def local_address(endpoint: Endpoint) -> Address | None:
    """The address the kernel would send from to `endpoint`; None when there is no route."""
    family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(endpoint.address), endpoint.port))
        except OSError:
            return None
        return ip_address(probe.getsockname()[0])


def fragment_ipv4(packet: bytes, limit: int) -> list[bytes] | None:
    """Fragment an IPv4 packet to at most `limit` bytes each (RFC 791 §3.2); None when DF forbids it.

    A fragment may be fragmented again; options are copied to the first piece only, except those with the copy flag.
    """
    flags = packet[6] << 8 | packet[7]
    header = (packet[0] & 0x0F) * 4
    if flags & 0x4000:
        return None
    later_header = _header_with_copied_options(packet[:header])
    room = limit - header & ~7
    if room <= 0:
        return None
    payload = packet[header:]
    pieces: list[bytes] = []
    for start in range(0, len(payload), room):
        piece = payload[start : start + room]
        last = start + room >= len(payload)
        field = (flags & 0x1FFF) + start // 8 | (flags & 0x2000 if last else 0x2000)
        pieces.append(_fragment(packet[:header] if not start else later_header, field, piece))
    return pieces


def too_big_message(packet: bytes, mtu: int) -> bytes:
    """ICMP "fragmentation needed" (RFC 1191 §4) or ICMPv6 Packet Too Big (RFC 4443 §3.2) about `packet`.

    The ICMPv6 checksum stays zero: the kernel fills it on a raw socket.
    """
    if packet[0] >> 4 == 4:
        quoted = packet[: (packet[0] & 0x0F) * 4 + 8]
        body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
        return body[:2] + struct.pack("!H", internet_checksum(body) % 0xFFFF) + body[4:]
    return struct.pack("!BBHI", 2, 0, 0, max(mtu, _IPV6_MINIMUM_MTU)) + packet[: _IPV6_MINIMUM_MTU - 48]


class TooBigNotifier:
    """Tells sources about the tunnel MTU, at most ten times a second in all and once a second per source.

    Without CAP_NET_RAW nothing is sent.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.sent = 0
        self._loop = loop
        self._tokens = float(_MESSAGES_PER_SECOND)
        self._filled_at = loop.time()
        self._told: dict[Address, float] = {}
        self._sockets: dict[int, socket.socket] = {}
        for version, family, protocol in ((4, socket.AF_INET, 1), (6, socket.AF_INET6, 58)):
            with suppress(OSError):
                raw = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
                # It only sends: an empty receive buffer keeps the host's ICMP from piling up in it.
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
                self._sockets[version] = raw

    def notify(self, packet: bytes, mtu: int) -> None:
        """Tell the source of `packet` that `mtu` bytes fit."""
        version = packet[0] >> 4
        source: Address = IPv4Address(packet[12:16]) if version == 4 else IPv6Address(packet[8:24])
        if version not in self._sockets or not self._allowed(source):
            return
        with suppress(OSError):
            self._sockets[version].sendto(too_big_message(packet, mtu), (str(source), 0))
            self.sent += 1

    def close(self) -> None:
        """Close the sockets."""
        for raw in self._sockets.values():
            raw.close()
        self._sockets.clear()

    def _allowed(self, source: Address) -> bool:
        now = self._loop.time()
        self._tokens = min(_MESSAGES_PER_SECOND, self._tokens + (now - self._filled_at) * _MESSAGES_PER_SECOND)
        self._filled_at = now
        if self._tokens < 1 or now - self._told.get(source, -1.0) < 1:
            return False
        if len(self._told) >= 1024:
            self._told.clear()
        self._tokens -= 1
        self._told[source] = now
        return True


def _fragment(header: bytes, field: int, piece: bytes) -> bytes:
    fragment = bytearray(header) + piece
    struct.pack_into("!H", fragment, 2, len(fragment))
    struct.pack_into("!HH", fragment, 6, field, fragment[8] << 8 | fragment[9])
    fragment[10:12] = bytes(2)
    struct.pack_into("!H", fragment, 10, internet_checksum(bytes(fragment[: len(header)])) % 0xFFFF)
    return bytes(fragment)


def _header_with_copied_options(header: bytes) -> bytes:
    options = bytearray()
    position = 20
    while position < len(header) and header[position] != 0:
        kind = header[position]
        length = 1 if kind == 1 else header[position + 1] if position + 1 < len(header) else 0
        if length == 0 or (kind != 1 and length < 2) or position + length > len(header):
            break
        if kind & 0x80:
            options += header[position : position + length]
        position += length
    options += bytes(-len(options) % 4)
    return bytes([0x40 | (20 + len(options)) // 4]) + header[1:20] + bytes(options)
