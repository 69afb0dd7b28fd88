"""Output filters of show commands: what stands after `|`."""

from __future__ import annotations

import re
from collections.abc import Callable

from lab.sim.iosxe.words import Refusal, Trace, best, match_all, not_understood, split

_PATTERNS = (
    "include <line>",
    "exclude <line>",
    "begin <line>",
    "section {include|exclude} <line>",
    "section <line>",
    "count <line>",
)


def filtered(text: str, output_filter: str, column: int) -> str:
    """`text` through what stands after `|`; raises Refusal."""
    words = split(output_filter)
    trace = Trace()
    found = best([one for one in match_all(_PATTERNS, output_filter, words, trace) if one[1].complete])
    if not found:
        raise not_understood(output_filter, words, trace, column) if words else Refusal("% Incomplete command.\n")
    words_read = found[0][1].words
    try:
        expression = re.compile(words_read[-1])
    except re.error:
        expression = re.compile(re.escape(words_read[-1]))
    return _FILTERS[words_read[0]](text.splitlines(keepends=True), expression, "exclude" in words_read[1:-1])


def _include(lines: list[str], expression: re.Pattern[str], inverted: bool) -> str:
    return "".join(line for line in lines if bool(expression.search(line.rstrip("\n"))) != inverted)


def _begin(lines: list[str], expression: re.Pattern[str], _inverted: bool) -> str:
    for index, line in enumerate(lines):
        if expression.search(line.rstrip("\n")):
            return "".join(lines[index:])
    return ""


def _section(lines: list[str], expression: re.Pattern[str], inverted: bool) -> str:
    """Lines that match, each with the deeper lines under it."""
    chosen = []
    depth: int | None = None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if depth is not None and indent <= depth:
            depth = None
        if depth is None and expression.search(line.rstrip("\n")):
            depth = indent
        chosen.append(depth is not None)
    return "".join(line for line, inside in zip(lines, chosen, strict=True) if inside != inverted)


def _count(lines: list[str], expression: re.Pattern[str], _inverted: bool) -> str:
    number = sum(1 for line in lines if expression.search(line.rstrip("\n")))
    return f"Number of lines which match regexp = {number}\n"


_FILTERS: dict[str, Callable[[list[str], re.Pattern[str], bool], str]] = {
    "include": _include,
    "exclude": lambda lines, expression, _inverted: _include(lines, expression, True),
    "begin": _begin,
    "section": _section,
    "count": _count,
}
