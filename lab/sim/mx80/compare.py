"""`show | compare`: what differs between two configuration trees, per hierarchy, with + and -."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher

from lxml import etree

from lab.sim.mx80.merge import content, edit_path, key_of, words_of
from lab.sim.mx80.render import groups, statement_lines
from lab.sim.mx80.schema import Kind, Node

Identity = tuple[str, object]


def compare(old: etree._Element, new: etree._Element, node: Node) -> str:
    """Changes that make `new` of `old`, as Junos prints them; empty where there are none."""
    return "".join(f"{line}\n" for line in _level(old, new, node, ()))


def _identity(node: Node, elements: list[etree._Element]) -> Identity:
    if node.has("whole"):
        return node.name, content(elements[0])
    return node.name, key_of(elements[0], node)


def _holds_more(node: Node, element: etree._Element) -> bool:
    """Whether it is entered instead of shown as a whole when it changes."""
    leaf = node.kind in {Kind.LEAF, Kind.LEAF_LIST, Kind.FLAG} or (node.kind is Kind.ANY and not len(element))
    return not leaf and not node.has("oneliner")


def _level(old: etree._Element, new: etree._Element, node: Node, path: tuple[str, ...]) -> Iterator[str]:
    before = {_identity(*group): group for group in groups(old, node)}
    after = {_identity(*group): group for group in groups(new, node)}
    lines: list[str] = []
    deeper: list[tuple[Node, etree._Element, etree._Element]] = []
    for identity, (below, elements) in before.items():
        if identity not in after:
            lines += _marked("-", statement_lines(below, elements))
            continue
        others = after[identity][1]
        if [content(element) for element in elements] == [content(other) for other in others]:
            continue
        if _holds_more(below, elements[0]) and _holds_more(below, others[0]):
            lines += _activity(below, elements[0], others[0])
            deeper.append((below, elements[0], others[0]))
        else:
            lines += _marked("-", statement_lines(below, elements))
            lines += _marked("+", statement_lines(below, others))
    lines += _added(before, after)
    lines += _moved(before, after)
    if lines:
        yield edit_path(path)
        yield from lines
    for below, first, second in deeper:
        yield from _level(first, second, below, (*path, *words_of(first, below)))


def _added(
    before: dict[Identity, tuple[Node, list[etree._Element]]], after: dict[Identity, tuple[Node, list[etree._Element]]]
) -> list[str]:
    lines: list[str] = []
    previous: tuple[Identity, Node, list[etree._Element]] | None = None
    for identity, (below, elements) in after.items():
        if identity not in before:
            ordered = below.has("user-ordered") and previous is not None and previous[1].name == below.name
            if ordered and previous is not None and previous[0] in before:
                head = " ".join(words_of(previous[2][0], below))
                lines.append(f"    {head} {{ ... }}")
            lines += _marked("+", statement_lines(below, elements))
        previous = (identity, below, elements)
    return lines


def _moved(
    before: dict[Identity, tuple[Node, list[etree._Element]]], after: dict[Identity, tuple[Node, list[etree._Element]]]
) -> list[str]:
    old = [identity for identity, (below, _) in before.items() if below.has("user-ordered") and identity in after]
    new = [identity for identity, (below, _) in after.items() if below.has("user-ordered") and identity in before]
    if old == new:
        return []
    kept: set[Identity] = set()
    for block in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
        kept.update(old[block.a : block.a + block.size])
    return [
        f"!   {' '.join(words_of(after[identity][1][0], after[identity][0]))} {{ ... }}"
        for identity in new
        if identity not in kept
    ]


def _activity(node: Node, old: etree._Element, new: etree._Element) -> list[str]:
    was, now = old.get("inactive"), new.get("inactive")
    if (was is None) == (now is None):
        return []
    return [f"!   {'inactive: ' if now is not None else 'active: '}{' '.join(words_of(new, node))} {{ ... }}"]


def _marked(mark: str, lines: list[str]) -> list[str]:
    return [f"{mark}   {line}" for line in lines]
