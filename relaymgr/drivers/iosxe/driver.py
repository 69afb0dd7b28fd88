"""The driver of Cisco IOS-XE: configured on the command line, watched over NETCONF, or on the command line without it.

`netconf_port` of a target says whether NETCONF is there (None: off). `legacy_ssh` adds the algorithms of aged releases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from lxml import etree

from relaymgr.domain.configuration import Change, ChangeReading, DevicePlan, OwnedConfiguration
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.observed import Facts, Observation, Statistics
from relaymgr.domain.platforms import Capabilities, Capability, Platform
from relaymgr.drivers.errors import ConfigurationRefused, Garbage
from relaymgr.drivers.iosxe import operational, running_config, show_output
from relaymgr.drivers.iosxe.change import ARCHIVE_MISSING, Changes
from relaymgr.drivers.iosxe.cli_observation import observe as observe_on_cli
from relaymgr.drivers.iosxe.render import CAPABILITIES, render
from relaymgr.drivers.iosxe.sessions import Sessions
from relaymgr.drivers.protocol import Credential, DeviceTarget, DriverContext

Result = TypeVar("Result")

WITHOUT_NETCONF = "IOS-XE lists AMT gateways only over NETCONF (Cisco-IOS-XE-mroute-oper), which is off for this device"
_NO_ROUTING = "the router does not route multicast; configure it first: `ip multicast-routing distributed`"


class IosxeDriver:
    """One IOS-XE relay."""

    platform = Platform.IOSXE

    def __init__(self, target: DeviceTarget, credential: Credential, context: DriverContext) -> None:
        self._target = target
        self._name = target.name
        self._sessions = Sessions(target, credential, context)
        self._changes = Changes(target, credential, self._sessions)

    def capabilities(self) -> Capabilities:
        """What IOS-XE can be asked for."""
        return CAPABILITIES

    def render(self, intent: RelayIntent, *, drained: bool) -> OwnedConfiguration:
        """The sections `intent` owns; drained without the anycast address and what announces it."""
        return render(intent, drained=drained)

    async def facts(self) -> Facts:
        """From show version."""
        text = await self._sessions.show("show version")
        return await self._read(lambda: show_output.facts(text))

    async def device_capabilities(self) -> Capabilities:
        """What the running configuration lacks is taken away: an archive, multicast routing, NETCONF."""
        text = await self._sessions.running_configuration()
        lost: dict[Capability, str] = {}
        if running_config.archive_path(text) is None:
            lost[Capability.CONFIRMED_COMMIT] = f"{self._name}: {ARCHIVE_MISSING}"
        if not any(header.startswith("ip multicast-routing") for header in running_config.sections(text)):
            lost[Capability.AMT_IPV4] = f"{self._name}: {_NO_ROUTING}"
        if self._target.netconf_port is None:
            lost |= dict.fromkeys((Capability.TUNNEL_LIST, Capability.TUNNEL_STATISTICS), WITHOUT_NETCONF)
        return Capabilities(CAPABILITIES.supported - frozenset(lost), {**CAPABILITIES.reasons, **lost})

    async def observe(self) -> Observation:
        """Tunnels, channels and neighbours from the operational trees, or what the command line tells of them."""
        if self._target.netconf_port is None:
            return await observe_on_cli(self._sessions, WITHOUT_NETCONF)
        missing: dict[str, str] = {}
        now = datetime.now(UTC)
        routes = await self._part(operational.MROUTE, ("channels", "tunnels"), missing)
        relays = await self._part(operational.TUNNELS, (), missing)
        pim = await self._part(operational.PIM, ("pim_neighbors",), missing)
        channels, tunnels = (None, None)
        if routes is not None:
            channels, tunnels = await self._read(lambda: operational.routes(routes, now))
            if relays is not None:
                addresses = await self._read(lambda: operational.relay_addresses(relays))
                tunnels = operational.with_relay(tunnels, addresses)
        statistics = None
        if tunnels is None or channels is None:
            missing["statistics"] = missing["tunnels"]
        else:
            streams = sum(len(channel.gateways or ()) for channel in channels)
            statistics = Statistics(active_tunnels=len(tunnels), active_streams=streams)
        neighbors = None if pim is None else await self._read(lambda: operational.neighbors(pim, now))
        return Observation(tunnels, channels, neighbors, statistics, missing)

    async def read_owned(self, scope: tuple[str, ...]) -> OwnedConfiguration:
        """The sections of `scope` in the running configuration."""
        text = await self._sessions.running_configuration()
        return await asyncio.to_thread(running_config.owned, text, scope)

    async def read_configuration(self) -> str:
        """The running configuration."""
        return await self._sessions.running_configuration()

    async def plan(self, desired: OwnedConfiguration) -> DevicePlan:
        """Difference and command lines, computed here."""
        return await self._changes.plan(desired)

    async def begin_change(self, change: Change) -> None:
        """Change under the router's revert timer."""
        await self._changes.begin(change)

    async def read_change(self, change: Change) -> ChangeReading:
        """What the router runs with, and whether a timer runs."""
        return await self._changes.read(change)

    async def confirm_change(self, change: Change) -> None:
        """Stop the timer and save."""
        await self._changes.confirm(change)

    async def revert_change(self, change: Change) -> None:
        """Take the pending change back now."""
        await self._changes.revert(change)

    async def close(self) -> None:
        """End the session, if any."""
        await self._sessions.close()

    async def _part(self, operation: str, parts: tuple[str, ...], missing: dict[str, str]) -> etree._Element | None:
        """Reply to one tree; None and a reason for its parts where the release has no such tree."""
        try:
            return await self._sessions.get(operation)
        except ConfigurationRefused as error:
            missing.update(dict.fromkeys(parts, f"NETCONF: {error.detail}"))
            return None

    async def _read(self, read: Callable[[], Result]) -> Result:
        """Large replies take long to read; the event loop goes on meanwhile."""
        try:
            return await asyncio.to_thread(read)
        except (ValueError, KeyError, TypeError) as error:
            raise Garbage(self._name, f"its answer cannot be read: {error}"[:200]) from error
