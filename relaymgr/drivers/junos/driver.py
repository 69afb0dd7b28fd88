"""`JunosDriver`: the Driver of Junos relays.

What is read travels over one NETCONF session of our own, kept open between polls. What changes configuration opens a
session of its own (`configuration_session`), for which the other one is closed first: one session a device.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from lxml import etree

from relaymgr.domain.configuration import Change, ChangeReading, Confirmation, DevicePlan, OwnedConfiguration
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.observed import Facts, Observation
from relaymgr.domain.platforms import Capabilities, Platform
from relaymgr.drivers.errors import ConfigurationRefused, Garbage
from relaymgr.drivers.junos import facts, observation, rendering
from relaymgr.drivers.junos.capabilities import CAPABILITIES
from relaymgr.drivers.junos.changes import COMMITTED, ChangeProcedure, read_history, whole
from relaymgr.drivers.junos.configuration_session import configuration_session
from relaymgr.drivers.junos.native_session import refusals_named
from relaymgr.drivers.junos.trees import cut, filter_for, fingerprint
from relaymgr.drivers.netconf import NetconfSession
from relaymgr.drivers.netconf.documents import descendants
from relaymgr.drivers.protocol import Credential, DeviceTarget, DriverContext
from relaymgr.drivers.turns import in_turn

_BACKUP = '<get-configuration database="committed" format="text"/>'

Part = TypeVar("Part")


class JunosDriver:
    """One Junos relay; see `relaymgr.drivers.protocol.Driver`.

    `target.port` is the NETCONF port (830 when None). `target.options`: `keyboard_interactive` = `yes` for devices that
    take no plain password (as RADIUS and TACACS+ set-ups may).
    """

    platform = Platform.JUNOS

    def __init__(self, target: DeviceTarget, credential: Credential, context: DriverContext) -> None:
        self._target = target
        self._credential = credential
        self._context = context
        self._session: NetconfSession | None = None

    def capabilities(self) -> Capabilities:
        """Everything but AMT for IPv6."""
        return CAPABILITIES

    def render(self, intent: RelayIntent, *, drained: bool) -> OwnedConfiguration:
        """The owned paths and their canonical XML; see `rendering`."""
        return rendering.render(intent, drained=drained)

    async def facts(self) -> Facts:
        """Host name, model, release, serial number and uptime."""
        replies = [await self._optional(operation) for operation in facts.QUERIES]
        return facts.read([reply for reply in replies if reply is not None])

    async def device_capabilities(self) -> Capabilities:
        """The same for every Junos device."""
        return CAPABILITIES

    async def observe(self) -> Observation:
        """Five RPCs on the open session."""
        missing: dict[str, str] = {}
        tunnels = await self._part("tunnels", missing, observation.TUNNELS, observation.tunnels_and_memberships)
        joined = tunnels[1] if tunnels is not None else None
        channels = await self._part(
            "channels", missing, observation.CHANNELS, lambda reply: observation.channels(reply, joined)
        )
        neighbors = await self._part("pim_neighbors", missing, observation.NEIGHBORS, observation.neighbors)
        gauges = await self._part("statistics", missing, observation.SUMMARY, observation.summary)
        statistics = None
        if gauges is not None:
            statistics = await self._part(
                "statistics", missing, observation.STATISTICS, lambda reply: observation.statistics(gauges, reply)
            )
        return Observation(tunnels[0] if tunnels is not None else None, channels, neighbors, statistics, missing)

    async def read_owned(self, scope: tuple[str, ...]) -> OwnedConfiguration:
        """Committed configuration at the paths of `scope`."""
        wanted = filter_for(scope)
        operation = f'<get-configuration database="committed" format="xml">{wanted}</get-configuration>'
        root = whole(self._target.name, await self._query(operation))
        return OwnedConfiguration(scope, await asyncio.to_thread(cut, root, scope))

    async def read_configuration(self) -> str:
        """The committed configuration as text in braces."""
        reply = await self._query(_BACKUP)
        found = next(descendants(reply, "configuration-text"), None)
        if found is None or not found.text:
            raise Garbage(self._target.name, "answered without a configuration text")
        return found.text.strip("\n") + "\n"

    async def plan(self, desired: OwnedConfiguration) -> DevicePlan:
        """The device's own difference, from a candidate that is discarded again."""
        async with self._changing() as procedure:
            return await procedure.plan(desired)

    async def begin_change(self, change: Change) -> None:
        """Lock, load, check, commit confirmed, unlock."""
        async with self._changing() as procedure:
            await procedure.begin(change)

    async def read_change(self, change: Change) -> ChangeReading:
        """Owned sections, open window, newest commit and fingerprint, all committed and without a lock."""
        commits, state, left = await read_history(self._query)
        entry = commits[0] if commits else None
        ours = entry.carries(change.mark) if entry is not None else None
        if state is Confirmation.NONE and ours and entry is not None and entry.confirm_minutes is not None:
            # Nothing came after our commit; by the device's clock its time is over. Either a commit check confirmed
            # it, or somebody set the clock and the timer still runs: by our own clock time will tell.
            state = Confirmation.UNKNOWN
        root = whole(self._target.name, await self._query(COMMITTED))
        scope = change.desired.scope
        text, digest = await asyncio.to_thread(lambda: (cut(root, scope), fingerprint(root)))
        return ChangeReading(
            owned=OwnedConfiguration(scope, text),
            confirmation=state,
            confirmation_is_ours=ours,
            seconds_left=left,
            last_commit=entry.record if entry is not None else None,
            device_fingerprint=digest,
            committed=any(commit.carries(change.mark) for commit in commits) if commits else None,
        )

    async def confirm_change(self, change: Change) -> None:
        """Commit once more, under the lock, after a look that the pending change is ours."""
        async with self._changing() as procedure:
            await procedure.confirm(change)

    async def revert_change(self, change: Change) -> None:
        """Commit the configuration before the change."""
        async with self._changing() as procedure:
            await procedure.revert(change)

    async def close(self) -> None:
        """End the session, if any."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _query(self, operation: str) -> etree._Element:
        if self._session is None or not self._session.is_open:
            await self.close()
            self._session = await NetconfSession.connect(self._target, self._credential, self._target.port)
        async with refusals_named(self._target.name):
            return await self._session.rpc(operation, deadline=self._target.deadlines.rpc)

    async def _optional(self, operation: str) -> etree._Element | None:
        try:
            return await self._query(operation)
        except ConfigurationRefused:
            return None

    async def _part(
        self, name: str, missing: dict[str, str], operation: str, read: Callable[[etree._Element], Part]
    ) -> Part | None:
        """One part of a poll; one that the device refuses or answers badly is named in `missing`."""
        try:
            reply = await self._query(operation)
            if observation.is_large(reply):
                return await asyncio.to_thread(read, reply)
            return await in_turn(lambda: read(reply))
        except ConfigurationRefused as error:
            missing[name] = error.detail[:300]
        except observation.NotRunning as said:
            missing[name] = f"the device says: {said}"
        except observation.Unreadable as error:
            missing[name] = str(error)
        return None

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[ChangeProcedure]:
        await self.close()
        session = configuration_session(self._target, self._credential, self._context)
        try:
            await session.open()
            yield ChangeProcedure(self._target.name, session)
        finally:
            await session.close()
