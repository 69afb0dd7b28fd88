"""The gateway's engine as a border agent has it, with one plane forced, for benches."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import Final

from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.planning import PLANE_NAMES
from agent.protocol.channels import Channel
from lab.bench.engine_border import Border

PLANES: Final = {"xdp": Plane.XDP, "xdp-mfc": Plane.XDP_MFC, "tc": Plane.TC}
"""Planes by the engine's name."""

_LEFT: Final = ("channels4", "channels6", "groups4", "groups6", "tunnels4", "tunnels6")


@dataclass
class FastBorder(Border):
    """`Border` with an engine that uses one plane; without a plane the userspace engine alone."""

    waits: bool = False

    def wait_until_fast(self, channels: list[Channel], seconds: float) -> str:
        """Run until every channel is in its plane; how the engine works, in words.

        Raises:
            TimeoutError: it is not in time; the message has the engine's reason.
        """
        fast = self.fast
        if fast is None:
            return "userspace"
        deadline = time.monotonic() + seconds
        while waiting := [channel for channel in channels if fast.explain(channel)[0] is not self.plane]:
            if time.monotonic() > deadline:
                raise TimeoutError(fast.explain(waiting[0])[1])
            self.loop.run_until_complete(asyncio.sleep(0.02))
        return fast.name

    def planes(self, channels: list[Channel]) -> dict[str, int]:
        """How many channels each plane has."""
        found: dict[str, int] = {}
        for channel in channels:
            name = "userspace"
            if self.fast is not None:
                name = PLANE_NAMES[self.fast.explain(channel)[0]]
            found[name] = found.get(name, 0) + 1
        return found

    def exceptions(self) -> int:
        """Packets userspace forwarded."""
        forwarded = self.engine.counters().forwarded if self.fast is None else self.fast.forwarded_by_userspace()
        return forwarded.packets

    def left(self) -> dict[str, int]:
        """What the maps and the books of the engine still have, by name; retired slots are free after a moment."""
        fast = self.fast
        if fast is None:
            return {}
        found = {name: len(self.programs.map(name).keys()) for name in _LEFT}
        slots, through = fast._all_slots  # noqa: SLF001 - nothing else needs to know
        found["slots of channels"] = slots.in_use
        found["slots of tunnels"] = through.in_use
        found["sets of interfaces"] = fast._sets.in_use  # noqa: SLF001
        return found

    def inner_maps(self) -> list[int]:
        """Numbers of the maps that sets of interfaces hold."""
        if self.fast is None:
            return []
        sets = self.programs.map("sets")
        found = (sets.lookup(key) for key in tuple(sets.keys()))
        return [number for value in found if value and (number := int.from_bytes(value, sys.byteorder))]
