"""Combinations of outgoing interfaces in the kernel: each made once, however many channels go there.

To put one into the kernel takes milliseconds (the kernel waits until no program looks at the former one), to name it in
a channel's entry takes nothing. So one that nobody uses any more stays until its number is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.dataplane.fast.layout import MOST_SETS, devmap_value, index_key, interface_list
from agent.dataplane.fast.programs import Map, Programs
from agent.dataplane.fast.slots import GRACE, NoRoomError


@dataclass(slots=True, eq=False)
class InterfaceSet:
    """One combination.

    Attributes:
        number: its index in `sets` and `set_interfaces`.
        indexes: of the interfaces, sorted.
        users: channels that name it.
        idle_since: when the last one left.
        outgoing: the devmap, None as long as only TC needed it.
    """

    number: int
    indexes: tuple[int, ...]
    users: int = 0
    idle_since: float = 0.0
    outgoing: Map | None = None


class InterfaceSets:
    """All combinations in use, and those that may be used again.

    Args:
        programs: the loaded object.
        now: the clock.
        most: how many there may be.
    """

    def __init__(self, programs: Programs, now: Callable[[], float], most: int = MOST_SETS) -> None:
        self._programs = programs
        self._now = now
        self._most = most
        self._lists = programs.map("set_interfaces")
        self._maps = programs.map("sets")
        self._egress: Final = programs.program("gateway_egress")
        self._known: dict[tuple[int, ...], InterfaceSet] = {}
        self._idle: dict[int, InterfaceSet] = {}  # the one unused for longest comes first
        self._made = 0

    @property
    def in_use(self) -> int:
        """Combinations that a channel names."""
        return self._made - len(self._idle)

    def acquire(self, indexes: tuple[int, ...], *, copies: bool) -> InterfaceSet:
        """The combination of these interfaces, for one more channel.

        Args:
            indexes: of the interfaces, sorted.
            copies: XDP copies to all of them, which takes a devmap.

        Raises:
            NoRoomError: there are too many combinations.
            OSError: the kernel refused.
        """
        found = self._known.get(indexes)
        if found is None:
            found = self._make(indexes)
        if copies and found.outgoing is None:
            self._make_outgoing(found)
        self._idle.pop(found.number, None)
        found.users += 1
        return found

    def release(self, used: InterfaceSet) -> None:
        """A channel names it no longer."""
        used.users -= 1
        if not used.users:
            self._retire(used)

    def forget(self, index: int) -> None:
        """An interface is gone, and the kernel has taken it out of every devmap: its number may come back."""
        for indexes in [indexes for indexes in self._known if index in indexes]:
            del self._known[indexes]

    def close(self) -> None:
        """Let go of the devmaps; those in the kernel's map go with it."""
        for each in {*self._known.values(), *self._idle.values()}:
            if each.outgoing is not None:
                each.outgoing.close()
                each.outgoing = None
        self._known.clear()
        self._idle.clear()

    def _make(self, indexes: tuple[int, ...]) -> InterfaceSet:
        made = InterfaceSet(self._number(), indexes)
        self._retire(made)
        self._lists.update(index_key(made.number), interface_list(indexes))
        self._known[indexes] = made
        return made

    def _make_outgoing(self, wanted: InterfaceSet) -> None:
        """As large as the set: the kernel looks at every element of a devmap for each packet."""
        outgoing = self._programs.make_outgoing(len(wanted.indexes))
        try:
            for position, index in enumerate(wanted.indexes):
                outgoing.update(index_key(position), devmap_value(index, self._egress))
            self._maps.update(index_key(wanted.number), index_key(outgoing.fd))
        except OSError:
            outgoing.close()
            raise
        wanted.outgoing = outgoing

    def _retire(self, unused: InterfaceSet) -> None:
        unused.idle_since = self._now()
        self._idle[unused.number] = unused

    def _number(self) -> int:
        """A number nobody uses, and nobody used a moment ago."""
        if self._made < self._most:
            self._made += 1
            return self._made - 1
        oldest = next(iter(self._idle.values()), None)
        if oldest is None or self._now() - oldest.idle_since < GRACE:
            raise NoRoomError(f"more than {self._most} combinations of outgoing interfaces are in use")
        del self._idle[oldest.number]
        if self._known.get(oldest.indexes) is oldest:
            del self._known[oldest.indexes]
        if oldest.outgoing is not None:
            oldest.outgoing.close()
        return oldest.number
