"""Clients that leave in the middle: a read of the database that is under way then ends, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
from manager_api.manager import Manager
from sqlalchemy import func, select, text, true

from relaymgr.api import event_streams, listings
from relaymgr.api.event_streams import Sent
from relaymgr.api.routes import events as event_routes
from relaymgr.api.routes.relays import RELAYS, RelayQuery
from relaymgr.store import events
from relaymgr.store.tables import Event

SLOW = text("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 500000) SELECT count(*) FROM c")


async def leave_in_the_middle(stream: Any, reading: asyncio.Event) -> None:
    """As Starlette does: the scope the answer is sent in is cancelled, and every wait in it from then on."""

    async def send() -> None:
        async for _ in stream:
            pass

    before = asyncio.all_tasks()
    async with anyio.create_task_group() as group:
        group.start_soon(send)
        async with asyncio.timeout(20):
            await reading.wait()
        await asyncio.sleep(0.02)
        group.cancel_scope.cancel()
    deadline = time.monotonic() + 20
    while left := {task for task in asyncio.all_tasks() - before if not task.done()}:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.02)


async def test_an_event_stream_that_is_left_while_it_reads(manager: Manager) -> None:
    reading = asyncio.Event()

    async def source() -> AsyncIterator[Sent]:
        async with manager.database.session() as session:
            reading.set()
            await session.execute(SLOW)
        yield Sent(1, "never", {})

    await leave_in_the_middle(event_streams._lines(source()), reading)


async def test_a_table_that_is_left_while_it_reads(manager: Manager, monkeypatch: Any) -> None:
    reading = asyncio.Event()
    for number in range(2):
        await manager.add_relay(f"mx{number}")
    read_page = listings.read_page
    pages = 0

    async def slowly(session: Any, *given: Any, **named: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages == 2:
            reading.set()
            await session.execute(SLOW)
        return await read_page(session, *given, **named)

    monkeypatch.setattr(listings, "_CSV_PAGE", 1)
    monkeypatch.setattr(listings, "read_page", slowly)
    answer = await RELAYS._csv(manager.services, RelayQuery(format="csv"), [true()])
    await leave_in_the_middle(answer.body_iterator, reading)


async def test_a_thousand_streams_ask_the_database_as_one_does(manager: Manager, monkeypatch: Any) -> None:
    monkeypatch.setattr(event_routes, "POLL_SECONDS", 0.05)
    asked = 0
    session = manager.database.session

    def counting() -> Any:
        nonlocal asked
        asked += 1
        return session()

    monkeypatch.setattr(manager.database, "session", counting)
    streams = [event_routes._source(manager.services, true(), 0) for _ in range(200)]
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    async with asyncio.timeout(30):
        while asked <= len(streams):  # all of them read once
            await asyncio.sleep(0.02)
    asked = 0
    await asyncio.sleep(1.0)
    assert asked < len(streams), "each stream asked by itself"
    async with manager.database.begin() as writing:
        await events.emit(writing, "relay.unreachable", "warning", "synthetic", now=manager.world.now)
    sent = await asyncio.wait_for(asyncio.gather(*waiting), 20)
    assert {one.data["message"] for one in sent} == {"synthetic"}
    for stream in streams:
        await stream.aclose()
    async with session() as reading:
        assert await reading.scalar(select(func.count()).select_from(Event)) == 1
