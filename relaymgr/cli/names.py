"""People say names, the API says identifiers: from one to the other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from relaymgr.cli.client import Document, Manager, segment
from relaymgr.cli.failure import Failure, Refused

_IDENTIFIER: Final = re.compile(r"[0-9a-f]{32}")
_FORBIDDEN: Final = 403
_SINGULAR: Final = {
    "ads": "AD",
    "credentials": "credential",
    "relays": "relay",
    "rollouts": "rollout",
    "sites": "site",
    "tokens": "token",
    "users": "user",
}


def is_identifier(word: str) -> bool:
    """32 hex digits; a resource with such a name is only found by its identifier."""
    return _IDENTIFIER.fullmatch(word) is not None


def identifier(manager: Manager, collection: str, word: str) -> str:
    """The identifier of what `word` names in a collection; raises Failure when nothing, or more than one, has it."""
    return word if is_identifier(word) else str(by_name(manager, collection, word)["id"])


def resource(manager: Manager, collection: str, word: str) -> Document:
    """What `word` names or identifies in a collection."""
    if is_identifier(word):
        found: Document = manager.get(f"/{collection}/{segment(word)}")
        return found
    return by_name(manager, collection, word)


def by_name(manager: Manager, collection: str, name: str) -> Document:
    """The one resource of a collection with a name."""
    kind = _SINGULAR.get(collection, collection)
    rows = manager.rows(f"/{collection}", limit=3, name=name).items
    found = [row for row in rows if row["name"] == name]
    if not found:
        raise Failure(f"no {kind} is named {name}; see `relaymgr {kind.lower()} list`")
    if len(found) > 1:
        raise Failure(f"{len(found)} of the name {name}: give the identifier, see `relaymgr {kind.lower()} list`")
    return found[0]


def optional(manager: Manager, collection: str, word: str | None) -> str | None:
    """Like `identifier`, None for None."""
    return None if word is None else identifier(manager, collection, word)


def names(manager: Manager, collection: str, wanted: Iterable[str | None]) -> dict[str, str]:
    """Names of identifiers, for tables; one the token may not see keeps its identifier."""
    found = {word for word in wanted if word is not None}
    if not found:
        return {}
    try:
        known = {row["id"]: row["name"] for row in manager.rows(f"/{collection}", limit=None).items}
    except Refused as refused:
        if refused.status != _FORBIDDEN:
            raise
        known = {}
    return {word: known.get(word, word) for word in found}
