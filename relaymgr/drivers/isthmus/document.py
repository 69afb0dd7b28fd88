"""The agent's configuration file as owned keys: read some, change some, and leave every other byte alone.

Scope notation: the dotted key of the file (`relay.address`), and `drain`. Canonical text: one `key = value` a line,
sorted, values as TOML, for the keys of the scope that the file holds; `drain = true` while the relay is drained.

A drain is kept in the file, not only in the agent's memory, so that it is committed, confirmed, rolled back and kept
across a restart like everything else. The file says it as `tunnel_limit = 0`, which is what tells new gateways to go
elsewhere (the L flag) and leaves tunnels alone, and remembers in a comment the line that stood there, which comes back
byte for byte:

    tunnel_limit = 0 # drained by relaymgr; before: tunnel_limit = 1_000  # as agreed
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

DRAIN: Final = "drain"
SECTION: Final = "relay"

_LIMIT: Final = "tunnel_limit"
_MARK: Final = "# drained by relaymgr; before: "
_DEFAULT: Final = "the default"
_DRAINED: Final = re.compile(rf"^\s*{_LIMIT}\s*=\s*0\s*{re.escape(_MARK)}(?P<before>.*)$")
_HEADER: Final = re.compile(r"^\s*\[")
_RELAY_HEADER: Final = re.compile(rf"""^\s*\[\s*["']?{SECTION}["']?\s*\]\s*(#.*)?$""")
_LISTS: Final = frozenset({"interfaces", "address", "discovery_address"})

Value = str | int | float | bool | list[str]


class NotEditable(ValueError):
    """The file writes the owned keys in a way that cannot be changed without touching the rest."""


def read(text: str, scope: tuple[str, ...]) -> str:
    """The keys of `scope` that `text` holds, in the canonical text.

    Raises:
        tomllib.TOMLDecodeError: `text` is not TOML.
    """
    values = _values(text)
    return canonical({key: values[key] for key in scope if key in values})


def canonical(values: dict[str, Value]) -> str:
    """Canonical text of dotted keys and their values."""
    return "".join(f"{key} = {_toml(_plain(key, value))}\n" for key, value in sorted(values.items()))


def parse(text: str) -> dict[str, Value]:
    """Dotted keys and values of a canonical text."""
    found: dict[str, Value] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" = ")
        found[key] = tomllib.loads(f"value = {value}")["value"]
    return found


def merge(text: str, scope: tuple[str, ...], owned: str) -> str:
    """`text` with the keys of `scope` made equal to the canonical text `owned`.

    A line whose value already is the wanted one stays as it was written.

    Raises:
        NotEditable: the keys are not plain lines of one `[relay]` table.
        tomllib.TOMLDecodeError: `text` is not TOML.
    """
    have, want = _values(text), parse(owned)
    lines = text.splitlines(keepends=True)
    for key in sorted(set(scope) - {DRAIN}):
        if have.get(key) != want.get(key):
            _set(lines, key.removeprefix(f"{SECTION}."), want.get(key))
    if DRAIN in scope and have.get(DRAIN) != want.get(DRAIN):
        _drain(lines, drained=bool(want.get(DRAIN)))
    merged = "".join(lines)
    _check(text, merged, scope, owned)
    return merged


def _check(before: str, after: str, scope: tuple[str, ...], owned: str) -> None:
    """The owned keys are as wanted and nothing else means anything else."""
    try:
        old, new = tomllib.loads(before), tomllib.loads(after)
        reads = read(after, scope)
    except tomllib.TOMLDecodeError as error:
        raise NotEditable("the [relay] table is written in a way that cannot be edited line by line") from error
    keys = {key.removeprefix(f"{SECTION}.") for key in scope} | ({_LIMIT} if DRAIN in scope else set())
    for document in (old, new):
        table = document.get(SECTION)
        if isinstance(table, dict):
            document[SECTION] = {key: value for key, value in table.items() if key not in keys}
    if reads != owned or {SECTION: {}, **old} != {SECTION: {}, **new}:
        raise NotEditable("the [relay] table is written in a way that cannot be edited line by line")


def _values(text: str) -> dict[str, Value]:
    """Every key of `[relay]`, dotted, as an intent writes it; the limit from before a drain, and the drain."""
    table = tomllib.loads(text).get(SECTION, {})
    values = {f"{SECTION}.{key}": _plain(key, value) for key, value in table.items()}
    before = _before_drain(text.splitlines())
    if before is not None:
        values[DRAIN] = True
        values.pop(f"{SECTION}.{_LIMIT}", None)
        if before != _DEFAULT:
            values[f"{SECTION}.{_LIMIT}"] = tomllib.loads(before)[_LIMIT]
    return values


def _plain(key: str, value: Any) -> Value:  # noqa: ANN401 whatever TOML holds
    """One way to write each value: lists where the agent takes one or many, whole numbers without a fraction."""
    name = key.removeprefix(f"{SECTION}.")
    if name in _LISTS:
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value)


