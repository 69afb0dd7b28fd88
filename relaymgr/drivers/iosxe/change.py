"""A change on IOS-XE that the router takes back by itself: a revert timer, lines, `configure confirm`.

The timer needs `archive` with a `path`; without one nothing is changed. It is always started on the command line. The
lines go the same way, or through NETCONF's `config-ios-cli-rpc` where the release has it (17.9.1 on) and NETCONF is
given for the target; that RPC is outside NETCONF's transactions, so the timer is what takes them back in both cases.

The router keeps no mark of a job. A pending change counts as ours when the timer was started by our user and the owned
sections are what we sent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from xml.sax.saxutils import escape

from relaymgr.domain.configuration import (
    Change,
    ChangeReading,
    Confirmation,
    DevicePlan,
    DiffSource,
    OwnedConfiguration,
)
from relaymgr.domain.platforms import Capability, CapabilityMissing
from relaymgr.drivers.errors import (
    ConfigurationChanged,
    ConfigurationRefused,
    ConfirmWindowOpen,
    DeviceBusy,
    DriverError,
    Garbage,
)
from relaymgr.drivers.iosxe import running_config
from relaymgr.drivers.iosxe.commands import absent_loopbacks, command_lines, difference
from relaymgr.drivers.iosxe.operational import CLI_RPC
from relaymgr.drivers.iosxe.sessions import Sessions
from relaymgr.drivers.iosxe.show_output import RollbackTimer, Unreadable, rollback_timer
from relaymgr.drivers.netconf.documents import child_text
from relaymgr.drivers.protocol import Credential, DeviceTarget

LONGEST_MINUTES: Final = 120
ARCHIVE_MISSING: Final = (
    "the router can take a change back by itself only with a configuration archive; configure it first: "
    "`archive` and below it ` path bootflash:isthmus`"
)
_RPC_CHARACTERS: Final = 60_000
_CONFIGURATION_RPC: Final = "Cisco-IOS-XE-cli-rpc"
_NO_TIMER: Final = re.compile(r"No Rollback Confirmed Change|Invalid input|Incomplete command", re.IGNORECASE)
"""A release without the command has no such timer either."""
_BEFORE_TIMER: Final = 10.0
"""Seconds before the end of a revert timer from which on nothing is sent any more."""
_CREATED: Final = ("interface Loopback", "interface Tunnel")
"""Interfaces that come to be by naming them."""


class Changes:
    """Plans and makes changes on one router."""

    def __init__(self, target: DeviceTarget, credential: Credential, sessions: Sessions) -> None:
        self._target = target
        self._name = target.name
        self._user = credential.username
        self._sessions = sessions
        self._configures_over_netconf: bool | None = None if target.netconf_port is not None else False

    async def plan(self, desired: OwnedConfiguration) -> DevicePlan:
        """Difference and commands, computed here; the router is only read.

        Raises:
            CapabilityMissing: the router has no archive to go back to.
            ConfirmWindowOpen: a change waits there.
            ConfigurationRefused: an interface of `desired` does not exist.
        """
        await self._refuse_open_window()
        text, before, fingerprint = await self._running(desired.scope)
        lines = command_lines(before, desired)
        if lines:
            await asyncio.to_thread(self._refuse_impossible, text, desired)
        return DevicePlan(
            diff=difference(before, desired),
            diff_source=DiffSource.MANAGER,
            commands="".join(f"{line}\n" for line in lines),
            before=before,
            device_fingerprint=fingerprint,
        )

    async def begin(self, change: Change) -> None:
        """Start the timer and send the lines; when one is refused everything is taken back at once."""
        await self._refuse_open_window()
        text, owned, fingerprint = await self._running(change.desired.scope)
        if fingerprint != change.device_fingerprint:
            raise ConfigurationChanged(self._name, "its running configuration changed since the plan")
        lines = command_lines(owned, change.desired)
        if not lines:
            return
        await asyncio.to_thread(self._refuse_impossible, text, change.desired)
        if not 1 <= change.confirm_minutes <= LONGEST_MINUTES:
            raise ConfigurationRefused(self._name, f"a revert timer runs 1 to {LONGEST_MINUTES} minutes")
        opening = f"configure terminal revert timer {change.confirm_minutes}"
        through_netconf = await self._has_configuration_rpc()
        try:
            # A line typed when the timer went back already would stay, with nothing to take it back.
            seconds = min(self._target.deadlines.commit, change.confirm_minutes * 60 - _BEFORE_TIMER)
            await (await self._sessions.cli()).configure(opening, () if through_netconf else lines, seconds)
            if through_netconf:
                await self._send(lines, seconds)
        except (ConfigurationRefused, DeviceBusy):
            await self._take_back_if_pending()
            raise

    async def read(self, change: Change) -> ChangeReading:
        """What the router runs with, and whether a timer runs."""
        timer = await self._timer()
        text, owned, fingerprint = await self._running(change.desired.scope)
        saved = None
        if timer is None and owned.text == change.desired.text:
            saved = await self._is_saved(owned)
        return ChangeReading(
            owned=owned,
            confirmation=Confirmation.NONE if timer is None else Confirmation.PENDING,
            confirmation_is_ours=None if timer is None else self._is_ours(timer, owned, change),
            last_commit=running_config.last_change(text),
            device_fingerprint=fingerprint,
            saved=saved,
        )

    async def confirm(self, change: Change) -> None:
        """Stop the timer, then save for the next start of the router.

        Between the two whoever asks may die. So a change that is confirmed and not saved is saved when asked again.
        Saving is of the whole configuration: what others left unsaved is saved with it.
        """
        reading = await self.read(change)
        seconds = self._target.deadlines.commit
        if reading.saved is not False:
            self._refuse_unless_ours(reading)
            try:
                await (await self._sessions.cli()).show("configure confirm", seconds)
            except ConfigurationRefused as error:
                raise ConfigurationChanged(self._name, "no change waits to be confirmed any more") from error
        saved = await (await self._sessions.cli()).show("write memory", seconds)
        if "[OK]" not in saved:
            raise ConfigurationRefused(self._name, "the change is kept, but the router did not save it: write memory")
        _, owned, _ = await self._running(reading.owned.scope)
        if owned != reading.owned:
            raise ConfigurationChanged(self._name, "the owned sections changed while the change was confirmed")

    async def revert(self, change: Change) -> None:
        """Take the pending change back now; nothing happens where it is gone already."""
        reading = await self.read(change)
        if reading.confirmation is Confirmation.NONE and reading.owned.text == change.before.text:
            return
        self._refuse_unless_ours(reading)
        await (await self._sessions.cli()).show("configure revert now", self._target.deadlines.commit)

    async def _is_saved(self, owned: OwnedConfiguration) -> bool | None:
        """Whether the router starts with the owned sections too; None where it does not show with what it starts."""
        try:
            text = await self._sessions.show("show startup-config")
        except ConfigurationRefused as error:
            return False if "not present" in error.detail else None
        started = await asyncio.to_thread(running_config.owned, text, owned.scope)
        return started.text == owned.text

    async def _running(self, scope: tuple[str, ...]) -> tuple[str, OwnedConfiguration, str]:
        """The running configuration, what is owned of it, and its fingerprint; read aside, for it may be long."""
        text = await self._sessions.running_configuration()
        return await asyncio.to_thread(
            lambda: (text, running_config.owned(text, scope), running_config.fingerprint(text))
        )

    def _refuse_unless_ours(self, reading: ChangeReading) -> None:
        if reading.confirmation is not Confirmation.PENDING:
            raise ConfigurationChanged(self._name, "no change waits to be confirmed")
        if not reading.confirmation_is_ours:
            raise ConfigurationChanged(self._name, "the change that waits to be confirmed is not ours")

    def _is_ours(self, timer: RollbackTimer, owned: OwnedConfiguration, change: Change) -> bool:
        return timer.user in {self._user, ""} and owned.text == change.desired.text

    async def _timer(self) -> RollbackTimer | None:
        try:
            return rollback_timer(await self._sessions.show("show archive config rollback timer"))
        except Unreadable as error:
            raise Garbage(self._name, str(error)) from error
        except ConfigurationRefused as error:
            if _NO_TIMER.search(error.detail):
                return None
            raise  # a user who may not see the timer does not know that there is none

    async def _refuse_open_window(self) -> None:
        timer = await self._timer()
        if timer is not None:
            raise ConfirmWindowOpen(
                self._name, f"a change of {timer.user} waits to be confirmed or goes back by itself"
            )

    def _refuse_impossible(self, text: str, desired: OwnedConfiguration) -> None:
        """Before anything is touched: nothing to go back to, or an interface the router does not have."""
        if running_config.archive_path(text) is None:
            raise CapabilityMissing(Capability.CONFIRMED_COMMIT, f"{self._name}: {ARCHIVE_MISSING}")
        present = running_config.sections(text)
        for header in sorted(absent_loopbacks(desired) & set(present)):
            if line := running_config.named_by_others(text, header, desired.scope):
                reason = f"{header} was made by a change and would go with it, but others configured: {line}"
                raise ConfigurationRefused(self._name, reason, header)
        for header in running_config.sections(desired.text):
            if header.startswith("interface ") and header not in present and not header.startswith(_CREATED):
                raise ConfigurationRefused(
                    self._name, f"it has no {header}; write the name as show running-config does", header
                )

    async def _has_configuration_rpc(self) -> bool:
        """Whether to send lines over NETCONF; a router that cannot be reached there is configured on its CLI."""
        if self._configures_over_netconf is None:
            try:
                session = await self._sessions.netconf()
            except DriverError:
                return False
            self._configures_over_netconf = any(_CONFIGURATION_RPC in name for name in session.capabilities)
        return self._configures_over_netconf

    async def _send(self, lines: Sequence[str], seconds: float) -> None:
        """Send lines by config-ios-cli-rpc, which stops at the first that is refused and tells its number."""
        clis = "\n".join(lines)
        if len(clis) > _RPC_CHARACTERS:
            raise ConfigurationRefused(self._name, "the change is longer than the router's RPC takes")
        operation = (
            f'<config-ios-cli-rpc xmlns="{CLI_RPC}"><config-clis>{escape(clis)}</config-clis>'
            f"<timeout>{max(10, min(1800, int(seconds)))}</timeout><error-patterns><error-tag>refused</error-tag>"
            "<error-pattern>^%</error-pattern></error-patterns></config-ios-cli-rpc>"
        )
        reply = await (await self._sessions.netconf()).rpc(operation, deadline=seconds)
        number, said = child_text(reply, "lineno"), child_text(reply, "error-string")
        if said or "success" not in (child_text(reply, "result") or "").lower():
            index = int(number) - 1 if number and number.isdecimal() else -1
            line = lines[index] if 0 <= index < len(lines) else None
            raise ConfigurationRefused(self._name, f"{line or 'a line'}: {said or 'refused without a word'}", line)

    async def _take_back_if_pending(self) -> None:
        """After a refused line. Where this fails too the timer does it, and `read` says so."""
        with suppress(DriverError):
            timer = await self._timer()
            if timer is not None and timer.user in {self._user, ""}:
                await (await self._sessions.cli()).show("configure revert now", self._target.deadlines.commit)
