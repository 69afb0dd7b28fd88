"""Keys of the configuration that a running role cannot take over."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agent.service.config import Configuration
from agent.service.port import RefusedError


def refuse_fixed(
    old: Configuration, new: Configuration, section: str, keys: Iterable[str], *, movable: Collection[str] = ()
) -> None:
    """Refuse a configuration that differs in `keys` of `section`, or in [dataplane] beyond its keys `movable`.

    Raises:
        RefusedError: `needs_restart`, naming every such key.
    """
    before, after = getattr(old, section), getattr(new, section)
    fixed = [f"{section}.{key}" for key in keys if getattr(before, key) != getattr(after, key)]
    fixed += [
        f"dataplane.{key}"
        for key in type(new.dataplane).model_fields
        if key not in movable and getattr(old.dataplane, key) != getattr(new.dataplane, key)
    ]
    if fixed:
        raise RefusedError("needs_restart", f"{', '.join(fixed)} can only be changed by a restart")
