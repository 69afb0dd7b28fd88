"""Events: what a NOC wants to know, in the order it happened."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.store.tables import Event, Json, Relay


class Severity(StrEnum):
    """How urgent an event is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


async def emit(
    session: AsyncSession,
    kind: str,
    severity: Severity | str,
    message: str,
    *,
    relay_id: str | None = None,
    ad_id: str | None = None,
    data: Json | None = None,
    now: datetime | None = None,
) -> Event:
    """Add an event to the transaction. Without `ad_id` it belongs to the AD that owns the relay.

    Args:
        session: of `Database.begin`.
        kind: stable and documented, `relay.unreachable`.
        severity: one of `Severity`.
        message: a sentence for people; no secrets.
        relay_id: the relay it is about.
        ad_id: who may see it.
        data: more, for machines; JSON.
        now: when; the clock's now when absent.
    """
    if ad_id is None and relay_id is not None:
        ad_id = await session.scalar(select(Relay.ad_id).where(Relay.id == relay_id))
    event = Event(
        at=now or datetime.now(UTC),
        severity=Severity(severity).value,
        kind=kind,
        relay_id=relay_id,
        ad_id=ad_id,
        message=message,
        data=data or {},
    )
    session.add(event)
    return event
