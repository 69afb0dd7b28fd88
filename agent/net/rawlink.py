"""IGMP, MLD and PIM on one interface: whole IP packets in and out of a cooked packet socket.

The kernel's own IGMP and MLD raw sockets hide the packets a router has to see (they only pass groups that were joined),
hence a packet socket with the interface in all-multicast mode.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.net.rawlink_filter import LinkProtocol, link_filter
from agent.net.socket_options import attach_filter, set_receive_buffer
from agent.protocol.channels import Family

_log = logging.getLogger(__name__)

_SOL_PACKET: Final = 263
_PACKET_ADD_MEMBERSHIP: Final = 1
_PACKET_STATISTICS: Final = 6
_PACKET_IGNORE_OUTGOING: Final = 23  # since Linux 4.20; the filter refuses PACKET_OUTGOING too
_PACKET_MR_ALLMULTI: Final = 2
_ETHERTYPE: Final = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}
_MINIMUM_HEADER: Final = {Family.IPV4: 20, Family.IPV6: 40}
_DRAIN: Final = 64
DRAIN_SECONDS: Final = 0.005
"""Once a link has taken packets for so long the loop has its turn: a flood of Joins must not keep data waiting."""
_LARGEST_PACKET: Final = 65535
_RECEIVE_BUFFER: Final = 16 << 20
"""Bytes, taken from the kernel only while packets wait: FRR sends a packet a Join, ten thousand in one burst, and says
one that was lost again only a minute later."""

OnPacket = Callable[[bytes], None]
"""Called with one whole IP packet, link-layer padding removed."""


@dataclass(slots=True)
class RawLinkCounters:
    """What happened on a link since it was created."""

    received: int = 0
    sent: int = 0
    receive_errors: int = 0
    send_errors: int = 0
    open_errors: int = 0


class RawLink:
    """Control packets of one protocol and family on one interface.

    The interface may be down, absent or replaced at any time: nothing is raised for it, `is_open` says whether packets
    can arrive, and `reopen()` binds to whatever carries the name now. An interface that only went down and up again
    needs no reopen.

    Attributes:
        interface: name of the interface.
        family: IP version.
        counters: packets and errors.
        last_error: the last error counted, for `status`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interface: str,
        family: Family,
        on_packet: OnPacket,
        protocol: LinkProtocol = LinkProtocol.GROUP_MEMBERSHIP,
    ) -> None:
        """Open the link if the interface exists.

        Args:
            loop: event loop the packets are delivered on.
            interface: name, at most 15 bytes.
            family: IPv4 for IGMP, IPv6 for MLD.
            on_packet: called with each packet.
            protocol: what to let through.

        Raises:
            PermissionError: the process lacks CAP_NET_RAW.
        """
        self.interface = interface
        self.family = family
        self.counters = RawLinkCounters()
        self.last_error: OSError | None = None
        self._overflows = 0
        self._loop = loop
        self._on_packet = on_packet
        self._protocol = protocol
        self._socket: socket.socket | None = None
        self._index = 0
        self.reopen()

    @property
    def overflows(self) -> int:
        """Packets the kernel dropped because they were not read in time, since the link was created."""
        self._count_overflows()
        return self._overflows

    @property
    def is_open(self) -> bool:
        """Whether the socket is bound to the interface that carries the name now."""
        return self._socket is not None and self._index == _index_of(self.interface)

    def reopen(self) -> bool:
        """Bind again if the interface was re-created, and say whether the link is open.

        Raises:
            PermissionError: the process lacks CAP_NET_RAW.
        """
        if self.is_open:
            return True
        self.close()
        try:
            self._open()
        except PermissionError:
            raise
        except OSError as error:
            self.counters.open_errors += 1
            self.last_error = error
        return self._socket is not None

    def send(self, packet: bytes) -> bool:
        """Send a whole IP packet to the multicast MAC of its destination; False (and counted) when it was not sent.

        Raises:
            ValueError: not an IP packet of this family with a multicast destination.
        """
        destination = multicast_mac(packet)
        if packet[0] >> 4 != self.family:
            raise ValueError(f"an IPv{packet[0] >> 4} packet on an IPv{int(self.family)} link")
        try:
            if self._socket is None:
                raise OSError(errno.ENODEV, "link is closed", self.interface)  # noqa: TRY301 - counted with the others
            self._socket.sendto(packet, (self.interface, _ETHERTYPE[self.family], 0, 0, destination))
        except OSError as error:
            self.counters.send_errors += 1
            self.last_error = error
            return False
        self.counters.sent += 1
        return True

    def close(self) -> None:
        """Stop delivering; `reopen()` starts again."""
        if self._socket is not None:
            self._count_overflows()
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _count_overflows(self) -> None:
        """The kernel clears its count when it is read."""
        if self._socket is not None:
            statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            self._overflows += struct.unpack("=II", statistics)[1]

    def _open(self) -> None:
        index = socket.if_nametoindex(self.interface)
        link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        try:
            attach_filter(link, link_filter(self._protocol, self.family, index))
            _ignore_outgoing(link)
            set_receive_buffer(link, _RECEIVE_BUFFER)
            # Protocol 0 above and the bind below make sure that no packet of another interface slips in.
            link.bind((self.interface, _ETHERTYPE[self.family]))
            membership = struct.pack("iHH8s", index, _PACKET_MR_ALLMULTI, 0, b"")
            link.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
            self._loop.add_reader(link, self._drain)
        except BaseException:
            link.close()
            raise
        self._socket, self._index = link, index

    def _drain(self) -> None:
        until = self._loop.time() + DRAIN_SECONDS
        for _ in range(_DRAIN):
            if self._socket is None or self._loop.time() > until:  # it may be closed by what on_packet did
                return
            try:
                packet = self._socket.recv(_LARGEST_PACKET)
            except BlockingIOError:
                return
            except OSError as error:  # ENETDOWN once, when the interface goes down or away
                self.counters.receive_errors += 1
                self.last_error = error
                continue
            if len(packet) < _MINIMUM_HEADER[self.family]:
                self.counters.receive_errors += 1
                continue
            self.counters.received += 1
            deliver(self._on_packet, packet, self.counters)


