"""From the owned configuration a router has to the one it shall have: the exact command lines, and the diff to read.

Order keeps the router whole on the way: interfaces and addresses that go are released first, so that what comes may
have them; then sections are made and changed, lists before what refers to them; lists that go are removed last. An
access list in use is never empty in between unless the same entries only change places, and prefix lists are added to
before they are taken from.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Final

from relaymgr.domain.configuration import OwnedConfiguration
from relaymgr.drivers.iosxe.running_config import ABSENT, ACCESS_LIST, Sections, begins, is_whole, sections

_INTERFACE: Final = "interface "
_ADDRESS: Final = "ip address "
_RANKS: Final = (ACCESS_LIST, "ip prefix-list ", "route-map ", "interface Loopback", "interface Tunnel", _INTERFACE)
_SINGLE: Final = (
    "description",
    "ip address",
    "ip unnumbered",
    "ip pim query-interval",
    "ip pim dr-priority",
    "ip igmp version",
    "ip igmp query-interval",
    "ip igmp query-max-response-time",
    "ip igmp limit",
    "ip igmp access-group",
    "tunnel source",
    "tunnel mode",
    "tunnel dst-port",
    "tunnel src-port",
)
"""Beginnings of lines of which an interface has one: a new one replaces the old."""


def command_lines(before: OwnedConfiguration, desired: OwnedConfiguration) -> tuple[str, ...]:
    """Configuration lines that make the owned sections of a router equal to `desired`.

    Args:
        before: what the router has, over the scope of `desired`.
        desired: what it shall have.

    Lines below a section follow its header, as typed after `configure terminal`. Nothing is named but what is owned.
    """
    (have, missing), (want, unwanted) = _split(before), _split(desired)
    scope = desired.scope
    released = dict(_released_addresses(have, want))
    lines: list[str] = []
    for header in sorted({*have, *(unwanted - missing)}, reverse=True):
        if header in unwanted or (header.startswith(_INTERFACE) and header not in want and is_whole(header, scope)):
            lines.append(f"no {header}")
        elif header in released:
            lines += [header, f"no {released[header]}"]
    lines += sorted(missing - unwanted - set(want))  # naming a loopback makes it
    for header in sorted(want, key=_rank):
        lines += _changed(header, have, want[header], released.get(header))
    for header in sorted(have, key=_rank, reverse=True):
        if header not in want and header not in unwanted:
            lines += _removed(header, have[header], is_whole(header, scope), released.get(header))
    return tuple(lines)


def difference(before: OwnedConfiguration, desired: OwnedConfiguration) -> str:
    """What changes, section by section, for people; empty when nothing does."""
    (have, missing), (want, unwanted) = _split(before), _split(desired)
    parts: list[str] = []
    for header in sorted({*have, *want, *(missing ^ unwanted)}):
        if have.get(header) == want.get(header) and (header in missing) == (header in unwanted):
            continue
        old, new = have.get(header, ()), want.get(header, ())
        is_new = header in missing or (header not in have and header not in unwanted)
        is_gone = header in unwanted or (header not in want and is_whole(header, desired.scope))
        parts.append(f"{'+' if is_new else '-' if is_gone else ' '}{header}\n")
        compared = difflib.unified_diff(old, new, n=2, lineterm="")
        parts += [f"{line[0]} {line[1:]}\n" for line in compared if not line.startswith(("---", "+++", "@@"))]
    return "".join(parts)


def _split(side: OwnedConfiguration) -> tuple[Sections, frozenset[str]]:
    """Sections, and the loopbacks that do not exist."""
    found = sections(side.text)
    absent = f"{ABSENT}{_INTERFACE}"
    missing = frozenset(header.removeprefix(ABSENT) for header in found if header.startswith(absent))
    return {header: lines for header, lines in found.items() if not header.startswith(absent)}, missing


def absent_loopbacks(side: OwnedConfiguration) -> frozenset[str]:
    """Headers of the loopbacks that do not exist, or shall not."""
    return _split(side)[1]


def _released_addresses(have: Sections, want: Sections) -> Iterator[tuple[str, str]]:
    """(interface, address line) that must go before anything comes: it goes for good, or another interface gets it."""
    new = {(line, header) for header, lines in want.items() for line in lines if line.startswith(_ADDRESS)}
    for header, lines in have.items():
        for line in lines:
            if not line.startswith(_ADDRESS) or (line, header) in new:
                continue
            stays = any(other.startswith(_ADDRESS) for other in want.get(header, ()))
            if not stays or any(line == wanted and header != other for wanted, other in new):
                yield header, line


def _changed(header: str, have: Sections, wanted: tuple[str, ...], released: str | None) -> list[str]:
    old = have.get(header)
    if old == wanted:
        return []
    if header.startswith(ACCESS_LIST):
        below = _access_list(old or (), wanted)
    else:
        below = _unordered([line for line in old or () if line != released], wanted)
    return [header, *below]


def _unordered(old: list[str], wanted: tuple[str, ...]) -> list[str]:
    added = [line for line in wanted if line not in old]
    replaced = {single for line in added if (single := _single(line)) is not None}
    gone = [line for line in old if line not in wanted and _single(line) not in replaced]
    return [*(_negated(line) for line in reversed(gone)), *added]


def _access_list(old: tuple[str, ...], wanted: tuple[str, ...]) -> list[str]:
    """Entries behind the first that differs go, and those wanted come; first come, then go, where none is in both."""
    same = 0
    while same < min(len(old), len(wanted)) and old[same] == wanted[same]:
        same += 1
    gone = [_negated(line) for line in old[same:]]
    come = list(wanted[same:])
    return gone + come if set(come) & set(old[same:]) else come + gone


def _removed(header: str, lines: tuple[str, ...], whole: bool, released: str | None) -> list[str]:
    if not whole:
        below = [_negated(line) for line in reversed(lines) if line != released]
        return [header, *below] if below else []
    return [] if header.startswith(_INTERFACE) else [f"no {header}"]


def _negated(line: str) -> str:
    return line.removeprefix("no ") if line.startswith("no ") else f"no {line}"


def _single(line: str) -> str | None:
    if line.endswith(" secondary"):
        return None
    return next((words for words in _SINGLE if begins(line, words)), None)


def _rank(header: str) -> tuple[int, str]:
    return next(rank for rank, words in enumerate((*_RANKS, "")) if header.startswith(words)), header
