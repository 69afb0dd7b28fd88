"""What is still in a tunnel when its channel becomes native: it goes out past the kernel's routing, each packet once.

The kernel routes a channel from one interface. What the native way was ahead of the tunnel by was dropped there until
the route moved, and would be dropped in the tunnel afterwards. So for a moment the engine sends itself what the tunnel
brings, until it brings what the kernel has forwarded natively since, or the kernel forwards what was sent here before.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from agent.dataplane.capture_frame import read_frame
from agent.net.packet_socket import PacketSocket
from agent.protocol.channels import Channel, Family

MOST_HANDOVERS: Final = 8
"""Channels at once: each listens on its native interface. Others lose what the native way is ahead by."""

HANDOVER_TIME: Final = 1.0
"""Seconds after which nobody waits for the tunnel's rest any more."""

_MOST_PACKETS: Final = 8192
_MOST_READS: Final = 16
_DIGEST_SIZE: Final = 12
_UDP: Final = 17
_IPV6_HEADER: Final = 40


class Handover:
    """One channel on its way from `tunnels` to the interface `native`.

    Raises:
        OSError: the interface cannot be listened on, or nothing sent past the routing.
    """

    def __init__(self, channel: Channel, tunnels: frozenset[str], native: str, interfaces: Iterable[str]) -> None:
        self.tunnels = tunnels
        self._native: set[bytes] = set()
        self._sent: set[bytes] = set()
        self._outputs: list[socket.socket] = []
        self._addresses = b"" if channel.source is None else channel.source.packed + channel.group.packed
        self._destination = (str(channel.group), 0)
        self._family = channel.family
        self._capture = PacketSocket(native, channel.family)
        try:
            for name in sorted(interfaces):
                self._outputs.append(_output(channel.family, name))
        except OSError:
            self.close()
            raise

    def begin(self) -> None:
        """The route has moved: what was captured before was not forwarded."""
        for _ in range(_MOST_READS):
            if not self._captured():
                return

    def pass_on(self, packets: Iterable[bytes]) -> tuple[int, bool]:
        """Send packets of the tunnel that were not forwarded natively.

        Returns:
            How many were sent, and whether the handover is over.
        """
        captured = self._captured()
        self._native |= captured
        sent, is_over = 0, not captured.isdisjoint(self._sent)
        for packet in packets:
            key = _key(packet)
            if is_over or key in self._native or len(self._sent) + len(self._native) > _MOST_PACKETS:
                return sent, True
            self._sent.add(key)
            sent += self._send(packet)
        return sent, is_over

    def close(self) -> None:
        """Listen and send no more."""
        self._capture.close()
        for output in self._outputs:
            output.close()

    def _captured(self) -> set[bytes]:
        """Keys of what came in natively since the last call."""
        packets: list[bytes] = []
        try:
            for _ in range(_MOST_READS):
                frames = self._capture.receive()
                for frame in frames:
                    read_frame(frame, self._capture.link_header, packets)
                if not frames:
                    break
        except OSError:  # the interface is gone, or carries what cannot be read; the time limit ends it
            pass
        start = 12 if self._family is Family.IPV4 else 8
        end = start + len(self._addresses)
        return {_key(packet) for packet in packets if packet[start:end] == self._addresses}

    def _send(self, packet: bytes) -> bool:
        at = 8 if self._family is Family.IPV4 else 7
        hops = packet[at]
        if hops <= 1:
            return False
        forwarded = packet[:at] + bytes((hops - 1,)) + packet[at + 1 :]  # the kernel makes the checksum of IPv4
        for output in self._outputs:
            try:
                output.sendto(forwarded, self._destination)
            except OSError:  # too long, or the interface is down: lost, as on the way through the kernel
                continue
        return True


class Handovers:
    """All handovers of an engine, by source and group: 8 or 32 octets."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: dict[bytes, Handover] = {}

    def prepare(
        self, channel: Channel, tunnels: frozenset[str], native: str, interfaces: frozenset[str]
    ) -> Handover | None:
        """Listen to the native interface, before the route moves there; None when that cannot be had."""
        if len(self._running) >= MOST_HANDOVERS:
            return None
        try:
            return Handover(channel, tunnels, native, interfaces - {native})
        except OSError:
            return None

    def begin(self, key: bytes, handover: Handover) -> None:
        """The route has moved."""
        self.end(key)
        handover.begin()
        self._running[key] = handover
        self._loop.call_later(HANDOVER_TIME, self._expire, key, handover)

    def pass_on(self, key: bytes, tunnel: str, packets: Iterable[bytes]) -> int:
        """Send what a tunnel still brings of a channel; how many packets were sent."""
        handover = self._running.get(key)
        if handover is None or tunnel not in handover.tunnels:
            return 0
        sent, is_over = handover.pass_on(packets)
        if is_over:
            self.end(key)
        return sent

    def __contains__(self, key: bytes) -> bool:
        return key in self._running

    def end(self, key: bytes) -> None:
        """Forget a channel's handover, if there is one."""
        handover = self._running.pop(key, None)
        if handover is not None:
            handover.close()

    def close(self) -> None:
        """End all."""
        for key in list(self._running):
            self.end(key)

    def _expire(self, key: bytes, handover: Handover) -> None:
        if self._running.get(key) is handover:
            self.end(key)


def _output(family: Family, interface: str) -> socket.socket:
    """A socket that sends whole IP packets of any source out of an interface, with no copy for this host."""
    index = socket.if_nametoindex(interface)
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    opened = socket.socket(socket.AF_INET if family is Family.IPV4 else socket.AF_INET6, kind, socket.IPPROTO_RAW)
    try:
        if family is Family.IPV4:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", index))
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        else:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    except OSError:
        opened.close()
        raise
    return opened


def _key(packet: bytes) -> bytes:
    """What is the same in both copies of a packet: no hop count, no checksum."""
    if packet[0] >> 4 == Family.IPV6:
        start, protocol, fragment = _IPV6_HEADER, packet[6], b""
    else:
        start, protocol = (packet[0] & 0x0F) * 4, packet[9]
        is_fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF
        fragment = packet[4:8] if is_fragment else b""
    digest = blake2b(fragment, digest_size=_DIGEST_SIZE)
    if protocol == _UDP and not fragment:
        digest.update(packet[start : start + 4])
        digest.update(packet[start + 8 :])
    else:
        digest.update(packet[start:])
    return digest.digest()
