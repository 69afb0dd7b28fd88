"""Many Joins and Prunes packed into few messages that fit the link (RFC 7761 §4.9.5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from agent.protocol.channels import Address, Family
from agent.protocol.wire.pim_addresses import GROUP_SIZE, HOST_MASK, SOURCE_SIZE, UNICAST_SIZE
from agent.protocol.wire.pim_messages import EncodedSource, JoinPrune, JoinPruneGroup

JoinPruneEntry: TypeAlias = tuple[Address, EncodedSource]
"""A group and one source of it to join or to prune."""

_IP_HEADER: Final = {Family.IPV4: 20, Family.IPV6: 40}
_PIM_HEADER: Final = 4
_COUNTS: Final = 4  # of groups and the holdtime, and of joins and prunes in each group
_MOST_GROUPS: Final = 255
_MOST_SOURCES: Final = 0xFFFF


def pack_join_prunes(
    upstream: Address, holdtime: int, joins: Iterable[JoinPruneEntry], prunes: Iterable[JoinPruneEntry], size: int
) -> list[JoinPrune]:
    """Messages that together say all of `joins` and `prunes`, groups in the order they come first.

    What a group says about its shared tree, (*,G) and (S,G,rpt), stays in one message: split, a receiver would take
    the missing prunes for ended. When that alone is too long for one, (S,G,rpt) Prunes of the highest addresses are
    left out, and their traffic comes (RFC 7761 §4.9.5.2). (S,G) entries of one group may be spread over messages.

    Args:
        upstream: neighbour the messages are meant for.
        holdtime: seconds, of all messages.
        joins: group and source of each Join.
        prunes: group and source of each Prune.
        size: largest IP packet in bytes.

    Raises:
        ValueError: `size` has no room for one group with one source.
    """
    family = Family.of(upstream)
    room = size - _IP_HEADER[family] - _PIM_HEADER - UNICAST_SIZE[family] - _COUNTS
    if room < GROUP_SIZE[family] + _COUNTS + SOURCE_SIZE[family]:
        raise ValueError(f"no PIM Join fits {size} bytes")
    wishes: dict[Address, _Wishes] = {}
    for entries, joined in ((joins, True), (prunes, False)):
        for group, source in entries:
            if (wish := wishes.get(group)) is None:
                wish = wishes[group] = _Wishes()
            wish.add(source, joined=joined)
    packing = _Packing(family, room)
    for group, wish in wishes.items():
        packing.add(group, wish)
    return [JoinPrune(upstream, holdtime, tuple(groups)) for groups in packing.messages if groups]


@dataclass(slots=True)
class _Wishes:
    """What one group says; `shared` is of its shared tree, `plain` are (S,G)."""

    shared_joins: list[EncodedSource] = field(default_factory=list)
    shared_prunes: list[EncodedSource] = field(default_factory=list)
    joins: deque[EncodedSource] = field(default_factory=deque)
    prunes: deque[EncodedSource] = field(default_factory=deque)

    def add(self, source: EncodedSource, *, joined: bool) -> None:
        shared = source.rpt or source.wildcard
        if joined:
            (self.shared_joins if shared else self.joins).append(source)
        else:
            (self.shared_prunes if shared else self.prunes).append(source)

    def limit(self, most: int) -> None:
        """Keep at most `most` entries of the shared tree; its wildcards and lowest addresses first."""
        for entries in (self.shared_joins, self.shared_prunes):
            if len(entries) > most:
                entries.sort(key=lambda source: (not source.wildcard, source.address.packed))
                del entries[most:]
            most -= len(entries)

    def take(self, most: int) -> tuple[tuple[EncodedSource, ...], tuple[EncodedSource, ...]]:
        """Joins and prunes for the next group list: all of the shared tree, then (S,G) up to `most` in all."""
        joins, prunes = self.shared_joins, self.shared_prunes
        self.shared_joins, self.shared_prunes = [], []
        left = most - len(joins) - len(prunes)
        while left > 0 and self.joins:
            joins.append(self.joins.popleft())
            left -= 1
        while left > 0 and self.prunes:
            prunes.append(self.prunes.popleft())
            left -= 1
        return tuple(joins), tuple(prunes)

    @property
    def shared(self) -> int:
        return len(self.shared_joins) + len(self.shared_prunes)

    def __bool__(self) -> bool:
        return bool(self.shared or self.joins or self.prunes)


class _Packing:
    """Group lists of messages of `room` bytes each, filled in order."""

    def __init__(self, family: Family, room: int) -> None:
        self.messages: list[list[JoinPruneGroup]] = []
        self._mask = HOST_MASK[family]
        self._group_size = GROUP_SIZE[family] + _COUNTS
        self._source_size = SOURCE_SIZE[family]
        self._room = room
        self._left = 0

    def add(self, group: Address, wish: _Wishes) -> None:
        wish.limit(self._fitting(self._room))
        while wish:
            most = self._fitting(self._left)
            if most < max(1, wish.shared) or len(self.messages[-1]) == _MOST_GROUPS:
                self.messages.append([])
                self._left = self._room
                most = self._fitting(self._left)
            joins, prunes = wish.take(most)
            self.messages[-1].append(JoinPruneGroup(group, self._mask, joins, prunes))
            self._left -= self._group_size + (len(joins) + len(prunes)) * self._source_size

    def _fitting(self, room: int) -> int:
        """Sources of one group that fit `room` bytes."""
        return min((room - self._group_size) // self._source_size, _MOST_SOURCES)
