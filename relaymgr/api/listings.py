"""Answers of listings: a page as JSON with its `Link`, or everything as a CSV stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Generic, Literal, TypeVar

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, inspect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from relaymgr.api.problems import Refused
from relaymgr.api.rendering import to_csv, to_json
from relaymgr.api.schemas.common import Output
from relaymgr.api.services import Services
from relaymgr.store.paging import Listing, Page, PagingError, read_page
from relaymgr.store.tables import Table

Row = TypeVar("Row", bound=Table)
Dicts = list[dict[str, Any]]
View = Callable[[AsyncSession, Sequence[Row], Services], Awaitable[Dicts]]
"""Makes the rows of an answer; may read what stands beside them."""
_CSV_PAGE: Final = 1000
_THREAD_FROM: Final = 200
"""Rows from which on JSON is made in a thread: below, changing threads costs more."""


class PageQuery(BaseModel):
    """Which page, in which order. A listing's filters are further members; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    limit: int = Field(default=100, ge=1, le=1000, examples=[100])
    """Rows at most."""
    cursor: str | None = Field(default=None, max_length=2048, examples=["WyJpZCIsIG51bGwsIDEwMDBd"])
    """`next_cursor` of the page before, with the same order and filters."""
    sort: str | None = Field(default=None, max_length=64, examples=["-id"])
    """Column to sort by, descending with `-` before it. Rows without a value come last."""

    def filters(self) -> dict[str, Any]:
        """The listing's own members, as far as given."""
        return self.model_dump(exclude={*TableQuery.model_fields}, exclude_none=True)


class TableQuery(PageQuery):
    """A page, or everything as CSV."""

    format: Literal["json", "csv"] | None = Field(default=None, examples=["csv"])
    """csv: every row from `cursor` on, as a stream; overrides `Accept`."""

    def wants_csv(self, accept: str) -> bool:
        """Whether CSV is asked for."""
        if self.format is not None:
            return self.format == "csv"
        return accept.split(",", maxsplit=1)[0].split(";", maxsplit=1)[0].strip().lower() == "text/csv"


CSV_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string", "description": "RFC 4180, a header line first."}}}}
}
"""The `responses` of a listing that can be had as CSV."""


@dataclass(frozen=True)
class Resource(Generic[Row]):
    """A listing together with how its rows are shown."""

    listing: Listing[Row]
    schema: type[Output]
    view: View[Row]
    columns: tuple[str, ...] = field(default=())
    """Of the CSV; all fields of the schema when empty."""

    @cached_property
    def _read(self) -> tuple[InstrumentedAttribute[Any], ...]:
        """Every column but sealed ones: nothing of a listing needs them, and they are large."""
        table = self.listing.table
        names = [attribute.key for attribute in inspect(table).column_attrs]
        return tuple(getattr(table, name) for name in names if name != "sealed")

    async def answer(
        self,
        request: Request,
        services: Services,
        query: PageQuery,
        *where: ColumnElement[bool],
    ) -> Response:
        """The page asked for, or the whole as CSV.

        Args:
            request: the request, for the address of the next page.
            services: the services.
            query: page, order and filters.
            where: conditions the caller has no say in.
        """
        if isinstance(query, TableQuery) and query.wants_csv(request.headers.get("accept", "")):
            return await self._csv(services, query, where)
        async with services.database.session() as session:
            page = await self._page(session, query, query.cursor, query.limit, where)
            items = await self.view(session, page.items, services)
        body = {"items": items, "next_cursor": page.next_cursor}
        content = await asyncio.to_thread(to_json, body) if len(items) >= _THREAD_FROM else to_json(body)
        headers = {"Vary": "Accept, Authorization"}
        if page.next_cursor is not None:
            address = request.url.include_query_params(cursor=page.next_cursor)
            headers["Link"] = f'<{address.path}?{address.query}>; rel="next"'
        return Response(content, media_type="application/json", headers=headers)

    async def _page(
        self,
        session: AsyncSession,
        query: PageQuery,
        cursor: str | None,
        limit: int,
        where: Sequence[ColumnElement[bool]],
    ) -> Page[Row]:
        try:
            return await read_page(
                session,
                self.listing,
                where=where,
                filters=query.filters(),
                sort=query.sort,
                cursor=cursor,
                limit=limit,
                columns=self._read,
            )
        except PagingError as error:
            raise Refused(error.code, str(error)) from None

    async def _csv(
        self,
        services: Services,
        query: PageQuery,
        where: Sequence[ColumnElement[bool]],
    ) -> Response:
        """Page after page, so that neither memory nor a transaction grows with the table."""
        columns = self.columns or tuple(self.schema.model_fields)

        async def part(cursor: str | None, *, header: bool) -> tuple[str, str | None]:
            async with services.database.session() as session:
                page = await self._page(session, query, cursor, _CSV_PAGE, where)
                rows = await self.view(session, page.items, services)
            return await asyncio.to_thread(to_csv, columns, rows, header=header), page.next_cursor

        first, following = await part(query.cursor, header=True)

        async def stream() -> AsyncIterator[str]:
            yield first
            cursor = following
            while cursor is not None:
                # A client that leaves does not interrupt a read: the database's driver does not bear that.
                text, cursor = await asyncio.shield(part(cursor, header=False))
                yield text

        headers = {"Content-Disposition": f'attachment; filename="{self.listing.table.__tablename__}.csv"'}
        return StreamingResponse(stream(), media_type="text/csv; charset=utf-8", headers=headers)


def equal(column: InstrumentedAttribute[Any]) -> Callable[[Any], ColumnElement[bool]]:
    """A filter for one value of a column."""
    return lambda value: column == value


def not_before(column: InstrumentedAttribute[Any]) -> Callable[[Any], ColumnElement[bool]]:
    """A filter for times from a given one on."""
    return lambda value: column >= value


def before(column: InstrumentedAttribute[Any]) -> Callable[[Any], ColumnElement[bool]]:
    """A filter for times before a given one."""
    return lambda value: column < value


def columns_view(schema: type[Output]) -> View[Any]:
    """A view of rows whose columns are called as the fields of `schema`."""
    names = tuple(schema.model_fields)

    async def view(_session: AsyncSession, rows: Sequence[Any], _services: Services) -> Dicts:
        return [{name: getattr(row, name) for name in names} for row in rows]

    return view


def json_response(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON that was made from rows the schema was made for; tests hold both together."""
    return Response(to_json(body), status, headers, "application/json")
