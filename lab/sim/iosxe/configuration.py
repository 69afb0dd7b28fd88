"""The running configuration: an ordered tree of lines, changed by commands and printed as IOS prints it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache

from lab.sim.iosxe.grammar import MODES, SORTED_SECTIONS, Command, Kind
from lab.sim.iosxe.words import Match, Refusal, Trace, Word, ambiguous, best, match_all, not_understood, split

_DIGITS = re.compile(r"(\d+)")


@dataclass(slots=True)
class Line:
    """One line, with the lines under it where it opens a section."""

    text: str
    key: str
    mode: str | None = None
    """Mode of the section; None: a plain line."""
    children: list[Line] = field(default_factory=list)

    def rendered(self, indent: int = 0) -> Iterator[str]:
        """The line and its section, each level indented by a blank."""
        yield " " * indent + self.text
        for child in self.children:
            yield from child.rendered(indent + 1)


Path = tuple[Line, ...]
"""From the outermost section inwards; empty is global configuration."""


@dataclass(frozen=True, slots=True)
class Understood:
    """A command line as the parser read it."""

    command: Command
    match: Match
    negated: bool
    path: Path
    """Where it belongs: a global command typed inside a section leaves that section."""


class RunningConfiguration:
    """Lines and sections in force.

    Args:
        features: what the device has besides plain IOS: `amt`, `netconf`, `acl-numbers`.

    Attributes:
        root: holds the lines of global configuration.
    """

    def __init__(self, features: frozenset[str] = frozenset()) -> None:
        self.features = features
        self.root = Line("", "", "global")

    @classmethod
    def parsed(cls, text: str, features: frozenset[str] = frozenset()) -> RunningConfiguration:
        """The configuration `text` makes; raises Refusal at the first line it does not understand."""
        configuration = cls(features)
        configuration.root = deepcopy(_parsed(text, features))
        return configuration

    def merge(self, text: str) -> None:
        """Obey every line of `text`, whose indentation tells sections; raises Refusal."""
        path: Path = ()
        indents: list[int] = []
        for raw in text.splitlines():
            line = raw.strip()
            if not line or line.startswith("!") or line in {"end", "exit"}:
                continue
            indent = len(raw) - len(raw.lstrip())
            while indents and indents[-1] >= indent:
                indents.pop()
            path = path[: len(indents)]
            entered = self.apply(raw.strip(), path)
            if len(entered) > len(path):
                indents.append(indent)
            path = entered

    def text(self) -> str:
        """The body as printed: sections and families set apart by `!`, with `end`."""
        return "\n".join([*self.lines(), "end"]) + "\n"

    def lines(self) -> list[str]:
        """The body, line by line, without `end`."""
        printed: list[str] = []
        before: Line | None = None
        for line in self.root.children:
            if before is None or before.mode or line.mode or _rank("global", before.text) != _rank("global", line.text):
                printed.append("!")
            printed.extend(line.rendered())
            before = line
        return [*printed, "!"]

    def section(self, header: str) -> Line | None:
        """The global line `header`, or None."""
        return next((line for line in self.root.children if line.text == header), None)

    def matching(self, beginning: str) -> list[Line]:
        """Global lines that begin so."""
        return [line for line in self.root.children if line.text.startswith(beginning)]

    @property
    def hostname(self) -> str:
        """As configured."""
        found = self.matching("hostname ")
        return found[0].text.split()[1] if found else "Router"

    @property
    def archive_path(self) -> str | None:
        """Where `archive` keeps copies; None: the archive feature is off."""
        archive = self.section("archive")
        paths = (
            [child.text.split()[1] for child in archive.children if child.text.startswith("path ")] if archive else []
        )
        return paths[0] if paths else None

    def interfaces(self) -> list[Line]:
        """Sections `interface …`."""
        return self.matching("interface ")

    def apply(self, line: str, path: Path, *, prompt_length: int = 0) -> Path:
        """Obey one configuration line typed at `path`.

        Args:
            line: as typed; `no` and `default` forms too.
            path: section it is typed in.
            prompt_length: columns before the first character, where the caret counts from.

        Returns:
            The section that later lines are typed in.

        Raises:
            Refusal: with the text IOS prints; nothing is changed then.
        """
        understood = self._understand(line, path, prompt_length)
        section = understood.path[-1] if understood.path else self.root
        command = understood.command
        if command.kind is Kind.SECTION:
            return self._section(understood, section)
        text = " ".join(understood.match.words)
        key = _key(command, understood.match.words)
        if _is_acl(section):
            self._access_line(section, text, negated=understood.negated)
        elif command.kind is Kind.DEFAULT_ON:
            _remove(section, "no " + text)
            if understood.negated:
                _insert(section, Line("no " + text, "no " + text))
        elif understood.negated:
            _remove(section, key, words_only=command.kind is Kind.MULTI and not understood.match.complete)
            self._show_no_address(section)
        else:
            self._set(section, command, text, key)
        return understood.path

    def _understand(self, line: str, path: Path, prompt_length: int) -> Understood:
        words = split(line)
        negated = len(words) > 1 and words[0].text.lower() in {"no", "default"}
        rest = words[1:] if negated else words
        refusal: Refusal | None = None
        for depth in range(len(path), -1, -1):
            mode = path[depth - 1].mode if depth else "global"
            try:
                command, found = self._look_up(mode or "global", line, rest, prompt_length, negated=negated)
            except Refusal as error:
                refusal = refusal or error
                continue
            return Understood(command, found, negated, path[:depth])
        assert refusal is not None
        raise refusal

    def _look_up(
        self, mode: str, line: str, words: tuple[Word, ...], prompt_length: int, *, negated: bool
    ) -> tuple[Command, Match]:
        trace = Trace()
        commands = [one for one in MODES[mode].commands if one.feature is None or one.feature in self.features]
        found = [
            (number, candidate)
            for number, candidate in match_all([one.pattern for one in commands], line, words, trace)
            if candidate.complete or (negated and len(candidate.words) >= _shortest(commands[number]))
        ]
        complete = [(number, candidate) for number, candidate in found if candidate.complete]
        chosen = best(complete or found)
        if not chosen:
            raise not_understood(line, words, trace, prompt_length)
        if len({commands[number].kind for number, _ in chosen}) > 1 or (len(chosen) > 1 and complete and not negated):
            raise ambiguous(line)
        number, candidate = chosen[0]
        return commands[number], candidate

    def _section(self, understood: Understood, parent: Line) -> Path:
        command = understood.command
        text = " ".join(understood.match.words)
        if text.startswith("class-map ") and text.split()[1] not in {"match-any", "match-all"}:
            text = "class-map match-all " + text.split()[1]
        if text.startswith("route-map ") and len(text.split()) == 3:
            text += " 10"
        if understood.negated:
            if text.startswith("interface ") and not re.match(
                r"interface (Loopback|Tunnel|Vlan|Port-channel|BDI|.*\.)", text
            ):
                raise Refusal("% Removal of physical interfaces is not permitted\n")
            _remove(parent, text)
            return understood.path
        line = next((child for child in parent.children if child.key == text), None)
        if line is None:
            line = Line(text, text, command.opens)
            _insert(parent, line)
            self._show_no_address(line)
        return (*understood.path, line)

    def _set(self, section: Line, command: Command, text: str, key: str) -> None:
        if text == command.default:
            _remove(section, key)
            return
        if text.startswith("ip prefix-list ") and " seq " not in text and " description " not in text:
            text = self._numbered_prefix(text)
            key = text
        if key.startswith("ip address") and not text.endswith("secondary"):
            _remove(section, "no ip address")
        same = next((child for child in section.children if child.key == key), None)
        if same is not None:
            same.text = text
            return
        _insert(section, Line(text, key))

    def _numbered_prefix(self, text: str) -> str:
        words = text.split()
        rest = " ".join(words[3:])
        numbers = [0]
        for line in self.matching(f"ip prefix-list {words[2]} seq "):
            number, _, entry = line.text.split(" seq ")[1].partition(" ")
            if entry == rest:
                return line.text
            numbers.append(int(number))
        return f"ip prefix-list {words[2]} seq {max(numbers) // 5 * 5 + 5} {rest}"

    def _show_no_address(self, section: Line) -> None:
        if section.mode != "interface":
            return
        addressed = any(
            child.text.startswith(("ip address", "ip unnumbered", "no ip address")) for child in section.children
        )
        if not addressed:
            _insert(section, Line("no ip address", "no ip address"))

    def _access_line(self, section: Line, text: str, *, negated: bool) -> None:
        """Entries have numbers, kept and (newer releases) printed; typed without, they go to the end."""
        first, _, rest = text.partition(" ")
        number = int(first) if first.isdecimal() else None
        entry = rest if number is not None else text
        entries = {int(child.key): child for child in section.children}
        same = next((key for key, child in entries.items() if _without_number(child.text) == entry), None)
        if negated:
            victim = number if number is not None else same
            if victim is not None and victim in entries:
                section.children.remove(entries[victim])
            return
        if same is not None:
            return
        if number is not None and number in entries:
            raise Refusal("% Duplicate sequence number\n")
        number = number if number is not None else max(entries, default=0) // 10 * 10 + 10
        shown = f"{number} {entry}" if "acl-numbers" in self.features else entry
        section.children.append(Line(shown, str(number)))
        section.children.sort(key=lambda child: int(child.key))


@lru_cache(maxsize=64)
def _parsed(text: str, features: frozenset[str]) -> Line:
    """The lines `text` makes, kept: a bench starts a thousand routers with the same."""
    configuration = RunningConfiguration(features)
    configuration.merge(text)
    return configuration.root


def _is_acl(section: Line) -> bool:
    return section.mode in {"extended-acl", "standard-acl"}


def _without_number(text: str) -> str:
    first, _, rest = text.partition(" ")
    return rest if first.isdecimal() else text


def _shortest(command: Command) -> int:
    """Words a `no` form needs at least; without a key, enough to name one thing and not all of a family."""
    if command.kind is not Kind.MULTI:
        return command.key or 1
    if command.pattern.startswith("<int"):
        return 1
    return 3 if command.pattern.startswith("ip ") else 2


def _key(command: Command, words: tuple[str, ...]) -> str:
    if command.as_key is not None:
        return command.as_key
    return " ".join(words[: command.key] if command.key else words)


def _remove(section: Line, key: str, *, words_only: bool = False) -> None:
    if words_only:
        section.children = [child for child in section.children if not (child.key + " ").startswith(key + " ")]
    else:
        section.children = [child for child in section.children if child.key != key]


def _rank(mode: str, text: str) -> int:
    order = MODES[mode].ranked
    if not any(text.startswith(beginning) for beginning in order):
        text = text.removeprefix("no ")
    found = [number for number, beginning in enumerate(order) if (text + " ").startswith(beginning + " ")]
    return max(found, key=lambda number: len(order[number])) if found else len(order)


def _place(mode: str, text: str) -> tuple[object, ...]:
    natural: tuple[tuple[int, object], ...] = ()
    if mode == "global" and text.startswith(SORTED_SECTIONS):
        natural = tuple((1, int(part)) if part.isdecimal() else (0, part) for part in _DIGITS.split(text))
    return (_rank(mode, text), natural)


def _insert(section: Line, line: Line) -> None:
    place = _place(section.mode or "global", line.text)
    for index, child in enumerate(section.children):
        if place < _place(section.mode or "global", child.text):
            section.children.insert(index, line)
            return
    section.children.append(line)
