"""`get-commit-information`: who committed last, and whether a confirmed commit waits.

Junos marks a commit that waits for its confirmation in the newest entry of the history. The words are not in the YANG;
they stand in `WAITING` alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from lxml import etree

from relaymgr.domain.configuration import Confirmation
from relaymgr.domain.observed import CommitRecord
from relaymgr.drivers.netconf.documents import child_text, children, descendants, find, local_name

QUERY = "<get-commit-information/>"
CLOCK = "<get-system-uptime-information/>"
WAITING = re.compile(r"commit confirmed, rollback in (\d+)\s*min", re.IGNORECASE)
_TEXTS = ("comment", "log")


@dataclass(frozen=True, slots=True)
class CommitEntry:
    """The newest entry of the commit history."""

    record: CommitRecord
    texts: tuple[str, ...]
    """Everything said about the commit: the log message given, and what Junos adds."""
    epoch: int | None
    """When, in seconds of the device's own clock."""

    @property
    def confirm_minutes(self) -> int | None:
        """Minutes until the rollback as announced at the commit; None where none was."""
        found = next((found for text in self.texts if (found := WAITING.search(text))), None)
        return int(found[1]) if found else None

    def carries(self, mark: str) -> bool:
        """Whether the log begins with `mark`; further on an operator may name another change."""
        pattern = re.compile(rf"{re.escape(mark)}(?![\w-])")
        return any(pattern.match(text) for text in self.texts)


def newest(reply: etree._Element) -> CommitEntry | None:
    """The entry 0 of a reply to QUERY; None where the device tells of none."""
    return next(iter(entries(reply)), None)


def entries(reply: etree._Element) -> list[CommitEntry]:
    """Every entry of a reply to QUERY, entry 0 first; empty where the device tells of none."""
    found: list[CommitEntry] = []
    for entry in descendants(reply, "commit-history"):
        if not found and child_text(entry, "sequence-number") not in {None, "0"}:
            continue
        texts = tuple(" ".join((child.text or "").split()) for child in children(entry) if local_name(child) in _TEXTS)
        epoch = _seconds(find(entry, "date-time"))
        record = CommitRecord(
            user=child_text(entry, "user"),
            at=datetime.fromtimestamp(epoch, UTC) if epoch is not None else None,
            client=child_text(entry, "client"),
            comment="; ".join(text for text in texts if text) or None,
        )
        found.append(CommitEntry(record, texts, epoch))
    return found


def device_clock(reply: etree._Element) -> int | None:
    """Seconds since 1970 on the device, from a reply to CLOCK; None where it does not tell."""
    for current in descendants(reply, "current-time"):
        return _seconds(find(current, "date-time"))
    return None


def confirmation(entry: CommitEntry | None, clock: int | None) -> tuple[Confirmation, int | None]:
    """Whether a window is open, and its seconds left where known.

    A commit check confirms without an entry of its own, so an announcement alone does not prove that the window is
    still open; by the device's own clock it is over some time. Without that clock it counts as open: nobody commits.
    """
    minutes = entry.confirm_minutes if entry is not None else None
    if entry is None or minutes is None:
        return Confirmation.NONE, None
    if clock is None or entry.epoch is None:
        return Confirmation.PENDING, None
    left = min(entry.epoch + minutes * 60 - clock, minutes * 60)  # whatever its clock did since
    if left < -_MARGIN_SECONDS:
        return Confirmation.NONE, None
    return Confirmation.PENDING, max(0, left)


_LAST_SECOND = 253_402_300_799
"""Of the year 9999; a device that tells more does not tell the time."""
_MARGIN_SECONDS = 120
"""A rollback by timer takes its time; before that it is not over."""


def _seconds(element: etree._Element | None) -> int | None:
    """The `junos:seconds` attribute of a time, whatever its namespace."""
    if element is None:
        return None
    for name, value in element.attrib.items():
        if str(name).rpartition("}")[2] == "seconds" and str(value).isdecimal() and int(value) <= _LAST_SECOND:
            return int(value)
    return None
