"""Administrative domains and sites."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from relaymgr.api.schemas.common import Identifier, IdentifierInput, Input, Moment, Name, Output, Page, Version


def _canonical(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a prefix: {error}") from error


Prefix = Annotated[str, StringConstraints(max_length=43), AfterValidator(_canonical)]
Asn = Annotated[int, Field(ge=1, le=4294967294, examples=[64500])]


class AdCreate(Input):
    """A new AD."""

    name: Name = Field(examples=["Example Research Network"])
    """What people call it; unique."""
    asn: Asn | None = None
    """Autonomous system number."""
    contact: str | None = Field(default=None, max_length=1000, examples=["noc@example.net"])
    """Whom to tell when its tunnels fail."""
    prefixes: list[Prefix] = Field(
        default_factory=list, max_length=10000, examples=[["203.0.113.0/24", "2001:db8::/32"]]
    )
    """A gateway belongs to the AD with the longest prefix that holds its address."""


class AdPatch(Input):
    """What changes of an AD; members left out stay."""

    name: Name = Field(default="", examples=["Example Research Network"])
    """What people call it; unique."""
    asn: Asn | None = None
    """Autonomous system number."""
    contact: str | None = Field(default=None, max_length=1000, examples=["noc@example.net"])
    """Whom to tell when its tunnels fail."""
    prefixes: list[Prefix] = Field(default_factory=list, max_length=10000, examples=[["203.0.113.0/24"]])
    """A gateway belongs to the AD with the longest prefix that holds its address."""


class Ad(Output):
    """An administrative domain."""

    id: Identifier
    """Stable identifier."""
    name: str = Field(examples=["Example Research Network"])
    """What people call it; unique."""
    asn: int | None = Field(examples=[64500])
    """Autonomous system number."""
    contact: str | None = Field(examples=["noc@example.net"])
    """Whom to tell when its tunnels fail."""
    prefixes: list[str] = Field(examples=[["203.0.113.0/24", "2001:db8::/32"]])
    """Address space of the AD."""
    version: Version
    """Number in the ETag."""
    created_at: Moment
    """When it was made, UTC."""
    updated_at: Moment
    """When it was last changed, UTC."""


class AdPage(Page[Ad]):
    """ADs."""


class SiteCreate(Input):
    """A new site."""

    name: Name = Field(examples=["fra1"])
    """Unique name."""
    location: str | None = Field(default=None, max_length=1000, examples=["Frankfurt, rack 12"])
    """Where it is, in words."""
    ad_id: IdentifierInput | None = Field(default=None, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """AD that owns it; none: everybody's."""


class SitePatch(Input):
    """What changes of a site; members left out stay."""

    name: Name = Field(default="", examples=["fra1"])
    """Unique name."""
    location: str | None = Field(default=None, max_length=1000, examples=["Frankfurt, rack 12"])
    """Where it is, in words."""
    ad_id: IdentifierInput | None = Field(default=None, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """AD that owns it; none: everybody's."""


class Site(Output):
    """A place with relays."""

    id: Identifier
    """Stable identifier."""
    name: str = Field(examples=["fra1"])
    """Unique name."""
    location: str | None = Field(examples=["Frankfurt, rack 12"])
    """Where it is, in words."""
    ad_id: Identifier | None
    """AD that owns it; null: everybody's."""
    version: Version
    """Number in the ETag."""
    created_at: Moment
    """When it was made, UTC."""
    updated_at: Moment
    """When it was last changed, UTC."""


class SitePage(Page[Site]):
    """Sites."""
