"""Intents: what a relay shall be."""

from __future__ import annotations

from pydantic import Field

from relaymgr.api.schemas.common import Actor, Identifier, Moment, Output, Page, Version
from relaymgr.domain.intent import RelayIntent


class Intent(Output):
    """What a relay shall be, and which version of it."""

    relay_id: Identifier
    """The relay."""
    version: Version
    """Number in the ETag; 0: it was never given an intent."""
    applied_version: int | None = Field(examples=[2])
    """Version that the last confirmed change brought to the device; null: none was."""
    intent: RelayIntent | None
    """The intent; null: it was never given one."""


class IntentRevision(Output):
    """An intent a relay was given once."""

    relay_id: Identifier
    """The relay."""
    version: Version
    """Its number."""
    intent: RelayIntent
    """The intent."""
    actor: Actor
    """Who gave it."""
    created_at: Moment
    """When, UTC."""


class IntentRevisionPage(Page[IntentRevision]):
    """Intents of a relay, newest first."""
