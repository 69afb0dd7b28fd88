"""What the parts of this package share: the database, the door to the devices, the clock, and times."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from relaymgr.drivers.protocol import Driver
from relaymgr.store.database import Database

Clock = Callable[[], datetime]
Sleep = Callable[[float], Awaitable[None]]

CHANGES: Final = frozenset({"apply", "drain", "undrain", "restore", "rollback"})
"""Kinds of jobs and plans that change a device."""
ACTIVE: Final = ("queued", "running")
"""States of jobs that have not ended."""


def utc_now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)


class Access(Protocol):
    """What jobs use of `relaymgr.drivers.access.DeviceAccess`."""

    def configuring(self, relay_id: str, *, urgent: bool = False) -> AbstractAsyncContextManager[Driver]:
        """The device, exclusively in this process."""

    def monitoring(self, relay_id: str) -> AbstractAsyncContextManager[Driver]:
        """The device unless somebody configures it."""

    def renew(self, relay_id: str) -> None:
        """Have the next use make a new session, from what the relay's row says then."""

    def forget(self, relay_id: str) -> None:
        """End its session; the next use makes a new one."""


class Sealing(Protocol):
    """What jobs use of `relaymgr.store.sealing.Sealer`."""

    def seal(self, plain: bytes, context: str) -> bytes:
        """Ciphertext that opens only with the same context."""

    def open(self, sealed: bytes, context: str) -> bytes:
        """The plain text again."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, all of them."""

    lease: float = 30.0
    """A worker that did not renew for so long is taken for dead."""
    busy: float = 3.0
    """Until a job looks again whether its relay is free."""
    read_again: float = 5.0
    """Between two readings of a change that is not settled."""
    verify_again: float = 3.0
    verify_patience: float = 60.0
    """How long neighbours may take to come back; never more than half of what is left of the window."""
    plan_wait: float = 15.0
    """How long a plan waits for a relay in use before it says busy."""
    plan_lifetime: float = 3600.0


@dataclass(frozen=True, slots=True)
class Parts:
    """Given to everything in this package."""

    database: Database
    access: Access
    sealer: Sealing
    clock: Clock = utc_now
    sleep: Sleep = asyncio.sleep
    timing: Timing = Timing()
    worker: str = field(default_factory=lambda: f"worker-{secrets.token_hex(6)}")
    """Names this process in leases; new with each start, so that nobody takes over from his own ghost."""
