"""Subtree filters of NETCONF (RFC 6241 section 6) over XML of any model."""

from __future__ import annotations

from copy import deepcopy

from lxml import etree


def wanted(data: etree._Element, selection: etree._Element) -> etree._Element | None:
    """What `selection`, an element of a filter, leaves of `data`; None when it does not match."""
    if not _same_name(data, selection):
        return None
    criteria = [child for child in selection if isinstance(child.tag, str)]
    if not criteria:
        return deepcopy(data)
    matches = [child for child in criteria if not len(child) and (child.text or "").strip()]
    for criterion in matches:
        text = (criterion.text or "").strip()
        if not any(_same_name(child, criterion) and (child.text or "").strip() == text for child in data):
            return None
    chosen = [child for child in criteria if child not in matches]
    if matches and not chosen:
        return deepcopy(data)
    kept = etree.Element(data.tag, nsmap=data.nsmap)  # type: ignore[arg-type] # lxml takes None as a prefix
    for child in data:
        if any(_same_name(child, criterion) for criterion in matches):
            kept.append(deepcopy(child))
            continue
        found = (wanted(child, criterion) for criterion in chosen)
        part = next((one for one in found if one is not None), None)
        if part is not None:
            kept.append(part)
    return kept if len(kept) else None


def _same_name(data: etree._Element, selection: etree._Element) -> bool:
    there, here = etree.QName(data), etree.QName(selection)
    return there.localname == here.localname and here.namespace in {None, "", there.namespace}
