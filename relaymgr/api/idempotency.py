"""Idempotency-Key: the same request with the same key makes one job, also when its answer was lost on the way.

A key is a lease (`idempotency:…`) whose holder tells the request's digest and the job it made. It is taken before the
job is made, for a minute; with the job it is kept for a day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError

from relaymgr.api.problems import Refused
from relaymgr.api.services import Services
from relaymgr.store.tables import Job, Lease

_RESERVED: Final = timedelta(minutes=1)
_KEPT: Final = timedelta(hours=24)


async def once(services: Services, actor: str, key: str, digest: str, make: Callable[[], Awaitable[Job]]) -> Job:
    """The job that `make` makes, or the one it made when the key was used first.

    Args:
        services: the services.
        actor: whose key it is.
        key: the header.
        digest: what two requests with one key must have in common.
        make: makes the job.
    """
    name = "idempotency:" + hashlib.sha256(f"{actor}\0{key}".encode()).hexdigest()
    known = await _reserve(services, name, digest)
    if known is not None:
        return known
    try:
        job = await make()
    except BaseException:
        async with services.database.begin() as session:
            await session.execute(delete(Lease).where(Lease.name == name))
        raise
    async with services.database.begin() as session:
        values = {"holder": f"{digest}:{job.id}", "until": services.clock() + _KEPT}
        await session.execute(update(Lease).where(Lease.name == name).values(**values))
    return job


async def _reserve(services: Services, name: str, digest: str) -> Job | None:
    now = services.clock()
    try:
        async with services.database.begin() as session:
            lease = await session.get(Lease, name, with_for_update=True)
            if lease is None:
                session.add(Lease(name=name, holder=f"{digest}:", until=now + _RESERVED))
                return None
            if lease.until <= now:
                lease.holder, lease.until = f"{digest}:", now + _RESERVED
                return None
            first, _, job_id = lease.holder.partition(":")
            if first != digest:
                raise Refused("idempotency_key_reused", "the key was used with another request")
            job = await session.get(Job, job_id) if job_id else None
    except IntegrityError:
        job = None
    if job is None:
        raise Refused("conflict", "the first request with this key is still under way", headers={"Retry-After": "5"})
    return job
