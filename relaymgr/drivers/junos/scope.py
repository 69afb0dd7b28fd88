"""Paths into a Junos configuration: `interfaces/interface[lo0]/unit[0]/family/inet/address[198.51.100.7/32]`.

A step is an element, `[KEY]` behind it the text of the list entry's `<name>`. What an intent owns is a tuple of paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lxml import etree

from relaymgr.drivers.netconf.documents import child_text, children

_STEP = re.compile(r"([A-Za-z][A-Za-z0-9-]*)(?:\[([^\]]+)\])?(?:/|$)")


@dataclass(frozen=True, slots=True)
class Path:
    """Where one owned element stands below `<configuration>`."""

    steps: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> Path:
        """From the notation above. Raises ValueError."""
        steps: list[tuple[str, str | None]] = []
        at = 0
        while at < len(text):
            found = _STEP.match(text, at)
            if found is None:
                raise ValueError(f"not a path into a Junos configuration: {text!r}")
            steps.append((found[1], found[2]))
            at = found.end()
        if not steps or text.endswith("/"):
            raise ValueError(f"not a path into a Junos configuration: {text!r}")
        return cls(tuple(steps))

    def __str__(self) -> str:
        return "/".join(name if key is None else f"{name}[{key}]" for name, key in self.steps)

    def covers(self, other: Path) -> bool:
        """Whether `other` is this path or below it."""
        return other.steps[: len(self.steps)] == self.steps


def paths(scope: Iterable[str]) -> tuple[Path, ...]:
    """The paths of a scope, sorted, without those that another one covers."""
    found: list[Path] = []
    for path in sorted({Path.parse(text) for text in scope}, key=lambda path: (len(path.steps), str(path))):
        if not any(kept.covers(path) for kept in found):
            found.append(path)
    return tuple(sorted(found, key=str))


def locate(root: etree._Element, path: Path) -> etree._Element | None:
    """The element at `path` below `root`, whatever its namespace; None where there is none."""
    current = root
    for name, key in path.steps:
        candidates = children(current, name)
        step = next((child for child in candidates if key is None or child_text(child, "name") == key), None)
        if step is None:
            return None
        current = step
    return current


def place(root: etree._Element, path: Path) -> etree._Element:
    """The element's parent at `path` below `root`, made with its ancestors where missing."""
    current = root
    for name, key in path.steps[:-1]:
        found = locate(current, Path(((name, key),)))
        current = found if found is not None else _entry(current, name, key)
    return current


def _entry(parent: etree._Element, name: str, key: str | None) -> etree._Element:
    element = etree.SubElement(parent, name)
    if key is not None:
        etree.SubElement(element, "name").text = key
    return element


def entry(parent: etree._Element, path: Path) -> etree._Element:
    """A new element for the last step of `path` below `parent`, with its key."""
    return _entry(parent, *path.steps[-1])
