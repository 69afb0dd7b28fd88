"""Where each key of a TOML document stands.

tomllib gives values without positions. This scanner walks a document tomllib has already accepted, so it may assume
valid syntax, and records the line of every table header, key and array element.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR: Final = re.compile(r"[^\s,\]}#][^,\]}#\n]*")
_SPACE: Final = " \t\r"


def locate(text: str) -> dict[KeyPath, int]:
    """Line number, counted from 1, of every table, key and array element of a valid TOML document."""
    return _Scanner(text).scan()


def line_of(path: KeyPath, lines: dict[KeyPath, int]) -> int:
    """Line of `path`, or of the nearest thing around it that is in the file; 1 when nothing is."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


class _Scanner:
    """A cursor over the text; each method leaves it behind what it consumed."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._counted = 0
        self._line = 1
        self._lines: dict[KeyPath, int] = {}
        self._array_sizes: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip_blank():
            if self._text.startswith("[[", self._position):
                table = self._header(2)
            elif self._text[self._position] == "[":
                table = self._header(1)
            else:
                self._pair(table)
        return self._lines

    def _header(self, brackets: int) -> KeyPath:
        line = self._current_line()
        self._position += brackets
        keys = self._dotted_key()
        self._position = self._text.index("]", self._position) + brackets
        path = (*self._resolve(keys[:-1]), keys[-1])
        if brackets == 2:
            index = self._array_sizes.get(path, 0)
            self._array_sizes[path] = index + 1
            self._lines.setdefault(path, line)
            path = (*path, index)
        elif path in self._array_sizes:
            path = (*path, self._array_sizes[path] - 1)
        self._record(path, line)
        return path

    def _resolve(self, keys: tuple[str, ...]) -> KeyPath:
        """Path of a dotted header prefix: an array of tables on the way means its last element."""
        path: KeyPath = ()
        for key in keys:
            path = (*path, key)
            if path in self._array_sizes:
                path = (*path, self._array_sizes[path] - 1)
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._current_line()
        path: KeyPath = (*table, *self._dotted_key())
        self._record(path, line)
        self._position = self._text.index("=", self._position) + 1
        self._skip_space()
        self._value(path)

    def _record(self, path: KeyPath, line: int) -> None:
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], line)

    def _dotted_key(self) -> tuple[str, ...]:
        keys = []
        while True:
            self._skip_space()
            keys.append(self._simple_key())
            self._skip_space()
            if not self._text.startswith(".", self._position):
                return tuple(keys)
            self._position += 1

    def _simple_key(self) -> str:
        if self._text[self._position] in "\"'":
            start = self._position
            self._string()
            decoded: dict[str, Any] = tomllib.loads(f"key = {self._text[start : self._position]}")
            return str(decoded["key"])
        found = _BARE_KEY.match(self._text, self._position)
        assert found is not None
        self._position = found.end()
        return found.group()

    def _value(self, path: KeyPath) -> None:
        first = self._text[self._position]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            found = _SCALAR.match(self._text, self._position)
            assert found is not None
            self._position = found.end()

    def _array(self, path: KeyPath) -> None:
        self._position += 1
        index = 0
        while self._skip_blank() and self._text[self._position] != "]":
            if self._text[self._position] == ",":
                self._position += 1
                continue
            self._record((*path, index), self._current_line())
            self._value((*path, index))
            index += 1
        self._position += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._position += 1
        while self._skip_blank() and self._text[self._position] != "}":
            if self._text[self._position] == ",":
                self._position += 1
                continue
            self._pair(path)
        self._position += 1

    def _string(self) -> None:
        quote = self._text[self._position]
        delimiter = quote * 3 if self._text.startswith(quote * 3, self._position) else quote
        position = self._position + len(delimiter)
        while not self._text.startswith(delimiter, position):
            position += 2 if quote == '"' and self._text[position] == "\\" else 1
        position += len(delimiter)
        if len(delimiter) == 3:  # up to two more quotes may belong to the content
            while self._text.startswith(quote, position):
                position += 1
        self._position = position

    def _skip_space(self) -> None:
        while self._position < len(self._text) and self._text[self._position] in _SPACE:
            self._position += 1

    def _skip_blank(self) -> bool:
        """Skip blanks, newlines and comments; False at the end of the text."""
        while self._position < len(self._text):
            character = self._text[self._position]
            if character == "#":
                end = self._text.find("\n", self._position)
                self._position = len(self._text) if end < 0 else end
            elif character in " \t\r\n":
                self._position += 1
            else:
                return True
        return False

    def _current_line(self) -> int:
        self._line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._line
