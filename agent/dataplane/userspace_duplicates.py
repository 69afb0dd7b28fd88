"""Live-live: of every packet that comes through several tunnels the copy that comes first is forwarded.

Packets are told apart by what their source wrote: an RTP packet by ports, SSRC, sequence number and timestamp
(RFC 3550 §5.1; the 16 bits of the sequence number may wrap as often as they like), any other datagram by a hash of
ports and payload, and of the IPv4 identification where that means something (RFC 6864 §4.1). A source may well say the
same twice; so copies are counted per tunnel, and the n-th copy is forwarded when no tunnel has brought n copies yet:
two equal packets from one tunnel are two packets, one from each of two tunnels are one.

What was seen is remembered for the duplicate window at least and twice that at most.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from agent.dataplane.userspace_flow import Flow
from agent.dataplane.userspace_trains import AMT_HEADER_SIZE, Member, Train
from agent.protocol.channels import Family

REMEMBERED: Final = 32_768
"""Packets of a channel kept in each of two generations; a faster channel shortens its own window."""

_MOST_TUNNELS: Final = 8
_MOST_COPIES: Final = 0xFFFF
_COUNT_BITS: Final = 16
_DIGEST_SIZE: Final = 12
_RTP_HEADER_SIZE: Final = 12
_RTP_VERSION: Final = 2
_RTCP_TYPES: Final = range(64, 96)  # the second octet of RTCP without its first bit, RFC 5761 §4
_KEPT_OF_IPV4: Final = (slice(4, 8), slice(9, 10), slice(12, None))  # all but TOS, TTL and checksum
_KEPT_OF_IPV6: Final = (slice(4, 7), slice(8, None))  # all but Traffic Class, Flow Label and Hop Limit

KeyOf = Callable[[Member], bytes]


class CopyFilter:
    """Recognises copies of one channel's packets.

    Args:
        window: seconds two copies may be apart.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}
        self._turned = float("-inf")
        self._shifts: dict[str, int] = {}

    def first_copies(self, memory: memoryview, flow: Flow, train: Train, tunnel: str, now: float) -> list[Member]:
        """Members of a train from `tunnel` that are not copies of what was forwarded, in order."""
        self._turn(now)
        shift = self._shift_of(tunnel)
        key_of = _datagram_key(memory, flow, train.size) if flow.whole_datagram else _packet_key(memory, train.size)
        return [member for member in train.members if self._is_first(key_of(member), shift)]

    def _is_first(self, key: bytes, shift: int) -> bool:
        """Count a copy; what is kept of a packet is how many were forwarded, and how many each tunnel brought."""
        table = self._old if key in self._old else self._young
        record = table.get(key, 0)
        copies = (record >> shift & _MOST_COPIES) + 1
        if copies > _MOST_COPIES:
            return True
        is_first = copies > record & _MOST_COPIES
        table[key] = record + (1 << shift) + is_first
        return is_first

    def _turn(self, now: float) -> None:
        """Let the younger generation grow old when its time is over or it is full."""
        age = now - self._turned
        if age < self._window and len(self._young) < REMEMBERED:
            return
        self._old = self._young if age < 2 * self._window else {}
        self._young = {}
        self._turned = now

    def _shift_of(self, tunnel: str) -> int:
        """Where in a record a tunnel's copies are counted; after many changes of tunnels it begins anew."""
        shift = self._shifts.get(tunnel)
        if shift is None:
            if len(self._shifts) == _MOST_TUNNELS:
                self._shifts.clear()
                self._young, self._old = {}, {}
            shift = _COUNT_BITS * (1 + len(self._shifts))
            self._shifts[tunnel] = shift
        return shift


def _datagram_key(memory: memoryview, flow: Flow, size: int) -> KeyOf:
    """Keys of whole UDP datagrams of one flow."""
    ports = flow.headers[-8:-4]
    skip = AMT_HEADER_SIZE + flow.payload_at
    is_counted = flow.family is Family.IPV4 and not flow.dont_fragment
    may_be_rtp = size - skip >= _RTP_HEADER_SIZE

    def key_of(member: Member) -> bytes:
        start = member[0] + skip
        if may_be_rtp and memory[start] >> 6 == _RTP_VERSION and memory[start + 1] & 0x7F not in _RTCP_TYPES:
            return ports + memory[start : start + _RTP_HEADER_SIZE]
        digest = blake2b(ports, digest_size=_DIGEST_SIZE)
        if is_counted:
            digest.update(member[1].to_bytes(2, "big"))
        digest.update(memory[start : member[0] + size])
        return digest.digest()

    return key_of


def _packet_key(memory: memoryview, size: int) -> KeyOf:
    """Keys of anything else, fragments above all: everything counts but what routers change on the way."""

    def key_of(member: Member) -> bytes:
        packet = memory[member[0] + AMT_HEADER_SIZE : member[0] + size]
        is_ipv6 = packet[0] >> 4 == 6
        digest = blake2b(digest_size=_DIGEST_SIZE)
        for part in _KEPT_OF_IPV6 if is_ipv6 else _KEPT_OF_IPV4:
            digest.update(packet[part])
        return digest.digest()

    return key_of
