"""Configuration in curly braces and as set commands, made into trees that `lab.sim.mx80.merge` loads.

Where the schema does not know a statement, its shape is guessed: one word is a flag, two are a leaf, more are a list
entry (name, key) and what stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from lxml import etree

from lab.sim.mx80.merge import LoadProblem, edit_path
from lab.sim.mx80.schema import Kind, Node

Word = str | list[str]
"""A word, or the words of `[ … ]`."""

_TOKEN: Final = re.compile(r'\s+|/\*.*?\*/|#[^\n]*|("(?:[^"\\]|\\.)*")|([{};\[\]])|([^\s{};\[\]"]+)', re.DOTALL)
_TAGS: Final = {
    "replace:": ("replace", "replace"),
    "delete:": ("delete", "delete"),
    "inactive:": ("inactive", "inactive"),
    "active:": ("active", "active"),
}
_COMMANDS: Final = ("set", "delete", "deactivate", "activate", "insert")


class _Wrong(Exception):
    """A statement that is not understood."""

    def __init__(self, path: tuple[str, ...], message: str, bad: str) -> None:
        super().__init__(message)
        self.problem = LoadProblem(edit_path(path), message, bad)


def parse_text(text: str, root: Node) -> tuple[etree._Element, list[LoadProblem]]:
    """Read curly-brace configuration; what is wrong is left out and told."""
    top = etree.Element("configuration")
    problems: list[LoadProblem] = []
    tokens = list(_tokens(text))
    end = _block(tokens, 0, (top, root, ()), problems)
    if end < len(tokens):
        problems.append(LoadProblem("[edit]", "syntax error", tokens[end]))
    return top, problems


def parse_command(line: str, root: Node) -> tuple[etree._Element | None, list[LoadProblem]]:
    """Read one set, delete, deactivate, activate or insert command."""
    words = _grouped([token for token in _tokens(line) if token != ";"])
    if not words:
        return None, []
    verb, rest = words[0], words[1:]
    if verb not in _COMMANDS or "{" in rest or "}" in rest:
        return None, [LoadProblem("[edit]", "unknown command." if verb not in _COMMANDS else "syntax error", str(verb))]
    beside: tuple[str, str] | None = None
    if verb == "insert":
        where = next((word for word in ("before", "after") if word in rest), None)
        if where is None:
            return None, [LoadProblem("[edit]", "syntax error, expecting <before> or <after>", "insert")]
        beside = (where, str(rest[-1]))
        rest = rest[: rest.index(where)]
    top = etree.Element("configuration")
    try:
        last, _, _ = _walk(top, root, (), rest, partial=verb != "set")
    except _Wrong as wrong:
        return None, [wrong.problem]
    if verb == "delete":
        last.set("delete", "delete")
    elif verb in {"deactivate", "activate"}:
        last = _statement_of(last, root)
        last.set("existing", "existing")
        last.set("inactive" if verb == "deactivate" else "active", verb)
    elif beside is not None:
        last.set("existing", "existing")
        last.set("insert", beside[0])
        last.set("name", beside[1])
    return top, []


def _statement_of(element: etree._Element, root: Node) -> etree._Element:
    """The statement an element is written in: for what stands on a statement's own line, that statement."""
    node: Node | None = root
    for one in [element, *element.iterancestors()][-2::-1]:
        node = node.child(str(one.tag)) if node is not None else None
        if node is not None and node.has("oneliner"):
            for child in list(one):
                if child.tag != node.key or node.kind is not Kind.LIST:
                    one.remove(child)
            return one
    return element


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        quoted, mark, word = match.groups()
        if quoted is not None:
            yield '"' + re.sub(r"\\(.)", r"\1", quoted[1:-1])
        elif mark or word:
            yield mark or word


def _grouped(tokens: list[str]) -> list[Word]:
    """Take quotes off and gather `[ … ]`."""
    words: list[Word] = []
    group: list[str] | None = None
    for token in tokens:
        plain = token.removeprefix('"')
        if token == "[":
            group = []
        elif token == "]":
            words.append(group or [])
            group = None
        elif group is not None:
            group.append(plain)
        else:
            words.append(plain)
    return words


def _block(
    tokens: list[str],
    start: int,
    place: tuple[etree._Element, Node, tuple[str, ...]],
    problems: list[LoadProblem],
) -> int:
    """Read statements up to the closing brace; gives the index of that brace, or of the end."""
    index = start
    words: list[str] = []
    while index < len(tokens):
        token = tokens[index]
        if token == "}":
            break
        if token in {";", "{"}:
            inner = _statement(place, words, problems, block=token == "{")
            words = []
            if token == "{":
                index = _block(tokens, index + 1, inner or (etree.Element("lost"), Node("", Kind.ANY), ()), problems)
        else:
            words.append(token)
        index += 1
    if words:
        problems.append(LoadProblem(edit_path(place[2]), "syntax error, expecting ';' or '{'", words[-1].lstrip('"')))
    return index


