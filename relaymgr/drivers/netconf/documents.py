"""XML from devices: parsed without entities, doctype or network, and read by local name whatever the namespace."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from lxml import etree


class MalformedDocument(ValueError):
    """Not XML, or XML with a doctype; never holds the document itself."""


def parse(document: bytes) -> etree._Element:
    """The root of `document`. Raises MalformedDocument.

    libxml2's own limits stand (depth 256, 10 MB a text, entity amplification), and a doctype is refused altogether.
    """
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        recover=False,
    )
    try:
        root = etree.fromstring(document, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise MalformedDocument("what the device sent is not well-formed XML") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise MalformedDocument("what the device sent has a doctype")
    return root


def local_name(element: etree._Element) -> str:
    """Name without namespace; empty for what is no element."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def children(element: etree._Element, name: str | None = None) -> Iterator[etree._Element]:
    """Child elements, those of local name `name` where given."""
    return element.iterchildren(f"{{*}}{name or '*'}")  # compared in C: replies hold ten thousand elements


def find(element: etree._Element, *path: str) -> etree._Element | None:
    """The first element at `path` of local names below `element`, or None."""
    current = element
    for name in path:
        step = next(children(current, name), None)
        if step is None:
            return None
        current = step
    return current


def child_text(element: etree._Element, *path: str) -> str | None:
    """Text at `path`, stripped; None where the element is missing or empty."""
    found = find(element, *path)
    text = found.text if found is not None else None
    return text.strip() or None if text else None


def texts(element: etree._Element, *names: str) -> dict[str, str]:
    """Local name -> text of every child that has one, in one pass; the first of equal names.

    `names` leaves out all others; they are written `{*}name`, as lxml compares them.
    """
    found: dict[str, str] = {}
    for child in element.iterchildren(*names):
        text = child.text
        if text is not None and (text := text.strip()):
            name = _local(child.tag)
            if name not in found:
                found[name] = text
    found.pop("", None)
    return found


@lru_cache(maxsize=4096)
def _local(tag: object) -> str:
    """The same few names come in every reply, by the ten thousand."""
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def descendants(element: etree._Element, name: str) -> Iterator[etree._Element]:
    """All elements of local name `name` below or at `element`."""
    return element.iter(f"{{*}}{name}")
