"""Times as Junos prints them, to seconds."""

from __future__ import annotations

import re

_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_WITH_UNITS = re.compile(r"(?:(\d+)w)?\s*(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+)s)?")
_CLOCK = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?\s*(?:(\d+):)?(\d{1,2}):(\d{2})")
_DAYS = re.compile(r"(\d+)\s+days?,?\s*(.*)")


def seconds(text: str | None) -> int | None:  # noqa: PLR0911 -- one notation, one return
    """`125`, `125s`, `2d 03:04`, `1w2d 03:04:05`, `00:02:05`, `3 days, 1:02`; None for what is none of these.

    Three fields are hours, minutes and seconds; two are hours and minutes.
    """
    if text is None:
        return None
    words = " ".join(text.split())
    if words.isascii() and words.isdigit():
        return int(words)
    spelled = _DAYS.fullmatch(words)
    if spelled is not None:
        rest = seconds(spelled[2]) if spelled[2] else 0
        return None if rest is None else int(spelled[1]) * 86_400 + rest
    clock = _CLOCK.fullmatch(words)
    if clock is not None:
        weeks, days, first, second, third = (int(part) if part else 0 for part in clock.groups())
        if clock[3] is None:
            return weeks * 604_800 + days * 86_400 + second * 3_600 + third * 60
        return weeks * 604_800 + days * 86_400 + first * 3_600 + second * 60 + third
    units = _WITH_UNITS.fullmatch(words)
    if units is not None and any(units.groups()):
        return sum(int(count) * size for count, size in zip(units.groups(), _UNITS.values(), strict=True) if count)
    return None
