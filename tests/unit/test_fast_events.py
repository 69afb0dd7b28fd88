"""First packets told by the programs, whatever those who are told do about it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from agent.dataplane.fast.events import FirstPackets
from agent.dataplane.fast.layout import EVENT, FIRST_PACKET


class Ring:
    """A ring buffer, and the loop that reads it."""

    def __init__(self) -> None:
        self.waiting: list[list[bytes]] = []
        self.is_read = False
        self.fails = False
        self.deliver: Callable[[bytes], None]

    def make_events(self, deliver: Callable[[bytes], None]) -> Ring:
        self.deliver = deliver
        return self

    def fileno(self) -> int:
        return 3

    def drain(self) -> int:
        if self.fails:
            raise OSError(errno.EBADF, "no ring")
        read = self.waiting.pop(0) if self.waiting else []
        for each in read:
            self.deliver(each)
        return len(read)

    def add_reader(self, _fd: int, _call: Callable[[], None]) -> None:
        self.is_read = True

    def remove_reader(self, _fd: int) -> None:
        self.is_read = False


def make(told: Callable[[int], None]) -> tuple[Ring, FirstPackets]:
    ring: Any = Ring()
    return ring, FirstPackets(ring, ring, told, lambda slots: slots)


def event(slot: int) -> bytes:
    return EVENT.pack(FIRST_PACKET, slot, 0, 0)


def test_an_error_of_who_is_told_does_not_end_the_reading() -> None:
    def refuse(_slot: int) -> None:
        raise OSError(errno.ENOBUFS, "no membership")

    ring, first = make(refuse)
    ring.waiting = [[event(1)]]
    with pytest.raises(OSError, match="no membership"):
        first.drain()
    assert ring.is_read


def test_a_ring_that_cannot_be_read_is_not_asked_for_ever() -> None:
    ring, first = make(lambda _slot: None)
    ring.fails = True
    first.drain()
    assert not ring.is_read


def test_all_events_are_told_in_order() -> None:
    told: list[int] = []
    ring, first = make(told.append)
    ring.waiting = [[event(1), event(2)], [event(3)]]
    first.drain()
    assert told == [1, 2, 3]
