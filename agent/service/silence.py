"""Notices that a tunnel which carried packets all along carries none: the relay may have restarted or forgotten us."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STEADY_SAMPLES: Final = 3
"""Samples in a row that moved before silence means anything: sparse channels are silent by nature."""

SILENT_SAMPLES: Final = 2
"""Samples in a row without a packet that count as silence."""


@dataclass(slots=True)
class _Flow:
    packets: int
    moving: int = 0
    still: int = 0


class SilenceWatch:
    """Compares packet counters between samples, per tunnel."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}

    def observe(self, tunnel: str, packets: int) -> bool:
        """Take a sample; True once each time a steady tunnel has fallen silent."""
        flow = self._flows.get(tunnel)
        if flow is None or packets < flow.packets:
            self._flows[tunnel] = _Flow(packets)
            return False
        moved = packets > flow.packets
        flow.packets = packets
        if moved:
            flow.moving = 1 if flow.still else flow.moving + 1
            flow.still = 0
            return False
        flow.still += 1
        return flow.still == SILENT_SAMPLES and flow.moving >= STEADY_SAMPLES

    def forget(self, tunnel: str) -> None:
        """Start over for a tunnel: it was closed, or nothing is wanted of it."""
        self._flows.pop(tunnel, None)
