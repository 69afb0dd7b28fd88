"""Plans: what a change would do to one relay, read from the device and stored."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from relaymgr.domain.configuration import DevicePlan
from relaymgr.drivers.errors import DeviceBusy
from relaymgr.drivers.protocol import Driver
from relaymgr.jobs.desired import Desired, desired_of
from relaymgr.jobs.errors import Conflict, Invalid, NotFound
from relaymgr.jobs.heartbeat import kept
from relaymgr.jobs.parts import CHANGES, Parts
from relaymgr.store import leases
from relaymgr.store.tables import Plan, Relay, new_id


class Planner:
    """Makes plans. Never changes a device, and never touches one inside a confirm window."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def make_plan(self, relay_id: str, kind: str, actor: str) -> Plan:
        """Read the device and store what a change of `kind` would do.

        Raises:
            JobError: no such relay, nothing to plan with, or its confirm window is open.
            DriverError: the device; DeviceBusy also when another task of ours has it for too long.
            CapabilityMissing: the intent asks for what the device cannot do; it was not touched.
        """
        await self._admit(relay_id, kind)
        async with relay_held(self._parts, relay_id), self._parts.access.configuring(relay_id) as driver:
            await self._admit(relay_id, kind)  # a window may have opened while we waited
            return await self.plan_on(driver, relay_id, kind, actor)

    async def plan_on(self, driver: Driver, relay_id: str, kind: str, actor: str) -> Plan:
        """The same, for a caller that holds relay and driver."""
        desired = await self._desired(driver, relay_id, kind)
        found = await driver.plan(desired.configuration)
        plan = self._row(relay_id, kind, actor, desired, found)
        async with self._parts.database.begin() as session:
            session.add(plan)
        return plan

    async def _desired(self, driver: Driver, relay_id: str, kind: str) -> Desired:
        async with self._parts.database.session() as session:
            relay = await session.get(Relay, relay_id)
            if relay is None:
                raise NotFound("not_found", f"no relay {relay_id}")
            return await desired_of(session, relay, kind, driver)

    async def _admit(self, relay_id: str, kind: str) -> None:
        if kind not in CHANGES:
            raise Invalid("invalid_request", f"{kind!r} is no kind of change")
        async with self._parts.database.session() as session:
            relay = await session.get(Relay, relay_id)
        if relay is None:
            raise NotFound("not_found", f"no relay {relay_id}")
        if relay.window_job_id is not None:
            raise window_open(relay)

    def _row(self, relay_id: str, kind: str, actor: str, desired: Desired, found: DevicePlan) -> Plan:
        now = self._parts.clock()
        return Plan(
            id=new_id(),
            relay_id=relay_id,
            kind=kind,
            intent_version=desired.intent_version,
            drained=desired.drained,
            diff=found.diff,
            diff_source=found.diff_source.value,
            commands=found.commands,
            desired_scope=list(desired.configuration.scope),
            desired_text=desired.configuration.text,
            before_scope=list(found.before.scope),
            before_text=found.before.text,
            device_fingerprint=found.device_fingerprint,
            new_scope=list(desired.new_scope),
            new_text=desired.new_text,
            actor=actor,
            created_at=now,
            expires_at=now + timedelta(seconds=self._parts.timing.plan_lifetime),
        )


def window_open(relay: Relay) -> Conflict:
    """What everybody is told who comes while a change of ours waits on the device."""
    until = f" until {relay.window_until:%H:%M:%S} UTC at the latest" if relay.window_until else ""
    return Conflict("confirm_window_open", f"job {relay.window_job_id} waits on {relay.name} for confirmation{until}")


@asynccontextmanager
async def relay_held(parts: Parts, relay_id: str) -> AsyncIterator[None]:
    """Hold a relay against other processes, for callers that are no job; waits a little for its turn.

    Raises:
        DeviceBusy: it did not come, or the lease was lost meanwhile.
    """
    name, holder, lease = f"relay:{relay_id}", f"{parts.worker}:{secrets.token_hex(4)}", parts.timing.lease
    deadline = asyncio.get_running_loop().time() + parts.timing.plan_wait
    while not await leases.acquire(parts.database, name, holder, lease, parts.clock()):
        if asyncio.get_running_loop().time() >= deadline:
            raise DeviceBusy(relay_id, "another task of the manager configures the device")
        await asyncio.sleep(min(0.2, parts.timing.plan_wait / 10))

    def lost() -> DeviceBusy:
        return DeviceBusy(relay_id, "another task of the manager took the device over")

    async def renew() -> bool:
        return await leases.renew(parts.database, name, holder, lease, parts.clock())

    try:
        async with kept(renew, lease, name, lost):
            yield
    finally:
        await leases.release(parts.database, name, holder)
