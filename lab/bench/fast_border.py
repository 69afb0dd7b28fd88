"""The gateway's engine as a border agent has it, with one plane forced, for benches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from agent.dataplane.fast.layout import Plane
from lab.bench.engine_border import Border

PLANES: Final = {"xdp": Plane.XDP, "xdp-mfc": Plane.XDP_MFC, "tc": Plane.TC}
"""Planes by the engine's name."""


@dataclass
class FastBorder(Border):
    """`Border` with an engine that uses one plane; without a plane the userspace engine alone."""

    plane: Plane | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        if self.plane is not None:
            raise RuntimeError("not yet")
        return self

    def prepare(self, interfaces: Sequence[str]) -> None:
        """Find out about interfaces."""

    def wait_until_fast(self, seconds: float) -> str:
        """Run until every channel is in its plane; how the engine works, in words."""
        return "userspace"

    def planes(self) -> dict[str, int]:
        """How many channels each plane has."""
        return {}

    def left(self) -> dict[str, Any]:
        """What the maps still have."""
        return {}
