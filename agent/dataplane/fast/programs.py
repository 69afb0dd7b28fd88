"""The loaded programs and maps of the gateway, as the engine uses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Map(Protocol):
    """A map of the kernel.

    Every call raises `OSError` when the kernel refuses it: no room, not there.

    Attributes:
        fd: its descriptor.
    """

    fd: int

    def update(self, key: bytes, value: bytes) -> None:
        """Set an entry."""

    def lookup(self, key: bytes) -> bytes | None:
        """An entry, None when there is none."""

    def delete(self, key: bytes) -> bool:
        """Remove an entry; whether it was there."""

    def keys(self) -> Sequence[bytes]:
        """Keys of all entries."""

    def columns(self, first: int, count: int) -> tuple[list[int], ...]:
        """Counters of a per-CPU array, summed over processors: a list for each number that an element is made of."""

    def sums(self, index: int) -> tuple[int, ...]:
        """Counters of one element, summed over processors."""

    def zero(self, index: int) -> None:
        """Begin one element's counters anew."""

    def close(self) -> None:
        """Let go of it."""


class Events(Protocol):
    """A ring buffer the programs write to."""

    def fileno(self) -> int:
        """Readable when there are events."""

    def drain(self) -> int:
        """Call back with events that are there, a bounded number; how many there were."""

    def close(self) -> None:
        """Read no more."""


class Programs(Protocol):
    """The loaded object with its maps.

    Attributes:
        channel_slots: elements of the map `channel_counters`.
    """

    channel_slots: int

    def map(self, name: str) -> Map:
        """One of the object's maps."""

    def program(self, name: str) -> int:
        """Descriptor of a program."""

    def make_outgoing(self, entries: int) -> Map:
        """A devmap for one set of outgoing interfaces."""

    def make_events(self, callback: Callable[[bytes], None]) -> Events:
        """Read the map `events`."""

    def close(self) -> None:
        """Unload; what is attached stays until it is detached."""
