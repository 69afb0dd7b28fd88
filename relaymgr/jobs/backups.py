"""Configuration backups: one row for each change seen, sealed, with a difference between any two."""

from __future__ import annotations

import hashlib

from sqlalchemy import select, update

from relaymgr.domain.differences import unified
from relaymgr.drivers.protocol import Driver
from relaymgr.jobs.errors import NotFound
from relaymgr.jobs.parts import Parts
from relaymgr.jobs.planner import relay_held, window_open
from relaymgr.store import events
from relaymgr.store.sealing import backup_context
from relaymgr.store.tables import Backup, Relay, new_id


class Backups:
    """Takes, opens and compares backups."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def take(self, relay_id: str, reason: str, *, job_id: str | None = None) -> str | None:
        """Read a relay's configuration and keep it when it is not what was kept last. Returns the new backup's id.

        Raises:
            JobError: no such relay, or its confirm window is open.
            DriverError: the device.
        """
        async with relay_held(self._parts, relay_id):
            async with self._parts.database.session() as session:
                relay = await session.get(Relay, relay_id)
            if relay is None:
                raise NotFound("not_found", f"no relay {relay_id}")
            if relay.window_job_id is not None:
                raise window_open(relay)
            async with self._parts.access.configuring(relay_id) as driver:
                return await self.take_with(driver, relay_id, reason, job_id=job_id)

    async def take_with(self, driver: Driver, relay_id: str, reason: str, *, job_id: str | None = None) -> str | None:
        """The same, for a caller that holds relay and driver."""
        plain = (await driver.read_configuration()).encode()
        digest = hashlib.sha256(plain).hexdigest()
        backup_id = new_id()
        sealed = self._parts.sealer.seal(plain, backup_context(backup_id))
        now = self._parts.clock()
        async with self._parts.database.begin() as session:
            await session.execute(update(Relay).where(Relay.id == relay_id).values(backup_checked_at=now))
            last = await session.scalar(
                select(Backup.sha256).where(Backup.relay_id == relay_id).order_by(Backup.id.desc()).limit(1)
            )
            if last == digest:
                return None
            session.add(
                Backup(
                    id=backup_id,
                    relay_id=relay_id,
                    taken_at=now,
                    sha256=digest,
                    size_bytes=len(plain),
                    sealed=sealed,
                    reason=reason,
                    job_id=job_id,
                )
            )
            await events.emit(
                session,
                "backup.taken",
                "info",
                "the configuration changed since the last backup" if last else "first backup",
                relay_id=relay_id,
                data={"backup_id": backup_id, "reason": reason},
                now=now,
            )
        return backup_id

    async def diff(self, before_id: str, after_id: str) -> str:
        """Difference between two backups, unified, secrets masked.

        Raises:
            NotFound: one of them does not exist.
        """
        return unified(
            await self._text(before_id), await self._text(after_id), before_name=before_id, after_name=after_id
        )

    async def _text(self, backup_id: str) -> str:
        async with self._parts.database.session() as session:
            row = await session.get(Backup, backup_id)
        if row is None:
            raise NotFound("not_found", f"no backup {backup_id}")
        return self._parts.sealer.open(row.sealed, backup_context(backup_id)).decode()
