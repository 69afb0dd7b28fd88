"""Junos configuration trees: one canonical text, cutting out what is owned, and the change that makes it equal.

Canonical: no namespaces, no attributes but `inactive`, no annotations, stable order where order means nothing.
"""

from __future__ import annotations

import copy
import hashlib

from lxml import etree

from relaymgr.drivers.junos.loopback import OPERATORS_FLAGS, is_address
from relaymgr.drivers.junos.scope import Path, entry, locate, paths, place
from relaymgr.drivers.netconf.documents import child_text, children, local_name, parse

ORDERED = frozenset({"term", "tunnel-devices"})
"""Elements whose order among their like means something."""
EMPTY = "<configuration/>\n"
_ANNOTATION = "comment"
_FLAGS = ("inactive", "protect")


def cleaned(element: etree._Element, *, annotations: bool = False) -> etree._Element:
    """A copy without namespaces, foreign attributes and white space; annotations only where asked for."""
    copied = etree.Element(local_name(element))
    if element.get("inactive") is not None:
        copied.set("inactive", "inactive")
    text = (element.text or "").strip()
    if text:
        copied.text = text
    for child in children(element):
        if annotations or not _is_annotation(child):
            copied.append(cleaned(child, annotations=annotations))
    return copied


def _is_annotation(element: etree._Element) -> bool:
    """`/* … */`, an element of Juniper's own namespace until PyEZ strips it."""
    return local_name(element) == _ANNOTATION and (
        "xml.juniper.net/junos" in str(element.tag) or (element.text or "").lstrip().startswith("/*")
    )


def configuration(reply: etree._Element) -> etree._Element | None:
    """The `<configuration>` of a reply, or of a document that is one; None where there is none."""
    if local_name(reply) == "configuration":
        return reply
    return next(children(reply, "configuration"), None)


def canonical_text(root: etree._Element) -> str:
    """The one text of a configuration; `root` is cleaned already."""
    ordered = _sorted(root)
    etree.indent(ordered, space="  ")
    return etree.tostring(ordered, encoding="unicode") + "\n"


def _sorted(element: etree._Element) -> etree._Element:
    result = etree.Element(local_name(element))
    for key in element.attrib:
        result.set(str(key), str(element.attrib[key]))
    result.text = (element.text or "").strip() or None
    members = [_sorted(child) for child in children(element)]
    members.sort(key=_order)
    result.extend(members)
    return result


def _order(element: etree._Element) -> tuple[bool, str, str]:
    name = local_name(element)
    return name != "name", name, "" if name in ORDERED else etree.tostring(element, encoding="unicode")


def from_text(text: str) -> etree._Element:
    """The tree of a canonical text. Raises MalformedDocument."""
    return cleaned(parse(text.encode()))


def merge(into: etree._Element, fragment: etree._Element) -> None:
    """Add the children of `fragment` to `into`; containers and entries of equal key become one."""
    for child in children(fragment):
        same = _same(into, child) if len(child) else None
        if same is None:
            into.append(copy.deepcopy(child))
            continue
        for grandchild in children(child):
            if local_name(grandchild) != "name":
                holder = etree.Element("holder")
                holder.append(copy.deepcopy(grandchild))
                merge(same, holder)


def _same(into: etree._Element, child: etree._Element) -> etree._Element | None:
    key = child_text(child, "name")
    return next((found for found in children(into, local_name(child)) if child_text(found, "name") == key), None)


def cut(root: etree._Element, scope: tuple[str, ...]) -> str:
    """The canonical text of what stands at the paths of `scope`, each in its ancestors, and of nothing else."""
    result = etree.Element("configuration")
    for path in paths(scope):
        found = locate(root, path)
        if found is not None:
            place(result, path).append(_owned(found, path))
            _keep_inactive(root, result, path)
    return canonical_text(result)


def _owned(found: etree._Element, path: Path) -> etree._Element:
    """What is ours of an owned element: of an address on the loopback not which one speaks for the router."""
    copied = cleaned(found)
    if is_address(path):
        for flag in [child for child in children(copied) if local_name(child) in OPERATORS_FLAGS]:
            copied.remove(flag)
    return copied


def _keep_inactive(root: etree._Element, result: etree._Element, path: Path) -> None:
    """An inactive ancestor makes what is below inactive too: an owned section there is not what it looks like."""
    for length in range(1, len(path.steps)):
        ancestor = Path(path.steps[:length])
        original, copied = locate(root, ancestor), locate(result, ancestor)
        if original is not None and copied is not None and original.get("inactive") is not None:
            copied.set("inactive", "inactive")


def filter_for(scope: tuple[str, ...]) -> str:
    """The filter of `get-configuration` that brings at least everything of `scope`."""
    result = etree.Element("configuration")
    for path in paths(scope):
        parent = place(result, path)
        entry(parent, path)
    return etree.tostring(result, encoding="unicode")


def change(scope: tuple[str, ...], current: str, desired: str) -> str:
    """What to load (XML, action replace) so that the sections of `scope` go from `current` to `desired`.

    Only paths that differ are named: replaced by what `desired` holds, or deleted where it holds nothing. Empty where
    nothing differs.
    """
    have, want = from_text(current), from_text(desired)
    result = etree.Element("configuration")
    for path in paths(scope):
        wanted, present = locate(want, path), locate(have, path)
        if wanted is not None:
            if present is None or canonical_text(cleaned(present)) != canonical_text(cleaned(wanted)):
                replaced = cleaned(wanted)
                replaced.set("replace", "replace")
                place(result, path).append(replaced)
        elif present is not None:
            entry(place(result, path), path).set("delete", "delete")
    if not len(result):
        return ""
    etree.indent(result, space="  ")
    return etree.tostring(result, encoding="unicode") + "\n"


def fingerprint(root: etree._Element) -> str:
    """SHA-256 (hex) of a whole configuration; when and by whom it was committed does not count.

    Of attributes only those that mean configuration count; PyEZ strips namespaces, by which others could be told.
    """
    digest = hashlib.sha256()
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if event == "end":
            digest.update(b">\n")
            continue
        flags = "".join(f" {flag}" for flag in _FLAGS if element.get(flag) is not None)
        digest.update(f"<{local_name(element)}{flags}={(element.text or '').strip()}".encode())
    return digest.hexdigest()


def remains(root: etree._Element, scope: tuple[str, ...]) -> str:
    """Everything but what is owned, as a text to compare; containers that only held owned sections do not count."""
    rest = cleaned(root, annotations=True)
    for path in paths(scope):
        owned = locate(rest, path)
        if owned is not None:
            _remove(owned)
        for length in range(len(path.steps) - 1, 0, -1):
            ancestor = locate(rest, Path(path.steps[:length]))
            if ancestor is not None and not (ancestor.text or "").strip() and _is_bare(ancestor):
                _remove(ancestor)
    return etree.tostring(rest, encoding="unicode")


def _is_bare(element: etree._Element) -> bool:
    return all(local_name(child) == "name" for child in element)


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)