def _statement(
    place: tuple[etree._Element, Node, tuple[str, ...]], tokens: list[str], problems: list[LoadProblem], *, block: bool
) -> tuple[etree._Element, Node, tuple[str, ...]] | None:
    attributes = []
    while tokens and tokens[0] in _TAGS:
        attributes.append(_TAGS[tokens[0]])
        tokens = tokens[1:]
    element, node, path = place
    partial = block or any(name == "delete" for name, _ in attributes)
    try:
        last, last_node, last_path = _walk(element, node, path, _grouped(tokens), partial=partial, block=block)
    except _Wrong as wrong:
        problems.append(wrong.problem)
        return None
    outer = node.child(str(element[-1].tag)) if len(element) else None
    marked = element[-1] if outer is not None and outer.has("oneliner") else last
    for name, value in attributes:
        marked.set(name, value)
    return last, last_node, last_path


def _walk(
    element: etree._Element,
    node: Node,
    path: tuple[str, ...],
    words: list[Word],
    *,
    partial: bool,
    block: bool = False,
) -> tuple[etree._Element, Node, tuple[str, ...]]:
    """Make the elements that `words` name below `element`; gives the last one.

    `partial`: lists may lack their key and leaves their value (delete); `block`: braces follow.
    """
    rest = list(words)
    last, last_node = element, node
    if not rest and not block:
        raise _Wrong(path, "syntax error", "")
    while rest:
        word = rest.pop(0)
        if isinstance(word, list):
            raise _Wrong(path, "syntax error", " ".join(word))
        child = node.children.get(word)
        if child is None or child.has("hidden") or child.has("bare"):
            child, word = _unwritten(element, node, path, word)
            if child.kind is Kind.LIST or child.has("bare"):
                rest.insert(0, word)
        if child.kind is Kind.ANY:
            return _guess(element, word, rest, path, block=block)
        made, rest = _make(element, child, rest, path, partial=partial)
        last, last_node = made, child
        if child.kind in {Kind.CONTAINER, Kind.LIST}:
            element, node = made, child
            key = made.findtext(child.key) if child.kind is Kind.LIST else None
            path = (*path, *(() if child.has("hidden") else (child.name,)), *((key,) if key else ()))
        elif rest and not node.has("oneliner"):
            raise _Wrong(path, "syntax error", str(rest[0]))
    return last, last_node, path


def _unwritten(element: etree._Element, node: Node, path: tuple[str, ...], word: str) -> tuple[Node, str]:
    """The statement whose name is not written, or a guessed one."""
    if (hidden := node.hidden_list) is not None:
        return hidden, word
    if (bare := node.bare_leaf) is not None and element.find(bare.name) is None:
        return bare, word
    child = node.child(word)
    if child is None:
        raise _Wrong(path, "syntax error", word)
    return child, word


def _make(
    element: etree._Element, node: Node, rest: list[Word], path: tuple[str, ...], *, partial: bool
) -> tuple[etree._Element, list[Word]]:
    if node.kind is Kind.LEAF_LIST and rest:
        values = rest[0] if isinstance(rest[0], list) else [rest[0]]
        made = etree.SubElement(element, node.name)
        for index, value in enumerate(values):
            (made if index == 0 else etree.SubElement(element, node.name)).text = value
        return made, rest[1:]
    made = etree.SubElement(element, node.name)
    if node.kind in {Kind.CONTAINER, Kind.FLAG}:
        return made, rest
    if not rest or isinstance(rest[0], list):
        if not partial:
            raise _Wrong((*path, node.name), "missing argument", node.name)
        return made, rest
    value = rest[0]
    if node.kind is Kind.LIST:
        etree.SubElement(made, node.key).text = value
    else:
        made.text = value
    return made, rest[1:]


def _guess(
    element: etree._Element, word: str, rest: list[Word], path: tuple[str, ...], *, block: bool
) -> tuple[etree._Element, Node, tuple[str, ...]]:
    if not re.fullmatch(r"[A-Za-z_][\w.-]*", word):
        raise _Wrong(path, "syntax error", word)
    made = etree.SubElement(element, word)
    node = Node(word, Kind.ANY)
    if not rest:
        return made, node, (*path, word)
    value = rest[0]
    if isinstance(value, list):
        for index, one in enumerate(value):
            (made if index == 0 else etree.SubElement(element, word)).text = one
        return made, node, (*path, word)
    if len(rest) == 1 and not block:
        made.text = value
        return made, node, (*path, word)
    etree.SubElement(made, "name").text = value
    if len(rest) == 1:
        return made, node, (*path, word, value)
    following = rest[1]
    if isinstance(following, list):
        raise _Wrong(path, "syntax error", " ".join(following))
    return _guess(made, following, rest[2:], (*path, word, value), block=block)
