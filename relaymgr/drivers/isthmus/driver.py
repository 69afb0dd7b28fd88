"""The driver of our own relays: the agent's candidate, commit with a confirm timer, confirm and rollback.

Options of a target: `ca`, a PEM file with the authority of the agent's certificate (instead of the system's).
The agent keeps no name with a commit, so a change is known as ours by what it replaced and what it holds.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from relaymgr.domain.configuration import (
    Change,
    ChangeReading,
    Confirmation,
    DevicePlan,
    DiffSource,
    OwnedConfiguration,
)
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.observed import Channel, CommitRecord, Facts, Observation, Tunnel
from relaymgr.domain.platforms import Capabilities, Capability, Platform
from relaymgr.drivers.errors import (
    ConfigurationChanged,
    ConfigurationRefused,
    ConfirmWindowOpen,
    DeviceBusy,
    DriverError,
    Garbage,
)
from relaymgr.drivers.isthmus import document, views
from relaymgr.drivers.isthmus.client import AgentClient
from relaymgr.drivers.isthmus.render import CAPABILITIES, render
from relaymgr.drivers.protocol import Credential, DeviceTarget, DriverContext

Result = TypeVar("Result")

_PAGE: Final = 20_000
_NEEDS_RESTART: Final = ("relay.interfaces", "relay.address", "relay.discovery_address")
"""Keys the agent takes over with a restart only (docs/api.md); it would refuse them at the commit."""


class IsthmusDriver:
    """One agent in the relay role."""

    platform = Platform.ISTHMUS

    def __init__(self, target: DeviceTarget, credential: Credential, context: DriverContext) -> None:
        del context  # httpx needs no thread
        self._name = target.name
        self._client = AgentClient(target, credential)

    def capabilities(self) -> Capabilities:
        """What the agent can be asked for."""
        return CAPABILITIES

    def render(self, intent: RelayIntent, *, drained: bool) -> OwnedConfiguration:
        """The keys `intent` owns; a drained relay keeps its addresses and takes no new tunnels."""
        return render(intent, drained=drained)

    async def facts(self) -> Facts:
        """Name and version of the agent."""
        status = await self._client.get("/v1/status")
        return self._reading(lambda: views.facts(status))

    async def device_capabilities(self) -> Capabilities:
        """The platform's; that the agent answers and is a relay is what is asked of it."""
        status = await self._client.get("/v1/status")
        if status.get("role") != "relay":
            reason = f"{self._name} runs in the role {status.get('role')}; only a relay can be managed as one"
            lost = {Capability.AMT_IPV4: reason, Capability.AMT_IPV6: reason}
            return Capabilities(CAPABILITIES.supported - frozenset(lost), {**CAPABILITIES.reasons, **lost})
        return CAPABILITIES

    async def observe(self) -> Observation:
        """Tunnels, channels and statistics; a relay has no PIM neighbours."""
        status = await self._client.get("/v1/status")
        report = await self._client.get("/v1/statistics")
        missing = {"pim_neighbors": CAPABILITIES.reason(Capability.PIM_NEIGHBORS)}
        now = self._reading(lambda: views.moment(report["collected_at"]))
        tunnels = await self._part("tunnels", missing, lambda row: views.tunnel(row, now))
        rows: list[dict[str, Any]] = []

        def keep(row: dict[str, Any]) -> Channel:
            rows.append(row)
            return views.channel(row, now)

        channels = await self._part("channels", missing, keep)
        return Observation(
            tunnels=None if tunnels is None else tuple(row for row in tunnels if isinstance(row, Tunnel)),
            channels=None if channels is None else tuple(channels),
            statistics=self._reading(lambda: views.statistics(status, report, None if channels is None else rows)),
            missing=missing,
        )

    async def read_owned(self, scope: tuple[str, ...]) -> OwnedConfiguration:
        """The keys of `scope` as the agent runs with them."""
        return self._owned(await self._configuration(), scope)

    async def read_configuration(self) -> str:
        """The configuration file."""
        return str((await self._configuration())["text"])

    async def plan(self, desired: OwnedConfiguration) -> DevicePlan:
        """The agent's own diff of a candidate, which is taken away again."""
        configuration = await self._configuration()
        self._refuse_when_taken(configuration, desired.scope)
        before = self._owned(configuration, desired.scope)
        merged = self._merged(configuration, desired)
        etag = str(configuration["etag"])
        if before.text == desired.text:
            return DevicePlan("", DiffSource.DEVICE, "", before, etag)
        self._refuse_what_takes_a_restart(before, desired)
        try:
            change = await self._client.post("/v1/config/candidate", content=merged, etag=etag)
        finally:
            await self._client.post("/v1/config/rollback", body={"number": 0})
        return DevicePlan(str(change.get("diff", "")), DiffSource.DEVICE, desired.text, before, etag)

    async def begin_change(self, change: Change) -> None:
        """Candidate, then commit with the confirm timer, both only on the configuration of the plan."""
        configuration = await self._configuration()
        self._refuse_when_taken(configuration, change.desired.scope)
        if configuration["etag"] != change.device_fingerprint:
            raise ConfigurationChanged(self._name, "its configuration changed since the plan")
        etag = change.device_fingerprint
        merged = self._merged(configuration, change.desired)
        await self._client.post("/v1/config/candidate", content=merged, etag=etag)
        try:
            await self._client.post(
                "/v1/config/commit", body={"confirm_seconds": change.confirm_minutes * 60}, etag=etag
            )
        except (ConfigurationRefused, ConfigurationChanged):
            with suppress(DriverError):
                await self._client.post("/v1/config/rollback", body={"number": 0})
            raise

    async def read_change(self, change: Change) -> ChangeReading:
        """What the agent runs with, and whether it waits for a confirmation."""
        configuration = await self._configuration()
        owned = self._owned(configuration, change.desired.scope)
        deadline = configuration.get("confirm_deadline")
        versions = configuration.get("versions") or []
        left = None if deadline is None else self._reading(lambda: _seconds_until(str(deadline)))
        replaced = self._reading(lambda: views.moment(versions[0]["replaced_at"]) if versions else None)
        return ChangeReading(
            owned=owned,
            confirmation=Confirmation.PENDING if deadline else Confirmation.NONE,
            confirmation_is_ours=_is_ours(change, owned, configuration) if deadline else None,
            seconds_left=left,
            last_commit=None if replaced is None else CommitRecord(at=replaced),
            device_fingerprint=str(configuration["etag"]),
        )

    async def confirm_change(self, change: Change) -> None:
        """Keep the pending commit."""
        await self._ours_is_pending(change)
        await self._client.post("/v1/config/confirm")

    async def revert_change(self, change: Change) -> None:
        """Undo the pending commit; nothing happens where the change is gone already."""
        configuration = await self._configuration()
        owned = self._owned(configuration, change.desired.scope)
        if not configuration.get("confirm_deadline") and owned.text == change.before.text:
            return
        await self._ours_is_pending(change)
        await self._client.post("/v1/config/rollback", etag=str(configuration["etag"]))

    async def close(self) -> None:
        """End the connection, if any."""
        await self._client.close()

    async def _configuration(self) -> dict[str, Any]:
        configuration = await self._client.get("/v1/config")
        if not isinstance(configuration.get("text"), str) or not isinstance(configuration.get("etag"), str):
            raise Garbage(self._name, "its configuration has no text or no ETag")
        return configuration

    def _owned(self, configuration: dict[str, Any], scope: tuple[str, ...]) -> OwnedConfiguration:
        try:
            return OwnedConfiguration(scope, document.read(configuration["text"], scope))
        except tomllib.TOMLDecodeError as error:
            raise Garbage(self._name, "its configuration is not TOML") from error

    def _merged(self, configuration: dict[str, Any], desired: OwnedConfiguration) -> str:
        try:
            return document.merge(configuration["text"], desired.scope, desired.text)
        except document.NotEditable as error:
            raise ConfigurationRefused(self._name, str(error), "relay") from error

    def _refuse_when_taken(self, configuration: dict[str, Any], scope: tuple[str, ...]) -> None:
        if configuration.get("confirm_deadline"):
            raise ConfirmWindowOpen(
                self._name, f"a commit waits to be confirmed until {configuration['confirm_deadline']}"
            )
        candidate = configuration.get("candidate")
        if candidate is not None and not _touches_only(scope, configuration["text"], candidate):
            raise DeviceBusy(self._name, "somebody's candidate configuration is there; commit it or forget it first")

    def _refuse_what_takes_a_restart(self, before: OwnedConfiguration, desired: OwnedConfiguration) -> None:
        have, want = document.parse(before.text), document.parse(desired.text)
        changed = [key for key in _NEEDS_RESTART if key in desired.scope and have.get(key) != want.get(key)]
        if changed:
            raise ConfigurationRefused(
                self._name,
                f"needs_restart: {', '.join(changed)} can only be changed in the agent's file, with a restart",
                changed[0],
            )

    async def _ours_is_pending(self, change: Change) -> None:
        configuration = await self._configuration()
        if not configuration.get("confirm_deadline"):
            raise ConfigurationChanged(self._name, "no commit waits to be confirmed")
        if not _is_ours(change, self._owned(configuration, change.desired.scope), configuration):
            raise ConfigurationChanged(self._name, "the commit that waits to be confirmed is not ours")

    async def _part(
        self, name: str, missing: dict[str, str], view: Callable[[dict[str, Any]], Result]
    ) -> list[Result] | None:
        """Every row of a list, page by page; None and a reason where the agent's answer cannot be read."""
        found: list[Result] = []
        offset: int | None = 0
        while offset is not None:
            page = await self._client.get(f"/v1/{name}", limit=_PAGE, offset=offset)
            try:
                found.extend(await asyncio.to_thread(lambda rows: [view(row) for row in rows], page["items"]))
                following = page["next_offset"]
            except (KeyError, TypeError, ValueError) as error:
                missing[name] = f"the agent's {name} cannot be read: {type(error).__name__}"
                return None
            if following is not None and int(following) <= offset:
                missing[name] = f"the agent's pages of {name} do not end"
                return None
            offset = None if following is None else int(following)
        return found

    def _reading(self, read: Callable[[], Result]) -> Result:
        try:
            return read()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Garbage(self._name, f"its answer cannot be read: {type(error).__name__}") from error


def _touches_only(scope: tuple[str, ...], text: str, candidate: str) -> bool:
    """Whether a candidate is what a plan of ours left that was cut short: it changes nothing but our keys."""
    try:
        return document.merge(text, scope, document.read(candidate, scope)) == candidate
    except (document.NotEditable, tomllib.TOMLDecodeError):
        return False


def _is_ours(change: Change, owned: OwnedConfiguration, configuration: dict[str, Any]) -> bool:
    """The commit that waits holds what we sent and replaced what we planned on."""
    versions = configuration.get("versions") or []
    replaced = versions[0].get("etag") if versions else None
    return owned.text == change.desired.text and replaced == change.device_fingerprint


def _seconds_until(deadline: str) -> int:
    """By our own clock: an agent whose clock is off tells a wrong deadline, and the caller keeps his own."""
    return max(0, int((views.moment(deadline) - datetime.now(UTC)).total_seconds()))
