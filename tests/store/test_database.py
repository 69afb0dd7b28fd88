"""The two databases behave alike: readers cannot write, writers queue, passwords stay unseen."""

from __future__ import annotations

import asyncio
import logging
import stat
import sys

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from store_seeds import NOW, add_ad, add_relay

from relaymgr.store.database import Database
from relaymgr.store.tables import Ad
from relaymgr.store.urls import DatabaseUrlInvalid, normalise

COUNT = """
import asyncio, sys
from sqlalchemy import text
from relaymgr.store.database import Database
async def main():
    database = Database(sys.argv[1])
    sys.stdin.readline()
    for _ in range(50):
        async with database.begin() as session:
            await session.scalar(text("SELECT asn FROM ads"))
            await session.execute(text("UPDATE ads SET asn = asn + 1"))
    await database.close()
asyncio.run(main())
"""


async def test_reading_cannot_write(database):
    await add_ad(database, "a")
    with pytest.raises(DBAPIError, match=r"(?i)read-?only"):
        async with database.session() as session:
            await session.execute(update(Ad).values(name="b"))
    async with database.session() as session:
        assert (await session.scalars(select(Ad.name))).all() == ["a"]


async def test_a_transaction_that_fails_leaves_nothing(database):
    async def fail():
        async with database.begin() as session:
            session.add(Ad(name="a", created_at=NOW, updated_at=NOW))
            await session.flush()
            raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        await fail()
    async with database.session() as session:
        assert (await session.scalars(select(Ad.name))).all() == []


async def test_a_cancelled_transaction_leaves_nothing_and_blocks_nobody(database):
    inside = asyncio.Event()

    async def write():
        async with database.begin() as session:
            session.add(Ad(name="a", created_at=NOW, updated_at=NOW))
            await session.flush()
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(60):
        await add_ad(database, "b")
    async with database.session() as session:
        assert (await session.scalars(select(Ad.name))).all() == ["b"]


async def test_writers_of_one_process_queue(database):
    await add_ad(database, "a")

    async def read_then_write():
        async with database.begin() as session:
            ad = await session.scalar(select(Ad).with_for_update())
            ad.asn = (ad.asn or 0) + 1

    async with asyncio.timeout(60):
        await asyncio.gather(*(read_then_write() for _ in range(40)))
    async with database.session() as session:
        assert await session.scalar(select(Ad.asn)) == 40


async def test_writers_of_several_processes_queue(database, database_url):
    async with database.begin() as session:
        session.add(Ad(name="a", asn=0, created_at=NOW, updated_at=NOW))
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", COUNT, database_url, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    async with asyncio.timeout(120):
        ended = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [errors for _, errors in ended] == [b""] * 3
    async with database.session() as session:
        assert await session.scalar(select(Ad.asn)) == 150


async def test_readers_do_not_wait_for_a_writer(database):
    await add_ad(database, "a")
    async with database.begin() as writing:
        await writing.execute(update(Ad).values(name="b"))
        async with asyncio.timeout(60), database.session() as reading:
            assert await reading.scalar(select(Ad.name)) == "a"
    async with database.session() as reading:
        assert await reading.scalar(select(Ad.name)) == "b"


async def test_a_transaction_within_one_is_refused_at_once(database):
    async def nest():
        async with database.begin(), database.begin():
            pass

    with pytest.raises(RuntimeError, match="within"):
        await nest()
    await add_ad(database, "a")


async def test_a_reader_sees_one_state(database):
    await add_ad(database, "a")
    async with database.session() as session:
        assert await session.scalar(select(Ad.name)) == "a"
        await add_ad(database, "b")
        assert (await session.scalars(select(Ad.name))).all() == ["a"]


async def test_references_are_kept(database):
    with pytest.raises(IntegrityError):
        await add_relay(database, "r1", ad_id="0" * 32)


async def test_numbers_of_64_bits_and_times_in_utc(database):
    await add_ad(database, "a")
    async with database.begin() as session:
        await session.execute(update(Ad).values(asn=2**32 - 1))
    async with database.session() as session:
        ad = await session.scalar(select(Ad))
    assert (ad.asn, ad.created_at, ad.created_at.tzname()) == (2**32 - 1, NOW, "UTC")


async def test_values_of_a_statement_are_in_no_error_and_no_log(database, caplog):
    caplog.set_level(logging.DEBUG)
    await add_ad(database, "planted-secret")
    with pytest.raises(DBAPIError) as caught:
        async with database.session() as session:
            await session.execute(text("SELECT nothing FROM ads WHERE name = :name"), {"name": "planted-secret"})
    assert "planted-secret" not in str(caught.value)
    assert "planted-secret" not in caplog.text


async def test_ping_and_close(database):
    await database.ping()
    await database.close()


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("sqlite:////tmp/x.db", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:////tmp/x.db", "sqlite+aiosqlite"),
        ("postgresql://u:planted@h/n", "postgresql+psycopg"),
        ("postgres://u:planted@h/n", "postgresql+psycopg"),
        ("postgresql+psycopg://u:planted@h/n", "postgresql+psycopg"),
    ],
)
def test_urls_are_normalised(given, driver):
    assert normalise(given).drivername == driver


@pytest.mark.parametrize(
    "given",
    ["", "planted", "mysql://u:planted@h/n", "sqlite://", "sqlite:///:memory:", "postgresql://u:planted@h:port/n"],
)
def test_other_urls_are_refused_without_repeating_them(given):
    with pytest.raises(DatabaseUrlInvalid) as refused:
        normalise(given)
    assert "planted" not in str(refused.value)


async def test_a_password_is_never_shown():
    database = Database("postgresql://user:planted-secret@127.0.0.1:1/none")
    assert "planted-secret" not in repr(database) + database.safe_url + str(database.url)
    with pytest.raises(DBAPIError) as failed:
        await database.ping()
    assert "planted-secret" not in str(failed.value)
    await database.close()


async def test_a_new_sqlite_file_is_its_owners(tmp_path):
    path = tmp_path / "new.db"
    database = Database(f"sqlite:///{path}")
    await database.upgrade()
    async with database.begin() as session:
        await session.execute(text("SELECT 1"))
    for made in tmp_path.iterdir():
        assert stat.S_IMODE(made.stat().st_mode) == 0o600, made.name
    await database.close()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatabaseUrlInvalid, match=r"none/new\.db"):
        Database(f"sqlite:///{tmp_path}/none/new.db")
