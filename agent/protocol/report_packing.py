"""Group records packed into reports that fit one packet (RFC 3376 §4.2.16, RFC 3810 §5.2.15)."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from agent.protocol.channels import Address, Family
from agent.protocol.wire.groups import GroupRecord, RecordType

REPORT_OVERHEAD: Final = {Family.IPV4: 24 + 8, Family.IPV6: 48 + 8}
"""IP header with Router Alert and the report's own header, in bytes."""

_ADDRESS_SIZE: Final = {Family.IPV4: 4, Family.IPV6: 16}
_EXCLUDING: Final = frozenset((RecordType.MODE_IS_EXCLUDE, RecordType.CHANGE_TO_EXCLUDE))


class RecordPacker:
    """Fills one report after another from a queue of groups.

    Records are made when a report is filled, not when their group is queued, so a report says what is true when it
    leaves. Only the tail of a group that did not fit waits as records.
    """

    def __init__(
        self, family: Family, packet_size: int, records_of: Callable[[Address], Iterable[GroupRecord]]
    ) -> None:
        """`packet_size` is the largest IP packet in bytes; `records_of` is asked once for each queued group."""
        self._address_size = _ADDRESS_SIZE[family]
        self._room = packet_size - REPORT_OVERHEAD[family]
        self._records_of = records_of
        self._groups: OrderedDict[Address, None] = OrderedDict()
        self._tail: deque[GroupRecord] = deque()

    def __bool__(self) -> bool:
        return bool(self._groups or self._tail)

    def queue(self, groups: Iterable[Address]) -> None:
        """Queue groups; one that is queued already keeps its place."""
        for group in groups:
            self._groups.setdefault(group)

    def requeue(self, group: Address) -> None:
        """Replace records of `group` that wait from an earlier report, if any: its state is another now."""
        if any(record.group == group for record in self._tail):
            self._tail = deque(record for record in self._tail if record.group != group)
            self._groups.setdefault(group)

    def clear(self) -> None:
        """Forget everything queued."""
        self._groups.clear()
        self._tail.clear()

    def fill(self) -> tuple[GroupRecord, ...]:
        """Records of the next report; none when nothing is queued."""
        records: list[GroupRecord] = []
        room = self._room
        while self:
            if not self._tail:
                group, _ = self._groups.popitem(last=False)
                for record in self._records_of(group):
                    self._tail.extend(self._split(record))
                continue
            size = self._size(self._tail[0])
            if size > room:
                break
            room -= size
            records.append(self._tail.popleft())
        return tuple(records)

    def _size(self, record: GroupRecord) -> int:
        return 4 + self._address_size * (1 + len(record.sources))

    def _split(self, record: GroupRecord) -> Iterator[GroupRecord]:
        """Records of at most one report each that together say what `record` says.

        A list of excluded sources is truncated: in two parts the later would contradict the earlier. The rest of a
        TO_IN list follows as ALLOW, because a second TO_IN would take back the first.
        """
        fits = (self._room - self._size(GroupRecord(record.type, record.group))) // self._address_size
        yield GroupRecord(record.type, record.group, record.sources[:fits])
        if record.type in _EXCLUDING:
            return
        following = RecordType.ALLOW_NEW_SOURCES if record.type is RecordType.CHANGE_TO_INCLUDE else record.type
        for start in range(fits, len(record.sources), fits):
            yield GroupRecord(following, record.group, record.sources[start : start + fits])
