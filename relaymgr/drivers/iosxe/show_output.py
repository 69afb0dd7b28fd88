"""What show commands print, as the neutral model: TextFSM of ntc-templates, and our own where it has none. Pure."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import ntc_templates
import textfsm

from relaymgr.domain.observed import Channel, Facts, PimNeighbor
from relaymgr.drivers import templates

_UNITS: Final = {"y": 31_536_000, "w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_WORDS: Final = {"year": "y", "week": "w", "day": "d", "hour": "h", "minute": "m", "second": "s"}
_OUTGOING_FLAGS: Final = re.compile(r"^(\s{4}\S.*?), flags:.*$", re.MULTILINE)
"""Newer releases end the lines of outgoing interfaces with flags, which ntc-templates do not know."""
_NOT_ROUTING: Final = re.compile(r"multicast routing (is )?not enabled", re.IGNORECASE)
_NO_TIMER: Final = re.compile(r"No Rollback Confirmed Change pending", re.IGNORECASE)


class Unreadable(ValueError):
    """The output is not what the command prints."""


@dataclass(frozen=True, slots=True)
class RollbackTimer:
    """A change the router will take back by itself."""

    minutes: int
    user: str


def facts(show_version: str) -> Facts:
    """From `show version`."""
    rows = _parsed("cisco_ios_show_version", show_version, shipped=False)
    if not rows or not rows[0]["VERSION"]:
        raise Unreadable("show version tells no version")
    row = rows[0]
    return Facts(
        hostname=row["HOSTNAME"] or None,
        model=(row["HARDWARE"] or [None])[0],
        version=row["VERSION"],
        serial=(row["SERIAL"] or [None])[0],
        uptime_seconds=_uptime_in_words(row["UPTIME"]),
    )


def channels(show_ip_mroute: str) -> tuple[Channel, ...]:
    """From `show ip mroute`, which tells no counters and no gateways."""
    if _NOT_ROUTING.search(show_ip_mroute[:200]):
        return ()
    rows = _parsed("cisco_ios_show_ip_mroute", _OUTGOING_FLAGS.sub(r"\1", show_ip_mroute), shipped=False)
    return tuple(_channel(row) for row in rows if row["MULTICAST_GROUP_IP"])


def pim_neighbors(show_ip_pim_neighbor: str) -> tuple[PimNeighbor, ...]:
    """From `show ip pim neighbor`."""
    return tuple(
        PimNeighbor(
            address=ip_address(row["NEIGHBOR"]),
            interface=row["INTERFACE"],
            uptime_seconds=duration(row["UPTIME"]),
            hold_time_seconds=duration(row["EXPIRES"]),
            priority=int(row["PRIORITY"]) if row["PRIORITY"].isdecimal() else None,
            version=int(row["VERSION"]),
        )
        for row in _parsed("cisco_show_ip_pim_neighbor", show_ip_pim_neighbor)
    )


def igmp_group_count(show_ip_igmp_groups: str) -> int:
    """Groups with a member, from `show ip igmp groups`."""
    return len({row["GROUP"] for row in _parsed("cisco_show_ip_igmp_groups", show_ip_igmp_groups)})


def rollback_timer(show_archive_config_rollback_timer: str) -> RollbackTimer | None:
    """From `show archive config rollback timer`; None where no change waits."""
    text = show_archive_config_rollback_timer
    if _NO_TIMER.search(text):
        return None
    rows = _parsed("cisco_show_archive_rollback_timer", text)
    if not rows or not rows[0]["MINUTES"]:
        raise Unreadable("show archive config rollback timer tells neither a timer nor that there is none")
    return RollbackTimer(int(rows[0]["MINUTES"]), rows[0]["USER"])


def duration(text: str) -> int | None:
    """Seconds of `00:12:33`, `1d02h`, `2w3d` or `1y4w`; None for `never`, `stopped` and their like."""
    clock = re.fullmatch(r"(\d+):(\d\d):(\d\d)", text)
    if clock:
        hours, minutes, seconds = map(int, clock.groups())
        return hours * 3600 + minutes * 60 + seconds
    if not re.fullmatch(r"(\d+[ywdhms])+", text):
        return None
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)([ywdhms])", text))


def _uptime_in_words(text: str) -> int | None:
    parts = re.findall(r"(\d+) (year|week|day|hour|minute|second)s?", text)
    return sum(int(count) * _UNITS[_WORDS[word]] for count, word in parts) if parts else None


def _channel(row: dict[str, Any]) -> Channel:
    source = row["MULTICAST_SOURCE_IP"]
    incoming = row["INCOMING_INTERFACE"]
    return Channel(
        group=ip_address(row["MULTICAST_GROUP_IP"]),
        source=None if source == "*" else ip_address(source),
        upstream_interface=None if incoming in {"", "Null"} else incoming,
        downstream_interfaces=tuple(row["OUTGOING_INTERFACE"]),
        state=row["FLAGS"] or None,
        uptime_seconds=duration(row["UP_TIME"]),
    )


def _parsed(template: str, text: str, *, shipped: bool = True) -> list[dict[str, Any]]:
    """Rows of a TextFSM template of ours (`shipped`) or of ntc-templates."""
    machine = textfsm.TextFSM(io.StringIO(_template(template, shipped=shipped)))
    try:
        rows: list[dict[str, Any]] = machine.ParseTextToDicts(text)
    except textfsm.TextFSMError as error:
        raise Unreadable(f"{template.removeprefix('cisco_').removeprefix('ios_')} is not as known") from error
    return rows


@cache
def _template(name: str, *, shipped: bool) -> str:
    folder = templates.directory() / "textfsm" if shipped else Path(ntc_templates.__file__).parent / "templates"
    return (folder / f"{name}.textfsm").read_text()
