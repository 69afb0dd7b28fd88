"""A raw reply beside the neutral JSON that must come of it, for every getter of every driver but Junos."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from relaymgr.drivers.iosxe import operational, show_output
from relaymgr.drivers.isthmus import views

REPLIES = Path(__file__).parent / "replies"
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def xml(read: Callable[[etree._Element], Any]) -> Callable[[Path], Any]:
    return lambda path: read(etree.fromstring(path.read_bytes()))


def text(read: Callable[[str], Any]) -> Callable[[Path], Any]:
    return lambda path: read(path.read_text())


def document(read: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    return lambda path: read(json.loads(path.read_text()))


def status_beside(path: Path) -> Any:
    channels = json.loads((path.parent / "channels.synthetic.json").read_text())["items"]
    status = json.loads((path.parent / "status.synthetic.json").read_text())
    return views.statistics(status, json.loads(path.read_text()), channels)


GETTERS: dict[str, Callable[[Path], Any]] = {
    "iosxe/mroute-oper": xml(lambda reply: operational.routes(reply, NOW)),
    "iosxe/tunnel-oper": xml(operational.relay_addresses),
    "iosxe/pim-oper": xml(lambda reply: operational.neighbors(reply, NOW)),
    "iosxe/show-version": text(show_output.facts),
    "iosxe/show-ip-mroute": text(show_output.channels),
    "iosxe/show-ip-pim-neighbor": text(show_output.pim_neighbors),
    "iosxe/show-ip-igmp-groups": text(show_output.igmp_group_count),
    "ios/show-version": text(show_output.facts),
    "ios/show-ip-mroute": text(show_output.channels),
    "ios/show-ip-pim-neighbor": text(show_output.pim_neighbors),
    "isthmus/status": document(views.facts),
    "isthmus/tunnels": document(lambda page: [views.tunnel(row, NOW) for row in page["items"]]),
    "isthmus/channels": document(lambda page: [views.channel(row, NOW) for row in page["items"]]),
    "isthmus/statistics": status_beside,
}


def neutral(value: Any) -> Any:
    """As JSON: addresses as text, and what is unknown left out."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: neutral(part) for key, part in asdict(value).items() if part is not None}
    if isinstance(value, dict):
        return {key: neutral(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [neutral(part) for part in value]
    return str(value) if isinstance(value, IPv4Address | IPv6Address) else value


def replies() -> list[Path]:
    return sorted(path for path in REPLIES.glob("*/raw/*"))


def name(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.name.partition('.')[0]}"


@pytest.mark.parametrize("path", replies(), ids=name)
def test_a_reply_becomes_the_neutral_model(path):
    expected = json.loads((path.parent.parent / "expected" / f"{path.name.partition('.')[0]}.json").read_text())
    assert neutral(GETTERS[name(path)](path)) == expected


def test_every_getter_has_a_reply():
    assert {name(path) for path in replies()} == set(GETTERS)
    assert all("synthetic" in path.name for path in replies())


@pytest.mark.parametrize(
    ("read", "output"),
    [
        (show_output.facts, "garbage"),
        (show_output.facts, ""),
        (show_output.channels, "\x00\x01 noise"),
        (show_output.pim_neighbors, "noise"),
        (show_output.igmp_group_count, "noise"),
        (show_output.rollback_timer, "noise"),
    ],
)
def test_noise_is_unreadable_and_never_an_empty_table(read, output):
    with pytest.raises(show_output.Unreadable):
        read(output)


@pytest.mark.parametrize(
    ("text_", "seconds"),
    [
        ("00:12:33", 753),
        ("1d02h", 93_600),
        ("2w3d", 1_468_800),
        ("1y4w", 33_955_200),
        ("never", None),
        ("stopped", None),
    ],
)
def test_durations_of_show_commands(text_, seconds):
    assert show_output.duration(text_) == seconds


def test_a_rollback_timer_is_read():
    timer = show_output.rollback_timer(
        "Time configured(or reconfigured): 22:50:48 UTC Sat Feb 21 2009\nTimer type: absolute timer\n"
        "Timer value: 2 min\nUser: console\n"
    )
    assert timer == show_output.RollbackTimer(2, "console")
    assert show_output.rollback_timer("%No Rollback Confirmed Change pending\n") is None
