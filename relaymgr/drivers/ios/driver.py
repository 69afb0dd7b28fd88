"""The driver of classic Cisco IOS, which knows no AMT: its multicast state and configuration are read, not changed."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn

from relaymgr.domain.configuration import Change, ChangeReading, Confirmation, DevicePlan, OwnedConfiguration
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.observed import Facts, Observation
from relaymgr.domain.platforms import Capabilities, Capability, CapabilityMissing, Platform
from relaymgr.drivers.errors import Garbage
from relaymgr.drivers.iosxe import running_config, show_output
from relaymgr.drivers.iosxe.cli_observation import observe
from relaymgr.drivers.iosxe.sessions import Sessions
from relaymgr.drivers.protocol import Credential, DeviceTarget, DriverContext

NO_AMT: Final = "IOS: classic Cisco IOS has no AMT; it came with IOS-XE 16.6"
_SUPPORTED: Final = frozenset({Capability.CHANNEL_LIST, Capability.PIM_NEIGHBORS, Capability.BACKUP})
CAPABILITIES: Final = Capabilities(_SUPPORTED, dict.fromkeys(frozenset(Capability) - _SUPPORTED, NO_AMT))


class IosDriver:
    """One router with classic IOS."""

    platform = Platform.IOS

    def __init__(self, target: DeviceTarget, credential: Credential, context: DriverContext) -> None:
        self._name = target.name
        self._sessions = Sessions(target, credential, context)

    def capabilities(self) -> Capabilities:
        """Watching and backup."""
        return CAPABILITIES

    def render(self, intent: RelayIntent, *, drained: bool) -> NoReturn:
        """Always raises CapabilityMissing: there is nothing to render."""
        del drained
        raise CapabilityMissing(Capability.AMT_IPV6 if intent.inet is None else Capability.AMT_IPV4, NO_AMT)

    async def facts(self) -> Facts:
        """From show version."""
        text = await self._sessions.show("show version")
        try:
            return await asyncio.to_thread(show_output.facts, text)
        except ValueError as error:
            raise Garbage(self._name, str(error)) from error

    async def device_capabilities(self) -> Capabilities:
        """The platform's."""
        return CAPABILITIES

    async def observe(self) -> Observation:
        """Channels and neighbours; there are no tunnels."""
        return await observe(self._sessions, NO_AMT)

    async def read_owned(self, scope: tuple[str, ...]) -> OwnedConfiguration:
        """The sections of `scope` in the running configuration, in the notation of IOS-XE."""
        text = await self._sessions.running_configuration()
        return await asyncio.to_thread(running_config.owned, text, scope)

    async def read_configuration(self) -> str:
        """The running configuration."""
        return await self._sessions.running_configuration()

    async def plan(self, desired: OwnedConfiguration) -> DevicePlan:
        """Always raises CapabilityMissing."""
        del desired
        raise CapabilityMissing(Capability.AMT_IPV4, NO_AMT)

    async def begin_change(self, change: Change) -> None:
        """Always raises CapabilityMissing."""
        del change
        raise CapabilityMissing(Capability.AMT_IPV4, NO_AMT)

    async def read_change(self, change: Change) -> ChangeReading:
        """The owned sections; nothing of ours ever waits here."""
        text = await self._sessions.running_configuration()
        return ChangeReading(
            owned=running_config.owned(text, change.desired.scope),
            confirmation=Confirmation.NONE,
            last_commit=running_config.last_change(text),
            device_fingerprint=running_config.fingerprint(text),
        )

    async def confirm_change(self, change: Change) -> None:
        """Always raises CapabilityMissing."""
        del change
        raise CapabilityMissing(Capability.AMT_IPV4, NO_AMT)

    async def revert_change(self, change: Change) -> None:
        """Always raises CapabilityMissing."""
        del change
        raise CapabilityMissing(Capability.AMT_IPV4, NO_AMT)

    async def close(self) -> None:
        """End the session, if any."""
        await self._sessions.close()
