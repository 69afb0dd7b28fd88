"""Configuration trees as curly-brace text and as set commands, the way Junos prints them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from lxml import etree

from lab.sim.mx80.merge import key_of, words_of
from lab.sim.mx80.schema import Kind, Node

_PLAIN: Final = re.compile(r"[\w./:*+,@%=-]+")
_SECRETS: Final = frozenset({"encrypted-password", "secret", "authentication-key", "pre-shared-key"})
_INDENT: Final = "    "
Group = tuple[Node, list[Any]]
"""A statement's schema and its element (a leaf-list: all of its elements)."""


def quoted(value: str) -> str:
    """A value as written in text and set."""
    if _PLAIN.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def as_text(tree: etree._Element, node: Node) -> str:
    """`configuration` in curly braces; empty for an empty one."""
    return "".join(f"{line}\n" for group in groups(tree, node) for line in statement_lines(*group))


def as_set(tree: etree._Element, node: Node) -> str:
    """`configuration` as set (and deactivate) commands."""
    return "".join(f"{line}\n" for line in _commands(tree, node, ()))


def groups(parent: etree._Element, node: Node) -> Iterator[Group]:
    """Statements in `parent`, keys left out; the values of one leaf-list together."""
    seen: set[str] = set()
    skip = node.key if node.kind is Kind.LIST else ("name" if key_of(parent, node) is not None else None)
    for child in parent:
        name = str(child.tag)
        if name == skip:
            continue
        below = node.child(name) or Node(name, Kind.ANY)
        twins = [other for other in parent.findall(name) if not len(other) and other.text]
        many = below.kind is Kind.LEAF_LIST or (below.kind is Kind.ANY and len(twins) > 1 and child in twins)
        if not many:
            yield below, [child]
        elif name not in seen:
            seen.add(name)
            yield below, twins


def statement_lines(node: Node, elements: list[etree._Element]) -> list[str]:
    """One statement in curly braces, the outermost line without indent."""
    mark = "inactive: " if elements[0].get("inactive") is not None else ""
    if len(elements) > 1:
        return [f"{mark}{node.name} [ {' '.join(quoted(element.text or '') for element in elements)} ];"]
    return [f"{mark}{line}" if index == 0 else line for index, line in enumerate(_single(node, elements[0]))]


def _single(node: Node, first: etree._Element) -> list[str]:
    head = " ".join(quoted(word) for word in words_of(first, node))
    if node.kind in {Kind.LEAF, Kind.LEAF_LIST} or (not len(first) and first.text):
        value = quoted(first.text or "")
        secret = " ## SECRET-DATA" if node.name in _SECRETS else ""
        return [f"{value if node.has('bare') else f'{head} {value}'};{secret}"]
    inner = list(groups(first, node))
    if not inner:
        return [f"{head};"]
    if node.has("short") and len(inner) == 1 and len(only := statement_lines(*inner[0])) == 1:
        return [f"{head} {only[0]}"]
    if node.has("oneliner"):
        parts = [" ".join(statement_lines(*group)).rstrip(";") for group in inner]
        return [f"{head} {' '.join(parts)};"]
    if node.has("joined"):
        return [line for group in inner for line in _prefixed(f"{head} ", statement_lines(*group))]
    lines = [f"{head} {{"]
    lines += [_INDENT + line for group in inner for line in statement_lines(*group)]
    return [*lines, "}"]


def _prefixed(prefix: str, lines: list[str]) -> list[str]:
    return [prefix + lines[0], *lines[1:]]


def _commands(parent: etree._Element, node: Node, path: tuple[str, ...]) -> Iterator[str]:
    for below, elements in groups(parent, node):
        first = elements[0]
        words = tuple(quoted(word) for word in words_of(first, below))
        here = (*path, *words)
        if below.kind in {Kind.LEAF, Kind.LEAF_LIST} or (not len(first) and first.text):
            prefix = path if below.has("bare") else here
            yield from (" ".join(("set", *prefix, quoted(element.text or ""))) for element in elements)
        else:
            inner = list(groups(first, below))
            if not inner:
                yield " ".join(("set", *here))
            elif below.has("oneliner"):
                yield "set " + " ".join((*path, *_single(below, first)[0].rstrip(";").split(" ")))
            else:
                yield from _commands(first, below, here)
        if first.get("inactive") is not None:
            yield " ".join(("deactivate", *here))
