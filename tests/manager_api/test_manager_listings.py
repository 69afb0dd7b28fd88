"""Listings: filters, order, pages, CSV, scopes, freshness; the rows fit the schemas they are documented with."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import Any

import httpx
import pytest
from manager_api.manager import Manager, problem

from relaymgr.api import views
from relaymgr.api.rendering import to_csv
from relaymgr.api.schemas import access, ads, changes, credentials, observed, records, relays, rollouts
from relaymgr.store import events
from relaymgr.store.tables import (
    Ad,
    Backup,
    ChannelRow,
    DriftRow,
    PimNeighborRow,
    Relay,
    StatisticsSample,
    TunnelRow,
    new_id,
)


class Population:
    """Two ADs with a relay each; tunnels of both ADs' gateways at both relays."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.ads: list[str] = []
        self.relays: list[str] = []

    async def make(self, tunnels: int = 6) -> Population:
        now = self.manager.world.now
        async with self.manager.database.begin() as session:
            for name in ("East", "=West"):
                ad = Ad(name=name, prefixes=[], created_at=now, updated_at=now)
                session.add(ad)
                await session.flush()
                self.ads.append(ad.id)
        for number, ad_id in enumerate(self.ads):
            polled = {"polled_at": now, "reachability": "reachable", "stale": {"channels": "too slow"}}
            self.relays.append(await self.manager.add_relay(f"mx{number}", ad_id=ad_id, **polled))
        async with self.manager.database.begin() as session:
            for number in range(tunnels):
                session.add(self._tunnel(number))
            for relay_id in self.relays:
                session.add_all(self._rest(relay_id))
                await events.emit(session, "drift.found", "warning", "=drift", relay_id=relay_id, now=now)
        return self

    def _tunnel(self, number: int) -> TunnelRow:
        now = self.manager.world.now
        return TunnelRow(
            relay_id=self.relays[number % 2],
            ad_id=(*self.ads, None)[number % 3],
            gateway_address=f"203.0.113.{number % 250}",
            gateway_port=40000 + number,
            state="active" if number % 4 else "pending",
            uptime_seconds=None if number % 2 else number,
            channels=number % 3,
            interface="ud-0/0/0",
            first_seen_at=now,
            seen_at=now,
        )

    def _rest(self, relay_id: str) -> list[Any]:
        now = self.manager.world.now
        backup_id = new_id()
        text = b'host-name a;\nencrypted-password "$9$secretsecret";\n'
        sealed = self.manager.services.sealer.seal(text, f"backup:{backup_id}")
        return [
            ChannelRow(relay_id=relay_id, group_address="232.1.1.1", downstream_interfaces=["a"], seen_at=now),
            PimNeighborRow(relay_id=relay_id, address="192.0.2.1", interface="ge-0/0/0.0", seen_at=now),
            StatisticsSample(relay_id=relay_id, at=now, counters={"queries_sent": 1}, errors={}),
            DriftRow(relay_id=relay_id, state="drifted", diff="+x\n", checked_at=now),
            Backup(
                id=backup_id, relay_id=relay_id, taken_at=now, sha256="0" * 64, size_bytes=60, sealed=sealed, reason="x"
            ),
        ]


