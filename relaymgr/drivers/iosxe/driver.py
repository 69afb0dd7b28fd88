"""The driver of iosxe relays."""

from __future__ import annotations

from relaymgr.domain.configuration import Change, ChangeReading, DevicePlan, OwnedConfiguration
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.observed import Facts, Observation
from relaymgr.domain.platforms import Capabilities, Platform
from relaymgr.drivers.protocol import Credential, DeviceTarget, DriverContext


class IosxeDriver:
    """One iosxe relay."""

    platform = Platform.IOSXE

    def __init__(self, target: DeviceTarget, credential: Credential, context: DriverContext) -> None:
        self._target = target
        self._credential = credential
        self._context = context

    def capabilities(self) -> Capabilities:
        """What the platform can be asked for."""
        raise NotImplementedError

    def render(self, intent: RelayIntent, *, drained: bool) -> OwnedConfiguration:
        """The owned sections `intent` makes."""
        raise NotImplementedError

    async def facts(self) -> Facts:
        """Identity."""
        raise NotImplementedError

    async def device_capabilities(self) -> Capabilities:
        """What this very device can do."""
        raise NotImplementedError

    async def observe(self) -> Observation:
        """Tunnels, channels, neighbours and statistics."""
        raise NotImplementedError

    async def read_owned(self, scope: tuple[str, ...]) -> OwnedConfiguration:
        """The sections of `scope` as they are on the device."""
        raise NotImplementedError

    async def read_configuration(self) -> str:
        """The whole configuration."""
        raise NotImplementedError

    async def plan(self, desired: OwnedConfiguration) -> DevicePlan:
        """What making the device equal to `desired` would do."""
        raise NotImplementedError

    async def begin_change(self, change: Change) -> None:
        """Change with a confirm window."""
        raise NotImplementedError

    async def read_change(self, change: Change) -> ChangeReading:
        """What the device says now."""
        raise NotImplementedError

    async def confirm_change(self, change: Change) -> None:
        """Make a pending change permanent."""
        raise NotImplementedError

    async def revert_change(self, change: Change) -> None:
        """Take a pending change back now."""
        raise NotImplementedError

    async def close(self) -> None:
        """End the session, if any."""
