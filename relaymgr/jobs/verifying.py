"""Looks whether a relay is well after a change, through a fresh session, until it is or patience ends."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy import select

from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.observed import Observation
from relaymgr.domain.platforms import CapabilityMissing
from relaymgr.domain.verification import Baseline, Check, Tolerances, failures, passed, verify
from relaymgr.drivers.errors import DriverError
from relaymgr.jobs.held import Held
from relaymgr.jobs.parts import Parts
from relaymgr.jobs.probe import Probe, probe_relay
from relaymgr.store.tables import IntentRevision, Plan

log = logging.getLogger(__name__)


class Verifier:
    """Runs the rules of `relaymgr.domain.verification` against a device."""

    def __init__(self, parts: Parts, probe: Probe = probe_relay) -> None:
        self._parts = parts
        self._probe = probe

    async def run(self, held: Held, baseline: Baseline, plan: Plan, *, patience: float) -> tuple[Check, ...]:
        """Look until everything is well, or for `patience` seconds, at most as long as configured."""
        removed, intent = await self._intents(plan, held)
        tolerances = Tolerances(removed_interfaces=removed)
        left = min(patience, self._parts.timing.verify_patience)
        started, told = self._parts.clock(), ""
        while True:
            after, unreadable = await self._observe(held)
            checks = verify(baseline, after, tolerances, unreadable)
            if held.job.parameters.get("probe"):
                checks = (*checks, *await self._probed(intent, drained=plan.drained))
            elapsed = (self._parts.clock() - started).total_seconds()
            if passed(checks) or elapsed + self._parts.timing.verify_again > left or await held.cancel_requested():
                return checks
            if (failed := failures({"checks": [check.dump() for check in checks]})) != told:
                await held.note(f"not well yet: {failed}; looking again", level="warning")
                told = failed
            await self._parts.sleep(self._parts.timing.verify_again)

    async def _observe(self, held: Held) -> tuple[Observation | None, str | None]:
        self._parts.access.forget(held.relay_id)  # an old session proves nothing about whether a new one can be made
        try:
            async with self._parts.access.configuring(held.relay_id, urgent=True) as driver:
                return await driver.observe(), None
        except (DriverError, CapabilityMissing) as error:
            log.info("verifying job %s: %s", held.job.id, error)
            return None, str(error)
        except Exception as error:  # a driver's defect must not keep a bad change
            log.exception("verifying job %s", held.job.id)
            return None, f"the driver failed: {type(error).__name__}"

    async def _probed(self, intent: RelayIntent | None, *, drained: bool) -> tuple[Check, ...]:
        """One check for each family of the intent."""
        families = [family for family in (intent.inet, intent.inet6) if family is not None] if intent else []
        if not families:
            return (Check("probe", passed=None, detail="no intent says where the relay answers"),)
        probes = [
            self._probe(None if drained else str(family.discovery_address), str(family.local_address))
            for family in families
        ]
        return tuple(await asyncio.gather(*probes))

    async def _intents(self, plan: Plan, held: Held) -> tuple[frozenset[str], RelayIntent | None]:
        """PIM interfaces that the change takes away, and the intent it applies."""
        old = await self._intent(plan.relay_id, held.job.result.get("previous", {}).get("intent_version"))
        new = await self._intent(plan.relay_id, plan.intent_version)
        before = {interface.name for interface in old.pim_interfaces} if old else set()
        after = {interface.name for interface in new.pim_interfaces} if new else set()
        return frozenset(before - after), new

    async def _intent(self, relay_id: str, version: int | None) -> RelayIntent | None:
        if version is None:
            return None
        statement = select(IntentRevision.body).where(
            IntentRevision.relay_id == relay_id, IntentRevision.version == version
        )
        async with self._parts.database.session() as session:
            body = await session.scalar(statement)
        return None if body is None else RelayIntent.model_validate(body)
