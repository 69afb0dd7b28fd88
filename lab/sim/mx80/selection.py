"""Parts of a configuration tree: by filter, and by path where nothing on it is inactive."""

from __future__ import annotations

import copy

from lxml import etree

from lab.sim.mx80.merge import LoadProblem, edit_path, key_of, words_of
from lab.sim.mx80.schema import Kind, Node


class UnknownStatement(Exception):
    """A filter names what the schema does not know."""

    def __init__(self, problem: LoadProblem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def select(tree: etree._Element, wanted: etree._Element, node: Node, path: tuple[str, ...] = ()) -> etree._Element:
    """A copy of what `wanted` asks for: an element without contents takes all of it, a key only that entry.

    Raises:
        UnknownStatement: `wanted` names what the schema does not know.
    """
    result = etree.Element(tree.tag)
    for name in map(str, tree.keys()):
        result.set(name, str(tree.get(name)))
    result.text = tree.text
    key = node.key if node.kind is Kind.LIST else "name"
    for child in tree:
        if child.tag == key and key_of(tree, node) is not None:
            result.append(copy.deepcopy(child))
    for part in wanted:
        below = node.child(str(part.tag))
        if part.tag == key and key_of(wanted, node) is not None:
            continue
        if below is None:
            if node.kind is Kind.LIST and part.tag == key:
                continue
            raise UnknownStatement(LoadProblem(edit_path(path), "syntax error", str(part.tag)))
        _select_children(tree, part, below, path, result)
    return result


def _select_children(
    tree: etree._Element, part: etree._Element, node: Node, path: tuple[str, ...], result: etree._Element
) -> None:
    key = key_of(part, node)
    inner = [item for item in part if not (node.kind is Kind.LIST and item.tag == node.key)]
    for child in tree.findall(str(part.tag)):
        if key and key_of(child, node) != key:
            continue
        if inner:
            picked = select(child, part, node, (*path, *words_of(child, node)))
            if len(picked) > (1 if key_of(child, node) is not None else 0):
                result.append(picked)
        else:
            result.append(copy.deepcopy(child))


def active(tree: etree._Element, path: str) -> etree._Element | None:
    """The first element at `path` that is active, as are all above it."""
    return next(iter(all_active(tree, path)), None)


def all_active(tree: etree._Element, path: str) -> list[etree._Element]:
    """All elements at `path` that are active, as are all above them."""
    level = [tree]
    for name in path.split("/"):
        level = [child for element in level for child in element.findall(name) if child.get("inactive") is None]
    return level
