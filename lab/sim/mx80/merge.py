"""Loading into a configuration tree: merge, replace and delete of statements.

A tree is an lxml element `configuration` without namespaces, lists carrying their key as first child, as Junos prints
it. What is loaded, in whatever format it came, is first made into such a tree with the attributes `delete`, `replace`,
`inactive`, `active` and `insert`, and then merged here.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from lxml import etree

from lab.sim.mx80.schema import Kind, Node, wrong_value

_ATTRIBUTES = ("delete", "replace", "inactive", "active", "insert", "name", "operation", "key", "existing")


@dataclass(frozen=True, slots=True)
class LoadProblem:
    """One thing a load stumbled over."""

    path: str
    """Where, such as `[edit protocols amt]`."""
    message: str
    bad_element: str = ""
    severity: str = "error"


@dataclass(slots=True)
class Loaded:
    """Outcome of a load."""

    problems: list[LoadProblem] = field(default_factory=list)

    @property
    def errors(self) -> list[LoadProblem]:
        """Those that are no mere warnings."""
        return [problem for problem in self.problems if problem.severity == "error"]


def edit_path(words: tuple[str, ...]) -> str:
    """`[edit …]`."""
    return f"[{' '.join(('edit', *words))}]"


def key_of(element: etree._Element, node: Node) -> str | None:
    """Key of a list entry; None where it has none, or is no list entry."""
    if node.kind is Kind.LIST:
        return _text(element.find(node.key))
    if node.kind is Kind.ANY and len(element) and element[0].tag == "name":
        return _text(element[0])
    return None


def words_of(element: etree._Element, node: Node) -> tuple[str, ...]:
    """How the statement is written in a path: its name unless hidden, and its key."""
    key = key_of(element, node)
    name = () if node.has("hidden") else (str(element.tag),)
    return name if key is None else (*name, key)


def same(first: etree._Element, second: etree._Element, node: Node) -> bool:
    """Whether two elements are the same statement (their contents may differ)."""
    if first.tag != second.tag:
        return False
    if node.kind is Kind.LEAF_LIST:
        return _text(first) == _text(second) or (not _text(second) and second.get("existing") is not None)
    if node.has("whole") and second.get("existing") is None:
        return content(first)[2:] == content(second)[2:]
    return key_of(first, node) == key_of(second, node)


def content(element: etree._Element) -> tuple[object, ...]:
    """All of a statement in a form that compares by value."""
    return (element.tag, element.get("inactive"), _text(element), tuple(content(child) for child in element))


def find(parent: etree._Element, wanted: etree._Element, node: Node) -> etree._Element | None:
    """The statement of `parent` that `wanted` is."""
    for child in parent:
        if child.tag == wanted.tag and same(child, wanted, node):
            return child
    return None


def merge(target: etree._Element, delta: etree._Element, node: Node, *, replacing: bool = False) -> Loaded:
    """Load the children of `delta` into `target`; what is wrong is left out and told.

    Args:
        target: `configuration`, changed in place.
        delta: `configuration`; its children may carry the attributes.
        node: schema of `configuration`.
        replacing: obey `replace="replace"` (action replace); else it is a merge.
    """
    loaded = Loaded()
    _Merger(loaded, replacing).children(target, delta, node, ())
    return loaded


class _Merger:
    def __init__(self, loaded: Loaded, replacing: bool) -> None:
        self._loaded = loaded
        self._replacing = replacing

    def children(self, target: etree._Element, delta: etree._Element, node: Node, path: tuple[str, ...]) -> None:
        for child in delta:
            if node.kind is Kind.LIST and child.tag == node.key:
                continue
            if node.kind is Kind.ANY and child.tag == "name" and key_of(delta, node) is not None:
                continue
            below = node.child(str(child.tag))
            if below is None:
                self._problem(path, "syntax error", str(child.tag))
            else:
                self._statement(target, child, below, node, path)

    def _statement(
        self, target: etree._Element, delta: etree._Element, node: Node, parent: Node, path: tuple[str, ...]
    ) -> None:
        operation = delta.get("operation")
        if delta.get("delete") is not None or operation in {"delete", "remove"}:
            self._delete(target, delta, node, path, silent=operation == "remove")
            return
        if node.kind is Kind.ANY and not len(delta) and _text(delta) and _has_twin(delta):
            node = Node(node.name, Kind.LEAF_LIST)
        if node.kind is Kind.LIST and key_of(delta, node) is None:
            self._problem(path, f"Missing mandatory statement: '{node.key}'", str(delta.tag))
            return
        if node.names and key_of(delta, node) not in node.names:
            self._problem((*path, node.name), "syntax error", key_of(delta, node) or "")
            return
        marks_only = delta.get("existing") is not None and not _text(delta)
        if node.kind in {Kind.LEAF, Kind.LEAF_LIST} and not marks_only:
            wrong = wrong_value(node, _text(delta)) if _text(delta) else "missing argument"
            if wrong:
                self._problem((*path, node.name), wrong, _text(delta) or node.name)
                return
        self._put(target, delta, node, parent, path)

    def _put(
        self, target: etree._Element, delta: etree._Element, node: Node, parent: Node, path: tuple[str, ...]
    ) -> None:
        there = find(target, delta, node)
        if there is None and _presumes(delta, node):
            self._problem((*path, *words_of(delta, node)), "statement not found", severity="warning")
            return
        replace = (self._replacing and delta.get("replace") is not None) or delta.get("operation") == "replace"
        if there is not None and replace:
            fresh = etree.Element(there.tag)
            target.replace(there, fresh)
            self._copy_key(fresh, delta, node)
            there = fresh
        if there is None:
            there = etree.Element(delta.tag)
            self._copy_key(there, delta, node)
            insert(target, there, parent)
        if node.choice:
            _remove_alternatives(target, node, parent)
        self._annotate(target, there, delta, node)
        if node.kind in {Kind.LEAF, Kind.LEAF_LIST} or (node.kind is Kind.ANY and not len(delta)):
            there.text = _text(delta) or there.text
        elif node.kind is not Kind.FLAG:
            self.children(there, delta, node, (*path, *words_of(delta, node)))

    @staticmethod
    def _copy_key(fresh: etree._Element, delta: etree._Element, node: Node) -> None:
        if (key := key_of(delta, node)) is not None:
            etree.SubElement(fresh, node.key if node.kind is Kind.LIST else "name").text = key

    @staticmethod
    def _annotate(target: etree._Element, there: etree._Element, delta: etree._Element, node: Node) -> None:
        twins = list(target.findall(str(there.tag))) if node.kind is Kind.LEAF_LIST else [there]
        if delta.get("inactive") is not None or (len(twins) > 1 and twins[0].get("inactive") is not None):
            for one in twins:
                one.set("inactive", "inactive")
        if delta.get("active") is not None:
            for one in twins:
                one.attrib.pop("inactive", "")
        where, beside = delta.get("insert"), delta.get("name") or delta.get("key")
        if where in {"before", "after", "first", "last"}:
            others = [child for child in target if child.tag == there.tag and child is not there]
            named = [child for child in others if key_of(child, node) == beside]
            anchor = named[0] if named else (others[0 if where in {"before", "first"} else -1] if others else None)
            if anchor is not None:
                (anchor.addprevious if where in {"before", "first"} else anchor.addnext)(there)

    def _delete(
        self, target: etree._Element, delta: etree._Element, node: Node, path: tuple[str, ...], *, silent: bool
    ) -> None:
        unnamed = (node.kind is Kind.LIST and key_of(delta, node) is None) or (
            node.kind is Kind.LEAF_LIST and not _text(delta)
        )
        gone = [child for child in target if child.tag == delta.tag and (unnamed or same(child, delta, node))]
        if node.has("whole") and not gone:
            gone = [child for child in target if child.tag == delta.tag and key_of(child, node) == key_of(delta, node)]
        for child in gone:
            target.remove(child)
        if not gone and not silent:
            self._problem((*path, *words_of(delta, node)), "statement not found", severity="warning")

    def _problem(self, path: tuple[str, ...], message: str, bad: str = "", severity: str = "error") -> None:
        self._loaded.problems.append(LoadProblem(edit_path(path), message, bad, severity))


def _has_twin(delta: etree._Element) -> bool:
    parent = delta.getparent()
    return parent is not None and len(parent.findall(str(delta.tag))) > 1


def _presumes(delta: etree._Element, node: Node) -> bool:
    """Whether `delta` only takes away from, or marks, what must be there already."""
    if delta.get("existing") is not None or delta.get("delete") is not None or delta.get("operation") == "delete":
        return True
    key = node.key if node.kind is Kind.LIST else "name"
    inner = [child for child in delta if child.tag != key]
    below = ((child, node.child(str(child.tag))) for child in inner)
    return bool(inner) and all(child_node is not None and _presumes(child, child_node) for child, child_node in below)


def insert(target: etree._Element, fresh: etree._Element, parent: Node) -> None:
    """Put a new statement where the router prints it: by the schema's order, after those of its name."""
    rank = _rank(fresh, parent)
    for index, child in enumerate(target):
        if _rank(child, parent) > rank:
            target.insert(index, fresh)
            return
    target.append(fresh)


