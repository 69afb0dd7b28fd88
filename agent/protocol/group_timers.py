"""Deadlines of the groups of one link."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from agent.protocol.channels import Address
from agent.protocol.timers import Timers


class GroupTimer(Enum):
    """What a deadline is for."""

    GROUP = "group"
    """Group timer: EXCLUDE mode ends (RFC 3376 §6.2.2)."""

    SOURCE = "source"
    """Source timer (§6.2.3)."""

    V1_HOST = "v1_host"
    """IGMPv1 Host Present timer (§7.3.2)."""

    V2_HOST = "v2_host"
    """IGMPv2 Host Present timer (§7.3.2), MLDv1's (RFC 3810 §8.3.2)."""

    RETRANSMIT = "retransmit"
    """The next copy of specific queries is due (§6.6.3)."""


TimerKey: TypeAlias = tuple[GroupTimer, Address, Address | None]
"""Timer, group, and the source of a source timer."""


class GroupTimers(Timers[TimerKey]):
    """Timers that can be lowered."""

    def at(self, key: TimerKey) -> float:
        """Deadline of a timer known to be armed."""
        deadline = self.deadline(key)
        assert deadline is not None, key
        return deadline

    def lower(self, key: TimerKey, deadline: float) -> None:
        """Bring an armed timer forward to `deadline`; never puts it off."""
        if self.at(key) > deadline:
            self.set(key, deadline)
