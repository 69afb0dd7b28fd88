"""Audit rows: who wrote what, before and after, without secrets. Rows are only ever added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.store.principals import Principal
from relaymgr.store.redaction import redact
from relaymgr.store.tables import AuditRow


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is written, and by which request: what a caller hands down to whoever does the write."""

    comment: str = ""
    ticket: str | None = None
    request_id: str | None = None


UNSAID = Reason()


async def record(
    session: AsyncSession,
    actor: Principal | str,
    action: str,
    resource_type: str,
    resource_id: str | None,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    comment: str | None = None,
    ticket: str | None = None,
    request_id: str | None = None,
    ad_id: str | None = None,
    outcome: str = "ok",
    now: datetime | None = None,
) -> AuditRow:
    """Add an audit row to the transaction that does the write, so that neither exists without the other.

    Args:
        session: of `Database.begin`.
        actor: a Principal, or a name such as `system`.
        action: `relay.create`, `intent.put`, `job.create`, `job.apply` (how it ended), …
        resource_type: `relay`, `credential`, …
        resource_id: its id, where it has one.
        before: the resource before; None when it was made. Values that look secret are replaced at any depth.
        after: the resource after; None when it was deleted.
        comment: the operator's.
        ticket: the operator's.
        request_id: of the request that did it.
        ad_id: who may see the row.
        outcome: `ok`, or the code of what went wrong.
        now: when; the clock's now when absent.
    """
    row = AuditRow(
        at=now or datetime.now(UTC),
        actor=actor.actor if isinstance(actor, Principal) else actor,
        action=action,
        resource_type=resource_type,
        resource_id=resource_id,
        ad_id=ad_id,
        before=None if before is None else redact(before),
        after=None if after is None else redact(after),
        comment=redact(comment),
        ticket=redact(ticket),
        request_id=request_id,
        outcome=outcome,
    )
    session.add(row)
    return row
