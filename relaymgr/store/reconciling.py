"""Makes the rows of one table equal to what was just seen, writing only what differs.

Known rows keep their id (paging and links hold on to it). There is no upsert on purpose: on PostgreSQL each attempt to
insert burns a number of the sequence, three thousand a second here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import FromClause, bindparam, column, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from relaymgr.store.tables import Table

Key = tuple[Any, ...]
Values = tuple[Any, ...]
Complete = Callable[["Values | None", Values, float], Values]
"""Given the row before, the row seen and the seconds between: the row with its rates."""


@dataclass(frozen=True)
class Kind:
    """How rows of one table are told apart and compared."""

    table: type[Table]
    key: tuple[str, ...]
    """Columns that, with `relay_id`, identify a row."""
    values: tuple[str, ...]
    """Columns that may change."""
    complete: Complete
    first_seen: bool = False
    """Whether the table keeps `first_seen_at`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one poll of one relay saw of one table."""

    relay_id: str
    at: datetime
    rows: Mapping[Key, Values]


@dataclass(slots=True)
class Outcome:
    """What reconciling did: rows by number, and the keys that vanished of each relay."""

    inserted: int = 0
    updated: int = 0
    gone: dict[str, list[Key]] = field(default_factory=dict)


@dataclass(slots=True)
class _Writes:
    insert: list[dict[str, Any]] = field(default_factory=list)
    update: dict[tuple[str, ...], list[dict[str, Any]]] = field(default_factory=dict)
    """By the columns that differ: most rows change in one or two of a dozen, and binding a value costs as much as
    comparing ten."""
    touch: list[dict[str, Any]] = field(default_factory=list)
    delete: list[dict[str, Any]] = field(default_factory=list)


async def reconcile(session: AsyncSession, kind: Kind, seen: Sequence[Seen]) -> Outcome:
    """Write what several relays showed, at most one `Seen` a relay."""
    outcome, writes = Outcome(), _Writes()
    if not seen:
        return outcome
    known = await _known(session, kind, [one.relay_id for one in seen])
    for one in seen:
        _compare(kind, one, known.get(one.relay_id, {}), writes, outcome)
        await asyncio.sleep(0)  # a relay takes a millisecond or more, and requests wait meanwhile
    outcome.inserted, outcome.updated = len(writes.insert), sum(map(len, writes.update.values()))
    await _write(session, kind, writes)
    return outcome


_Known = dict[Key, tuple[int, datetime, Values]]


async def _known(session: AsyncSession, kind: Kind, relay_ids: list[str]) -> dict[str, _Known]:
    columns = kind.table.__table__.c
    statement = select(*(columns[name] for name in ("id", "relay_id", "seen_at", *kind.key, *kind.values))).where(
        columns["relay_id"].in_(relay_ids)
    )
    until_key = 3 + len(kind.key)
    known: dict[str, _Known] = {}
    for row in await session.execute(statement):
        known.setdefault(row[1], {})[tuple(row[3:until_key])] = (row[0], row[2], tuple(row[until_key:]))
    return known


def _compare(kind: Kind, one: Seen, known: _Known, writes: _Writes, outcome: Outcome) -> None:
    unchanged = False
    for key, values in one.rows.items():
        before = known.pop(key, None)
        if before is None:
            fresh = dict(zip(kind.values, kind.complete(None, values, 0.0), strict=True))
            fresh |= zip(kind.key, key, strict=True)
            fresh |= {"relay_id": one.relay_id, "seen_at": one.at}
            if kind.first_seen:
                fresh["first_seen_at"] = one.at
            writes.insert.append(fresh)
            continue
        row_id, seen_at, old = before
        complete = kind.complete(old, values, (one.at - seen_at).total_seconds())
        if complete == old:
            unchanged = True
            continue
        changed = {name: now for name, was, now in zip(kind.values, old, complete, strict=True) if was != now}
        changed |= {"seen_at": one.at, "row_id": row_id}
        writes.update.setdefault(tuple(changed), []).append(changed)
    if known:
        outcome.gone[one.relay_id] = list(known)
        writes.delete.extend({"row_id": row_id} for row_id, _, _ in known.values())
    if unchanged:
        writes.touch.append({"of_relay": one.relay_id, "now": one.at})


async def _write(session: AsyncSession, kind: Kind, writes: _Writes) -> None:
    table: FromClause = kind.table.__table__
    columns = table.c
    connection = await session.connection()
    if writes.delete:
        await connection.execute(delete(kind.table).where(columns["id"] == bindparam("row_id")), writes.delete)
    for rows in writes.update.values():
        await update_by_id(connection, kind.table, rows)
    if writes.insert:
        await connection.execute(insert(kind.table), writes.insert)
    if writes.touch:
        other_time = columns["seen_at"] != bindparam("now", type_=columns["seen_at"].type)
        statement = update(kind.table).where(columns["relay_id"] == bindparam("of_relay"), other_time)
        await connection.execute(statement.values(seen_at=bindparam("now")), writes.touch)


async def update_by_id(connection: AsyncConnection, table: type[Table], rows: Sequence[Mapping[str, Any]]) -> None:
    """Update many rows by their id, each to values of its own.

    Args:
        connection: within a transaction.
        table: which.
        rows: all with the same keys: `row_id`, and the columns to set.
    """
    columns = table.__table__.c
    names = [name for name in rows[0] if name != "row_id"]
    if connection.dialect.name != "postgresql":
        await connection.execute(update(table).where(columns["id"] == bindparam("row_id")), rows)
        return
    # One statement for all rows is several times as fast there as one a row.
    kinds = {"row_id": columns["id"].type} | {name: columns[name].type for name in names}
    arrays = [bindparam(f"all_{name}", type_=ARRAY(kind, dimensions=1)) for name, kind in kinds.items()]
    given = (
        func.unnest(*arrays).table_valued(*(column(name, kind) for name, kind in kinds.items())).render_derived("given")
    )
    statement = update(table).where(columns["id"] == given.c.row_id).values({name: given.c[name] for name in names})
    await connection.execute(statement, {f"all_{name}": [row[name] for row in rows] for name in kinds})
