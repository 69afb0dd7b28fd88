"""Answers of bulk requests: one outcome an item."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from relaymgr.api.schemas.common import Identifier, IdentifierInput, Input, Output
from relaymgr.domain.intent import RelayIntent


class BulkItem(Output):
    """What became of one item."""

    name: str = Field(examples=["mx1"])
    """Name or identifier the item was given with."""
    id: Identifier | None
    """Identifier of the resource (relay, or plan); null when it failed."""
    outcome: Literal["created", "updated", "unchanged", "failed"] = Field(examples=["unchanged"])
    """What happened to it."""
    version: int | None = Field(examples=[3])
    """Version it has now."""
    problem: dict[str, Any] | None = Field(examples=[None])
    """The problem, as for a single request, when it failed."""


class BulkResult(Output):
    """What became of the items, in the order given."""

    items: list[BulkItem]
    """One outcome an item."""
    failed: int = Field(examples=[0])
    """How many failed."""
    changed: int = Field(examples=[2])
    """How many were created or updated."""


class IntentItem(Input):
    """An intent for one relay."""

    relay: str = Field(min_length=1, max_length=128, examples=["mx1"])
    """Name or identifier of the relay."""
    intent: RelayIntent
    """What it shall be."""
    version: int | None = Field(default=None, ge=0, examples=[3])
    """Version of the intent this is based on; absent: whatever is there is replaced."""


class IntentBulk(Input):
    """Intents for many relays."""

    intents: list[IntentItem] = Field(min_length=1, max_length=1000)
    """Up to 1 000; each succeeds or fails by itself, and one that is there already changes nothing."""


class PlanBulk(Input):
    """Plans for many relays."""

    relay_ids: list[IdentifierInput] = Field(
        min_length=1, max_length=200, examples=[["019a3f0c77e2a1b2c3d4e5f60718293a"]]
    )
    """Up to 200 relays."""
    kind: Literal["apply", "drain", "undrain", "restore", "rollback"] = Field(default="apply", examples=["apply"])
    """What to plan."""
