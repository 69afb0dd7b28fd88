"""Events: what a NOC wants to know, as a listing and as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Final
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field
from sqlalchemy import ColumnElement, func, select

from relaymgr.api.event_streams import STREAM_ANSWER, LastEventId, Sent, resume_after, stream
from relaymgr.api.listings import CSV_ANSWER, Resource, TableQuery, before, columns_view, equal, not_before
from relaymgr.api.schemas.common import Zoned
from relaymgr.api.schemas.records import Event, EventPage
from relaymgr.api.security import VIEWER, Caller, ServicesOf
from relaymgr.api.services import Services
from relaymgr.store import tables
from relaymgr.store.database import Database
from relaymgr.store.paging import Listing
from relaymgr.store.principals import visible_in_ad

_ROW = tables.Event
EVENTS = Resource(
    Listing(
        _ROW,
        _ROW.id,
        {"id": _ROW.id, "at": _ROW.at},
        "-id",
        {
            "severity": equal(_ROW.severity),
            "kind": equal(_ROW.kind),
            "relay_id": equal(_ROW.relay_id),
            "since": not_before(_ROW.at),
            "until": before(_ROW.at),
        },
    ),
    Event,
    columns_view(Event),
)
POLL_SECONDS: Final = 1.0
_AT_ONCE: Final = 500
_OVERLAP: Final = 200
"""Numbers looked at again: on PostgreSQL a transaction may commit after one that took a later number."""
router = APIRouter(prefix="/api/v1/events", tags=["events"])


class EventQuery(TableQuery):
    """Page and filters of events."""

    severity: str | None = Field(default=None, max_length=16, examples=["critical"])
    """Only those: info, warning or critical."""
    kind: str | None = Field(default=None, max_length=64, examples=["relay.unreachable"])
    """Only this kind."""
    relay_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """Only those about this relay."""
    since: Zoned | None = None
    """Only from this time on."""
    until: Zoned | None = None
    """Only before this time."""


@router.get("", operation_id="list_events", dependencies=[VIEWER], responses=CSV_ANSWER | {200: {"model": EventPage}})
async def list_events(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[EventQuery, Query()]
) -> Response:
    """Events of the token's ADs, newest first."""
    return await EVENTS.answer(request, services, query, visible_in_ad(caller, _ROW.ad_id))


@router.get(
    "/stream",
    operation_id="follow_events",
    dependencies=[VIEWER],
    responses=STREAM_ANSWER,
    response_class=Response,
)
async def follow_events(services: ServicesOf, caller: Caller, last_event_id: LastEventId = None) -> Response:
    """Events as they happen, from the next one on, or from after `Last-Event-ID`."""
    after = resume_after(last_event_id)
    if after is None:
        async with services.database.session() as session:
            after = await session.scalar(select(func.coalesce(func.max(_ROW.id), 0))) or 0
    return stream(_source(services, visible_in_ad(caller, _ROW.ad_id), after))


class _Newest:
    """Whether anything happened, asked of the database once for all streams of a process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._known: tuple[int, int] = (-1, 0)
        self._asked_at = -POLL_SECONDS
        self._asking = asyncio.Lock()

    async def now(self) -> tuple[int, int]:
        """Changes with every event that is committed, in whatever order they are; at most half a poll old."""
        async with self._asking:
            if asyncio.get_running_loop().time() >= self._asked_at + POLL_SECONDS / 2:
                self._known = await self._ask()
                self._asked_at = asyncio.get_running_loop().time()
            return self._known

    async def _ask(self) -> tuple[int, int]:
        last = select(func.coalesce(func.max(_ROW.id), 0)).scalar_subquery()
        statement = select(last, select(func.count()).where(_ROW.id > last - _OVERLAP).scalar_subquery())
        async with self._services.database.session() as session:
            number, late = (await session.execute(statement)).one()
        return number, late


_NEWEST: Final[WeakKeyDictionary[Database, _Newest]] = WeakKeyDictionary()


async def _source(services: Services, visible: ColumnElement[bool], after: int) -> AsyncIterator[Sent]:
    sent: set[int] = set()
    start = after
    newest = _NEWEST.setdefault(services.database, _Newest(services))
    seen: tuple[int, int] | None = None
    while True:
        if (now := await newest.now()) == seen:
            await asyncio.sleep(POLL_SECONDS)
            continue
        seen = now
        lowest = max(start, after - _OVERLAP)
        async with services.database.session() as session:
            rows = await session.scalars(
                select(_ROW).where(_ROW.id > lowest, visible).order_by(_ROW.id).limit(_AT_ONCE + _OVERLAP)
            )
            news = [row for row in rows if row.id not in sent]
        for row in news:
            sent.add(row.id)
            after = max(after, row.id)
            yield Sent(row.id, row.kind, {name: getattr(row, name) for name in Event.model_fields})
        sent = {number for number in sent if number > after - _OVERLAP}
        if len(news) >= _AT_ONCE:
            seen = None  # there are more
