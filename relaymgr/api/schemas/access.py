"""Tokens, users, logins."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from relaymgr.api.schemas.common import (
    Actor,
    Identifier,
    IdentifierInput,
    Input,
    Moment,
    Name,
    Output,
    Page,
    Version,
    Zoned,
)

RoleName = Literal["viewer", "operator", "admin"]
AdIds = Annotated[list[IdentifierInput], Field(max_length=1000, examples=[["019a3f0c77e2a1b2c3d4e5f60718293a"]])]


class WhoAmI(Output):
    """Whoever the token belongs to."""

    actor: Actor
    """Name in audit rows."""
    role: str = Field(examples=["operator"])
    """viewer, operator or admin."""
    ad_ids: list[str] = Field(examples=[["019a3f0c77e2a1b2c3d4e5f60718293a"]])
    """ADs the token is scoped to; empty: every AD."""
    token_id: Identifier | None
    """The token."""


class TokenCreate(Input):
    """A new API token."""

    name: Name = Field(examples=["noc-automation"])
    """What people call it."""
    role: RoleName = Field(examples=["operator"])
    """viewer reads; operator plans and changes relays; admin does everything."""
    ad_ids: AdIds = Field(default_factory=list)
    """ADs it is scoped to; empty: every AD."""
    expires_at: Zoned | None = None
    """When it ends, with a zone; absent: never."""


class Token(Output):
    """An API token without its text."""

    id: Identifier
    """Stable identifier."""
    name: str = Field(examples=["noc-automation"])
    """What people call it."""
    prefix: str = Field(examples=["ist_Qm9v"])
    """First characters of its text."""
    role: str = Field(examples=["operator"])
    """viewer, operator or admin."""
    ad_ids: list[str] = Field(examples=[[]])
    """ADs it is scoped to; empty: every AD."""
    user_id: Identifier | None
    """User whose login made it; null: it was made as a token."""
    created_by: Actor
    """Who made it."""
    created_at: Moment
    """When, UTC."""
    expires_at: Moment | None
    """When it ends, UTC; null: never."""
    last_used_at: Moment | None
    """When it was last used, UTC, to the minute; null: never."""
    revoked_at: Moment | None
    """When it was revoked, UTC; null: it was not."""


class TokenMade(Token):
    """A token just made: the only time its text is shown."""

    token: str = Field(examples=["ist_…"])
    """What goes into `Authorization: Bearer …`."""


class TokenPage(Page[Token]):
    """Tokens."""


class UserCreate(Input):
    """A new local user."""

    name: Name = Field(examples=["alice"])
    """Unique login name."""
    password: SecretStr | None = Field(default=None, min_length=12, max_length=1024, examples=["(12 or more)"])
    """Absent: the user cannot log in here until one is set."""
    role: RoleName = Field(examples=["operator"])
    """viewer reads; operator plans and changes relays; admin does everything."""
    ad_ids: AdIds = Field(default_factory=list)
    """ADs the user is scoped to; empty: every AD."""


class UserPatch(Input):
    """What changes of a user; members left out stay."""

    password: SecretStr | None = Field(default=None, min_length=12, max_length=1024, examples=["(12 or more)"])
    """Another password."""
    role: RoleName = Field(default="viewer", examples=["operator"])
    """viewer reads; operator plans and changes relays; admin does everything."""
    ad_ids: AdIds = Field(default_factory=list)
    """ADs the user is scoped to; empty: every AD."""
    enabled: bool = Field(default=True, examples=[True])
    """Whether the user can log in and the sessions are good."""


class User(Output):
    """A user."""

    id: Identifier
    """Stable identifier."""
    name: str = Field(examples=["alice"])
    """Unique login name."""
    subject: str | None = Field(examples=["https://id.example.net|248289761001"])
    """Identity at the provider, `issuer|sub`; null: a local user."""
    role: str = Field(examples=["operator"])
    """viewer, operator or admin."""
    ad_ids: list[str] = Field(examples=[[]])
    """ADs the user is scoped to; empty: every AD."""
    enabled: bool = Field(examples=[True])
    """Whether the user can log in."""
    version: Version
    """Number in the ETag."""
    created_at: Moment
    """When it was made, UTC."""
    last_login_at: Moment | None
    """Last login, UTC; null: none."""


class UserPage(Page[User]):
    """Users."""


class Login(Input):
    """Name and password of a local user."""

    name: str = Field(min_length=1, max_length=128, examples=["alice"])
    """Login name."""
    password: SecretStr = Field(min_length=1, max_length=1024, examples=["(the password)"])
    """Password."""


class Session(Output):
    """A session that a login began."""

    token: str = Field(examples=["ist_…"])
    """What goes into `Authorization: Bearer …`."""
    expires_at: Moment
    """When the session ends, UTC."""
    actor: Actor
    """Name in audit rows."""
    role: str = Field(examples=["operator"])
    """viewer, operator or admin."""
    ad_ids: list[str] = Field(examples=[[]])
    """ADs the user is scoped to; empty: every AD."""
