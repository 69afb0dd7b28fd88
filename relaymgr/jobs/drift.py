"""Drift: does a relay still have what the last confirmed change left there, and who changed it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.domain.configuration import Change, Confirmation, OwnedConfiguration
from relaymgr.domain.drift import DriftState, compare
from relaymgr.domain.observed import CommitRecord
from relaymgr.drivers.errors import DriverError
from relaymgr.jobs.errors import Conflict, NotFound
from relaymgr.jobs.parts import Parts
from relaymgr.jobs.planner import relay_held, window_open
from relaymgr.store import audit, events
from relaymgr.store.audit import UNSAID, Reason
from relaymgr.store.tables import DriftRow, Relay

UNKNOWN: Final = "unknown"
UNMANAGED: Final = "unmanaged"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: none, drifted, unknown or unmanaged (nothing was ever applied)."""

    state: str
    diff: str = ""
    reason: str | None = None
    actual: OwnedConfiguration | None = None
    last_commit: CommitRecord | None = None


class DriftChecker:
    """Compares relays with what was applied to them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def check(self, relay_id: str) -> Finding:
        """Read the owned sections, compare, and record what was found.

        Raises:
            JobError: no such relay, or a confirm window of ours is open there.
            DriverError: the device; recorded as unknown with the reason.
        """
        await self._intended(relay_id)
        async with relay_held(self._parts, relay_id):
            intended = await self._intended(relay_id)
            if intended is None:
                finding = Finding(UNMANAGED, reason="nothing was applied yet")
            else:
                finding = await self._compare(relay_id, intended)
            await self._record(relay_id, intended, finding)
        return finding

    async def accept(self, relay_id: str, actor: str, why: Reason = UNSAID) -> None:
        """Take what the last check found on the device as what is expected from now on.

        Raises:
            JobError: no drift is known, or a confirm window is open.
        """
        now = self._parts.clock()
        async with self._parts.database.begin() as session:
            relay = await session.get(Relay, relay_id, with_for_update=True)
            drift = await session.get(DriftRow, relay_id)
            if relay is None:
                raise NotFound("not_found", f"no relay {relay_id}")
            if relay.window_job_id is not None:
                raise window_open(relay)
            if drift is None or drift.state != DriftState.DRIFTED.value:
                raise Conflict("no_drift", f"no drift of {relay.name} is known")
            relay.applied_text, relay.drift_state = drift.actual_text, DriftState.NONE.value
            relay.version, relay.updated_at = relay.version + 1, now
            diff, drift.state, drift.diff, drift.since = drift.diff, DriftState.NONE.value, "", None
            await audit.record(
                session,
                actor,
                "drift.accept",
                "relay",
                relay_id,
                before={"state": DriftState.DRIFTED.value, "diff": diff},
                after={"state": DriftState.NONE.value},
                comment=why.comment or None,
                ticket=why.ticket,
                request_id=why.request_id,
                ad_id=relay.ad_id,
                now=now,
            )

    async def _intended(self, relay_id: str) -> OwnedConfiguration | None:
        async with self._parts.database.session() as session:
            relay = await session.get(Relay, relay_id)
        if relay is None:
            raise NotFound("not_found", f"no relay {relay_id}")
        if relay.window_job_id is not None:
            raise window_open(relay)
        return (
            None if relay.applied_text is None else OwnedConfiguration(tuple(relay.applied_scope), relay.applied_text)
        )

    async def _compare(self, relay_id: str, intended: OwnedConfiguration) -> Finding:
        try:
            async with self._parts.access.configuring(relay_id) as driver:
                reading = await driver.read_change(_nobodys(intended))
                if reading.confirmation is Confirmation.PENDING:
                    return Finding(UNKNOWN, reason="a commit of somebody else waits for its confirmation")
                drift = compare(intended, reading.owned)
                return Finding(drift.state.value, drift.diff, None, reading.owned, reading.last_commit)
        except DriverError as error:
            await self._record(relay_id, intended, Finding(UNKNOWN, reason=str(error)))
            raise

    async def _record(self, relay_id: str, intended: OwnedConfiguration | None, finding: Finding) -> None:
        """Store a finding, unless a change of ours made it meaningless meanwhile."""
        now = self._parts.clock()
        async with self._parts.database.begin() as session:
            relay = await session.get(Relay, relay_id, with_for_update=True)
            if relay is None or (intended is not None and relay.applied_text != intended.text):
                return
            was, relay.drift_state, relay.drift_checked_at = relay.drift_state, finding.state, now
            if finding.state != UNMANAGED:
                await _keep(session, relay_id, finding, now)
            if finding.state == DriftState.DRIFTED.value and was != finding.state:
                by = finding.last_commit.user if finding.last_commit else None
                await events.emit(
                    session,
                    "drift.found",
                    "warning",
                    f"{relay.name} is not as applied" + (f"; {by} committed last" if by else ""),
                    relay_id=relay_id,
                    now=now,
                )
            elif finding.state == DriftState.NONE.value and was == DriftState.DRIFTED.value:
                await events.emit(
                    session, "drift.gone", "info", f"{relay.name} is as applied again", relay_id=relay_id, now=now
                )


async def _keep(session: AsyncSession, relay_id: str, finding: Finding, now: datetime) -> None:
    row = await session.get(DriftRow, relay_id)
    if row is None:
        row = DriftRow(relay_id=relay_id, state=finding.state, diff="", checked_at=now)
        session.add(row)
    drifted = finding.state == DriftState.DRIFTED.value
    row.since = (row.since or now) if drifted else None
    row.state, row.diff, row.reason, row.checked_at = finding.state, finding.diff, finding.reason, now
    if finding.actual is not None:
        row.actual_text, row.actual_scope = finding.actual.text, list(finding.actual.scope)
    if finding.last_commit is not None:
        row.changed_by, row.changed_at = finding.last_commit.user, finding.last_commit.at


def _nobodys(intended: OwnedConfiguration) -> Change:
    """For reading sections together with windows and the last commit, without a change of ours."""
    return Change(
        mark="isthmus drift",
        desired=intended,
        before=intended,
        device_fingerprint="",
        confirm_minutes=0,
    )
