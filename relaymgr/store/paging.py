"""Keyset paging over any whitelisted column: the next page starts after the last row, however deep it is.

A cursor is opaque to clients, but it comes back from them: it is checked against the column it claims to continue, and
one that does not fit is a `CursorInvalid`, never an error of the database. Rows without a value come last in either
direction.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, and_, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from relaymgr.store.tables import Table, UtcDateTime

Row = TypeVar("Row", bound=Table)
Column = InstrumentedAttribute[Any]
LARGEST_PAGE = 1000
_LONGEST_CURSOR = 2048
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_INTEGERS = range(-(2**63), 2**63)


class PagingError(ValueError):
    """The client asked for a page that cannot be; the message is for it. `code` is stable."""

    code = "query_invalid"


class CursorInvalid(PagingError):
    """The cursor is not one of ours for this sort."""

    code = "cursor_invalid"


class SortUnknown(PagingError):
    """The column is not one to sort by."""

    code = "sort_unknown"


class FilterUnknown(PagingError):
    """There is no such filter, or its value does not fit."""

    code = "filter_invalid"


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows, and where to go on."""

    items: Sequence[Row]
    next_cursor: str | None
    """For the next page; None on the last."""


@dataclass(frozen=True)
class Listing(Generic[Row]):
    """How rows of one table can be listed."""

    table: type[Row]
    key: Column
    """Unique and sortable: what orders rows of equal sort value."""
    sorts: Mapping[str, Column]
    """Name a client sorts by -> column."""
    default_sort: str
    """`name` or `-name`."""
    filters: Mapping[str, Callable[[Any], ColumnElement[bool]]] = field(default_factory=dict)
    """Name of a filter -> what makes the condition from its value."""


async def read_page(
    session: AsyncSession,
    listing: Listing[Row],
    *,
    where: Sequence[ColumnElement[bool]] = (),
    filters: Mapping[str, Any] | None = None,
    sort: str | None = None,
    cursor: str | None = None,
    limit: int = 100,
    columns: Sequence[Column] | None = None,
) -> Page[Row]:
    """One page.

    Args:
        session: of `Database.session`.
        listing: what can be listed and how.
        where: conditions the client has no say in (`principals.visible_…`).
        filters: the client's; those with value None are left out.
        sort: `name` ascending or `-name` descending; the listing's default when absent.
        cursor: `next_cursor` of the page before, with the same sort.
        limit: rows at most, 1..1000.
        columns: read only these, as plain rows with the same attributes: a third of the time of making entities. The
            key and the columns sorted by are among them.

    Raises:
        PagingError: anything the client got wrong.
    """
    if not 1 <= limit <= LARGEST_PAGE:
        raise PagingError(f"limit must be 1 to {LARGEST_PAGE}")
    order = _Order.of(listing, sort)
    statement: Select[Any] = select(listing.table) if columns is None else select(*columns)
    statement = statement.where(*where, *_conditions(listing, filters or {}))
    if cursor is not None:
        statement = statement.where(order.after(cursor))
    result = await session.execute(order.apply(statement).limit(limit + 1))
    rows: Sequence[Any] = result.scalars().all() if columns is None else result.all()
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], order.cursor(rows[limit - 1]))


def _conditions(listing: Listing[Row], filters: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    conditions = []
    for name, value in filters.items():
        if value is None:
            continue
        make = listing.filters.get(name)
        if make is None:
            raise FilterUnknown(f"there is no filter {name!r}; there are {', '.join(sorted(listing.filters))}")
        if isinstance(value, str) and "\0" in value:
            raise FilterUnknown(f"the value of filter {name!r} holds a NUL character")
        conditions.append(make(value))
    return conditions


@dataclass(frozen=True)
class _Order:
    name: str
    """As the client wrote it, with its sign."""
    column: Column
    key: Column
    descending: bool

    @classmethod
    def of(cls, listing: Listing[Row], sort: str | None) -> _Order:
        name = sort or listing.default_sort
        column = listing.sorts.get(name.removeprefix("-"))
        if column is None:
            raise SortUnknown(f"cannot sort by {name[:64]!r}; can by {', '.join(sorted(listing.sorts))}")
        return cls(name, column, listing.key, name.startswith("-"))

    @property
    def nullable(self) -> bool:
        return bool(self.column.property.columns[0].nullable)

    @property
    def by_key_only(self) -> bool:
        return self.column.key == self.key.key

    def apply(self, statement: Select[Any]) -> Select[Any]:
        columns = [self.key] if self.by_key_only else [self.column, self.key]
        ordered = [column.desc() if self.descending else column.asc() for column in columns]
        if self.nullable:
            ordered.insert(0, self.column.is_(None).asc())
        return statement.order_by(*ordered)

    def cursor(self, row: Table) -> str:
        value = getattr(row, self.column.key)
        if isinstance(value, datetime):
            value = value.isoformat()
        content = [self.name, value, getattr(row, self.key.key)]
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    def after(self, cursor: str) -> ColumnElement[bool]:
        value, key = self._read(cursor)
        beyond_key: ColumnElement[bool] = self.key < key if self.descending else self.key > key
        if self.by_key_only:
            return beyond_key
        if value is None:
            return and_(self.column.is_(None), beyond_key)
        # Compared as a row so that an index on both columns is walked from here on.
        here, there = tuple_(self.column, self.key), tuple_(value, key)
        beyond = here < there if self.descending else here > there
        return or_(beyond, self.column.is_(None)) if self.nullable else beyond

    def _read(self, cursor: str) -> tuple[Any, Any]:
        if len(cursor) > _LONGEST_CURSOR:
            raise CursorInvalid("the cursor is none of ours")
        try:
            raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
            content = json.loads(raw)
        except (ValueError, binascii.Error, RecursionError):
            raise CursorInvalid("the cursor is none of ours") from None
        if not isinstance(content, list) or len(content) != 3:
            raise CursorInvalid("the cursor is none of ours")
        name, value, key = content
        if name != self.name:
            raise CursorInvalid("the cursor belongs to another sort")
        if value is None and not self.nullable:
            raise CursorInvalid("the cursor is none of ours")
        return (None if value is None else _fit(self.column, value)), _fit(self.key, key)


def _fit(column: Column, value: Any) -> Any:  # noqa: ANN401 - whatever JSON held
    """The value as one of the column's type."""
    kind = column.property.columns[0].type
    wanted = datetime if isinstance(kind, UtcDateTime) else kind.python_type
    fits = type(value) is wanted
    if wanted is datetime and isinstance(value, str):
        with contextlib.suppress(ValueError):
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None and 1 < moment.year < 9999:
                return moment
    elif wanted is float and type(value) in {int, float} and abs(value) <= sys.float_info.max:
        return float(value)
    elif (
        (wanted is str and fits and "\0" not in value and not _SURROGATE.search(value))
        or (wanted is bool and fits)
        or (wanted is int and fits and value in _INTEGERS)
    ):
        return value
    raise CursorInvalid("the cursor is none of ours")
