"""Sorting received datagrams into trains of one inner flow, so that one write can carry many of them.

A train holds equal-sized AMT data messages whose inner headers differ in nothing but the IPv4 identification, the
header checksum that follows from it, and the UDP checksum. Channels interleaved by the sender are told apart here. The
order of packets within an inner flow is kept: a packet that does not fit its flow's open train closes it for good.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, TypeAlias

from agent.net.receive_batch import Message
from agent.protocol.channels import Family

AMT_HEADER_SIZE: Final = 2
IPV4_HEADERS: Final = AMT_HEADER_SIZE + 20 + 8
IPV6_HEADERS: Final = AMT_HEADER_SIZE + 40 + 8

Member: TypeAlias = tuple[int, int, int, int]
"""Offset in memory; IPv4 identification and header checksum (0 in IPv6); UDP checksum."""

Key: TypeAlias = tuple[int, int, bytes, bytes, bytes]
"""Datagram size, first octet of the AMT header, and the parts of the inner headers that do not vary within a train."""

_UNSORTED: Final[Key] = (0, 0, b"", b"", b"")


class Train:
    """Datagrams that one decision covers.

    Attributes:
        key: what they have in common.
        kind: first octet of the AMT header.
        size: octets of each datagram, AMT header included.
        members: the datagrams in order of arrival.
        single: True when a datagram came alone, so that its outer checksum may have been zero, which the kernel
            verifies nothing by.
    """

    __slots__ = ("key", "kind", "members", "single", "size")

    def __init__(self, key: Key, kind: int, size: int) -> None:
        self.key = key
        self.kind = kind
        self.size = size
        self.members: list[Member] = []
        self.single = False

    @property
    def family(self) -> Family | None:
        """Family whose header layout sorted it; None for a datagram too short to be sorted."""
        if self.key is _UNSORTED:
            return None
        return Family.IPV4 if self.key[3] else Family.IPV6


class TrainSorter:
    """Sorts the messages of one batch; make a new one for each batch."""

    __slots__ = ("_latest", "_memory", "_open", "trains")

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._open: dict[Key, Train] = {}
        self._latest: dict[bytes, Key] = {}
        self.trains: list[Train] = []

    def add(self, message: Message) -> None:
        """Sort a message; it must not be empty."""
        start, length, segment, _, _ = message
        if length <= segment:
            self._add_single(start, length)
            return
        whole = length // segment
        if self._memory[start + AMT_HEADER_SIZE] >> 4 == 6 and segment >= IPV6_HEADERS:
            self._add_ipv6(start, segment, whole)
        elif segment >= IPV4_HEADERS:
            self._add_ipv4(start, segment, whole)
        else:
            for index in range(whole):
                self._add_unsorted(start + index * segment, segment)
        if length % segment:
            self._add_single(start + whole * segment, length % segment)

    def _add_single(self, start: int, length: int) -> None:
        if length > AMT_HEADER_SIZE and self._memory[start + AMT_HEADER_SIZE] >> 4 == 6 and length >= IPV6_HEADERS:
            self._add_ipv6(start, length, 1).single = True
        elif length >= IPV4_HEADERS:
            self._add_ipv4(start, length, 1).single = True
        else:
            self._add_unsorted(start, length)

    def _add_ipv4(self, start: int, segment: int, count: int) -> Train:
        open_trains = self._open
        train: Train | None = None
        part = self._memory[start : start + count * segment]
        fields = _ipv4_fields(segment).iter_unpack(part)
        positions = range(start, start + count * segment, segment)
        for position, (kind, before, identification, middle, checksum, flow, udp_checksum) in zip(
            positions, fields, strict=True
        ):
            key = (segment, kind, before, middle, flow)
            train = open_trains.get(key)
            if train is None:
                barrier = middle[0] & 0x3F or middle[1]  # a fragment, whose ports are out of sight
                train = self._start(key, flow[:12], barrier=bool(barrier))
            train.members.append((position, identification, checksum, udp_checksum))
        assert train is not None
        return train

    def _add_ipv6(self, start: int, segment: int, count: int) -> Train:
        open_trains = self._open
        train: Train | None = None
        part = self._memory[start : start + count * segment]
        fields = _ipv6_fields(segment).iter_unpack(part)
        positions = range(start, start + count * segment, segment)
        for position, (kind, before, flow, udp_checksum) in zip(positions, fields, strict=True):
            key = (segment, kind, before, b"", flow)
            train = open_trains.get(key)
            if train is None:
                barrier = before[6] != 17  # extension headers, perhaps a fragment
                train = self._start(key, flow[:36], barrier=barrier)
            train.members.append((position, 0, 0, udp_checksum))
        assert train is not None
        return train

    def _add_unsorted(self, start: int, length: int) -> None:
        train = Train(_UNSORTED, self._memory[start], length)
        train.members.append((start, 0, 0, 0))
        self.trains.append(train)

    def _start(self, key: Key, flow: bytes, *, barrier: bool) -> Train:
        """Open a train and close the one the flow had, or all of them at a barrier."""
        if barrier:
            self._open.clear()
            self._latest.clear()
        else:
            previous = self._latest.get(flow)
            if previous is not None:
                self._open.pop(previous, None)
            self._latest[flow] = key
        train = Train(key, key[1], key[0])
        self._open[key] = train
        self.trains.append(train)
        return train


@lru_cache(maxsize=256)
def _ipv4_fields(segment: int) -> struct.Struct:
    """AMT type; version to total length; identification; flags to protocol; checksum; S, G, ports, length; checksum."""
    return struct.Struct(f">Bx4sH4sH14sH{segment - IPV4_HEADERS}x")


@lru_cache(maxsize=256)
def _ipv6_fields(segment: int) -> struct.Struct:
    """AMT type; version to hop limit; S, G, ports, UDP length; UDP checksum."""
    return struct.Struct(f">Bx8s38sH{segment - IPV6_HEADERS}x")
