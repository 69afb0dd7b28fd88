"""The running configuration as sections, and the part of it that an intent owns.

Scope notation. An entry names a command that opens a section or stands alone, whole or by its first words, and owns it
with everything below it: `interface Tunnel2268`, `ip prefix-list AMT`, `route-map AMT`, `ip access-list extended AMT`.
With ` > ` it owns only lines below such a section that begin with the words behind: `interface Loopback2268 > ip
address` owns the address of that loopback and leaves everything else there alone. A loopback whose address is owned and
that does not exist is `no interface Loopback2268` in what is read: then giving back what was takes the loopback away
too. A rendered text never says so; it wants the loopback there, for deleting one deletes what others wrote of it.

Canonical text: the owned sections sorted by header, one space before each line below; the lines of an access list in
their order without sequence numbers, other lines in the order the router needs them in. Lines that say nothing but the
router's default are left out, since some releases print them and some do not. Lines that hold a secret are never owned.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from relaymgr.domain.configuration import OwnedConfiguration
from relaymgr.domain.observed import CommitRecord

BELOW: Final = " > "
ABSENT: Final = "no "
_INTERFACE: Final = "interface "
_LOOPBACK: Final = "interface Loopback"
_ADDRESS: Final = "ip address"

_NOISE: Final = re.compile(
    r"^(?:!.*|Building configuration.*|Current configuration\s*:.*|ntp clock-period .*|Load for .*|Time source is .*)?$"
)
_BANNER: Final = re.compile(r"^banner \S+ (\^C|\S)")
_SEQUENCE: Final = re.compile(r"^\d+ (?=permit|deny|remark)")
_SECRET: Final = re.compile(r"\b(password|secret|md5|key|key-string|authentication-key|community|psk)\b", re.IGNORECASE)
_LAST_CHANGE: Final = re.compile(
    r"^! Last configuration change at (\d\d:\d\d:\d\d)(?:\.\d+)? (\S+) \S+ (\w{3}) +(\d+) (\d{4})(?: by (\S+))?",
    re.MULTILINE,
)
_DEFAULTS: Final = frozenset(
    {
        "no ip address",
        "no shutdown",
        "ip redirects",
        "ip igmp version 2",
        "ip igmp query-interval 60",
        "ip igmp query-max-response-time 10",
        "ip pim query-interval 30",
        "ip pim dr-priority 1",
    }
)
_ORDER: Final = (
    "description",
    "vrf",
    "ip address",
    "ip unnumbered",
    "no ip",
    "ip pim",
    "ip igmp",
    "tunnel source",
    "tunnel mode",
    "tunnel",
    "amt",
    "match",
    "set",
)
ACCESS_LIST: Final = "ip access-list "

Sections = dict[str, tuple[str, ...]]
"""Header -> lines below it, without their first blank."""


@dataclass(frozen=True, slots=True)
class _Entry:
    header: str
    prefix: str | None

    @classmethod
    def parse(cls, text: str) -> _Entry:
        header, found, prefix = text.partition(BELOW)
        return cls(header, prefix if found else None)


def sections(text: str) -> Sections:
    """Every section of a running configuration; commands without anything below have no lines.

    A header that comes twice is one section. Comments, blank lines, banners and what the router prints around the
    configuration are passed over.
    """
    found: dict[str, list[str]] = {}
    below: list[str] | None = None
    delimiter: str | None = None
    for raw in text.splitlines():
        line = raw.rstrip()
        if delimiter is not None:
            delimiter = None if delimiter in line else delimiter
        elif line.startswith(" "):
            if below is not None:
                below.append(line[1:])
        elif banner := _BANNER.match(line):
            delimiter = banner[1] if line.count(banner[1]) < 2 else None
        elif _NOISE.match(line):
            continue
        else:
            below = found.setdefault(_words(line), [])
    return {header: tuple(lines) for header, lines in found.items()}


def owned(text: str, scope: Iterable[str]) -> OwnedConfiguration:
    """The sections of `scope` in a running configuration, and which loopbacks do not exist there."""
    wanted = tuple(sorted(scope))
    found = sections(text)
    absent = {f"{ABSENT}{header}": () for header in _loopbacks(wanted) if header not in found}
    return OwnedConfiguration(wanted, write({**select(found, wanted), **absent}))


def rendered(text: str, scope: Iterable[str]) -> OwnedConfiguration:
    """The sections of `scope` in the text of a template."""
    wanted = tuple(sorted(scope))
    return OwnedConfiguration(wanted, write(select(sections(text), wanted)))


def named_by_others(text: str, header: str, scope: Iterable[str]) -> str | None:
    """A line of others below the interface `header`, or one elsewhere that names it; None where there is none.

    IOS deletes both when it deletes the interface.
    """
    whole = tuple(scope)
    ours = select(sections(text), whole)
    name = re.compile(rf"\b{re.escape(header.removeprefix(_INTERFACE))}\b", re.IGNORECASE)
    for found, lines in sections(text).items():
        for line in map(_words, lines):
            if line in ours.get(found, ()):
                continue
            if (found == header and line not in _DEFAULTS) or (found != header and name.search(line)):
                return f"{found} / {line}"
        if found != header and found not in ours and name.search(found):
            return found
    return None


def _loopbacks(scope: Iterable[str]) -> Iterator[str]:
    """Headers of the loopbacks whose address is owned."""
    for entry in map(_Entry.parse, scope):
        if entry.prefix == _ADDRESS and entry.header.startswith(_LOOPBACK):
            yield entry.header


def select(found: Sections, scope: Iterable[str]) -> Sections:
    """The owned sections; a section of which single lines are owned is there only with such lines."""
    chosen: Sections = {}
    entries = [_Entry.parse(text) for text in scope]
    for header, lines in found.items():
        if any(entry.prefix is None and begins(header, entry.header) for entry in entries):
            chosen[header] = _canonical(header, lines)
            continue
        prefixes = [entry.prefix for entry in entries if entry.prefix is not None and entry.header == header]
        if not prefixes:
            continue
        kept = _canonical(header, lines)
        kept = tuple(line for line in kept if any(_is_owned(line, prefix) for prefix in prefixes))
        if kept:
            chosen[header] = kept
    return chosen


def write(chosen: Sections) -> str:
    """The canonical text of owned sections."""
    return "".join(f"{header}\n" + "".join(f" {line}\n" for line in lines) for header, lines in sorted(chosen.items()))


def is_whole(header: str, scope: Iterable[str]) -> bool:
    """Whether the section itself is owned, not only lines below it."""
    return any(BELOW not in text and begins(header, text) for text in scope)


def begins(line: str, words: str) -> bool:
    """Whether `line` begins with the words of `words`."""
    return line == words or line.startswith(f"{words} ")


def fingerprint(text: str) -> str:
    """SHA-256 of a whole running configuration without what changes by itself, hex."""
    lines = (line.rstrip() for line in text.splitlines())
    return hashlib.sha256("\n".join(line for line in lines if not _NOISE.match(line)).encode()).hexdigest()


def last_change(text: str) -> CommitRecord | None:
    """Who changed the running configuration last; the time only where the router's clock is UTC."""
    found = _LAST_CHANGE.search(text)
    if found is None:
        return None
    clock, zone, month, day, year, user = found.groups()
    at = None
    if zone in {"UTC", "GMT"}:
        with suppress(ValueError):  # a leap second, or a clock that never was set
            at = datetime.strptime(f"{year} {month} {day} {clock}", "%Y %b %d %H:%M:%S").replace(tzinfo=UTC)
    return CommitRecord(user=user, at=at)


def archive_path(text: str) -> str | None:
    """Where the router keeps what it goes back to; None without one, and then it cannot take a change back."""
    for line in sections(text).get("archive", ()):
        if line.startswith("path "):
            return line.removeprefix("path ")
    return None


def _canonical(header: str, lines: tuple[str, ...]) -> tuple[str, ...]:
    kept = [_words(line) for line in lines if not _SECRET.search(line)]
    if header.startswith(ACCESS_LIST):
        return tuple(_SEQUENCE.sub("", line) for line in kept)
    if header.startswith("interface "):
        kept = [line for line in kept if line not in _DEFAULTS]
    return tuple(sorted(set(kept), key=_rank))


def _rank(line: str) -> tuple[int, str]:
    return next((rank for rank, words in enumerate(_ORDER) if begins(line, words)), len(_ORDER)), line


def _is_owned(line: str, prefix: str) -> bool:
    """Secondary addresses are never ours."""
    return begins(line, prefix) and not line.endswith(" secondary")


def _words(line: str) -> str:
    return " ".join(line.split())
