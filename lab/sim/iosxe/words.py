"""Command words as IOS reads them: abbreviations, arguments, and where a line went wrong.

A pattern is written in a small language: plain words are keywords (any unambiguous beginning will do), `<kind>` is an
argument, `[…]` may be left out and `{a|b}` is a choice. `<line>` takes the rest as typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, ip_address

_SYNTAX = re.compile(r"<[^>]+>|[][{}|]|[^][{}|\s]+")
_INTERFACE = re.compile(r"^([A-Za-z-]+)(\d[\d/.:]*)?$")
_INTERFACE_KINDS = (
    "GigabitEthernet",
    "TenGigabitEthernet",
    "HundredGigE",
    "FastEthernet",
    "Ethernet",
    "Loopback",
    "Tunnel",
    "Port-channel",
    "Vlan",
    "Null",
    "Serial",
    "BDI",
)


@dataclass(frozen=True, slots=True)
class Word:
    """One typed word and the column it starts in, from 0."""

    text: str
    column: int


def split(line: str) -> tuple[Word, ...]:
    """The words of a typed line."""
    return tuple(Word(match.group(), match.start()) for match in re.finditer(r"\S+", line))


@dataclass(frozen=True, slots=True)
class _Keyword:
    word: str


@dataclass(frozen=True, slots=True)
class _Argument:
    kind: str


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[tuple[_Node, ...], ...]


_Node = _Keyword | _Argument | _Choice


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> tuple[_Node, ...]:
    """The nodes of `pattern`; raises ValueError when its brackets do not match."""
    nodes, rest = _sequence(_SYNTAX.findall(pattern), "")
    if rest:
        raise ValueError(f"unbalanced pattern: {pattern}")
    return nodes


def _sequence(tokens: list[str], closing: str) -> tuple[tuple[_Node, ...], list[str]]:
    nodes: list[_Node] = []
    options: list[tuple[_Node, ...]] = []
    while tokens:
        token, *tokens = tokens
        if token == closing:
            options.append(tuple(nodes))
            return ((_Choice(tuple(options)),) if len(options) > 1 else tuple(nodes)), tokens
        if token == "|":
            options.append(tuple(nodes))
            nodes = []
        elif token in "[{":
            inner, tokens = _sequence(tokens, "]" if token == "[" else "}")
            nodes.append(_Choice((inner, ())) if token == "[" else _Choice((inner,)))
        elif token.startswith("<"):
            nodes.append(_Argument(token[1:-1]))
        else:
            nodes.append(_Keyword(token))
    if closing:
        raise ValueError(f"missing {closing}")
    return tuple(nodes), []


@dataclass(frozen=True, slots=True)
class Match:
    """A line that fits a pattern."""

    words: tuple[str, ...]
    """The words in full."""
    exact: int
    """How many keywords were typed in full."""
    complete: bool
    """False when the pattern goes on where the line ends."""


@dataclass(slots=True)
class Trace:
    """How far any pattern understood the line."""

    understood: int = 0
    """Index of the first word no pattern understood."""
    incomplete: set[tuple[str, ...]] = field(default_factory=set)
    """What patterns read that understood every word and wanted more."""
    exact: set[tuple[str, ...]] = field(default_factory=set)
    """Beginnings whose last keyword was typed in full: no longer keyword that starts alike is meant then."""


def match_all(patterns: Sequence[str], line: str, words: tuple[Word, ...], trace: Trace) -> list[tuple[int, Match]]:
    """Every way `words` (of `line`) fits a pattern, partly typed ones included, with the pattern's index."""
    start = Match((), 0, complete=True)
    possible = [
        (number, compile_pattern(pattern)) for number, pattern in enumerate(patterns) if _may_begin(pattern, words)
    ]
    for _, nodes in possible:
        for _ in _walk(nodes, line, words, 0, start, trace):
            pass
    trace.understood = 0
    trace.incomplete.clear()
    return [(number, found) for number, nodes in possible for found in _walk(nodes, line, words, 0, start, trace)]


def _may_begin(pattern: str, words: tuple[Word, ...]) -> bool:
    """Whether a pattern that begins with a keyword begins as the line does; most do not, and need no closer look."""
    return not words or pattern[0] in "<{[" or pattern.lower().startswith(words[0].text.lower())


