"""Rollouts: one change of many relays in waves."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from relaymgr.api.schemas.common import (
    Actor,
    Comment,
    Identifier,
    IdentifierInput,
    Input,
    Moment,
    Name,
    Output,
    Page,
    Ticket,
    Version,
)

WaveSize = Annotated[int, Field(ge=1, le=10000)] | Annotated[str, StringConstraints(pattern=r"^([1-9]\d?|100)%$")]


class RolloutCreate(Input):
    """A rollout: relays in the order they shall be changed, and how they are cut into waves."""

    name: Name = Field(examples=["tunnel limit 5000"])
    """What people call it."""
    kind: Literal["apply", "drain", "undrain", "restore"] = Field(default="apply", examples=["apply"])
    """The change each relay gets."""
    relay_ids: list[IdentifierInput] = Field(
        default_factory=list, max_length=10000, examples=[["019a3f0c77e2a1b2c3d4e5f60718293a"]]
    )
    """The relays, first ones first."""
    waves: list[list[IdentifierInput]] | None = Field(
        default=None, max_length=1000, examples=[[["019a3f0c77e2a1b2c3d4e5f60718293a"]]]
    )
    """The waves themselves, instead of `relay_ids`."""
    sizes: list[WaveSize] | None = Field(default=None, max_length=1000, examples=[[1, "10%", "50%", "100%"]])
    """Cuts `relay_ids` into waves: a number of relays, or the percentage that is done after the wave. What is left over
    makes a last wave. Default: one canary, then up to 10 %, 50 % and all."""
    error_budget: int = Field(default=0, ge=0, le=10000, examples=[0])
    """Relays that may fail before the rollout stops."""
    confirm_minutes: int = Field(default=5, ge=1, le=60, examples=[5])
    """Minutes after which a device goes back by itself unless its change is confirmed."""
    probe: bool = Field(default=False, examples=[False])
    """Verify each with a real AMT handshake too."""
    comment: Comment = Field(default="", examples=["raise the tunnel limit everywhere"])
    """Why."""
    ticket: Ticket | None = Field(default=None, examples=["NOC-4711"])
    """Reference in a ticket system."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.waves) == bool(self.relay_ids):
            raise ValueError("give either relay_ids or waves")
        if self.waves is not None and self.sizes is not None:
            raise ValueError("sizes cut relay_ids; waves are cut already")
        relays = self.relay_ids or [relay for wave in self.waves or [] for relay in wave]
        if not relays or len(set(relays)) != len(relays):
            raise ValueError("a relay is in a rollout once, and there is at least one")
        if any(not wave for wave in self.waves or []):
            raise ValueError("a wave holds at least one relay")
        return self


class RolloutReason(Input):
    """Why a rollout is paused, resumed or aborted."""

    comment: Comment = Field(default="", examples=["waiting for the AD's NOC"])
    """Why, for the audit."""
    ticket: Ticket | None = Field(default=None, examples=["NOC-4711"])
    """Reference in a ticket system."""


class RolloutRelay(Output):
    """What became of one relay of a rollout."""

    relay_id: Identifier
    """The relay."""
    wave: int = Field(examples=[0])
    """Its wave, from 0."""
    state: str = Field(examples=["succeeded"])
    """pending, running, succeeded, unchanged, failed, rolled_back, uncertain or skipped."""
    job_id: Identifier | None
    """Its job; null before it started."""
    detail: str | None = Field(examples=["mx1: connection refused"])
    """What went wrong."""


class Rollout(Output):
    """One change of many relays in waves."""

    id: Identifier
    """Stable identifier."""
    name: str = Field(examples=["tunnel limit 5000"])
    """What people call it."""
    kind: str = Field(examples=["apply"])
    """apply, drain, undrain or restore."""
    state: str = Field(examples=["running"])
    """running, paused, aborted, succeeded or failed."""
    wave_sizes: list[int] = Field(examples=[[1, 5, 14]])
    """Relays in each wave."""
    current_wave: int = Field(examples=[1])
    """The wave under way, from 0."""
    error_budget: int = Field(examples=[0])
    """Relays that may fail before it stops."""
    confirm_minutes: int = Field(examples=[5])
    """Minutes of each confirm window."""
    probe: bool = Field(examples=[False])
    """Whether each is verified with a real AMT handshake."""
    pause_reason: str | None = Field(examples=["error budget spent"])
    """Why it is paused."""
    counts: dict[str, int] = Field(examples=[{"succeeded": 6, "pending": 14}])
    """Relays in each state."""
    actor: Actor
    """Who asked for it."""
    comment: str = Field(examples=["raise the tunnel limit everywhere"])
    """Why."""
    ticket: str | None = Field(examples=["NOC-4711"])
    """Reference in a ticket system."""
    version: Version
    """Number in the ETag."""
    created_at: Moment
    """When it was made, UTC."""
    updated_at: Moment
    """When it last moved, UTC."""
    finished_at: Moment | None
    """When it ended, UTC."""


class RolloutPage(Page[Rollout]):
    """Rollouts."""


class RolloutRelayPage(Page[RolloutRelay]):
    """Relays of a rollout, by wave."""