def _before_drain(lines: list[str]) -> str | None:
    """The line that stood there before the drain, or `the default`; None where the relay is not drained."""
    span = _table(lines)
    for line in lines[span[0] : span[1]] if span else []:
        found = _DRAINED.match(line.rstrip("\r\n"))
        if found:
            return found["before"] if _is_limit(found["before"]) else _DEFAULT
    return None


def _is_limit(line: str) -> bool:
    """Whether a remembered line is one; people edit comments."""
    try:
        document = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return False
    return list(document) == [_LIMIT] and isinstance(document[_LIMIT], int)


def _table(lines: list[str]) -> tuple[int, int] | None:
    """First line after the `[relay]` header and the line after its last; None without one."""
    for number, line in enumerate(lines):
        if _RELAY_HEADER.match(line.rstrip("\r\n")):
            end = next((at for at in range(number + 1, len(lines)) if _HEADER.match(lines[at])), len(lines))
            return number + 1, end
    return None


def _span(lines: list[str], key: str) -> tuple[int, int] | None:
    """Lines of `key` in the table: as many as its value takes."""
    table = _table(lines)
    if table is None:
        return None
    starts = re.compile(rf"""^\s*["']?{re.escape(key)}["']?\s*=""")
    for begin in range(*table):
        if starts.match(lines[begin]):
            # An array may go over several lines, and past what looked like the next header.
            for end in range(begin + 1, len(lines) + 1):
                try:
                    tomllib.loads("".join(lines[begin:end]))
                except tomllib.TOMLDecodeError:
                    continue
                return begin, end
    return None


def _set(lines: list[str], key: str, value: Value | None) -> None:
    """Write, replace or remove one key; a drained limit changes what comes back after the drain."""
    if key == _LIMIT and _before_drain(lines) is not None:
        begin, end = _span(lines, key) or (0, 0)
        lines[begin:end] = [_drain_line(None if value is None else f"{_LIMIT} = {_toml(value)}")]
        return
    span = _span(lines, key)
    if value is None:
        if span is not None:
            del lines[span[0] : span[1]]
        return
    written = f"{key} = {_toml(value)}\n"
    if span is not None:
        lines[span[0] : span[1]] = [written]
    else:
        _insert(lines, written)


def _drain(lines: list[str], *, drained: bool) -> None:
    span = _span(lines, _LIMIT)
    if drained:
        if span is not None:
            stood = "".join(lines[span[0] : span[1]])
            limit = stood.rstrip("\r\n")
            lines[span[0] : span[1]] = [_drain_line(limit, stood[len(limit) :])]
        else:
            _insert(lines, _drain_line(None))
        return
    if span is not None:
        before = _before_drain(lines)
        last = lines[span[1] - 1]
        ending = last[len(last.rstrip("\r\n")) :]
        lines[span[0] : span[1]] = [] if before in {None, _DEFAULT} else [f"{before}{ending}"]


def _drain_line(before: str | None, ending: str = "\n") -> str:
    return f"{_LIMIT} = 0 {_MARK}{_DEFAULT if before is None else before}{ending}"


def _insert(lines: list[str], written: str) -> None:
    """At the end of the table, above the blank lines and comments that lead to the next one."""
    table = _table(lines)
    if table is None:
        raise NotEditable("the configuration has no [relay] table of its own")
    begin, at = table
    while at > begin and (not lines[at - 1].strip() or (at < len(lines) and lines[at - 1].lstrip().startswith("#"))):
        at -= 1
    if at and not lines[at - 1].endswith("\n"):
        lines[at - 1] += "\n"
    lines.insert(at, written)
