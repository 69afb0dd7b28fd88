"""Receive many UDP datagrams with one system call.

recvmmsg(2) and UDP_GRO (udp(7)) work together here: a message is either one datagram or a train of equal ones that the
kernel merged, at most 64 KiB long. How many messages one call may fetch adapts to what the sender allows: datagrams
without an outer checksum never merge, so many messages are fetched at once; trains are fetched few at a time, so that
what was copied from the kernel is still in the cache when it is written out again.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from agent.net.libc import ffi, libc
from agent.net.socket_options import set_receive_buffer
from agent.protocol.channels import Address, Endpoint

MOST_MESSAGES: Final = 64
"""Messages one call fetches at most."""

SLOT_SIZE: Final = 65536 + 192
"""Octets between two messages in memory; no power of two, which would share cache sets."""

_BYTES_AT_ONCE: Final = 256 * 1024
_NAME_SIZE: Final = 32
_CONTROL_SIZE: Final = 128
_MSG_DONTWAIT: Final = 0x40
_SOL_UDP: Final = 17
_UDP_NO_CHECK6_RX: Final = 102
_UDP_GRO: Final = 104
_SO_MEMINFO: Final = 55
_CONTROL_HEADER: Final = struct.Struct("@Lii")

_MESSAGE_SIZE: Final = ffi.sizeof("struct mmsghdr")
_LENGTH_AT: Final = ffi.offsetof("struct mmsghdr", "msg_len")
_CONTROL_LENGTH_AT: Final = ffi.offsetof("struct msghdr", "msg_controllen")
_WORD: Final = ffi.sizeof("size_t")  # an unsigned long on every Linux


Message: TypeAlias = tuple[int, int, int, int, bytes]
"""One message, a plain tuple because there may be a million of them a second:

