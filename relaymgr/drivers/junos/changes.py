"""The procedure of a change on a Junos device, over a `ConfigurationSession` that somebody opened.

Two rules come before everything. Inside a confirm window any commit, and also a commit check, confirms it: so the
history is read before anything else, and `check` is called only in `begin`, under the lock. The candidate is shared:
edits of others in it are neither committed nor discarded, the device counts as busy.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from lxml import etree

from relaymgr.domain.configuration import Change, Confirmation, DevicePlan, DiffSource, OwnedConfiguration
from relaymgr.drivers.errors import (
    ConfigurationChanged,
    ConfigurationRefused,
    ConfirmWindowOpen,
    DeadlineExceeded,
    DeviceBusy,
    DriverError,
    Garbage,
    SessionLost,
)
from relaymgr.drivers.junos import commit_history
from relaymgr.drivers.junos.configuration_session import ConfigurationSession
from relaymgr.drivers.junos.loopback import moved_identity
from relaymgr.drivers.junos.refusals import masked
from relaymgr.drivers.junos.trees import change as change_document
from relaymgr.drivers.junos.trees import configuration, cut, fingerprint, remains

COMMITTED = '<get-configuration database="committed" format="xml"/>'
CANDIDATE = '<get-configuration database="candidate" format="xml"/>'
_LONGEST_COMMENT = 200
_LONGEST_MINUTES = 65_535

Query = Callable[[str], Awaitable[etree._Element]]  # noqa: SLF001 -- lxml names its element so
"""Sends an operation that changes nothing and gives the reply."""


def whole(device: str, reply: etree._Element) -> etree._Element:
    """The configuration in a reply. Raises Garbage where there is none: an empty one would delete everything owned."""
    found = configuration(reply)
    if found is None:
        raise Garbage(device, "answered without a configuration")
    return found


class ChangeProcedure:
    """Plan, begin, confirm and revert on one open session."""

    def __init__(self, device: str, session: ConfigurationSession) -> None:
        self._device = device
        self._session = session
        self._edited = False

    async def plan(self, desired: OwnedConfiguration) -> DevicePlan:
        """What `desired` would change; loads it, asks for the difference, discards it."""
        await self._refuse_open_window()
        async with self._candidate():
            committed = whole(self._device, await self._session.query(COMMITTED))
            before = OwnedConfiguration(desired.scope, await asyncio.to_thread(cut, committed, desired.scope))
            document = change_document(desired.scope, before.text, desired.text)
            diff = await self._try_out(document, committed, desired) if document else ""
            return DevicePlan(
                diff=masked(diff),
                diff_source=DiffSource.DEVICE,
                commands=document,
                before=before,
                device_fingerprint=await asyncio.to_thread(fingerprint, committed),
            )

    async def begin(self, change: Change) -> None:
        """Commit `change.desired` with the device's timer running."""
        if not 1 <= change.confirm_minutes <= _LONGEST_MINUTES:  # PyEZ takes 0 for a commit without a timer
            raise ConfigurationRefused(self._device, f"a confirmed commit waits 1 to {_LONGEST_MINUTES} minutes")
        await self._refuse_open_window()
        async with self._candidate():
            committed = whole(self._device, await self._session.query(COMMITTED))
            if await asyncio.to_thread(fingerprint, committed) != change.device_fingerprint:
                raise ConfigurationChanged(
                    self._device, "the configuration changed since the plan was made; plan again"
                )
            scope = change.desired.scope
            document = change_document(scope, await asyncio.to_thread(cut, committed, scope), change.desired.text)
            if not document:
                return
            await self._try_out(document, committed, change.desired)
            await self._session.check()
            await self._commit(_comment(change), change.confirm_minutes)

    async def confirm(self, change: Change) -> None:
        """Make the pending change permanent."""
        await self._refuse_unless_ours(change)
        async with self._candidate():
            # Again, now that nobody else can commit: between the look and the lock the timer may have rolled back.
            await self._refuse_unless_ours(change)
            await self._commit(f"{change.mark} confirmed")

    async def revert(self, change: Change) -> None:
        """Commit what was before, which also ends the window."""
        await self._refuse_unless_ours(change)
        async with self._candidate():
            await self._refuse_unless_ours(change)
            self._edited = True
            await self._session.load_rollback(1)
            await self._commit(f"{change.mark} reverted")

    async def history(self) -> tuple[commit_history.CommitEntry | None, Confirmation]:
        """The newest commit and whether it waits."""
        commits, state, _ = await read_history(self._session.query)
        entry = commits[0] if commits else None
        return entry, state

    async def _refuse_open_window(self) -> None:
        entry, state = await self.history()
        if state is not Confirmation.NONE:
            who = entry.record.user if entry is not None and entry.record.user else "somebody"
            raise ConfirmWindowOpen(self._device, f"a confirmed commit by {who} waits; any commit would confirm it")

    async def _refuse_unless_ours(self, change: Change) -> None:
        entry, state = await self.history()
        if state is not Confirmation.PENDING or entry is None:
            raise ConfigurationChanged(
                self._device, "no confirmed commit waits any more; the device rolled back, or somebody committed"
            )
        if not entry.carries(change.mark):
            raise ConfigurationChanged(self._device, "the confirmed commit that waits is not of this change")

    @asynccontextmanager
    async def _candidate(self) -> AsyncIterator[None]:
        """The locked candidate without anybody's edits; ours are discarded at the end, whatever happened."""
        await self._refuse_foreign_edits()  # before the lock too: giving a lock back may discard what is there
        await self._session.lock()
        try:
            await self._refuse_foreign_edits()
        except BaseException:
            await self._quietly(self._session.unlock())
            raise
        try:
            yield
        except (SessionLost, DeadlineExceeded, asyncio.CancelledError):
            raise  # the device drops lock and candidate with the session; asking it more would only take time
        except BaseException:
            await self._quietly(self._session.load_rollback(0))
            await self._quietly(self._session.unlock())
            raise
        if self._edited:
            await self._session.load_rollback(0)
        await self._session.unlock()

    async def _commit(self, comment: str, confirm_minutes: int | None = None) -> None:
        await self._session.commit(comment, confirm_minutes)
        self._edited = False

    async def _quietly(self, call: Awaitable[None]) -> None:
        with suppress(DriverError):
            await call

    async def _refuse_foreign_edits(self) -> None:
        if (await self._session.diff()).strip():
            raise DeviceBusy(self._device, "somebody has uncommitted changes in the shared candidate configuration")

    async def _try_out(self, document: str, committed: etree._Element, desired: OwnedConfiguration) -> str:
        """Load into the candidate and make sure that it does what is wanted and nothing else. The device's diff."""
        self._edited = True
        await self._session.load(document)
        diff = await self._session.diff()
        candidate = whole(self._device, await self._session.query(CANDIDATE))
        was, now = await asyncio.to_thread(
            lambda: (remains(committed, desired.scope), remains(candidate, desired.scope))
        )
        if was != now:
            raise ConfigurationRefused(
                self._device, "loading the change would touch configuration outside of what is owned"
            )
        if moved := moved_identity(committed, candidate, desired.scope):
            raise ConfigurationRefused(self._device, moved, "interfaces lo0")
        accepted = cut(candidate, desired.scope)
        rest = change_document(desired.scope, accepted, desired.text)
        if rest:
            named = re.search(r"<name>([^<]*)</name>", rest)
            hint = f" (near {named[1]})" if named else ""
            raise ConfigurationRefused(self._device, f"the device keeps another configuration than it was given{hint}")
        return diff


def _comment(change: Change) -> str:
    """The mark, then what the operator said, as one line a commit log takes."""
    said = re.sub(r"[^\x20-\x7e]+", " ", change.comment).strip()
    return f"{change.mark} {said}".strip()[:_LONGEST_COMMENT]


async def read_history(query: Query) -> tuple[list[commit_history.CommitEntry], Confirmation, int | None]:
    """Commits, newest first, whether that waits, and seconds left, asked through `query` (operation -> reply)."""
    commits = commit_history.entries(await query(commit_history.QUERY))
    entry = commits[0] if commits else None
    clock = None
    if entry is not None and entry.confirm_minutes is not None:
        with suppress(ConfigurationRefused):
            clock = commit_history.device_clock(await query(commit_history.CLOCK))
    state, left = commit_history.confirmation(entry, clock)
    return commits, state, left
