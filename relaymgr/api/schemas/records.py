"""What is kept of the past: backups, audit, events."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from relaymgr.api.schemas.common import Actor, Identifier, Moment, Output, Page


class Backup(Output):
    """A configuration as it was, without its content."""

    id: Identifier
    """Stable identifier."""
    relay_id: Identifier
    """The relay."""
    taken_at: Moment
    """When it was read, UTC."""
    sha256: str = Field(examples=["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"])
    """Of the content, hex."""
    size_bytes: int = Field(examples=[48211])
    """Length of the content, bytes."""
    reason: str = Field(examples=["after_change"])
    """enrolment, periodic, before_change, after_change or requested."""
    job_id: Identifier | None
    """Job that took it."""


class BackupPage(Page[Backup]):
    """Backups."""


class BackupDiff(Output):
    """What changed between two backups."""

    from_id: Identifier
    """The one before."""
    to_id: Identifier
    """The one after."""
    diff: str = Field(examples=["--- before\n+++ after\n@@ -1 +1 @@\n-host-name a;\n+host-name b;\n"])
    """Unified, secrets masked."""


class AuditEntry(Output):
    """One write."""

    id: int = Field(examples=[4711])
    """Grows with time."""
    at: Moment
    """When, UTC."""
    actor: Actor
    """Who."""
    action: str = Field(examples=["intent.put"])
    """What was done."""
    resource_type: str = Field(examples=["relay"])
    """To what kind of resource."""
    resource_id: str | None = Field(examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """To which."""
    ad_id: Identifier | None
    """AD it belongs to."""
    before: dict[str, Any] | None = Field(examples=[{"tunnel_limit": 1000}])
    """The resource before, secrets left out; null: there was none."""
    after: dict[str, Any] | None = Field(examples=[{"tunnel_limit": 5000}])
    """The resource after; null: there is none."""
    comment: str | None = Field(examples=["raise the tunnel limit"])
    """Why."""
    ticket: str | None = Field(examples=["NOC-4711"])
    """Reference in a ticket system."""
    request_id: str | None = Field(examples=["5f2b7c1e0d9a"])
    """Request that did it."""
    outcome: str = Field(examples=["ok"])
    """ok, or the code of what went wrong."""


class AuditPage(Page[AuditEntry]):
    """Writes, newest first unless sorted otherwise."""


class Event(Output):
    """Something a NOC wants to know."""

    id: int = Field(examples=[4711])
    """Grows; what the event stream calls its event id."""
    at: Moment
    """When, UTC."""
    severity: str = Field(examples=["warning"])
    """info, warning or critical."""
    kind: str = Field(examples=["relay.unreachable"])
    """What kind of event."""
    relay_id: Identifier | None
    """The relay it is about."""
    ad_id: Identifier | None
    """AD that may see it."""
    message: str = Field(examples=["mx1: connection refused"])
    """What happened."""
    data: dict[str, Any] = Field(examples=[{}])
    """More, for machines."""


class EventPage(Page[Event]):
    """Events, newest first unless sorted otherwise."""