def _rank(element: etree._Element, parent: Node) -> int:
    if parent.kind is Kind.LIST and element.tag == parent.key:
        return -1
    known = parent.children.get(str(element.tag))
    return known.order if known is not None else (-1 if element.tag == "name" else 1 << 30)


def _remove_alternatives(target: etree._Element, node: Node, parent: Node) -> None:
    for child in list(target):
        other = parent.children.get(str(child.tag))
        if other is not None and other is not node and other.choice == node.choice:
            target.remove(child)


def prune(element: etree._Element, node: Node) -> None:
    """Remove containers that nothing is left in, as a router does at commit."""
    for child in list(element):
        below = node.child(str(child.tag))
        if below is None or below.kind not in {Kind.CONTAINER, Kind.LIST}:
            continue
        prune(child, below)
        if below.kind is Kind.CONTAINER and not len(child) and not below.has("presence") and not below.open:
            element.remove(child)


def clean_copy(delta: etree._Element) -> etree._Element:
    """A copy without the attributes of loading and without white space between elements."""
    fresh = copy.deepcopy(delta)
    for element in fresh.iter():
        for name in _ATTRIBUTES:
            if name != "inactive":
                element.attrib.pop(name, "")
        element.text = _text(element) or None
        element.tail = None
    return fresh


def _text(element: etree._Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""
