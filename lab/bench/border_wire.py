"""Packets of one interface with the kernel's time stamps, and what the border's benchmarks look for in them."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from agent.net.socket_options import set_receive_buffer
from agent.protocol import pim_packet
from agent.protocol.channels import Address
from agent.protocol.wire.errors import WireError
from agent.protocol.wire.pim import PROTOCOL_PIM, JoinPrune
from lab import topology
from lab.bench.relay_topology import inside

_ETH_P_ALL: Final = 0x0003
_SO_TIMESTAMPNS: Final = 35
_BUFFER: Final = 32 << 20
_UDP: Final = 17
_UDP_HEADER: Final = 8
_INNER_AT: Final = 2
AMT_UPDATE: Final = 5  # RFC 7450 §5.1.5
AMT_DATA: Final = 6  # RFC 7450 §5.1.6


@dataclass(frozen=True, slots=True)
class Frame:
    """One packet.

    Attributes:
        at: when the kernel saw it, seconds since the epoch.
        is_outgoing: whether the interface's own host sent it.
        packet: from the IP header on.
    """

    at: float
    is_outgoing: bool
    packet: bytes

    @property
    def group(self) -> bytes:
        """Destination address of an IPv4 packet."""
        return self.packet[16:20]

    @property
    def amt_type(self) -> int | None:
        """Type of the AMT message inside, None when there is none."""
        amt = self._amt()
        return amt[0] & 0x0F if amt else None

    @property
    def inner_group(self) -> bytes:
        """Destination of the IPv4 multicast packet in AMT data."""
        return self._amt()[_INNER_AT + 16 : _INNER_AT + 20]

    def _amt(self) -> bytes:
        """The UDP payload when it is AMT's, over either family, else nothing."""
        header, protocol = (20, 9) if self.packet[0] >> 4 == 4 else (40, 6)
        if len(self.packet) <= header + _UDP_HEADER or self.packet[protocol] != _UDP:
            return b""
        ports = struct.unpack_from("!HH", self.packet, header)
        return self.packet[header + _UDP_HEADER :] if topology.AMT_PORT in ports else b""

    def joins(self, group: Address | None = None) -> bool:
        """Whether this is a PIM Join, of `group` if that is given."""
        message = self._join_prune()
        if message is None:
            return False
        return any(listed.joins and group in {None, listed.group} for listed in message.groups)

    def prunes(self) -> bool:
        """Whether this is a PIM Prune."""
        message = self._join_prune()
        return message is not None and any(listed.prunes for listed in message.groups)

    def _join_prune(self) -> JoinPrune | None:
        if self.is_outgoing or self.packet[0] >> 4 != 4 or self.packet[9] != PROTOCOL_PIM:
            return None
        try:
            message = pim_packet.decode_packet(self.packet).message
        except WireError:
            return None
        return message if isinstance(message, JoinPrune) else None


class Tap:
    """A packet socket that only listens."""

    def __init__(self, namespace: str, interface: str) -> None:
        """Listen from now on."""
        with inside(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            self._socket.bind((interface, _ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setblocking(False)
        set_receive_buffer(self._socket, _BUFFER)

    def __enter__(self) -> Self:
        """The tap."""
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no longer."""
        self._socket.close()

    def frames(self, wait: float = 0.0) -> Iterator[Frame]:
        """What came since the last call; of nothing the first is waited for up to `wait` seconds."""
        if wait:
            select.select([self._socket], [], [], wait)
        while True:
            try:
                packet, ancillary, _, (_, _, kind, _, _) = self._socket.recvmsg(2048, 64)
            except BlockingIOError:
                return
            if len(packet) >= 20:
                yield Frame(_stamp(ancillary), kind == socket.PACKET_OUTGOING, packet)


def _stamp(ancillary: list[tuple[int, int, bytes]]) -> float:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("=qq", data[:16])
            return float(seconds + nanoseconds / 1e9)
    raise OSError("the kernel gave no time stamp")