def deliver(on_packet: OnPacket, packet: bytes, counters: RawLinkCounters) -> None:
    """Hand on a packet without its padding; whatever it does to its taker, the next one is taken."""
    try:
        on_packet(without_padding(packet))
    except Exception:  # noqa: BLE001 - anybody on the link can send it again and again
        counters.receive_errors += 1
        _log.warning("packet not processed packet=%s", packet[:64].hex(), exc_info=True, extra={"reason": "packet"})


def multicast_mac(packet: bytes) -> bytes:
    """Ethernet address for the multicast destination of an IP packet (RFC 1112 §6.4, RFC 2464 §7).

    Raises:
        ValueError: not an IP packet with a multicast destination.
    """
    version = packet[0] >> 4 if packet else 0
    if version == Family.IPV4 and len(packet) >= 20 and packet[16] >> 4 == 0xE:
        return bytes((0x01, 0x00, 0x5E, packet[17] & 0x7F, packet[18], packet[19]))
    if version == Family.IPV6 and len(packet) >= 40 and packet[24] == 0xFF:
        return b"\x33\x33" + packet[36:40]
    raise ValueError("not an IP packet with a multicast destination")


def without_padding(packet: bytes) -> bytes:
    """An IP packet cut to the length its header states: short Ethernet frames are padded to 60 bytes."""
    stated = int.from_bytes(packet[2:4]) if packet[0] >> 4 == Family.IPV4 else 40 + int.from_bytes(packet[4:6])
    return packet[:stated]


def _index_of(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return -1


def _ignore_outgoing(link: socket.socket) -> None:
    try:
        link.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
