"""Pages are complete, without repeats, in either direction, also while rows come and go; cursors are checked."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from store_seeds import NOW, add_ad, add_relay, later

from relaymgr.store.paging import CursorInvalid, FilterUnknown, Listing, PagingError, SortUnknown, _Order, read_page
from relaymgr.store.tables import Event, Relay, TunnelRow

TUNNELS = Listing(
    TunnelRow,
    TunnelRow.id,
    sorts={
        "id": TunnelRow.id,
        "gateway_address": TunnelRow.gateway_address,
        "packets": TunnelRow.packets,
        "packets_per_second": TunnelRow.packets_per_second,
        "seen_at": TunnelRow.seen_at,
    },
    default_sort="id",
    filters={
        "relay_id": lambda value: TunnelRow.relay_id == value,
        "state": lambda value: TunnelRow.state == value,
        "minimum_packets": lambda value: TunnelRow.packets >= value,
    },
)
RELAYS = Listing(
    Relay, Relay.id, sorts={"name": Relay.name, "drained": Relay.drained, "site": Relay.site_id}, default_sort="name"
)


@pytest.fixture
async def tunnels(database):
    """Fifty, with equal and missing values."""
    relay = await add_relay(database, "r1")
    async with database.begin() as session:
        session.add_all(
            TunnelRow(
                relay_id=relay,
                gateway_address=f"203.0.113.{number % 7}",
                gateway_port=number,
                state="active" if number % 2 else "down",
                packets=None if number % 5 == 0 else number % 3,
                packets_per_second=None if number % 4 == 0 else number % 3 + 0.1,
                first_seen_at=NOW,
                seen_at=NOW + timedelta(microseconds=number // 10),
            )
            for number in range(50)
        )
    return database


async def every_page(database, listing, *, limit, **asked):
    items, cursor, pages = [], None, 0
    while True:
        async with database.session() as session:
            page = await read_page(session, listing, cursor=cursor, limit=limit, **asked)
        items += page.items
        pages += 1
        cursor = page.next_cursor
        if cursor is None:
            return items, pages


async def test_pages_hold_every_row_once_in_order(tunnels):
    for name, sign in itertools.product(TUNNELS.sorts, ("", "-")):
        items, pages = await every_page(tunnels, TUNNELS, limit=7, sort=sign + name)
        assert pages == 8
        assert len({item.id for item in items}) == len(items) == 50
        known = [item for item in items if getattr(item, name) is not None]
        assert [item.id for item in items[: len(known)]] == [item.id for item in known], "no value comes last"
        keys = [(getattr(item, name), item.id) for item in known]
        assert keys == sorted(keys, reverse=sign == "-")


async def test_filters_hold_on_every_page(tunnels):
    items, _ = await every_page(
        tunnels, TUNNELS, limit=4, sort="-packets", filters={"state": "active", "minimum_packets": 1, "relay_id": None}
    )
    assert {item.gateway_port for item in items} == {n for n in range(50) if n % 2 and n % 5 and n % 3 >= 1}


async def test_conditions_of_the_server_hold(tunnels):
    items, _ = await every_page(tunnels, TUNNELS, limit=4, where=[TunnelRow.gateway_port < 3])
    assert [item.gateway_port for item in items] == [0, 1, 2]


async def test_rows_that_go_do_not_shift_the_others(tunnels):
    async with tunnels.session() as session:
        first = await read_page(session, TUNNELS, limit=10)
    async with tunnels.begin() as session:
        await session.execute(delete(TunnelRow).where(TunnelRow.id.in_([item.id for item in first.items])))
    async with tunnels.session() as session:
        second = await read_page(session, TUNNELS, limit=10, cursor=first.next_cursor)
    assert [item.gateway_port for item in second.items] == list(range(10, 20))


async def test_the_last_page_has_no_cursor_even_when_full(tunnels):
    items, pages = await every_page(tunnels, TUNNELS, limit=25)
    assert (len(items), pages) == (50, 2)


async def test_texts_and_truths_sort_too(database):
    for relay in ("b", "a", "ä", "A\n", "'; DROP TABLE relays; --", "\N{GRINNING FACE}"):
        await add_relay(database, relay, drained=relay < "b")
    for sort in ("name", "-name", "drained", "-drained", "site", "-site"):
        items, _ = await every_page(database, RELAYS, limit=2, sort=sort)
        assert len({item.id for item in items}) == len(items) == 6, sort


async def test_an_empty_listing(database):
    async with database.session() as session:
        page = await read_page(session, TUNNELS)
    assert (list(page.items), page.next_cursor) == ([], None)


async def test_limits(database):
    for limit in (0, -1, 1001):
        async with database.session() as session:
            with pytest.raises(PagingError):
                await read_page(session, TUNNELS, limit=limit)


async def test_unknown_sorts_and_filters(database):
    async with database.session() as session:
        with pytest.raises(SortUnknown, match="gateway_address"):
            await read_page(session, TUNNELS, sort="password_hash")
        with pytest.raises(SortUnknown):
            await read_page(session, TUNNELS, sort="--id")
        with pytest.raises(FilterUnknown, match="minimum_packets"):
            await read_page(session, TUNNELS, filters={"x": 1})
        with pytest.raises(FilterUnknown, match="NUL"):
            await read_page(session, TUNNELS, filters={"state": "a\0"})


def written(*content):
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


HOSTILE = [
    ("id", written("id", 1, 2**63)),
    ("id", written("id", 1, -(2**63) - 1)),
    ("id", written("id", 1, 1.5)),
    ("id", written("id", 1, True)),
    ("id", written("id", 1, "1")),
    ("id", written("id", 1, None)),
    ("id", written("id", 1)),
    ("id", written("-id", 1, 1)),
    ("id", written({"id": 1}, 1, 1)),
    ("gateway_address", written("gateway_address", "a\0b", 1)),
    ("gateway_address", written("gateway_address", "\ud800", 1)),
    ("gateway_address", written("gateway_address", None, 1)),
    ("gateway_address", written("gateway_address", 7, 1)),
    ("packets", written("packets", 10**400, 1)),
    ("packets_per_second", written("packets_per_second", float("nan"), 1)),
    ("packets_per_second", written("packets_per_second", float("inf"), 1)),
    ("packets_per_second", written("packets_per_second", 10**400, 1)),
    ("seen_at", written("seen_at", "yesterday", 1)),
    ("seen_at", written("seen_at", "2026-03-01T12:00:00", 1)),
    ("seen_at", written("seen_at", "0001-01-01T00:00:00+14:00", 1)),
    ("seen_at", written("seen_at", "9999-12-31T23:59:59-14:00", 1)),
    ("id", "A" * 3000),
    ("id", "===="),
    ("id", "é"),
    ("id", base64.urlsafe_b64encode(b"[" * 1200).decode()),
    ("id", base64.urlsafe_b64encode(b"\xff\xfe").decode()),
    ("id", ""),
]


async def test_hostile_cursors_are_refused(database):
    for sort, cursor in HOSTILE:
        async with database.session() as session:
            with pytest.raises(CursorInvalid):
                await read_page(session, TUNNELS, sort=sort, cursor=cursor)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.text(max_size=60) | st.builds(written, st.sampled_from([*TUNNELS.sorts, "x"]), anything, anything))
@settings(suppress_health_check=list(HealthCheck))
def test_no_cursor_breaks_reading_it(cursor):
    for name in TUNNELS.sorts:
        with contextlib.suppress(CursorInvalid):
            _Order.of(TUNNELS, name).after(cursor)


async def test_a_cursor_of_the_newest_events(database):
    listing = Listing(Event, Event.id, sorts={"at": Event.at}, default_sort="-at")
    await add_ad(database, "a")
    async with database.begin() as session:
        session.add_all(Event(at=later(number), severity="info", kind="k", message=str(number)) for number in range(5))
    items, _ = await every_page(database, listing, limit=2)
    assert [item.message for item in items] == ["4", "3", "2", "1", "0"]
