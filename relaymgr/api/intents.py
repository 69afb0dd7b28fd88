"""Writing intents: whether the platform can do it, its version, its revision, its audit row."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import ValidationError
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from relaymgr.api.problems import Refused
from relaymgr.api.recording import record
from relaymgr.api.services import Services
from relaymgr.domain.intent import RelayIntent
from relaymgr.store.principals import Principal
from relaymgr.store.relay_records import device_target
from relaymgr.store.tables import IntentRevision, Relay


async def check(services: Services, row: Relay, intent: RelayIntent) -> None:
    """Whether the relay's platform can do it; in a thread, because the first time a driver is loaded.

    Raises:
        CapabilityMissing: it cannot.
    """
    await asyncio.to_thread(services.check_intent, device_target(row), intent)


async def put(session: AsyncSession, services: Services, caller: Principal, row: Relay, intent: RelayIntent) -> bool:
    """Give the relay this intent; False when it has it already. The row is up to date afterwards.

    Raises:
        Refused: somebody gave it another one at the same time.
    """
    body: dict[str, Any] = intent.model_dump(mode="json")
    if _has(row, intent):
        return False
    before, version = row.intent, row.intent_version + 1
    written = await session.execute(
        update(Relay)
        .where(Relay.id == row.id, Relay.intent_version == row.intent_version)
        .values(intent=body, intent_version=version)
        .returning(Relay.id)
        .execution_options(synchronize_session=False)
    )
    if written.first() is None:
        raise Refused("etag_mismatch", "the intent was changed at the same time")
    now = services.clock()
    session.add(IntentRevision(relay_id=row.id, version=version, body=body, actor=caller.actor, created_at=now))
    await session.flush()
    await record(session, services, caller, "intent.put", ("relay", row.id), before=before, after=body, ad_id=row.ad_id)
    await session.refresh(row)
    return True


def _has(row: Relay, intent: RelayIntent) -> bool:
    """Whether it is the same intent, however much of it was written out."""
    if row.intent is None:
        return False
    try:
        return RelayIntent.model_validate(row.intent) == intent
    except ValidationError:  # of a version that knew other members
        return False
