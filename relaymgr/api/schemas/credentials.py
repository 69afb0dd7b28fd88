"""Credentials: how to log in to devices. A secret goes in and never comes out."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from relaymgr.api.schemas.common import Identifier, IdentifierInput, Input, Moment, Name, Output, Page, Version

Kind = Literal["password", "private_key", "token"]
Source = Literal["env", "file", "vault", "sealed"]


class CredentialCreate(Input):
    """A new credential: a reference to a secret, or the secret itself to be sealed."""

    name: Name = Field(examples=["mx80-automation"])
    """Unique name."""
    username: str = Field(min_length=1, max_length=128, examples=["isthmus"])
    """Login on the device."""
    kind: Kind = Field(default="password", examples=["password"])
    """What the secret is; a token is for Isthmus's own relay."""
    source: Source = Field(examples=["sealed"])
    """Where the secret is: an environment variable, a file of the service, Vault, or sealed in the database."""
    reference: str | None = Field(default=None, min_length=1, max_length=1024, examples=["MX80_PASSWORD"])
    """Name of the variable, path of the file, or Vault path with `#field`; not with `sealed`."""
    secret: SecretStr | None = Field(
        default=None, min_length=1, max_length=16384, examples=["(written once, never read)"]
    )
    """Only with `sealed`: the password, key or token. Never answered, logged or audited."""
    ad_id: IdentifierInput | None = Field(default=None, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """AD that owns it; none: everybody's."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.source == "sealed" and (self.secret is None or self.reference is not None):
            raise ValueError("a sealed credential has a secret and no reference")
        if self.source != "sealed" and (self.reference is None or self.secret is not None):
            raise ValueError("a credential from env, file or vault has a reference and no secret")
        return self


class CredentialPatch(Input):
    """What changes of a credential; members left out stay. Its source stays; make another one instead."""

    name: Name = Field(default="", examples=["mx80-automation"])
    """Unique name."""
    username: str = Field(default="", min_length=1, max_length=128, examples=["isthmus"])
    """Login on the device."""
    reference: str = Field(default="", min_length=1, max_length=1024, examples=["MX80_PASSWORD"])
    """Another variable, file or Vault path."""
    secret: SecretStr | None = Field(
        default=None, min_length=1, max_length=16384, examples=["(written once, never read)"]
    )
    """Another secret for a sealed credential."""


class Credential(Output):
    """A credential without its secret."""

    id: Identifier
    """Stable identifier."""
    name: str = Field(examples=["mx80-automation"])
    """Unique name."""
    username: str = Field(examples=["isthmus"])
    """Login on the device."""
    kind: str = Field(examples=["password"])
    """password, private_key or token."""
    source: str = Field(examples=["sealed"])
    """env, file, vault or sealed."""
    reference: str | None = Field(examples=["MX80_PASSWORD"])
    """Where the secret is; null when it is sealed in the database."""
    ad_id: Identifier | None
    """AD that owns it; null: everybody's."""
    version: Version
    """Number in the ETag."""
    created_at: Moment
    """When it was made, UTC."""
    updated_at: Moment
    """When it was last changed, UTC."""


class CredentialPage(Page[Credential]):
    """Credentials."""
