"""A scripted PIM router in a namespace of the lab: says Hello by itself, and else what a test has it say."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim_packet import ALL_PIM_ROUTERS
from agent.protocol.wire import pim
from agent.protocol.wire.errors import WireError
from lab.bench.relay_topology import inside

_HOLDTIME = 30  # a busy machine shall not forget it between two Hellos
_PACKET_SIZE = 1400


class PimNeighbor:
    """A neighbour on one interface; a context manager that says goodbye.

    Attributes:
        heard: (time, sender, message) of every other router, in order; seconds of CLOCK_MONOTONIC.
    """

    def __init__(self, namespace: str, interface: str, address: Address, *, hello_interval: float = 1.0) -> None:
        """`address` is the interface's own, link-local on IPv6."""
        self.heard: list[tuple[float, Address, pim.Message]] = []
        self.address = address
        self._family = Family.of(address)
        self._routers = ALL_PIM_ROUTERS[self._family]
        self._interval = hello_interval
        self._ended = threading.Event()
        with inside(namespace):
            self._socket = self._open(interface)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begin to say Hello."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Say goodbye."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self.say(self._hello(0))
        self._socket.close()

    def say(self, message: pim.Message) -> None:
        """Send a message to all PIM routers of the link."""
        self._socket.sendto(pim.encode(message, self.address, self._routers), self._destination)

    def join(self, upstream: Address, channels: Iterable[Channel], holdtime: int = 60) -> None:
        """Join channels at `upstream`, in as many messages as they need."""
        self._tell(upstream, channels, (), holdtime)

    def prune(self, upstream: Address, channels: Iterable[Channel]) -> None:
        """Prune them."""
        self._tell(upstream, (), channels, 60)

    def hellos(self) -> list[float]:
        """When others said Hello."""
        return [at for at, _, message in self.heard if isinstance(message, pim.Hello)]

    def _tell(self, upstream: Address, joins: Iterable[Channel], prunes: Iterable[Channel], holdtime: int) -> None:
        messages = pim.pack_join_prunes(upstream, holdtime, _entries(joins), _entries(prunes), _PACKET_SIZE)
        for message in messages:
            self.say(message)

    def _hello(self, holdtime: int = _HOLDTIME) -> pim.Hello:
        return pim.Hello(holdtime=holdtime, lan_prune_delay=pim.LanPruneDelay(100, 200), dr_priority=1, generation_id=7)

    def _open(self, interface: str) -> socket.socket:
        family = socket.AF_INET if self._family is Family.IPV4 else socket.AF_INET6
        opened = socket.socket(family, socket.SOCK_RAW, pim.PROTOCOL_PIM)
        index = socket.if_nametoindex(interface)
        if self._family is Family.IPV4:
            member = struct.pack("=4s4si", self._routers.packed, b"", index)
            opened.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", self.address.packed, index)
            )
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            self._destination: tuple[object, ...] = (str(self._routers), 0)
        else:
            member = self._routers.packed + struct.pack("=I", index)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, member)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            opened.bind((str(self.address), 0, 0, index))
            self._destination = (str(self._routers), 0, 0, index)
        return opened

    def _run(self) -> None:
        said = -self._interval
        while not self._ended.is_set():
            now = time.monotonic()
            if now - said >= self._interval:
                self.say(self._hello())
                said = now
            if select.select([self._socket], [], [], 0.05)[0]:
                self._hear()

    def _hear(self) -> None:
        data, sender = self._socket.recvfrom(65535)
        source = ip_address(sender[0].partition("%")[0])
        if source == self.address:
            return
        payload = data[(data[0] & 0x0F) * 4 :] if self._family is Family.IPV4 else data
        with contextlib.suppress(WireError):
            self.heard.append((time.monotonic(), source, pim.decode(payload, source, self._routers)))


def _entries(channels: Iterable[Channel]) -> list[pim.JoinPruneEntry]:
    return [(channel.group, pim.EncodedSource(channel.source)) for channel in channels if channel.source is not None]