- offset in the receiver's memory,
- length in octets,
- size of the datagrams it is made of; the last one may be shorter,
- TOS or Traffic Class of the outer header,
- the sender's socket address, comparable with `socket_address`.
"""


class BatchReceiver:
    """Memory for one batch, shared by every socket of a process: what a call returned is valid until the next call.

    Attributes:
        memory: where the messages are.
    """

    def __init__(self) -> None:
        # Anonymous pages cost nothing until a message touches them.
        self._pages = mmap.mmap(-1, MOST_MESSAGES * SLOT_SIZE)
        self.memory = memoryview(self._pages)
        self._names = bytearray(MOST_MESSAGES * _NAME_SIZE)
        self._control = bytearray(MOST_MESSAGES * _CONTROL_SIZE)
        self._vectors = ffi.new("struct iovec[]", MOST_MESSAGES)
        self._messages = ffi.new("struct mmsghdr[]", MOST_MESSAGES)
        self._addresses = [ffi.from_buffer(part) for part in (self._pages, self._names, self._control)]
        data, names, control = self._addresses
        for index in range(MOST_MESSAGES):
            self._vectors[index].iov_base = data + index * SLOT_SIZE
            self._vectors[index].iov_len = SLOT_SIZE
            header = self._messages[index].msg_hdr
            header.msg_name, header.msg_namelen = names + index * _NAME_SIZE, _NAME_SIZE
            header.msg_iov, header.msg_iovlen = self._vectors + index, 1
            header.msg_control, header.msg_controllen = control + index * _CONTROL_SIZE, _CONTROL_SIZE
        self._headers = memoryview(ffi.buffer(self._messages)).cast("B")
        self._lengths = self._headers.cast("I")[_LENGTH_AT // 4 :: _MESSAGE_SIZE // 4]
        self._control_lengths = self._headers.cast("L")[_CONTROL_LENGTH_AT // _WORD :: _MESSAGE_SIZE // _WORD]
        self._fresh = bytes(self._headers)
        self._used = 0
        self._descriptor = -1
        self._parsed: dict[bytes, tuple[int, int]] = {}

    def forget_sockets(self) -> None:
        """A new socket may have the number of one that was closed."""
        self._descriptor = -1

    def receive(self, descriptor: int, most: int) -> list[Message]:
        """Fetch up to `most` messages without waiting; an empty list when nothing is there.

        Raises:
            OSError: the error pending on the socket.
        """
        if self._used:  # the kernel overwrote the sizes of names and control data
            dirty = self._used * _MESSAGE_SIZE
            self._headers[:dirty] = self._fresh[:dirty]
            self._used = 0
        if descriptor != self._descriptor:  # a shorter address would end in what is left of a longer one
            self._descriptor = descriptor
            self._names[:] = bytes(len(self._names))
            self._control[:] = bytes(len(self._control))
        count = libc.recvmmsg(descriptor, self._messages, most, _MSG_DONTWAIT, ffi.NULL)
        if count <= 0:
            if count < 0 and ffi.errno not in (errno.EAGAIN, errno.EINTR):
                raise OSError(ffi.errno, os.strerror(ffi.errno))
            return []
        self._used = count
        return self._collect(count)

    def _collect(self, count: int) -> list[Message]:
        lengths = self._lengths[:count].tolist()
        control_lengths = self._control_lengths[:count].tolist()
        names = bytes(self._names[: count * _NAME_SIZE])
        control = bytes(self._control[: count * _CONTROL_SIZE])
        name, first = names[:_NAME_SIZE], control[: control_lengths[0]]
        segment, traffic_class = self._parse(first)
        if count > 1 and (
            names != name * count
            or control != control[:_CONTROL_SIZE] * count
            or control_lengths.count(control_lengths[0]) != count
        ):
            return self._collect_mixed(lengths, control_lengths, names, control)
        return [
            (index * SLOT_SIZE, length, segment or length, traffic_class, name) for index, length in enumerate(lengths)
        ]

    def _collect_mixed(
        self, lengths: list[int], control_lengths: list[int], names: bytes, control: bytes
    ) -> list[Message]:
        messages = []
        for index, length in enumerate(lengths):
            at = index * _CONTROL_SIZE
            segment, traffic_class = self._parse(control[at : at + control_lengths[index]])
            name = names[index * _NAME_SIZE : (index + 1) * _NAME_SIZE]
            messages.append((index * SLOT_SIZE, length, segment or length, traffic_class, name))
        return messages

    def _parse(self, control: bytes) -> tuple[int, int]:
        """Segment size (0: not a train) and traffic class out of control data."""
        parsed = self._parsed.get(control)
        if parsed is None:
            if len(self._parsed) > 1024:
                self._parsed.clear()
            parsed = self._parsed[control] = parse_control(control)
        return parsed


def parse_control(control: bytes) -> tuple[int, int]:
    """Segment size (UDP_GRO; 0 when absent) and traffic class (IP_TOS, IPV6_TCLASS) out of control messages."""
    segment = traffic_class = position = 0
    header = _CONTROL_HEADER.size
    while position + header <= len(control):
        length, level, kind = _CONTROL_HEADER.unpack_from(control, position)
        data = control[position + header : position + length]
        if (level, kind) == (_SOL_UDP, _UDP_GRO) and len(data) >= 4:
            (segment,) = struct.unpack_from("=i", data)
        elif (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS) and data:
            traffic_class = data[0]
        elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) and len(data) >= 4:
            traffic_class = struct.unpack_from("=i", data)[0] & 0xFF
        position += max(header, -(-length // _WORD) * _WORD)
    return segment, traffic_class


def messages_at_once(messages: list[Message]) -> int:
    """How many messages the next call should fetch, judged by the sizes of the last ones."""
    average = sum(message[1] for message in messages) // len(messages)
    return max(4, min(MOST_MESSAGES, _BYTES_AT_ONCE // max(average, 1)))


def prepare_socket(receiving: socket.socket, buffer_size: int) -> bool:
    """Ask a UDP socket for trains, outer traffic classes and datagrams without checksum; True where it gives trains.

    Args:
        receiving: the socket.
        buffer_size: octets of receive buffer wanted; beyond the system's limit only with CAP_NET_ADMIN.
    """
    receiving.setblocking(False)
    set_receive_buffer(receiving, buffer_size)
    if receiving.family == socket.AF_INET6:
        receiving.setsockopt(_SOL_UDP, _UDP_NO_CHECK6_RX, 1)
        receiving.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    with contextlib.suppress(OSError):  # an IPv6 socket may carry mapped IPv4 too, unless it is IPv6 only
        receiving.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    return ask_for_trains(receiving, wanted=True)


def ask_for_trains(receiving: socket.socket, *, wanted: bool) -> bool:
    """Have the kernel join datagrams of a socket to trains, or each left alone; False where it has no say in that."""
    try:
        receiving.setsockopt(_SOL_UDP, _UDP_GRO, int(wanted))
    except OSError:
        return False
    return True


def dropped_by_socket(receiving: socket.socket) -> int:
    """Datagrams the kernel dropped because the socket's buffer was full, since the socket came to be."""
    try:
        information = receiving.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
    except OSError:
        return 0
    return int(struct.unpack_from("=I", information, 32)[0]) if len(information) >= 36 else 0


def socket_address(address: Address, port: int, family: int) -> bytes:
    """An address as the kernel writes it for a socket of `family`, zero-padded to 32 octets."""
    network_port = port.to_bytes(2, "big")
    start = struct.pack("=H", family) + network_port
    if family == socket.AF_INET:
        return (start + address.packed).ljust(_NAME_SIZE, b"\0")
    packed = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
    return (start + bytes(4) + packed).ljust(_NAME_SIZE, b"\0")


def endpoint_of(name: bytes) -> Endpoint:
    """Address and port out of a socket address; an IPv4-mapped address comes out as IPv4."""
    (family,) = struct.unpack_from("=H", name)
    port = int.from_bytes(name[2:4], "big")
    if family == socket.AF_INET:
        return Endpoint(IPv4Address(name[4:8]), port)
    address = IPv6Address(name[8:24])
    return Endpoint(address.ipv4_mapped or address, port)
