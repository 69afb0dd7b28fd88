"""AF_PACKET capture of forwardable multicast on one interface, with the whole IP header kept.

Bound to one EtherType, a socket sees frames after the kernel has taken the VLAN tag off and moved the frame to the VLAN
device: a tagged frame is captured on `eth0.100` only, never twice. The virtio-net header in front of each frame tells
about checksums and segmentation the sender left to the hardware.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from typing import Final

from agent.net.libc import ffi, libc
from agent.net.packet_filter import multicast_filter
from agent.net.socket_options import attach_filter, set_receive_buffer
from agent.protocol.channels import Family

VIRTIO_HEADER: Final = struct.Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
"""struct virtio_net_hdr, host byte order on a packet socket."""

BATCH: Final = 64
"""Frames one `receive` returns at most."""

_FRAME_SIZE: Final = 65_536 + 64
_SO_ATTACH_BPF: Final = 50
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_VNET_HDR: Final = 15
_PACKET_IGNORE_OUTGOING: Final = 23
_SIOCGIFHWADDR: Final = 0x8927
_RECEIVE_BUFFER: Final = 8 << 20  # some 70 ms of a full gigabit: longer queues would only make live video late
_ETHER_TYPE: Final = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}
_LINK_HEADER: Final = {1: 14, 772: 14, 512: 0, 768: 0, 769: 0, 776: 0, 778: 0, 65534: 0}  # ARPHRD_*, linux/if_arp.h


class UnsupportedLinkError(OSError):
    """The interface's link type has a header this capture does not know."""


class PacketSocket:
    """One family on one interface.

    Raises:
        OSError: no such interface, or CAP_NET_RAW is missing.
        UnsupportedLinkError: neither Ethernet nor a device without link header.
    """

    def __init__(self, interface: str, family: Family) -> None:
        self.interface = interface
        self.family = family
        self.link_header = link_header_length(interface)
        self._dropped = 0
        # Protocol 0 receives nothing, so no unfiltered frame slips in before the filter is attached.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            self._configure()
            self._socket.bind((interface, _ETHER_TYPE[family]))
        except OSError:
            self._socket.close()
            raise
        self._allocate()

    def _configure(self) -> None:
        program = multicast_filter(self.family, socket.if_nametoindex(self.interface))
        attach_filter(self._socket, b"".join(program))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        set_receive_buffer(self._socket, _RECEIVE_BUFFER)

    def attach(self, program: int) -> None:
        """Let a BPF program choose the frames, in the place of the filter (SO_ATTACH_BPF).

        Raises:
            OSError: it is no program for sockets.
        """
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)

    def detach(self) -> None:
        """Take the filter again that the socket began with."""
        program = multicast_filter(self.family, socket.if_nametoindex(self.interface))
        attach_filter(self._socket, b"".join(program))

    def _allocate(self) -> None:
        self._buffer = bytearray(BATCH * _FRAME_SIZE)
        self._view = memoryview(self._buffer)
        base = ffi.cast("char *", ffi.from_buffer(self._buffer))
        self._vectors = ffi.new("struct iovec[]", BATCH)
        self._messages = ffi.new("struct mmsghdr[]", BATCH)
        for index in range(BATCH):
            self._vectors[index].iov_base = base + index * _FRAME_SIZE
            self._vectors[index].iov_len = _FRAME_SIZE
            self._messages[index].msg_hdr.msg_iov = self._vectors + index
            self._messages[index].msg_hdr.msg_iovlen = 1
        size = ffi.sizeof("struct mmsghdr")
        words = memoryview(ffi.buffer(self._messages)).cast("I")
        self._lengths = words[ffi.offsetof("struct mmsghdr", "msg_len") // 4 :: size // 4]

    def fileno(self) -> int:
        """Descriptor to poll for reading."""
        return self._socket.fileno()

    def receive(self, limit: int = BATCH) -> list[memoryview]:
        """Frames that are waiting, at most `limit` of `BATCH`: virtio-net header, link header, IP packet.

        The views are writable and valid until the next call. Empty when nothing waits.

        Raises:
            OSError: the interface went down or away (ENETDOWN, ENXIO), or a frame could not be described (EINVAL).
        """
        count: int = libc.recvmmsg(self._socket.fileno(), self._messages, min(limit, BATCH), 0, ffi.NULL)
        if count < 0:
            number = ffi.errno
            if number in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(number, os.strerror(number), self.interface)
        view = self._view
        lengths = self._lengths[:count].tolist()
        return [view[index * _FRAME_SIZE : index * _FRAME_SIZE + length] for index, length in enumerate(lengths)]

    def dropped(self) -> int:
        """Frames the kernel dropped because they were not read in time, since the socket was opened."""
        if self._socket.fileno() >= 0:
            # The kernel clears these counters when they are read.
            statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            self._dropped += struct.unpack("=II", statistics)[1]
        return self._dropped

    def close(self) -> None:
        """Stop capturing."""
        self._socket.close()


def link_header_length(interface: str) -> int:
    """Bytes before the IP header of a frame on `interface`.

    Raises:
        OSError: no such interface.
        UnsupportedLinkError: a link type this capture does not know.
    """
    hardware = _hardware_type(interface)
    length = _LINK_HEADER.get(hardware)
    if length is None:
        raise UnsupportedLinkError(errno.EAFNOSUPPORT, f"unsupported link type {hardware}", interface)
    return length


def _hardware_type(interface: str) -> int:
    # SIOCGIFHWADDR, not sysfs: /sys shows the namespace it was mounted in, not the one this process is in.
    request = struct.pack("16s24x", interface.encode())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFHWADDR, request)
    hardware: int = struct.unpack_from("=H", answer, 16)[0]
    return hardware
