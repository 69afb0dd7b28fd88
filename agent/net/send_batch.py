"""One batch of equal datagrams to many destinations with sendmmsg(2) and UDP segmentation (UDP_SEGMENT, udp(7)).

Every message of a batch points at the same iovec and, for one local address, at the same control message, so a batch
for a thousand tunnels is made ready by writing a pointer, a length and a segment size. What differs between
destinations, the `struct mmsghdr` itself, is built once per destination and concatenated.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from agent.net.libc import ffi, libc
from agent.protocol.channels import Address, Endpoint, Family

MAX_SEGMENTS: Final = 64
"""Segments in one message: UDP_MAX_SEGMENTS of kernels before 6.8."""

MAX_PAYLOAD: Final = 65_000
"""Bytes in one message; the kernel's limit is 65 535 with the outer IP and UDP headers."""

_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_IP_PKTINFO: Final = 8
_IPV6_PKTINFO: Final = 50
_SO_NO_CHECK: Final = 11
_MESSAGES_PER_CALL: Final = 1024  # UIO_MAXIOV: sendmmsg sends no more in one call

CData: TypeAlias = Any

_GSO_ERRORS: Final = frozenset({errno.EMSGSIZE, errno.EINVAL, errno.EIO, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Destination:
    """A prebuilt message header for one endpoint; `_name` keeps the socket address it points at alive."""

    endpoint: Endpoint
    header: bytes
    _name: CData = field(repr=False)


class Batch:
    """Message headers of several destinations, ready for sendmmsg; `destinations` keeps what they point at alive."""

    __slots__ = ("_buffer", "destinations", "pointer")

    def __init__(self, destinations: Sequence[Destination]) -> None:
        self.destinations = tuple(destinations)
        self._buffer = bytearray().join(destination.header for destination in self.destinations)
        self.pointer = ffi.cast("struct mmsghdr *", ffi.from_buffer(self._buffer))

    def __len__(self) -> int:
        return len(self.destinations)


@dataclass(slots=True)
class Outcome:
    """What became of a batch.

    Attributes:
        position: destinations dealt with; less than all when the socket's buffer was full.
        failed: (index, errno) of destinations the kernel refused.
        unsegmentable: indexes of destinations to which the batch must be sent as single datagrams.
    """

    position: int
    failed: list[tuple[int, int]] = field(default_factory=list)
    unsegmentable: list[int] = field(default_factory=list)


class BatchSender:
    """Sends batches from one non-blocking UDP socket, which stays the caller's, as does the size of its buffer.

    The outer UDP checksum is always filled: a zero checksum would stop the receiver's GRO. Segmentation is probed;
    without it `segmentation` is False and `send` takes single datagrams only.
    """

    def __init__(self, sender: socket.socket, *, segmentation: bool = True) -> None:
        self._socket = sender
        self.family = Family.IPV4 if sender.family == socket.AF_INET else Family.IPV6
        self._vector = ffi.new("struct iovec *")
        self._controls: dict[Address | None, CData] = {}
        self._segment_sizes: list[memoryview] = []
        self._segment = 0
        self.segmentation = segmentation and self._supports_segmentation()
        sender.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 0)

    def fileno(self) -> int:
        """Descriptor of the socket."""
        return self._socket.fileno()

    def destination(self, endpoint: Endpoint, local: Address | None) -> Destination:
        """Prebuild what addresses `endpoint` from `local` (None: the socket's own address or the kernel's choice)."""
        name = ffi.from_buffer(bytearray(_socket_address(endpoint)))
        control = self._control(local)
        header = ffi.new("struct mmsghdr *")
        header.msg_hdr.msg_name = name
        header.msg_hdr.msg_namelen = len(name)
        header.msg_hdr.msg_iov = self._vector
        header.msg_hdr.msg_iovlen = 1
        header.msg_hdr.msg_control = control if len(control) else ffi.NULL
        header.msg_hdr.msg_controllen = len(control)
        return Destination(endpoint, bytes(ffi.buffer(header)), name)

    def send(self, batch: Batch, payload: bytes, segment: int = 0, start: int = 0) -> Outcome:
        """Send `payload` to every destination of `batch` from index `start` on; never blocks.

        Args:
            batch: whom to.
            payload: one datagram, or several of `segment` bytes each of which the last may be shorter.
            segment: bytes of a datagram when there are several, else 0.
            start: first destination.
        """
        data = ffi.from_buffer(payload)
        self._vector.iov_base = data
        self._vector.iov_len = len(payload)
        self._set_segment(segment)
        outcome = Outcome(start)
        total = len(batch)
        descriptor = self._socket.fileno()
        retried = -1
        while outcome.position < total:
            count = min(total - outcome.position, _MESSAGES_PER_CALL)
            sent: int = libc.sendmmsg(descriptor, batch.pointer + outcome.position, count, 0)
            if sent > 0:
                outcome.position += sent
                continue
            number = ffi.errno
            if number == errno.EAGAIN:
                break
            if number == errno.EINTR:
                continue
            if segment and number in _GSO_ERRORS:
                outcome.unsegmentable.append(outcome.position)
            elif retried != outcome.position:
                # An error an earlier datagram caused (ICMP unreachable) is reported on the next send, whomever it is
                # to.
                retried = outcome.position
                continue
            else:
                outcome.failed.append((outcome.position, number))
            outcome.position += 1
        return outcome

    def _supports_segmentation(self) -> bool:
        try:
            self._socket.getsockopt(_SOL_UDP, _UDP_SEGMENT)
        except OSError:
            return False
        return True

    def _control(self, local: Address | None) -> CData:
        control = self._controls.get(local)
        if control is None:
            segment = _control_message(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", 0)) if self.segmentation else b""
            data = bytearray(segment + (_packet_information(local) if local is not None else b""))
            if self.segmentation:
                self._segment_sizes.append(memoryview(data)[16:18].cast("H"))
                self._segment_sizes[-1][0] = self._segment
            control = self._controls[local] = ffi.from_buffer(data)
        return control

    def _set_segment(self, segment: int) -> None:
        if segment != self._segment:
            self._segment = segment
            for size in self._segment_sizes:
                size[0] = segment


def _control_message(level: int, kind: int, data: bytes) -> bytes:
    """Struct cmsghdr and its data, padded as CMSG_SPACE does on 64-bit hosts."""
    length = 16 + len(data)
    return struct.pack("=Qii", length, level, kind) + data + bytes(-length % 8)


def _packet_information(local: Address) -> bytes:
    if local.version == 4:
        return _control_message(socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I4s4x", 0, local.packed))
    return _control_message(socket.IPPROTO_IPV6, _IPV6_PKTINFO, struct.pack("=16sI", local.packed, 0))


def _socket_address(endpoint: Endpoint) -> bytes:
    port = struct.pack("!H", endpoint.port)
    if endpoint.address.version == 4:
        return struct.pack("=H2s4s8x", socket.AF_INET, port, endpoint.address.packed)
    return struct.pack("=H2sI16sI", socket.AF_INET6, port, 0, endpoint.address.packed, 0)
