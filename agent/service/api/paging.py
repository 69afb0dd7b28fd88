"""Long lists as one JSON document, made in slices so that the event loop keeps forwarding between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, TypeVar

from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

SLICE: Final = 64
"""Rows looked at between two turns of the event loop; about half a millisecond."""

IDLE_SECONDS: Final = 10.0
"""Silence after which a channel counts as idle."""

Row = TypeVar("Row", bound=BaseModel)


class PageQuery(BaseModel):
    """Paging of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=1000, ge=1, le=100_000, description="Rows to answer at most.")
    offset: int = Field(default=0, ge=0, le=10_000_000, description="Matching rows to skip, oldest first.")


def page(rows: Iterator[Row], matches: Callable[[Row], bool], query: PageQuery) -> StreamingResponse:
    """Stream `{"items": […], "next_offset": …}` of the rows that match.

    `next_offset` is null on the last page. Rows that come and go between two pages may shift by one; a limit that
    covers the whole list gives it in one consistent pass.
    """
    return StreamingResponse(_chunks(rows, matches, query), media_type="application/json")


async def slices(rows: Iterator[Row]) -> AsyncIterator[list[Row]]:
    """Lists of at most SLICE rows, with a turn of the event loop after each."""
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == SLICE:
            yield chunk
            chunk = []
            await asyncio.sleep(0)
    yield chunk


async def _chunks(rows: Iterator[Row], matches: Callable[[Row], bool], query: PageQuery) -> AsyncIterator[str]:
    seen = sent = 0
    more = False
    yield '{"items":['
    async for chunk in slices(rows):
        text: list[str] = []
        for row in chunk:
            if not matches(row):
                continue
            seen += 1
            if seen <= query.offset:
                continue
            if sent == query.limit:
                more = True
                break
            text.append(("," if sent else "") + row.model_dump_json())
            sent += 1
        if text:
            yield "".join(text)
        if more:
            break
    yield f'],"next_offset":{query.offset + query.limit if more else "null"}}}'
