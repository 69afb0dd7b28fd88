"""Unicast PIM at one address of ours: what routers send to their rendezvous point, wherever it comes in."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from agent.net.rawlink import DRAIN_SECONDS
from agent.net.socket_options import set_receive_buffer
from agent.protocol.channels import Address

_PROTOCOL_PIM: Final = 103
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78
_DRAIN: Final = 64
_LARGEST_PACKET: Final = 65535
_RECEIVE_BUFFER: Final = 1 << 20
_IPV4_HEADER: Final = 20

OnMessage = Callable[[bytes, Address, Address], None]
"""Called with (PIM message, sender, our address)."""


class PimSocket:
    """PIM messages to and from `address`; fragments come put together, unlike those a packet socket sees.

    Attributes:
        address: ours; it need not be there yet.
        send_errors: messages the kernel did not take.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, address: Address, on_message: OnMessage) -> None:
        """Listen.

        Raises:
            PermissionError: the process lacks CAP_NET_RAW.
            OSError: the address cannot be used.
        """
        self.address = address
        self.send_errors = 0
        self._loop = loop
        self._on_message = on_message
        is_ipv4 = address.version == 4
        family = socket.AF_INET if is_ipv4 else socket.AF_INET6
        self._socket = socket.socket(
            family, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _PROTOCOL_PIM
        )
        try:
            level, option = (socket.IPPROTO_IP, _IP_FREEBIND) if is_ipv4 else (socket.IPPROTO_IPV6, _IPV6_FREEBIND)
            self._socket.setsockopt(level, option, 1)
            set_receive_buffer(self._socket, _RECEIVE_BUFFER)
            self._socket.bind((str(address), 0))
        except BaseException:
            self._socket.close()
            raise
        loop.add_reader(self._socket, self._drain)

    def send(self, message: bytes, destination: Address) -> bool:
        """Send a PIM message from our address; False (and counted) when the kernel did not take it."""
        try:
            self._socket.sendto(message, (str(destination), 0))
        except OSError:
            self.send_errors += 1
            return False
        return True

    def close(self) -> None:
        """Stop listening."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _drain(self) -> None:
        until = self._loop.time() + DRAIN_SECONDS
        for _ in range(_DRAIN):
            if self._socket.fileno() < 0 or self._loop.time() > until:  # it may be closed by what on_message did
                return
            try:
                data, sender = self._socket.recvfrom(_LARGEST_PACKET)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EBADF:
                    return
                continue
            message = self._payload(data)
            with contextlib.suppress(ValueError):
                self._on_message(message, ip_address(sender[0].partition("%")[0]), self.address)

    def _payload(self, data: bytes) -> bytes:
        """An IPv4 raw socket hands out the IP header too, an IPv6 one does not."""
        if self.address.version == 6:
            return data
        header = (data[0] & 0xF) * 4 if data else _IPV4_HEADER
        return data[header:]
