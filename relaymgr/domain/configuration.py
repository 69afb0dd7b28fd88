"""Configuration as the manager handles it: only what an intent owns, in the device's own notation.

Every change is one thing: make the owned sections of a device equal to a text. Apply, drain, undrain, restore and
rollback differ only in where that text comes from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from relaymgr.domain.observed import CommitRecord


@dataclass(frozen=True, slots=True)
class OwnedConfiguration:
    """The owned sections of one device, in a canonical text of its driver: equal texts mean equal configuration.

    `scope` names the sections in the driver's own notation (Junos: paths, IOS-XE: section headers), sorted. A section
    in the scope that the text does not hold shall not exist on the device. Secrets never are in the text.
    """

    scope: tuple[str, ...]
    text: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of scope and text, hex."""
        digest = hashlib.sha256()
        for part in (*self.scope, "\0", self.text):
            digest.update(part.encode() + b"\n")
        return digest.hexdigest()

    def widened(self, scope: tuple[str, ...]) -> OwnedConfiguration:
        """The same text over a scope that also covers `scope`: what was owned and is not wanted any more goes."""
        return OwnedConfiguration(tuple(sorted({*self.scope, *scope})), self.text)


class DiffSource(StrEnum):
    """Who computed a diff."""

    DEVICE = "device"
    MANAGER = "manager"


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What a change would do, read from the device without changing it."""

    diff: str
    """For people, in the device's notation; empty when nothing would change. Secrets are masked."""
    diff_source: DiffSource
    commands: str
    """What would be sent: set commands, XML, CLI lines or TOML."""
    before: OwnedConfiguration
    """The owned sections (over the desired scope) as they are: what a rollback brings back."""
    device_fingerprint: str
    """Changes whenever anything in the configuration the plan depends on changes; a plan whose fingerprint is not the
    device's any more has expired. Junos: of the whole committed configuration; IOS-XE likewise of running-config."""


class Confirmation(StrEnum):
    """Whether the device waits for a confirmation."""

    NONE = "none"
    """No window is open."""
    PENDING = "pending"
    """A window is open: the device will go back by itself. Nothing but its owner may commit there."""
    UNKNOWN = "unknown"
    """The device does not tell."""


@dataclass(frozen=True, slots=True)
class ChangeReading:
    """What a device says about a change, read after the fact; decides an outcome, never an RPC's return."""

    owned: OwnedConfiguration
    confirmation: Confirmation
    confirmation_is_ours: bool | None = None
    """The open window carries our job's mark; None where the device does not tell."""
    seconds_left: int | None = None
    last_commit: CommitRecord | None = None
    device_fingerprint: str | None = None
    committed: bool | None = None
    """Our mark stands among the device's commits: it took the change, whatever came of it since. None: not told."""
    saved: bool | None = None
    """Whether the owned sections also are what the device starts with; None where committing is saving."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change handed to a driver. `mark` is written into the device's commit log where it has one."""

    mark: str
    """"isthmus JOB-ID", unique for a job."""
    desired: OwnedConfiguration
    before: OwnedConfiguration
    device_fingerprint: str
    confirm_minutes: int
    comment: str = ""
