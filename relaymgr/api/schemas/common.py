"""What the bodies share: base classes, field types with their examples, pages."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

Identifier = Annotated[str, Field(examples=["019a3f0c77e2a1b2c3d4e5f60718293a"], max_length=64)]
IdentifierInput = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,126}$")]
Moment = Annotated[datetime, Field(examples=["2026-03-01T12:00:00Z"])]
Version = Annotated[int, Field(examples=[3], ge=0)]
Comment = Annotated[str, StringConstraints(max_length=2000)]
Ticket = Annotated[str, StringConstraints(max_length=200)]
Actor = Annotated[str, Field(examples=["token:noc-automation"])]


class Input(BaseModel):
    """A body somebody sends: unknown members are refused, nothing is converted that was not meant."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, strict=True)


class Output(BaseModel):
    """A body the service answers with."""

    model_config = ConfigDict(
        use_attribute_docstrings=True,
        from_attributes=True,
        json_schema_mode_override="serialization",
    )


Item = TypeVar("Item")


class Page(Output, Generic[Item]):
    """A part of a listing."""

    # Described here and not below the fields: pydantic would read this module's source again for every page there is,
    # a second at each start.
    model_config = ConfigDict(use_attribute_docstrings=False)

    items: list[Item] = Field(description="The rows, in the order asked for.")
    next_cursor: str | None = Field(
        description=(
            "Give it as `cursor` to read on; null on the last page. The `Link` header holds the whole address."
        ),
        examples=["eyJrIjpbMTAwMF19"],
    )


def times_with_a_zone(value: datetime) -> datetime:
    """Refuse a time that could be anywhere on Earth, and one no database holds."""
    if value.tzinfo is None or not 1970 <= value.year <= 9000:
        raise ValueError("a time has a zone, such as 2026-03-01T12:00:00Z")
    return value


Zoned = Annotated[datetime, AfterValidator(times_with_a_zone), Field(strict=False, examples=["2026-03-01T12:00:00Z"])]
