"""The one attempt a job makes at changing its device, as it is kept in the job's row.

Written before the first byte is sent; whoever takes the job over reads here what may have happened. No configuration
is in it: that is in the plan's row.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from relaymgr.domain.change import Begun, Window
from relaymgr.domain.configuration import Change, OwnedConfiguration
from relaymgr.domain.verification import Baseline
from relaymgr.store.tables import Job, Plan, Relay


@dataclass(frozen=True, slots=True)
class Attempt:
    """Times, facts and the baseline of verification."""

    window: Window
    baseline: Baseline
    previous: dict[str, Any] = field(default_factory=dict)
    """What was recorded of the relay before: scope, drained, intent version; a rollback needs it."""
    doubt: str | None = None
    """Code of the error the attempt ended with, where it did."""
    doubt_detail: str | None = None
    why_not: str | None = None
    """Code of what is held against the change: it failed its verification, or somebody cancelled it."""

    def knowing(self, **facts: Any) -> Attempt:  # noqa: ANN401
        """The attempt with more known about its window."""
        return replace(self, window=replace(self.window, **facts))

    def dump(self) -> dict[str, Any]:
        """As JSON, for the job's `result`."""
        window = self.window
        return {
            "attempt": {
                "begun_at": window.begun_at.isoformat(),
                "minutes": window.minutes,
                "commit_seconds": window.commit_seconds,
                "begun": window.begun.value,
                "verified": window.verified,
                "confirm_sent": window.confirm_sent,
                "baseline": self.baseline.dump(),
                "doubt": self.doubt,
                "doubt_detail": self.doubt_detail,
                "why_not": self.why_not,
            },
            "previous": self.previous,
        }


def attempt_of(job: Job) -> Attempt | None:
    """The attempt a job made; None when it never sent anything."""
    data = job.result.get("attempt")
    if not isinstance(data, dict):
        return None
    window = Window(
        begun_at=datetime.fromisoformat(data["begun_at"]),
        minutes=data["minutes"],
        commit_seconds=data["commit_seconds"],
        begun=Begun(data["begun"]),
        verified=data["verified"],
        confirm_sent=data["confirm_sent"],
    )
    return Attempt(
        window,
        Baseline.load(data["baseline"]),
        job.result.get("previous", {}),
        data["doubt"],
        data["doubt_detail"],
        data["why_not"],
    )


def previous_of(relay: Relay) -> dict[str, Any]:
    """What a rollback of the change to come has to record again."""
    return {
        "applied_scope": list(relay.applied_scope),
        "applied_text": relay.applied_text,
        "drained": relay.drained,
        "intent_version": relay.applied_intent_version,
    }


def change_of(job: Job, plan: Plan, minutes: int) -> Change:
    """What the driver is handed; the same whenever it is made again."""
    return Change(
        mark=f"isthmus {job.id}",
        desired=OwnedConfiguration(tuple(plan.desired_scope), plan.desired_text),
        before=OwnedConfiguration(tuple(plan.before_scope), plan.before_text),
        device_fingerprint=plan.device_fingerprint,
        confirm_minutes=minutes,
        comment=job.comment,
    )
