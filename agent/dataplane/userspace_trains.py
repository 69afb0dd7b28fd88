"""Sorting received datagrams into trains of one inner flow, so that one write can carry many of them.

A train holds equal-sized AMT data messages whose inner headers differ in nothing but the IPv4 identification, the
header checksum that follows from it, and the UDP checksum. Channels interleaved by the sender are told apart here. The
order of packets within an inner flow is kept: a packet that does not fit its flow's open train closes it for good.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, TypeAlias

from agent.protocol.channels import Family

AMT_HEADER_SIZE: Final = 2
IPV4_HEADERS: Final = AMT_HEADER_SIZE + 20 + 8
IPV6_HEADERS: Final = AMT_HEADER_SIZE + 40 + 8

Member: TypeAlias = tuple[int, int, int, int]
"""Offset in memory; IPv4 identification and header checksum (0 in IPv6); UDP checksum."""

Key: TypeAlias = tuple[int, int, bytes, bytes, bytes]
"""Datagram size, first octet of the AMT header, and the parts of the inner headers that do not vary within a train."""

_ipv4_head: Final = struct.Struct(">Bx4sH4sH14sH")
_ipv6_head: Final = struct.Struct(">Bx8s38sH")
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

    def add(self, start: int, length: int, segment: int) -> None:
        """Sort a message of `length` octets at offset `start`, made of datagrams of `segment` octets; none is empty."""
        if length <= segment:
            self._add_single(start, length)
            return
        whole = length // segment
        if segment >= IPV6_HEADERS and self._memory[start + AMT_HEADER_SIZE] >> 4 == 6:
            self._add_ipv6(start, segment, whole)
        elif segment >= IPV4_HEADERS:
            self._add_ipv4(start, segment, whole)
        else:
            for index in range(whole):
                self._add_unsorted(start + index * segment, segment)
        if length % segment:
            self._add_single(start + whole * segment, length % segment)

    def _add_single(self, start: int, length: int) -> None:
        """Sort a datagram that came alone; the same as a train of one, in a third of the time."""
        train: Train | None
        if length >= IPV6_HEADERS and self._memory[start + AMT_HEADER_SIZE] >> 4 == 6:
            kind, before, flow, udp_checksum = _ipv6_head.unpack_from(self._memory, start)
            key = (length, kind, before, b"", flow)
            train = self._open.get(key) or self._start_ipv6(key)
            train.members.append((start, 0, 0, udp_checksum))
        elif length >= IPV4_HEADERS:
            kind, before, identification, middle, checksum, flow, udp_checksum = _ipv4_head.unpack_from(
                self._memory, start
            )
            key = (length, kind, before, middle, flow)
            train = self._open.get(key) or self._start_ipv4(key)
            train.members.append((start, identification, checksum, udp_checksum))
        else:
            self._add_unsorted(start, length)
            return
        train.single = True

    def _add_ipv4(self, start: int, segment: int, count: int) -> None:
        open_trains = self._open
        part = self._memory[start : start + count * segment]
        fields = _ipv4_fields(segment).iter_unpack(part)
        positions = range(start, start + count * segment, segment)
        for position, (kind, before, identification, middle, checksum, flow, udp_checksum) in zip(
            positions, fields, strict=True
        ):
            key = (segment, kind, before, middle, flow)
            train = open_trains.get(key) or self._start_ipv4(key)
            train.members.append((position, identification, checksum, udp_checksum))

    def _add_ipv6(self, start: int, segment: int, count: int) -> None:
        open_trains = self._open
        part = self._memory[start : start + count * segment]
        fields = _ipv6_fields(segment).iter_unpack(part)
        positions = range(start, start + count * segment, segment)
        for position, (kind, before, flow, udp_checksum) in zip(positions, fields, strict=True):
            key = (segment, kind, before, b"", flow)
            train = open_trains.get(key) or self._start_ipv6(key)
            train.members.append((position, 0, 0, udp_checksum))

    def _start_ipv4(self, key: Key) -> Train:
        fragment = key[3][0] & 0x3F or key[3][1]  # whose ports are out of sight
        return self._start(key, key[4][:12], barrier=bool(fragment))

    def _start_ipv6(self, key: Key) -> Train:
        extended = key[2][6] != 17  # extension headers, perhaps a fragment
        return self._start(key, key[4][:36], barrier=extended)

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
    return struct.Struct(f"{_ipv4_head.format}{segment - IPV4_HEADERS}x")


@lru_cache(maxsize=256)
def _ipv6_fields(segment: int) -> struct.Struct:
    """AMT type; version to hop limit; S, G, ports, UDP length; UDP checksum."""
    return struct.Struct(f"{_ipv6_head.format}{segment - IPV6_HEADERS}x")
