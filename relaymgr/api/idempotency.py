"""Idempotency-Key: the same request with the same key makes one job or rollout, also when its answer was lost.

A key is a lease (`idempotency:…`) kept for a day, whose holder tells the request's digest, the id that what it makes
will have, and since when it is being made. The id is chosen first: so whoever comes with the key again finds what was
made, also when the manager died between making it and saying so.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from relaymgr.api.problems import Refused
from relaymgr.api.services import Services
from relaymgr.store.tables import Job, Lease, Rollout, new_id

_RESERVED: Final = timedelta(minutes=1)
"""Whoever has not made it by then has died."""
_KEPT: Final = timedelta(hours=24)
Made = TypeVar("Made", Job, Rollout)


def digest_of(*parts: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    """What two requests with one key must have in common."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


async def once(
    services: Services,
    actor: str,
    key: str | None,
    digest: str,
    table: type[Made],
    make: Callable[[str], Awaitable[Made]],
) -> Made:
    """What `make` makes, or what it made when the key was used first.

    Args:
        services: the services.
        actor: whose key it is.
        key: the header; without it everything is made anew.
        digest: what two requests with one key must have in common.
        table: of what is made.
        make: makes it, with the id it is given.
    """
    row_id = new_id()
    if key is None:
        return await make(row_id)
    name = "idempotency:" + hashlib.sha256(f"{actor}\0{key}".encode()).hexdigest()
    known = await _reserve(services, name, digest, table, row_id)
    if known is not None:
        return known
    try:
        return await make(row_id)
    except Exception:
        await _give_back(services, name, table, row_id)
        raise
    except asyncio.CancelledError:
        await asyncio.shield(_give_back(services, name, table, row_id))
        raise


async def _reserve(services: Services, name: str, digest: str, table: type[Made], row_id: str) -> Made | None:
    now = services.clock()
    mine = f"{digest}:{row_id}:{now.isoformat()}"
    try:
        async with services.database.begin() as session:
            lease = await session.get(Lease, name, with_for_update=True)
            if lease is None:
                session.add(Lease(name=name, holder=mine, until=now + _KEPT))
                return None
            first, made_id, since = lease.holder.split(":", 2)
            if lease.until <= now:
                lease.holder, lease.until = mine, now + _KEPT
                return None
            if first != digest:
                raise Refused("idempotency_key_reused", "the key was used with another request")
            made = await session.get(table, made_id)
            if made is None and datetime.fromisoformat(since) <= now - _RESERVED:
                lease.holder, lease.until = mine, now + _KEPT
                return None
    except IntegrityError:
        made = None
    if made is None:
        raise Refused("conflict", "the first request with this key is still under way", headers={"Retry-After": "5"})
    return made


async def _give_back(services: Services, name: str, table: type[Made], row_id: str) -> None:
    """What made nothing keeps no key."""
    async with services.database.begin() as session:
        if await session.get(table, row_id) is None:
            holder = Lease.holder.contains(f":{row_id}:")
            await session.execute(delete(Lease).where(Lease.name == name, holder))
