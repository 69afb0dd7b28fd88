"""A stream goes on where it broke, and a walk over a table that polls rewrite sees every row once."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from acceptance.stage import Noc, eventually

pytestmark = pytest.mark.slow

TUNNELS = 300


@pytest.fixture(scope="module")
def relay(noc: Noc) -> str:
    router = noc.router("mx80")
    router.order(tunnels=TUNNELS)
    enrolled = noc.enrol(router, "many-tunnels")
    assert noc.apply(enrolled)["state"] == "succeeded"
    eventually(lambda: noc.relay(enrolled)["active_tunnels"] == TUNNELS, 60.0)
    return enrolled


def events(noc: Noc, job: str, after: str | None) -> Iterator[tuple[str | None, str, dict[str, Any]]]:
    """(id, kind, data) of the stream of a job."""
    headers = {"Authorization": f"Bearer {noc.manager.token}"} | ({"Last-Event-ID": after} if after else {})
    address = f"{noc.manager.url}/api/v1/jobs/{job}/events"
    with httpx.stream("GET", address, headers=headers, timeout=60.0) as stream:
        assert stream.status_code == 200
        entry: dict[str, str] = {}
        for line in stream.iter_lines():
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(":")
                entry[name] = value.strip()
            elif "data" in entry:
                yield entry.get("id"), entry.get("event", ""), json.loads(entry["data"])
                entry = {}


def test_a_broken_stream_is_resumed_without_gap_or_repetition(noc: Noc, relay: str):
    job = noc.manager.call("POST", f"/relays/{relay}/drain", json={"confirm_minutes": 5})["id"]
    seen: list[int] = []
    last, ended = None, None
    while ended is None:
        for identifier, kind, data in events(noc, job, last):
            if kind == "job":
                ended = data
                break
            seen.append(data["id"])
            last = identifier
            break  # the client dies after every event
    assert ended["state"] == "succeeded"
    assert seen == sorted(row["id"] for row in noc.manager.items(f"/jobs/{job}/log"))
    assert len(seen) >= 4


def test_pages_and_csv_hold_every_row_once_while_polls_rewrite_them(noc: Noc, relay: str):
    polled = noc.relay(relay)["polled_at"]
    cursor, walked = None, []
    while True:
        parameters = {"relay_id": relay, "limit": 7, "sort": "gateway_address"} | ({"cursor": cursor} if cursor else {})
        page = noc.manager.call("GET", "/tunnels", params=parameters)
        walked += [row["id"] for row in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(walked) == len(set(walked)) == TUNNELS
    eventually(lambda: noc.relay(relay)["polled_at"] != polled)
    for _ in range(3):
        answer = noc.manager.request("GET", f"/tunnels?relay_id={relay}&format=csv")
        assert answer.headers["Content-Type"].startswith("text/csv")
        rows = list(csv.DictReader(answer.text.splitlines()))
        assert len({row["gateway_address"] + row["gateway_port"] for row in rows}) == len(rows) == TUNNELS
