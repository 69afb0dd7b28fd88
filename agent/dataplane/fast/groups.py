"""Groups whose unknown sources go to the sockets: any-source interest, and channels the maps have no room for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from agent.dataplane.fast.layout import group_key
from agent.dataplane.fast.programs import Programs
from agent.protocol.channels import Address


class FastGroups:
    """Keeps the maps `groups4` and `groups6`.

    Args:
        programs: the loaded object.
        bar: called with a reason when a group has no room either: then everything has to go to the sockets; with an
            empty one when that is over.
    """

    def __init__(self, programs: Programs, bar: Callable[[str], None]) -> None:
        self._maps = {4: programs.map("groups4"), 6: programs.map("groups6")}
        self._bar = bar
        self._any_source: set[Address] = set()
        self._users: Counter[Address] = Counter()
        self._missing: set[Address] = set()

    def __contains__(self, group: Address) -> bool:
        return group in self._users

    def set(self, group: Address) -> None:
        """There is any-source interest in a group."""
        if group not in self._any_source:
            self._any_source.add(group)
            self.acquire(group)

    def remove(self, group: Address) -> None:
        """There is none any more."""
        if group in self._any_source:
            self._any_source.discard(group)
            self.release(group)

    def acquire(self, group: Address) -> None:
        """Leave unknown sources of a group to the sockets, for one more reason."""
        self._users[group] += 1
        if self._users[group] > 1:
            return
        try:
            self._maps[group.version].update(group_key(group), b"\x01")
        except OSError as error:
            self._missing.add(group)
            self._bar(f"the kernel's map of groups: {error.strerror or error}")

    def release(self, group: Address) -> None:
        """For one reason fewer."""
        self._users[group] -= 1
        if self._users[group]:
            return
        del self._users[group]
        if group not in self._missing:
            self._maps[group.version].delete(group_key(group))
            return
        self._missing.discard(group)
        if not self._missing:
            self._bar("")