async def items(client: httpx.AsyncClient, path: str, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get(f"/api/v1/{path}", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_tunnels_are_filtered_sorted_and_paged(manager_anywhere: Manager) -> None:
    population = await Population(manager_anywhere).make(30)
    client = await manager_anywhere.as_role("viewer")
    query = {"state": "active", "relay_id": population.relays[1], "limit": 4, "sort": "-gateway_address"}
    path, seen = httpx.URL("/api/v1/tunnels", params=query), []
    pages = 0
    while True:
        answer = await client.get(path)
        seen += [row["gateway_address"] for row in answer.json()["items"]]
        pages += 1
        if "link" not in answer.headers:
            assert answer.json()["next_cursor"] is None
            break
        path = httpx.URL(answer.headers["link"].split(">")[0].lstrip("<"))
    expected = [f"203.0.113.{number}" for number in range(30) if number % 2 and number % 4]
    assert seen == sorted(expected, reverse=True)
    assert pages == 4
    unknown_last = [row["uptime_seconds"] for row in await items(client, "tunnels", sort="-uptime_seconds")]
    assert unknown_last[:2] == [28, 26]
    assert unknown_last[15:] == [None] * 15
    assert {row["channels"] for row in await items(client, "tunnels", min_channels=1)} == {1, 2}


async def test_a_listing_refuses_what_it_does_not_know(manager: Manager) -> None:
    client = await manager.as_role("viewer")
    for query, code in (
        ({"colour": "red"}, "invalid_request"),
        ({"limit": 1001}, "invalid_request"),
        ({"sort": "colour"}, "sort_unknown"),
        ({"cursor": "xx"}, "cursor_invalid"),
    ):
        problem(await client.get("/api/v1/tunnels", params=query), 422, code)
    problem(await client.get("/api/v1/tunnels?state=%00"), 400, "malformed_request")
    problem(await client.get("/api/v1/audit", params={"since": "2026-03-01T12:00:00"}), 403, "forbidden")
    operator = await manager.as_role("operator")
    problem(await operator.get("/api/v1/audit", params={"since": "2026-03-01T12:00:00"}), 422, "invalid_request")


async def test_a_scoped_token_sees_its_relays_and_the_tunnels_to_it(manager_anywhere: Manager) -> None:
    population = await Population(manager_anywhere).make()
    east, west = population.ads
    own, foreign = population.relays
    client = await manager_anywhere.as_role("viewer", [east])
    assert [row["id"] for row in await items(client, "relays")] == [own]
    assert [row["id"] for row in await items(client, "ads")] == [east]
    seen = {(row["relay_id"], row["ad_id"]) for row in await items(client, "tunnels")}
    assert seen == {(own, east), (own, west), (own, None), (foreign, east)}
    for path in ("channels", "pim-neighbors", "statistics", "drift", "backups"):
        assert {row["relay_id"] for row in await items(client, path)} == {own}, path
    assert {row["relay_id"] for row in await items(client, "events")} == {own}
    problem(await client.get(f"/api/v1/relays/{foreign}"), 404, "not_found")
    problem(await client.get(f"/api/v1/relays/{foreign}/drift"), 404, "not_found")
    assert len(await items(await manager_anywhere.as_role("viewer"), "tunnels")) == 6


async def test_rows_tell_how_fresh_they_are(manager: Manager) -> None:
    population = await Population(manager).make()
    client = await manager.as_role("viewer")
    manager.world.now += timedelta(seconds=42)
    tunnel = (await items(client, "tunnels"))[0]
    assert (tunnel["age_seconds"], tunnel["stale"], tunnel["relay_name"]) == (42.0, None, "mx0")
    assert (await items(client, "channels"))[0]["stale"] == "too slow"
    async with manager.database.begin() as session:
        relay = await session.get(Relay, population.relays[0])
        assert relay is not None
        relay.reachability, relay.reachability_reason = "unreachable", "connection refused"
    assert (await items(client, "tunnels"))[0]["stale"] == "connection refused"


@pytest.mark.parametrize("path", ["tunnels", "channels", "relays", "audit", "events", "drift"])
async def test_a_table_is_streamed_as_csv(manager: Manager, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    from relaymgr.api import listings

    monkeypatch.setattr(listings, "_CSV_PAGE", 2)
    await Population(manager).make(7)
    client = await manager.as_role("admin")
    await client.post("/api/v1/ads", json={"name": "x"})
    rows = await items(client, path, limit=1000)
    for answer in (
        await client.get(f"/api/v1/{path}", params={"format": "csv"}),
        await client.get(f"/api/v1/{path}", headers={"Accept": "text/csv"}),
    ):
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        read = list(csv.DictReader(io.StringIO(answer.text)))
        assert len(read) == len(rows)
        assert list(read[0]) == list(SCHEMAS[path].model_fields)
        assert set(read[0]) == set(rows[0])
        assert [row["relay_id" if "relay_id" in row else "id"] for row in read] == [
            str(row["relay_id" if "relay_id" in row else "id"]) for row in rows
        ]
    problem(await client.get(f"/api/v1/{path}", params={"format": "csv", "sort": "colour"}), 422, "sort_unknown")


def test_a_cell_is_never_a_formula() -> None:
    row = {
        "a": "=cmd|'/C calc'!A0",
        "b": "+1",
        "c": "-1",
        "d": "@x",
        "e": "\tx",
        "f": -1,
        "g": None,
        "h": ["=1"],
        "i": True,
    }
    text = to_csv(tuple(row), [row], header=False)
    cells = next(csv.reader(io.StringIO(text)))
    assert cells == ["'=cmd|'/C calc'!A0", "'+1", "'-1", "'@x", "'\tx", "-1", "", '["=1"]', "true"]


SCHEMAS = {
    "ads": ads.Ad,
    "sites": ads.Site,
    "credentials": credentials.Credential,
    "relays": relays.Relay,
    "plans": changes.Plan,
    "jobs": changes.Job,
    "rollouts": rollouts.Rollout,
    "tunnels": observed.Tunnel,
    "channels": observed.Channel,
    "pim-neighbors": observed.PimNeighbor,
    "statistics": observed.StatisticsSample,
    "drift": observed.Drift,
    "backups": records.Backup,
    "audit": records.AuditEntry,
    "events": records.Event,
    "tokens": access.Token,
    "users": access.User,
}


@pytest.mark.parametrize("path", list(SCHEMAS))
async def test_rows_are_what_their_schema_says(manager: Manager, path: str) -> None:
    population = await Population(manager).make()
    client = await manager.as_role("admin")
    await client.post("/api/v1/sites", json={"name": "x"})
    await client.post("/api/v1/users", json={"name": "x", "role": "viewer"})
    await client.post(f"/api/v1/relays/{population.relays[0]}/plan")
    await client.post(f"/api/v1/relays/{population.relays[0]}/drain", json={})
    await client.post("/api/v1/rollouts", json={"name": "x", "relay_ids": [population.relays[1]]})
    rows = await items(client, path)
    assert rows
    for row in rows:
        schema = SCHEMAS[path]
        schema.model_validate(row, strict=False)
        assert set(row) == set(schema.model_fields)


async def test_backups_are_masked_unless_an_admin_asks(manager: Manager) -> None:
    await Population(manager).make()
    operator, admin = await manager.as_role("operator"), await manager.as_role("admin")
    backups = await items(operator, "backups")
    address = f"/api/v1/backups/{backups[0]['id']}/content"
    assert "$9$" not in (await operator.get(address)).text
    assert "host-name a;" in (await operator.get(address)).text
    assert "$9$secretsecret" in (await admin.get(address)).text
    problem(await (await manager.as_role("viewer")).get(address), 403, "forbidden")
    compared = await admin.get("/api/v1/backups/diff", params={"from_id": backups[0]["id"], "to_id": backups[1]["id"]})
    assert compared.json()["diff"] == ""
    audit = await items(admin, "audit", action="backup.read")
    assert [row["after"]["masked"] for row in audit] == [False, True, True]


def test_a_fingerprint_is_the_one_ssh_keygen_prints() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"  # GitHub's, public
    assert views.fingerprint(key) == "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"
    assert views.fingerprint("nonsense") is None
    assert views.fingerprint(None) is None
