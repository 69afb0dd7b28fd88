"""What the API calls. Behind Protocols, so that it runs and is tested without a device."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import httpx
from prometheus_client import CollectorRegistry

from relaymgr.api.capabilities import refuse_impossible
from relaymgr.domain.intent import RelayIntent
from relaymgr.drivers.protocol import DeviceTarget
from relaymgr.settings import Settings
from relaymgr.store.audit import Reason
from relaymgr.store.database import Database
from relaymgr.store.envelope import Sealer
from relaymgr.store.tables import Job, JobEvent, Plan, Rollout


class Planning(Protocol):
    """What the API uses of `relaymgr.jobs.planner.Planner`."""

    async def make_plan(self, relay_id: str, kind: str, actor: str) -> Plan:
        """Read the device and store what a change of `kind` would do.

        Raises DriverError, CapabilityMissing, or an error whose `code` the API documents.
        """


class JobSubmission(Protocol):
    """What the API uses of `relaymgr.jobs.service.JobService`."""

    async def submit(
        self,
        kind: str,
        *,
        relay_id: str | None = None,
        plan_id: str | None = None,
        parameters: dict[str, Any] | None = None,
        actor: str,
        comment: str = "",
        ticket: str | None = None,
        request_id: str | None = None,
        job_id: str | None = None,
    ) -> Job:
        """Store a job with its audit row and wake a worker. Without `plan_id` a change plans first.

        `parameters` of a change: confirm_minutes (int), probe (bool).
        """

    async def cancel(self, job_id: str, actor: str, why: Reason) -> Job:
        """Ask a job to end as soon as that leaves nothing half done; audited."""

    def follow(self, job_id: str, after: int = 0) -> AsyncIterator[JobEvent]:
        """The log of a job from after event `after` on, as it grows; ends with the job."""


class RolloutControl(Protocol):
    """Rollouts: many relays in waves."""

    async def create(
        self,
        *,
        name: str,
        kind: str,
        waves: list[list[str]],
        error_budget: int,
        confirm_minutes: int,
        probe: bool,
        actor: str,
        comment: str = "",
        ticket: str | None = None,
        request_id: str | None = None,
        rollout_id: str | None = None,
    ) -> Rollout:
        """Store a rollout whose waves hold relay ids, with its audit row, and start it."""

    async def pause(self, rollout_id: str, actor: str, why: Reason) -> Rollout:
        """Start no more relays; running ones finish. Audited."""

    async def resume(self, rollout_id: str, actor: str, why: Reason) -> Rollout:
        """Go on. Audited."""

    async def abort(self, rollout_id: str, actor: str, why: Reason) -> Rollout:
        """Start no more relays, ever. Audited."""


class DriftControl(Protocol):
    """What the API uses of `relaymgr.jobs.drift.DriftChecker`."""

    async def accept(self, relay_id: str, actor: str, why: Reason) -> None:
        """Take what the device has in its owned sections as what is expected from now on; audited."""


class DeviceSessions(Protocol):
    """What the API uses of `relaymgr.drivers.access.DeviceAccess`."""

    def forget(self, relay_id: str) -> None:
        """Close the session of a relay that was edited or deleted."""


@dataclass(frozen=True, slots=True)
class PresentedHostKey:
    """A host key as a device presented it to somebody who has not decided to trust it."""

    line: str
    """As in known_hosts, `ssh-ed25519 AAAA…`."""
    fingerprint: str
    """`SHA256:…`."""


class HostKeyScan(Protocol):
    """Asks a device for its host key without logging in."""

    async def __call__(self, host: str, port: int, *, legacy: bool, timeout: float) -> PresentedHostKey:  # noqa: ASYNC109
        """Raises DriverError."""


class IntentCheck(Protocol):
    """Whether a platform can do what an intent asks."""

    def __call__(self, target: DeviceTarget, intent: RelayIntent) -> None:
        """Raises CapabilityMissing; touches no device."""


def utc_now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Services:
    """Parts of a running manager that the API calls."""

    database: Database
    settings: Settings
    sealer: Sealer
    planner: Planning
    jobs: JobSubmission
    rollouts: RolloutControl
    drift: DriftControl
    access: DeviceSessions
    scan_host_key: HostKeyScan
    http_transport: httpx.AsyncBaseTransport | None = None
    """How the identity provider is reached; httpx's own when None."""
    check_intent: IntentCheck = refuse_impossible
    metrics: CollectorRegistry = field(default_factory=CollectorRegistry)
    """What /metrics shows; pollers and jobs may register collectors of their own."""
    clock: Callable[[], datetime] = utc_now
    ready: Callable[[], dict[str, str]] = field(default=dict)
    """Parts that are not ready and why; empty when all are (the database is asked by the API itself)."""
