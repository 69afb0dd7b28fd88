"""Writes down what polls read: many relays in one transaction."""

from __future__ import annotations

from datetime import datetime

from relaymgr.domain.observed import Facts, Observation
from relaymgr.domain.platforms import Capabilities
from relaymgr.store import relay_records
from relaymgr.store.database import Database
from relaymgr.store.observation_writer import ObservationWriter
from relaymgr.store.observations import Poll


class Recorder:
    """The poller's sink on the database."""

    def __init__(self, database: Database, writer: ObservationWriter) -> None:
        self._database = database
        self._writer = writer

    async def observed(self, relay_id: str, observation: Observation, started: datetime, ended: datetime) -> None:
        """Hand a poll to the writer."""
        self._writer.put(Poll(relay_id, started, ended, observation))

    async def failed(
        self, relay_id: str, reason: str, started: datetime, ended: datetime, *, unreachable: bool
    ) -> None:
        """Hand a failure to the writer."""
        self._writer.put(Poll(relay_id, started, ended, None, reason, unreachable))

    async def identified(self, relay_id: str, facts: Facts, capabilities: Capabilities) -> None:
        """Write what a device is; seldom enough for a transaction of its own."""
        async with self._database.begin() as session:
            await relay_records.store_identity(session, relay_id, facts=facts, capabilities=capabilities)
