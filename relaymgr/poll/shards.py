"""Which relays this process polls, among several: shards on leases, shared out evenly, taken over when one dies."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import ceil

from sqlalchemy import and_, or_, select

from relaymgr.domain.platforms import Platform
from relaymgr.poll.schedule import shard_of
from relaymgr.store import leases
from relaymgr.store.database import Database
from relaymgr.store.tables import Lease, Relay

_log = logging.getLogger(__name__)

SHARDS = 16
LEASE_SECONDS = 20.0
"""After this long without renewal a dead process's shards are taken over."""


class Shards:
    """The shards one process holds. Call `intervals` more often than a third of LEASE_SECONDS."""

    def __init__(
        self, database: Database, holder: str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._holder = holder
        self._clock = clock
        self.held: frozenset[int] = frozenset()

    async def intervals(self) -> Mapping[str, float]:
        """Relays to poll, with their intervals in seconds: enabled, with what a login takes, in a shard held here."""
        await self.renew()
        own = Relay.platform == Platform.ISTHMUS.value  # needs neither credential nor SSH
        ready = or_(own, and_(Relay.credential_id.is_not(None), Relay.host_key.is_not(None)))
        query = select(Relay.id, Relay.poll_interval_seconds).where(Relay.enabled, ready)
        async with self._database.session() as session:
            rows = (await session.execute(query)).all()
        return {relay_id: float(seconds) for relay_id, seconds in rows if shard_of(relay_id, SHARDS) in self.held}

    async def renew(self) -> None:
        """Hold on to a fair share of the shards: give back what is above it, take what is free below it."""
        now = self._clock()
        await leases.acquire(self._database, f"poller:{self._holder}", self._holder, LEASE_SECONDS, now)
        members, taken = await self._survey(now)
        fair = ceil(SHARDS / members)
        held: set[int] = set()
        for shard in sorted(self.held):
            if len(held) >= fair:
                await leases.release(self._database, _name(shard), self._holder)
            elif await leases.renew(self._database, _name(shard), self._holder, LEASE_SECONDS, now):
                held.add(shard)
        for shard in sorted(set(range(SHARDS)) - taken - held):
            if len(held) >= fair:
                break
            if await leases.acquire(self._database, _name(shard), self._holder, LEASE_SECONDS, now):
                held.add(shard)
        if held != self.held:
            _log.info("polling %d of %d shards, one of %d pollers", len(held), SHARDS, members)
        self.held = frozenset(held)

    async def release(self) -> None:
        """Give everything back, so that others need not wait for the leases to run out."""
        for shard in self.held:
            await leases.release(self._database, _name(shard), self._holder)
        await leases.release(self._database, f"poller:{self._holder}", self._holder)
        self.held = frozenset()

    async def _survey(self, now: datetime) -> tuple[int, set[int]]:
        """Pollers alive, and shards held by others."""
        async with self._database.session() as session:
            query = select(Lease.name, Lease.holder).where(Lease.name.like("poll%:%"), Lease.until > now)
            rows = (await session.execute(query)).all()
        members = {holder for name, holder in rows if name.startswith("poller:")} | {self._holder}
        shards = {
            int(name.removeprefix("poll:"))
            for name, holder in rows
            if name.startswith("poll:") and holder != self._holder
        }
        return len(members), shards


def _name(shard: int) -> str:
    return f"poll:{shard}"
