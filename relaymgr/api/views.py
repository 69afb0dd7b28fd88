"""Rows as the API shows them, where a row of the table is not enough: freshness, names, fingerprints."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api.listings import Dicts, View
from relaymgr.api.schemas import changes, observed, relays
from relaymgr.api.schemas.common import Output
from relaymgr.api.services import Services
from relaymgr.store.tables import Plan, Relay

_IN_ONE_QUESTION = 500
"""Identifiers in one IN list; SQLite and PostgreSQL both stop somewhere."""


def age(now: datetime, then: datetime | None) -> float | None:
    """Seconds since `then`, never negative; None when it never was."""
    return None if then is None else round(max(0.0, (now - then).total_seconds()), 1)


def fingerprint(host_key: str | None) -> str | None:
    """`SHA256:…` of a key as in known_hosts, as `ssh-keygen -l` prints it; None when it is not one."""
    try:
        digest = hashlib.sha256(base64.b64decode((host_key or "").split()[1], validate=True)).digest()
    except (IndexError, binascii.Error):
        return None
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


_RELAY = tuple(name for name in relays.Relay.model_fields if name not in {"host_key_fingerprint", "age_seconds"})


def relay_body(row: Relay, now: datetime) -> dict[str, Any]:
    """A relay as answered."""
    body: dict[str, Any] = {name: getattr(row, name) for name in _RELAY}
    body["host_key_fingerprint"] = fingerprint(row.host_key)
    body["age_seconds"] = age(now, row.polled_at)
    return body


async def relay_view(_session: AsyncSession, rows: Sequence[Relay], services: Services) -> Dicts:
    """Relays."""
    now = services.clock()
    return [relay_body(row, now) for row in rows]


_PLAN = tuple(name for name in changes.Plan.model_fields if name not in {"expired", "unchanged"})


def plan_body(row: Plan, now: datetime) -> dict[str, Any]:
    """A plan as answered; the owned texts it compares stay inside."""
    body: dict[str, Any] = {name: getattr(row, name) for name in _PLAN}
    return body | {"expired": row.expires_at <= now, "unchanged": not row.diff}


async def plan_view(_session: AsyncSession, rows: Sequence[Plan], services: Services) -> Dicts:
    """Plans."""
    now = services.clock()
    return [plan_body(row, now) for row in rows]


Freshness = dict[str, tuple[str, datetime | None, dict[str, str], str | None]]
"""Relay id -> name, last poll, stale parts, why it is unreachable (None: it is not known to be)."""


async def freshness(session: AsyncSession, relay_ids: Iterable[str]) -> Freshness:
    """What is known of the relays that rows belong to."""
    found: Freshness = {}
    wanted = sorted(set(relay_ids))
    for start in range(0, len(wanted), _IN_ONE_QUESTION):
        columns = (Relay.id, Relay.name, Relay.polled_at, Relay.stale, Relay.reachability, Relay.reachability_reason)
        part = wanted[start : start + _IN_ONE_QUESTION]
        for relay_id, name, polled_at, stale, reachability, reason in await session.execute(
            select(*columns).where(Relay.id.in_(part))
        ):
            lost = (reason or "the relay is unreachable") if reachability == "unreachable" else None
            found[relay_id] = name, polled_at, stale, lost
    return found


def observed_view(schema: type[Output], part: str) -> View[Any]:
    """A view of rows polls replace; `part` names what of the poll they come from."""
    own = tuple(name for name in schema.model_fields if name not in observed.Observed.model_fields)
    read = attrgetter(*own, "relay_id", "seen_at")

    async def view(session: AsyncSession, rows: Sequence[Any], services: Services) -> Dicts:
        now = services.clock()
        relays_of_rows = await freshness(session, (row.relay_id for row in rows))
        items: Dicts = []
        for row in rows:
            *values, relay_id, seen_at = read(row)
            if (known := relays_of_rows.get(relay_id)) is None:
                continue  # deleted between two questions
            item: dict[str, Any] = dict(zip(own, values, strict=True))
            item["relay_id"] = relay_id
            item["relay_name"], item["polled_at"], stale, lost = known
            item["age_seconds"] = age(now, seen_at)
            item["stale"] = stale.get(part) or lost
            items.append(item)
        return items

    return view


def named_view(schema: type[Output]) -> View[Any]:
    """A view of rows of relays that add the relay's name, and the age of what was checked."""
    own = tuple(name for name in schema.model_fields if name not in {"relay_name", "age_seconds"})

    async def view(session: AsyncSession, rows: Sequence[Any], services: Services) -> Dicts:
        now = services.clock()
        relays_of_rows = await freshness(session, (row.relay_id for row in rows))
        items: Dicts = []
        for row in rows:
            if (known := relays_of_rows.get(row.relay_id)) is None:
                continue
            item: dict[str, Any] = {column: getattr(row, column) for column in own}
            item["relay_name"] = known[0]
            if "age_seconds" in schema.model_fields:
                item["age_seconds"] = age(now, row.checked_at)
            items.append(item)
        return items

    return view
