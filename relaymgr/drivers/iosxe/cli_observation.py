"""What the show commands of IOS and IOS-XE tell about multicast; shared by both drivers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from relaymgr.domain.observed import Observation, Statistics
from relaymgr.drivers.errors import ConfigurationRefused
from relaymgr.drivers.iosxe import show_output
from relaymgr.drivers.iosxe.sessions import Sessions
from relaymgr.drivers.iosxe.show_output import Unreadable

Result = TypeVar("Result")

_COMMANDS: Final = {
    "channels": "show ip mroute",
    "pim_neighbors": "show ip pim neighbor",
    "statistics": "show ip igmp groups",
}


async def observe(sessions: Sessions, without_tunnels: str) -> Observation:
    """Channels, neighbours and the number of IGMP groups; tunnels are missing for the reason given."""
    missing = {"tunnels": without_tunnels}
    channels = await _part(sessions, "channels", missing, show_output.channels)
    neighbors = await _part(sessions, "pim_neighbors", missing, show_output.pim_neighbors)
    groups = await _part(sessions, "statistics", missing, show_output.igmp_group_count)
    statistics = None if groups is None else Statistics(counters={"igmp_groups": groups})
    return Observation(None, channels, neighbors, statistics, missing)


async def _part(sessions: Sessions, name: str, missing: dict[str, str], read: Callable[[str], Result]) -> Result | None:
    """One command, read aside: TextFSM takes long over a long table."""
    command = _COMMANDS[name]
    try:
        text = await sessions.show(command)
        return await asyncio.to_thread(read, text)
    except (ConfigurationRefused, Unreadable) as error:
        missing[name] = f"{command}: {error.detail if isinstance(error, ConfigurationRefused) else error}"
        return None
