"""What the job service refuses, before anything is stored or touched. Codes are stable and documented.

JobError
├── NotFound     404  no such relay, plan, job, rollout or backup
├── Conflict     409  not now: another job, an open window, an expired plan, a finished job
└── Invalid      422  never: unknown kind, bad parameters, nothing to do it with
"""

from __future__ import annotations

from typing import ClassVar


class JobError(Exception):
    """A request the job service refuses."""

    status: ClassVar[int] = 500

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class NotFound(JobError):
    """What it is about does not exist."""

    status = 404


class Conflict(JobError):
    """It cannot be done in the present state."""

    status = 409


class Invalid(JobError):
    """It makes no sense."""

    status = 422


class LeaseLost(Exception):
    """Another worker has the job now; whoever gets this stops without writing anything."""


class RelayBusy(Exception):
    """Another process holds the relay, or a confirm window of another job is open there."""
