"""Writing decapsulated packets to the tap device, as trains where the kernel can cut them up again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from agent.dataplane.userspace_flow import Flow
from agent.dataplane.userspace_inner import ones_complement_sum
from agent.dataplane.userspace_trains import AMT_HEADER_SIZE, Member, Train
from agent.protocol.channels import Family

_LARGEST_TRAIN: Final = 65535 - 40  # octets of payload; the total length field of IPv4 and IPv6 bounds it
_MOST_PACKETS: Final = 128
_UDP: Final = 17


class TapOutput:
    """Writes to a tap device.

    Args:
        fd: descriptor of the tap.
        memory: where the members of trains are.
        segmentation: whether the kernel cuts trains into packets.
        dont_fragment: whether trains get the IPv4 flag back on their way; without that, packets carrying it are written
            one by one, since the flag must not be lost (RFC 791 §3.2).

    Attributes:
        errors: packets the kernel refused to take.
    """

    def __init__(self, fd: int, memory: memoryview, *, segmentation: bool, dont_fragment: bool) -> None:
        self._fd = fd
        self._memory = memory
        self._segmentation = segmentation
        self._dont_fragment = dont_fragment
        self.errors = 0

    def write(self, flow: Flow, train: Train) -> int:
        """Write the packets of a train in order; returns how many the kernel took."""
        members = train.members
        trains = self._segmentation and flow.whole_datagram and (self._dont_fragment or not flow.dont_fragment)
        if not trains or len(members) == 1:
            return self._write_packets(flow, train.size, members)
        taken = 0
        for run in self._runs(flow, train):
            if len(run) == 1 or not self._intact(flow, train, run):
                taken += self._write_packets(flow, train.size, run)
            else:
                taken += self._write_train(flow, train.size, run)
        return taken

    def _write_packets(self, flow: Flow, size: int, members: list[Member]) -> int:
        taken = 0
        for position, _, _, _ in members:
            packet = flow.settled(self._memory[position + AMT_HEADER_SIZE : position + size])
            taken += self._emit([flow.frame_start, packet], 1)
        return taken

    def _write_train(self, flow: Flow, size: int, members: list[Member]) -> int:
        memory = self._memory
        skip = AMT_HEADER_SIZE + flow.payload_at
        start = flow.train_start(members[0][1], size - skip, len(members))
        parts: list[bytes | memoryview] = [start]
        parts += [memory[member[0] + skip : member[0] + size] for member in members]
        return self._emit(parts, len(members))

    def _emit(self, parts: list[bytes | memoryview] | list[bytes], count: int) -> int:
        try:
            os.writev(self._fd, parts)
        except OSError:
            self.errors += count
            return 0
        return count

    def _runs(self, flow: Flow, train: Train) -> Iterator[list[Member]]:
        """Cut a train where the kernel would not reproduce it.

        The kernel numbers the packets of a train upwards. Identifications of packets that may be fragmented must
        survive; those of atomic packets mean nothing (RFC 6864 §4.1). A packet without UDP checksum would get one.
        """
        members = train.members
        most = max(1, min(_MOST_PACKETS, _LARGEST_TRAIN // (train.size - AMT_HEADER_SIZE - flow.payload_at)))
        counted = flow.family is Family.IPV4 and not flow.dont_fragment
        first = 0
        for index in range(1, len(members)):
            member, previous = members[index], members[index - 1]
            if index - first == most or not member[3] or not previous[3] or (counted and member[1] != previous[1] + 1):
                yield members[first:index]
                first = index
        yield members[first:]

    def _intact(self, flow: Flow, train: Train, run: list[Member]) -> bool:
        """Whether the UDP checksums of a run are right, so that the kernel's new ones hide no damage.

        Packets that arrived merged had their outer checksum verified. For the others the kernel verified nothing if it
        was zero, so the inner ones are, all in one sum: a run is as safe with it as a packet with its own checksum.
        """
        if not train.single:
            return True
        memory, at = self._memory, AMT_HEADER_SIZE + flow.payload_at - 8
        addresses = flow.headers[12:20] if flow.family is Family.IPV4 else flow.headers[8:40]
        pseudo_header = ones_complement_sum(addresses) + _UDP + train.size - at
        total = sum([int.from_bytes(memory[member[0] + at : member[0] + train.size], "big") for member in run])
        if train.size - at & 1:  # as if padded with a zero octet
            total <<= 8
        return (total + pseudo_header * len(run)) % 0xFFFF == 0
