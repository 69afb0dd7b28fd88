"""Combinations of outgoing interfaces in the kernel: each made once, however many channels go there.

To put one into the kernel takes milliseconds (8 to 27 measured on two busy processors; `maybe_wait_bpf_programs` waits
until no program looks at the former one, and the event loop with it), to name it in a channel's entry takes nothing. So
one that nobody uses any more stays until its number is needed; it takes some of the kernel's memory and no descriptor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.dataplane.fast.layout import MOST_SETS, devmap_value, index_key, interface_list
from agent.dataplane.fast.programs import Programs
from agent.dataplane.fast.slots import GRACE, NoRoomError


@dataclass(slots=True, eq=False)
class InterfaceSet:
    """One combination.

    Attributes:
        number: its index in `sets` and `set_interfaces`.
        indexes: of the interfaces, sorted.
        users: channels that name it.
        idle_since: when the last one left.
        copies: XDP can copy to all of them: it has a devmap.
    """

    number: int
    indexes: tuple[int, ...]
    users: int = 0
    idle_since: float = 0.0
    copies: bool = False


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
        if copies and not found.copies:
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

    def _make(self, indexes: tuple[int, ...]) -> InterfaceSet:
        made = InterfaceSet(self._number(), indexes)
        self._retire(made)
        self._lists.update(index_key(made.number), interface_list(indexes))
        self._known[indexes] = made
        return made

    def _make_outgoing(self, wanted: InterfaceSet) -> None:
        """As large as the set: the kernel looks at every element of a devmap for each packet.

        Nothing is written to it later, and the kernel holds it as long as `sets` names it.
        """
        outgoing = self._programs.make_outgoing(len(wanted.indexes))
        try:
            for position, index in enumerate(wanted.indexes):
                outgoing.update(index_key(position), devmap_value(index, self._egress))
            self._maps.update(index_key(wanted.number), index_key(outgoing.fd))
        finally:
            outgoing.close()
        wanted.copies = True

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
        return oldest.number
