"""Reassembly of IPv4 and IPv6 fragments, bounded in memory and time (RFC 791 §3.2, RFC 8200 §4.5).

Overlapping fragments are never put together: the whole packet is given up (RFC 5722 for IPv6, done for IPv4 as well).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Final

from agent.protocol.wire.ip import IPPacket

DEFAULT_LIFETIME: Final = 5.0
DEFAULT_LIMIT_BYTES: Final = 4 << 20
_LONGEST_PAYLOAD: Final = 0xFFFF
_MOST_FRAGMENTS: Final = 128  # 65535 bytes in the smallest fragments any link makes on purpose, and some more
_ACCOUNTED_OVERHEAD: Final = 256  # bytes a kept fragment costs beside its payload, so that tiny ones are bounded too


@dataclass(slots=True)
class _Partial:
    deadline: float
    first: IPPacket | None = None
    parts: dict[int, bytes] = field(default_factory=dict)
    received: int = 0
    total: int | None = None
    cost: int = 0


class Reassembler:
    """Puts fragments together.

    Packets are given up, oldest first, when they are `lifetime` seconds old or when all fragments kept cost more than
    `limit_bytes`.

    Attributes:
        reassembled: packets put together.
        abandoned: packets given up: too old, too many, too long, overlapping or contradicting.
    """

    def __init__(self, lifetime: float = DEFAULT_LIFETIME, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.reassembled = 0
        self.abandoned = 0
        self._lifetime = lifetime
        self._limit = limit_bytes
        self._cost = 0
        self._partials: dict[Hashable, _Partial] = {}  # in the order their first fragment came

    def __len__(self) -> int:
        return len(self._partials)

    @property
    def cost(self) -> int:
        """Bytes accounted for what is kept."""
        return self._cost

    def add(self, fragment: IPPacket, now: float) -> IPPacket | None:
        """Take a fragment; returns the whole packet when this was the last one missing.

        The whole packet has the header of the first fragment. A packet that is no fragment is returned as it is.
        """
        self.expire(now)
        if not fragment.is_fragment:
            return fragment
        key = (fragment.source, fragment.destination, fragment.protocol, fragment.identification)
        partial = self._partials.get(key)
        if partial is None:
            partial = self._partials[key] = _Partial(now + self._lifetime)
        elif partial.parts.get(fragment.fragment_offset) == fragment.payload:
            return None  # an exact duplicate
        if not _fits(partial, fragment):
            self._abandon(key)
            return None
        self._keep(partial, fragment)
        if partial.total is not None and partial.first is not None and partial.received == partial.total:
            self._remove(key)
            self.reassembled += 1
            return _join(partial.first, partial.parts)
        while self._cost > self._limit:
            self._abandon(next(iter(self._partials)))
        return None

    def expire(self, now: float) -> None:
        """Give up what is too old; `add` does so as well."""
        while self._partials:
            key, partial = next(iter(self._partials.items()))
            if partial.deadline > now:
                return
            self._abandon(key)

    def _keep(self, partial: _Partial, fragment: IPPacket) -> None:
        partial.parts[fragment.fragment_offset] = fragment.payload
        partial.received += len(fragment.payload)
        if fragment.fragment_offset == 0:
            partial.first = fragment
        if not fragment.more_fragments:
            partial.total = fragment.fragment_offset + len(fragment.payload)
        cost = len(fragment.payload) + _ACCOUNTED_OVERHEAD
        partial.cost += cost
        self._cost += cost

    def _remove(self, key: Hashable) -> None:
        self._cost -= self._partials.pop(key).cost

    def _abandon(self, key: Hashable) -> None:
        self._remove(key)
        self.abandoned += 1


def _fits(partial: _Partial, fragment: IPPacket) -> bool:
    """Whether a fragment is possible beside those already there."""
    start, end = fragment.fragment_offset, fragment.fragment_offset + len(fragment.payload)
    if not fragment.payload or end > _LONGEST_PAYLOAD or len(partial.parts) >= _MOST_FRAGMENTS:
        return False
    if fragment.more_fragments:
        if len(fragment.payload) % 8 or (partial.total is not None and end >= partial.total):
            return False
    elif partial.total is not None or any(offset >= start for offset in partial.parts):
        return False
    return all(end <= offset or start >= offset + len(part) for offset, part in partial.parts.items())


def _join(first: IPPacket, parts: dict[int, bytes]) -> IPPacket:
    payload = b"".join(parts[offset] for offset in sorted(parts))
    return replace(first, payload=payload, more_fragments=False, identification=0)
