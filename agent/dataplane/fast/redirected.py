"""What the programs gave to the driver of each outgoing interface, to compare with what the interface sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from agent.dataplane.fast.channels import FastChannel
from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.planning import Plan
from agent.dataplane.fast.slots import Slots


class Redirected:
    """Adds up the channels' counters by interface.

    Between two looks only channels count that went the same way all the time, so that no interface is held to packets
    it was never given; what comes out is at most what was redirected.

    Args:
        channels: all that are set.
        slots: their counters.
    """

    def __init__(self, channels: Callable[[], Iterable[FastChannel]], slots: Slots) -> None:
        self._channels = channels
        self._slots = slots
        self._before: dict[FastChannel, tuple[Plan, int]] = {}
        self._totals: dict[str, int] = {}

    def count(self) -> Mapping[str, int]:
        """Packets so far by name of interface, since the first call."""
        packets, _ = self._slots.read_all()
        before, self._before = self._before, {}
        moved: dict[tuple[int, ...], int] = {}
        names: dict[int, str] = {}
        for state in self._channels():
            plan, entry = state.plan, state.entry
            if plan.plane is not Plane.XDP or entry is None:
                continue
            counted = packets[entry.slot]
            self._before[state] = (plan, counted)
            known = before.get(state)
            if known is not None and known[0] is plan and counted > known[1]:
                moved[plan.indexes] = moved.get(plan.indexes, 0) + counted - known[1]
                names.update((port.index, port.name) for port in plan.ports)
        for indexes, count in moved.items():
            for index in indexes:
                self._totals[names[index]] = self._totals.get(names[index], 0) + count
        return self._totals