def _walk(
    nodes: tuple[_Node, ...], line: str, words: tuple[Word, ...], index: int, so_far: Match, trace: Trace
) -> Iterator[Match]:
    trace.understood = max(trace.understood, index)
    if not nodes:
        if index == len(words):
            yield so_far
        return
    node, rest = nodes[0], nodes[1:]
    if isinstance(node, _Choice):
        for option in node.options:
            yield from _walk(option + rest, line, words, index, so_far, trace)
        return
    if index == len(words):
        trace.incomplete.add(so_far.words)
        yield Match(so_far.words, so_far.exact, complete=False)
        return
    typed = words[index]
    if isinstance(node, _Keyword):
        as_typed = typed.text.lower()
        if node.word.lower() == as_typed:
            trace.exact.add((*so_far.words, as_typed))
        elif (*so_far.words, as_typed) in trace.exact:
            return
        if node.word.lower().startswith(as_typed):
            taken = Match((*so_far.words, node.word), so_far.exact + (node.word.lower() == as_typed), complete=True)
            yield from _walk(rest, line, words, index + 1, taken, trace)
        return
    for value, used in _argument(node.kind, line, words, index):
        taken = Match((*so_far.words, value), so_far.exact, complete=True)
        yield from _walk(rest, line, words, index + used, taken, trace)


def _argument(kind: str, line: str, words: tuple[Word, ...], index: int) -> Iterator[tuple[str, int]]:
    typed = words[index]
    if kind == "line":
        yield line[typed.column :].rstrip(), len(words) - index
    elif kind == "interface":
        yield from _interface(words, index)
    elif _fits(kind, typed.text):
        yield typed.text, 1


def _fits(kind: str, text: str) -> bool:
    name, _, limits = kind.partition(":")
    if name == "word":
        return True
    if name == "int":
        low, _, high = limits.partition("-")
        return text.isdecimal() and int(low or 0) <= int(text) <= int(high or 4294967295)
    if name in {"ip", "mask"}:
        return _is_address(text)
    if name == "prefix":
        address, slash, length = text.partition("/")
        return bool(slash) and _is_address(address) and length.isdecimal() and int(length) <= 32
    if name == "ip6":
        return ":" in text and _is_any_address(text.partition("/")[0])
    raise ValueError(f"unknown argument kind: {kind}")


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_any_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _interface(words: tuple[Word, ...], index: int) -> Iterator[tuple[str, int]]:
    parts = _INTERFACE.match(words[index].text)
    if parts is None:
        return
    kinds = [kind for kind in _INTERFACE_KINDS if kind.lower().startswith(parts[1].lower())]
    kinds = [kind for kind in kinds if kind.lower() == parts[1].lower()] or kinds
    if not kinds:
        return
    if parts[2]:
        yield kinds[0] + parts[2], 1
    elif index + 1 < len(words) and words[index + 1].text[0].isdecimal():
        yield kinds[0] + words[index + 1].text, 2


class Refusal(ValueError):
    """What IOS prints instead of obeying."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def not_understood(line: str, words: tuple[Word, ...], trace: Trace, prompt_length: int) -> Refusal:
    """The caret under the first word not understood, as wide as the prompt before the echo; or what is missing."""
    if trace.incomplete and trace.understood == len(words):
        return Refusal("% Incomplete command.\n") if len(trace.incomplete) == 1 else ambiguous(line)
    at = words[min(trace.understood, len(words) - 1)].column
    return Refusal(" " * (prompt_length + at) + "^\n% Invalid input detected at '^' marker.\n")


def ambiguous(line: str) -> Refusal:
    """Two commands begin like this."""
    return Refusal(f'% Ambiguous command:  "{line.strip()}"\n')


def best(matches: Iterable[tuple[int, Match]]) -> list[tuple[int, Match]]:
    """The matches with the most keywords typed in full; several mean an ambiguous line unless they agree."""
    found = list(matches)
    top = max((match.exact for _, match in found), default=0)
    chosen: list[tuple[int, Match]] = []
    for number, candidate in found:
        if candidate.exact == top and candidate.words not in [other.words for _, other in chosen]:
            chosen.append((number, candidate))
    return chosen
