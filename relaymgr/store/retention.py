"""Deletes what is too old, a little at a time, so that writers hardly wait. Audit rows and backups are kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from relaymgr.settings import Settings
from relaymgr.store.database import Database
from relaymgr.store.tables import Event, Job, Lease, Plan, Relay, StatisticsSample, Table, Token

CHUNK = 2000
"""Rows deleted in one transaction."""
_FINISHED = ("succeeded", "failed", "rolled_back", "cancelled")
_FULL = timedelta(hours=24)
"""How long statistics keep every sample."""
_THINNED = timedelta(minutes=15)
_PLAN_KEPT = timedelta(days=7)
_TOKEN_KEPT = timedelta(days=30)


async def prune(database: Database, settings: Settings, now: datetime) -> dict[str, int]:
    """Delete what its retention ended for; returns rows deleted by table.

    Statistics and events by their settings; jobs (with their log) with the events, but none that is not finished or
    whose outcome is uncertain; plans a week after they expired, but none of a job that is kept; tokens thirty days
    after they ended; leases nobody holds (the key of an Idempotency-Key is held for its day). Of statistics older than
    a day one sample a quarter of an hour is kept: their counters only grow, so that rates stay right.
    """
    events_before = now - timedelta(days=settings.event_retention_days)
    statistics_before = now - timedelta(hours=settings.statistics_retention_hours)
    needed = select(Job.plan_id).where(Job.plan_id.is_not(None))
    token_end = now - _TOKEN_KEPT
    doomed: tuple[tuple[type[Table], InstrumentedAttribute[Any], ColumnElement[bool]], ...] = (
        (StatisticsSample, StatisticsSample.id, StatisticsSample.at < statistics_before),
        (Event, Event.id, Event.at < events_before),
        (Job, Job.id, and_(Job.state.in_(_FINISHED), Job.finished_at < events_before)),
        (Plan, Plan.id, and_(Plan.expires_at < now - _PLAN_KEPT, Plan.id.not_in(needed))),
        (Token, Token.id, or_(Token.expires_at < token_end, Token.revoked_at < token_end)),
        (Lease, Lease.name, Lease.until < now - timedelta(hours=1)),
    )
    deleted = {table.__tablename__: await _delete(database, table, key, condition) for table, key, condition in doomed}
    deleted[StatisticsSample.__tablename__] += await thin(database, now - _FULL)
    return deleted


async def thin(database: Database, before: datetime) -> int:
    """Keep the first sample of each relay in each quarter of an hour before `before`. Returns how many were deleted."""
    async with database.session() as session:
        relays = (await session.scalars(select(Relay.id))).all()
    deleted = 0
    for relay_id in relays:
        sample = StatisticsSample
        statement = select(sample.id, sample.at).where(sample.relay_id == relay_id, sample.at < before)
        async with database.session() as session:
            rows = (await session.execute(statement.order_by(sample.at, sample.id))).tuples().all()
        seen: set[float] = set()
        spare = [row_id for row_id, at in rows if _second_of(at.timestamp() // _THINNED.total_seconds(), seen)]
        for start in range(0, len(spare), CHUNK):
            chosen = delete(sample).where(sample.id.in_(spare[start : start + CHUNK]))
            async with database.begin() as session:
                await session.execute(chosen.execution_options(synchronize_session=False))
        deleted += len(spare)
    return deleted


def _second_of(quarter: float, seen: set[float]) -> bool:
    """Whether the quarter was seen before; it is from now on."""
    if quarter in seen:
        return True
    seen.add(quarter)
    return False


async def _delete(
    database: Database, table: type[Table], key: InstrumentedAttribute[Any], condition: ColumnElement[bool]
) -> int:
    deleted = 0
    while True:
        async with database.begin() as session:
            ids = (await session.scalars(select(key).where(condition).limit(CHUNK))).all()
            if ids:
                await session.execute(
                    delete(table).where(key.in_(ids), condition).execution_options(synchronize_session=False)
                )
        deleted += len(ids)
        if len(ids) < CHUNK:
            return deleted
