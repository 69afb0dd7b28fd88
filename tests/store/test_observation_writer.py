"""Polls of many relays share transactions; a database that is away holds nobody up and loses nothing."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy import event, func, select
from sqlalchemy.exc import OperationalError
from store_seeds import NOW, add_relay, later, observed, tunnel

from relaymgr.domain.observed import Statistics
from relaymgr.store import observation_writer
from relaymgr.store.observation_writer import ObservationWriter
from relaymgr.store.observations import Poll
from relaymgr.store.tables import Relay, StatisticsSample, TunnelRow


async def count(database, table):
    async with database.session() as session:
        return await session.scalar(select(func.count()).select_from(table))


def poll(relay, seconds=0, *tunnels):
    return Poll(relay, later(seconds), later(seconds + 1), observed(*tunnels))


async def test_many_polls_few_commits(database):
    relays = [await add_relay(database, f"r{number}") for number in range(20)]
    commits = []
    event.listen(database._writing.sync_engine, "commit", commits.append)
    async with ObservationWriter(database, every_seconds=0.05) as writer:
        for relay in relays:
            writer.put(poll(relay, 0, tunnel("203.0.113.1"), tunnel("203.0.113.2")))
        await writer.flush()
        assert writer.backlog == 0
        assert await count(database, TunnelRow) == 40
    assert len(commits) == 2


async def test_leaving_writes_what_is_left_and_the_newest_wins(database):
    relay = await add_relay(database, "r1")
    async with ObservationWriter(database, every_seconds=60) as writer:
        writer.put(poll(relay, 0, tunnel("203.0.113.1")))
        writer.put(poll(relay, 30, tunnel("203.0.113.2")))
        writer.put(Poll(relay, later(60), later(61), None, "busy", unreachable=False))
    async with database.session() as session:
        assert (await session.scalars(select(TunnelRow.gateway_address))).all() == ["203.0.113.2"]
        assert await session.scalar(select(Relay.polled_at)) == later(31)


async def test_polls_are_written_without_anybody_asking(database):
    relay = await add_relay(database, "r1")
    async with ObservationWriter(database, every_seconds=0.01) as writer:
        writer.put(poll(relay, 0, tunnel("203.0.113.1")))
        async with asyncio.timeout(20):
            while await count(database, TunnelRow) == 0:
                await asyncio.sleep(0.01)


async def test_samples_are_spaced(database):
    relay = await add_relay(database, "r1")
    async with ObservationWriter(database, every_seconds=0.01, sample_seconds=60) as writer:
        for seconds in (0, 30, 60, 90, 119, 120):
            seen = observed(statistics=Statistics(active_tunnels=seconds))
            writer.put(Poll(relay, later(seconds), later(seconds), seen))
            await writer.flush()
    async with database.session() as session:
        assert (await session.scalars(select(StatisticsSample.at))).all() == [NOW, later(60), later(120)]


async def test_a_database_that_is_away_loses_nothing(database, monkeypatch, caplog):
    relay = await add_relay(database, "r1")
    real, tries = observation_writer.write, []

    async def away(*args, **kwargs):
        tries.append(1)
        if len(tries) < 4:
            raise OperationalError("SELECT 1", {}, Exception("connection refused"))
        await real(*args, **kwargs)

    monkeypatch.setattr(observation_writer, "write", away)
    with caplog.at_level(logging.WARNING):
        async with ObservationWriter(database, every_seconds=0.01) as writer:
            writer.put(poll(relay, 0, tunnel("203.0.113.1")))
            async with asyncio.timeout(20):
                await writer.flush()
    assert await count(database, TunnelRow) == 1
    assert [record.message for record in caplog.records] == ["polls wait for the database"]


async def test_one_relays_unwritable_data_keeps_nobody_elses_out(database, monkeypatch, caplog):
    good, bad = await add_relay(database, "good"), await add_relay(database, "bad")
    real = observation_writer.write

    async def picky(session, polls, *args, **kwargs):
        if any(one.relay_id == bad for one in polls):
            raise ValueError("planted")
        await real(session, polls, *args, **kwargs)

    monkeypatch.setattr(observation_writer, "write", picky)
    async with ObservationWriter(database, every_seconds=0.01) as writer:
        writer.put(poll(bad, 0, tunnel("203.0.113.1")))
        writer.put(poll(good, 0, tunnel("203.0.113.2")))
        async with asyncio.timeout(20):
            await writer.flush()
    async with database.session() as session:
        assert (await session.scalars(select(TunnelRow.relay_id))).all() == [good]
    assert [record.relay_id for record in caplog.records if record.levelno == logging.ERROR] == [bad]


async def test_leaving_does_not_wait_for_ever(database, monkeypatch, caplog):
    async def away(*_args, **_kwargs):
        raise OperationalError("SELECT 1", {}, Exception("connection refused"))

    monkeypatch.setattr(observation_writer, "write", away)
    relay = await add_relay(database, "r1")
    async with ObservationWriter(database, every_seconds=0.01, leave_seconds=0.1) as writer:
        writer.put(poll(relay, 0))
    assert "polls left unwritten" in caplog.text


async def test_nothing_to_write(database):
    async with ObservationWriter(database) as writer:
        await writer.flush()
        assert writer.backlog == 0
