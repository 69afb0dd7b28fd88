"""The one Protocol of all drivers, and what a driver is made from.

A driver object belongs to one relay and to one event loop, is used by one caller at a time (`DeviceAccess` sees to
that) and holds at most one session to its device, opened when first needed. Methods never block the loop; synchronous
libraries run in the executor of the `DriverContext`. Every method ends within the deadlines of the target and raises
only `DriverError` (or `CapabilityMissing` before anything is touched).
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

from relaymgr.domain.configuration import Change, ChangeReading, DevicePlan, OwnedConfiguration
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.observed import Facts, Observation
from relaymgr.domain.platforms import Capabilities, Platform


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds."""

    connect: float = 30.0
    rpc: float = 30.0
    commit: float = 120.0


@dataclass(frozen=True, slots=True)
class Credential:
    """Resolved just before use; never logged (repr hides it)."""

    username: str
    password: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    """OpenSSH or PEM text."""
    token: str | None = field(default=None, repr=False)
    """Bearer token (isthmus)."""


@dataclass(frozen=True, slots=True)
class DeviceTarget:
    """Where a device is and how to know it."""

    name: str
    platform: Platform
    host: str
    """Name or address; for isthmus also an URL (`https://…` or `unix:///path`)."""
    port: int | None = None
    """SSH port (22), for Junos the NETCONF port (830); for isthmus part of the URL."""
    netconf_port: int | None = None
    """IOS-XE: port of NETCONF (830); None where NETCONF is off."""
    host_key: str | None = None
    """Pinned key as in known_hosts, `ssh-ed25519 AAAA…`; without one no session is made."""
    legacy_ssh: bool = False
    """Offer diffie-hellman-group14-sha1 and ssh-rsa too (aged MX80)."""
    deadlines: Deadlines = Deadlines()
    options: Mapping[str, str] = field(default_factory=dict)
    """Driver's own switches, documented in its module (isthmus: `ca`, a PEM file to trust)."""


@dataclass(frozen=True, slots=True)
class DriverContext:
    """What all drivers of a process share."""

    executor: Executor
    """Bounded; for synchronous libraries."""


class Driver(Protocol):
    """One relay, whatever its vendor."""

    platform: Platform

    def capabilities(self) -> Capabilities:
        """What the platform can be asked for, before a session is made."""

    def render(self, intent: RelayIntent, *, drained: bool) -> OwnedConfiguration:
        """The owned sections `intent` makes; drained: without the anycast address and its announcement.

        Pure. Raises CapabilityMissing for what the platform cannot do.
        """

    async def facts(self) -> Facts:
        """Identity."""

    async def device_capabilities(self) -> Capabilities:
        """What this very device can do (IOS-XE without `archive` cannot confirm a commit)."""

    async def observe(self) -> Observation:
        """Tunnels, channels, neighbours and statistics in one go; a failed part is named, a dead session raises."""

    async def read_owned(self, scope: tuple[str, ...]) -> OwnedConfiguration:
        """The sections of `scope` as they are on the device now. Never commits or checks anything."""

    async def read_configuration(self) -> str:
        """The whole configuration, for a backup."""

    async def plan(self, desired: OwnedConfiguration) -> DevicePlan:
        """What making the device equal to `desired` would do. Leaves no trace.

        Raises ConfirmWindowOpen when the device waits for a confirmation, DeviceBusy when it is locked.
        """

    async def begin_change(self, change: Change) -> None:
        """Lock, load, check, commit confirmed, unlock.

        Raises ConfigurationChanged when the device's fingerprint is not `change.device_fingerprint`; the candidate is
        discarded on every failure. After SessionLost or DeadlineExceeded it may have happened: ask `read_change`.
        """

    async def read_change(self, change: Change) -> ChangeReading:
        """What the device says now. Never commits or checks anything."""

    async def confirm_change(self, change: Change) -> None:
        """Make a pending change permanent, also over a restart of the device.

        Raises ConfigurationChanged when the pending one is not ours. May be asked again: a change that was confirmed
        and is not saved is saved (`ChangeReading.saved`).
        """

    async def revert_change(self, change: Change) -> None:
        """Take a pending change back now instead of waiting for the timer."""

    async def close(self) -> None:
        """End the session, if any. Never raises."""
