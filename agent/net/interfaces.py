"""The host's interfaces, followed through rtnetlink without ever blocking the event loop.

The socket is our own and pyroute2 only decodes: its asyncio sockets cannot be used again once the receive buffer has
overflowed, which is exactly when a table has to be read afresh.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from agent.net.interface_table import (
    ChangeKind,
    Interface,
    InterfaceAddress,
    InterfaceChange,
    InterfaceTable,
    differences,
)
from agent.net.routing import local_address_towards
from agent.net.socket_options import set_receive_buffer
from agent.protocol.channels import Network

__all__ = [
    "ChangeKind",
    "Interface",
    "InterfaceAddress",
    "InterfaceChange",
    "InterfaceMonitor",
    "local_address_towards",
    "local_networks",
]

_GROUPS: Final = 0x001 | 0x010 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_RTM_GETLINK: Final = 18
_RTM_GETADDR: Final = 22
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST_DUMP: Final = 0x301
_NLM_F_DUMP_INTERRUPTED: Final = 0x10
_LARGEST_CHUNK: Final = 1 << 18
_DRAIN: Final = 16
_RECEIVE_BUFFER: Final = 4 << 20
_FIRST_READ_TIMEOUT: Final = 5.0
_RETRY_DELAY: Final = 1.0

OnChange = Callable[[InterfaceChange], None]


class InterfaceMonitor:
    """Every interface of this network namespace, and a call for each change.

    Links that go, come back under the same name, are renamed, change state or addresses are reported; when the kernel
    says that messages were lost (ENOBUFS), everything is read again and the differences are reported.

    Attributes:
        resynchronisations: how often the table had to be read again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_change: OnChange) -> None:
        """Read the interfaces; afterwards `on_change` is called, from the loop, for each change.

        Reading here waits for the kernel only, which answers a dump at once.

        Raises:
            OSError: no rtnetlink socket could be had.
        """
        self.resynchronisations = 0
        self._loop = loop
        self._on_change = on_change
        self._marshal = MarshalRtnl()
        self._published: dict[int, Interface] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._sequence = 0
        self._socket = self._start()
        self._read_first_state()
        loop.add_reader(self._socket, self._drain)

    @property
    def interfaces(self) -> dict[str, Interface]:
        """The interfaces by name, as last reported."""
        return {interface.name: interface for interface in self._published.values()}

    def get(self, name: str) -> Interface | None:
        """The interface of that name, or None."""
        return next((interface for interface in self._published.values() if interface.name == name), None)

    def close(self) -> None:
        """Stop following; the last state stays readable."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _start(self) -> socket.socket:
        """Open a socket, subscribe, and ask for all links; addresses follow when those are in.

        Changes after the subscription arrive in the same queue as the dump and in the order they happened, so applying
        everything in order to an empty table gives the present state.
        """
        rtnetlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            set_receive_buffer(rtnetlink, _RECEIVE_BUFFER)
            rtnetlink.bind((0, _GROUPS))
            self._begin_dump(rtnetlink)
        except BaseException:
            rtnetlink.close()
            raise
        return rtnetlink

    def _begin_dump(self, rtnetlink: socket.socket) -> None:
        self._table = InterfaceTable()
        self._is_complete = False
        self._is_interrupted = False
        self._request(rtnetlink, _RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0))

    def _request(self, rtnetlink: socket.socket, kind: int, body: bytes) -> None:
        self._sequence += 1
        self._requested = kind
        rtnetlink.send(struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST_DUMP, self._sequence, 0) + body)

    def _read_first_state(self) -> None:
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        while not self._is_complete:
            if not poller.poll(_FIRST_READ_TIMEOUT * 1000):
                raise OSError(errno.ETIMEDOUT, "rtnetlink did not answer")
            self._receive()
        self._published = self._table.interfaces()

    def _drain(self) -> None:
        for _ in range(_DRAIN):
            if self._socket.fileno() < 0:
                return
            try:
                if not self._receive():
                    break
            except OSError:  # ENOBUFS: messages were lost
                self._resynchronise()
                return
        self._publish()

    def _receive(self) -> bool:
        """Take over one datagram; False when there is none."""
        try:
            data, (sender, _) = self._socket.recvfrom(_LARGEST_CHUNK)
        except BlockingIOError:
            return False
        if sender != 0:  # other processes may write to this socket too
            return True
        for message in self._marshal.parse(data):
            self._take(message)
        return True

    def _take(self, message: Mapping[str, Any]) -> None:
        header = message["header"]
        is_reply = header["sequence_number"] == self._sequence and not self._is_complete
        if is_reply and header["flags"] & _NLM_F_DUMP_INTERRUPTED:
            self._is_interrupted = True
        if is_reply and header["type"] == _NLMSG_ERROR:
            raise OSError(errno.EIO, "rtnetlink refused a dump")
        if is_reply and header["type"] == _NLMSG_DONE:
            self._finish_dump()
        elif header.get("error") is None:
            self._table.apply(message)

    def _finish_dump(self) -> None:
        if self._is_interrupted:  # entries may have been skipped
            self._begin_dump(self._socket)
        elif self._requested == _RTM_GETLINK:
            self._request(self._socket, _RTM_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0))
        else:
            self._is_complete = True

    def _publish(self) -> None:
        if not self._is_complete:
            return
        before, self._published = self._published, self._table.interfaces()
        for change in differences(before, self._published):
            if self._socket.fileno() < 0:  # closed by what the owner did about an earlier change
                return
            self._on_change(change)

    def _resynchronise(self) -> None:
        """Start over on a fresh socket; what was published stays until the new table is complete."""
        self._retry = None
        self.resynchronisations += 1
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        try:
            self._socket = self._start()
        except OSError:
            self._retry = self._loop.call_later(_RETRY_DELAY, self._resynchronise)
            return
        self._loop.add_reader(self._socket, self._drain)


def local_networks(interfaces: Iterable[Interface]) -> tuple[Network, ...]:
    """Prefixes of the addresses of `interfaces`, loopback devices left out, each once and in order.

    A packet out of a tunnel whose source lies in one of them is spoofed.
    """
    networks = {
        item.network
        for interface in interfaces
        if not interface.loopback
        for item in interface.addresses
        if item.prefix_length
    }
    return tuple(sorted(networks, key=lambda network: (network.version, network.network_address, network.prefixlen)))
