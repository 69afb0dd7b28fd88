"""Plans, changes, jobs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from relaymgr.api.schemas.common import Actor, Comment, Identifier, IdentifierInput, Input, Moment, Output, Page, Ticket

ChangeKind = Literal["apply", "drain", "undrain", "restore", "rollback"]


class PlanRequest(Input):
    """What to plan."""

    kind: ChangeKind = Field(default="apply", examples=["apply"])
    """apply: the intent; drain: take the anycast address away, keep tunnels; undrain; restore: undo drift; rollback:
    back to what was before the last change."""


class Plan(Output):
    """What a change would do to one relay, as read from the device."""

    id: Identifier
    """Stable identifier, what `apply` is given."""
    relay_id: Identifier
    """The relay."""
    kind: str = Field(examples=["apply"])
    """apply, drain, undrain, restore or rollback."""
    intent_version: int | None = Field(examples=[3])
    """Version of the intent it was made from; null when it was not made from one."""
    drained: bool = Field(examples=[False])
    """Whether the relay is drained afterwards."""
    diff: str = Field(examples=["[edit protocols amt relay]\n+  tunnel-limit 5000;\n"])
    """What would change, in the device's notation, secrets masked; empty: nothing would."""
    diff_source: str = Field(examples=["device"])
    """device: the device computed the diff; manager: we did."""
    commands: str = Field(examples=["set protocols amt relay tunnel-limit 5000\n"])
    """What would be sent."""
    device_fingerprint: str = Field(examples=["9b74c9897bac770ffc029102a200c5de"])
    """Of the configuration the plan was made against; the plan is void when it changes."""
    actor: Actor
    """Who asked for it."""
    created_at: Moment
    """When it was made, UTC."""
    expires_at: Moment
    """From when on it is not taken any more, UTC."""
    expired: bool = Field(examples=[False])
    """Whether that time has come."""
    unchanged: bool = Field(examples=[False])
    """Whether it would change nothing."""


class PlanPage(Page[Plan]):
    """Plans."""


class ApplyRequest(Input):
    """A planned change to carry out."""

    plan: IdentifierInput = Field(examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """The plan an operator saw."""
    confirm_minutes: int = Field(default=5, ge=1, le=60, examples=[5])
    """Minutes after which the device goes back by itself unless the change is confirmed."""
    probe: bool = Field(default=False, examples=[False])
    """Verify with a real AMT handshake from the manager's host too."""
    comment: Comment = Field(default="", examples=["raise the tunnel limit"])
    """Why, for the audit and the device's commit log."""
    ticket: Ticket | None = Field(default=None, examples=["NOC-4711"])
    """Reference in a ticket system."""


class ChangeRequest(Input):
    """A change to carry out, planned before or on the way."""

    plan: IdentifierInput | None = Field(default=None, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """A plan of this kind an operator saw; absent: plan and apply in one job."""
    dry_run: bool = Field(default=False, examples=[False])
    """Only plan: answers the plan with 200 instead of a job with 202."""
    confirm_minutes: int = Field(default=5, ge=1, le=60, examples=[5])
    """Minutes after which the device goes back by itself unless the change is confirmed."""
    probe: bool = Field(default=False, examples=[False])
    """Verify with a real AMT handshake from the manager's host too."""
    comment: Comment = Field(default="", examples=["maintenance of the upstream"])
    """Why, for the audit and the device's commit log."""
    ticket: Ticket | None = Field(default=None, examples=["NOC-4711"])
    """Reference in a ticket system."""


class Reason(Input):
    """Why something is done."""

    comment: Comment = Field(default="", examples=["change agreed with the AD's NOC"])
    """Why, for the audit."""
    ticket: Ticket | None = Field(default=None, examples=["NOC-4711"])
    """Reference in a ticket system."""


class Job(Output):
    """Work on a relay, or of a rollout."""

    id: Identifier
    """Stable identifier."""
    kind: str = Field(examples=["apply"])
    """plan, apply, drain, undrain, restore, rollback, drift, backup or rollout."""
    relay_id: Identifier | None
    """The relay; null when it is of none, or was deleted."""
    rollout_id: Identifier | None
    """The rollout it belongs to."""
    plan_id: Identifier | None
    """The plan it carries out."""
    state: str = Field(examples=["running"])
    """queued, running, succeeded, failed, rolled_back, cancelled, or uncertain: the device could not be read."""
    phase: str = Field(examples=["verify"])
    """What it does now."""
    progress: int = Field(examples=[60])
    """Percent."""
    result: dict[str, Any] = Field(examples=[{"unchanged": False}])
    """What came of it, as read from the device."""
    error_code: str | None = Field(examples=["device_unreachable"])
    """Stable code of what went wrong."""
    error_detail: str | None = Field(examples=["mx1: connection refused"])
    """The same as a sentence."""
    actor: Actor
    """Who asked for it."""
    comment: str = Field(examples=["raise the tunnel limit"])
    """Why."""
    ticket: str | None = Field(examples=["NOC-4711"])
    """Reference in a ticket system."""
    cancel_requested: bool = Field(examples=[False])
    """Whether somebody asked it to end."""
    attempt: int = Field(examples=[1])
    """How many workers took it so far."""
    confirm_deadline: Moment | None
    """When the device goes back by itself at the latest, UTC; null: no confirm window was opened."""
    created_at: Moment
    """When it was asked for, UTC."""
    started_at: Moment | None
    """When a worker took it, UTC."""
    finished_at: Moment | None
    """When it ended, UTC."""


class JobPage(Page[Job]):
    """Jobs."""


class JobLogEntry(Output):
    """One line of a job's log."""

    id: int = Field(examples=[4711])
    """Grows; what an event stream calls its event id."""
    job_id: Identifier
    """The job."""
    at: Moment
    """When, UTC."""
    level: str = Field(examples=["info"])
    """info, warning or error."""
    phase: str = Field(examples=["commit"])
    """What the job did then."""
    progress: int = Field(examples=[40])
    """Percent."""
    message: str = Field(examples=["commit confirmed 5 accepted"])
    """What happened."""
    data: dict[str, Any] = Field(examples=[{}])
    """More, for machines."""


class JobLogPage(Page[JobLogEntry]):
    """The log of a job, oldest first."""
