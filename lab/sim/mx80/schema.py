"""The statements the simulated MX80 knows, read from schema.txt."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Final

_RANGE: Final = re.compile(r"(\d+)\.\.(\d+)")
_TUNNEL_DEVICE: Final = re.compile(r"ud-\d+/\d+/\d+")
_TYPES: Final = ("ipv4", "prefix4", "address4", "ud")


class Kind(Enum):
    """What a statement is."""

    CONTAINER = "container"
    LIST = "list"
    LEAF = "leaf"
    LEAF_LIST = "leaf-list"
    FLAG = "flag"
    ANY = "any"
    """Not in the schema: taken as it comes."""


@dataclass(slots=True)
class Node:
    """One statement and what may stand in it; see schema.txt for the words."""

    name: str
    kind: Kind
    key: str = "name"
    value_type: str = ""
    choice: str = ""
    names: tuple[str, ...] = ()
    """List: the only keys there are."""
    words: frozenset[str] = frozenset()
    children: dict[str, Node] = field(default_factory=dict)
    order: int = 0
    like: str = ""
    """Where its children were taken from."""

    @property
    def open(self) -> bool:
        """Whether children the schema does not name are taken."""
        return "open" in self.words or self.kind is Kind.ANY

    def has(self, word: str) -> bool:
        """Whether schema.txt says `word` of it."""
        return word in self.words

    def child(self, name: str) -> Node | None:
        """The statement `name` in this one; None where there is none."""
        known = self.children.get(name)
        if known is not None:
            return known
        if name in {"apply-groups", "apply-groups-except"}:
            return Node(name, Kind.LEAF_LIST)
        if self.open:
            return Node(name, Kind.ANY, order=len(self.children))
        return None

    @property
    def hidden_list(self) -> Node | None:
        """The list in it whose name is not written."""
        return next((node for node in self.children.values() if node.has("hidden")), None)

    @property
    def bare_leaf(self) -> Node | None:
        """The leaf in it whose keyword is not written."""
        return next((node for node in self.children.values() if node.has("bare")), None)


def wrong_value(node: Node, value: str) -> str | None:
    """What a router says of `value`; None where it takes it."""
    if (limits := _RANGE.fullmatch(node.value_type)) is not None:
        low, high = int(limits[1]), int(limits[2])
        if not value.isdigit() or not low <= int(value) <= high:
            return f"Value {value} is not within range ({low}..{high})"
    elif node.value_type == "ud":
        if not _TUNNEL_DEVICE.fullmatch(value):
            return f"invalid interface type: '{value}'"
    elif node.value_type:
        try:
            if node.value_type == "ipv4":
                ipaddress.IPv4Address(value)
            else:
                ipaddress.IPv4Interface(value)
        except ValueError:
            return f"invalid value '{value}' in ip address: '{value}'"
    return None


def _parse_line(line: str, order: int) -> Node:
    name, *rest = line.split()
    kind, key, value_type = Kind.CONTAINER, "name", ""
    choice = like = ""
    names: tuple[str, ...] = ()
    words: list[str] = []
    for word in rest:
        if word in {"=", "!", "[]", "*"}:
            kind = {"=": Kind.LEAF, "!": Kind.FLAG, "[]": Kind.LEAF_LIST, "*": Kind.LIST}[word]
        elif word.startswith("@"):
            like = word[1:]
        elif word.startswith("choice:"):
            choice = word.partition(":")[2]
        elif word.startswith("flags:"):
            names = tuple(word.partition(":")[2].split(","))
        elif word in _TYPES or _RANGE.fullmatch(word):
            value_type = word
        elif word in {"hidden", "open", "presence", "joined", "oneliner", "short", "bare", "user-ordered", "whole"}:
            words.append(word)
        elif kind is Kind.LIST:
            key = word
        else:
            raise ValueError(f"schema.txt: {line!r}")
    return Node(name, kind, key, value_type, choice, names, frozenset(words), order=order, like=like)


@cache
def root() -> Node:
    """The statement `configuration`."""
    top = Node("configuration", Kind.CONTAINER)
    stack: list[tuple[int, Node]] = [(-1, top)]
    for order, line in enumerate(files(__package__).joinpath("schema.txt").read_text().splitlines()):
        if not line.strip() or line.startswith("#"):
            continue
        depth = len(line) - len(line.lstrip())
        while stack[-1][0] >= depth:
            stack.pop()
        node = _parse_line(line, order)
        if node.like:
            model = top
            for name in node.like.split("."):
                model = model.children[name]
            node.children, node.words = model.children, model.words
        stack[-1][1].children[node.name] = node
        stack.append((depth, node))
    return top
