"""What somebody with a token might try beyond what the token is for."""

from __future__ import annotations

from typing import Any

import pytest
from manager_api.manager import HOST_KEY, Manager, problem
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from relaymgr.store.tables import Ad, CredentialRecord, Job, Relay


async def add_ad(manager: Manager, name: str) -> str:
    async with manager.database.begin() as session:
        ad = Ad(name=name, created_at=manager.world.now, updated_at=manager.world.now)
        session.add(ad)
        await session.flush()
        return ad.id


async def add_credential(manager: Manager, name: str, ad_id: str | None) -> str:
    now = manager.world.now
    async with manager.database.begin() as session:
        row = CredentialRecord(
            name=name, username="x", kind="password", source="env", reference="ISTHMUS_CREDENTIAL_X",
            ad_id=ad_id, created_at=now, updated_at=now,
        )  # fmt: skip
        session.add(row)
        await session.flush()
        return row.id


async def test_a_scoped_token_sends_nobody_elses_password_anywhere(manager: Manager) -> None:
    """Whoever chooses the host a relay is at sees what the manager logs in with."""
    mine, shared = await add_ad(manager, "mine"), await add_credential(manager, "shared", None)
    own = await add_credential(manager, "own", mine)
    client = await manager.as_role("admin", [mine])
    body = {"name": "trap", "platform": "junos", "host": "198.51.100.66", "host_key": HOST_KEY, "ad_id": mine}
    answer = await client.post("/api/v1/relays", json=body | {"credential_id": shared})
    problem(answer, 403, "outside_scope")
    answer = await client.post("/api/v1/relays/bulk", json={"relays": [body | {"credential_id": shared}]})
    assert answer.json()["items"][0]["problem"]["code"] == "outside_scope"
    assert (await client.post("/api/v1/relays", json=body | {"credential_id": own})).status_code == 201
    relay_id = await manager.add_relay(ad_id=mine, credential_id=shared)
    address = f"/api/v1/relays/{relay_id}"
    moved = {"host": "198.51.100.66", "host_key": HOST_KEY}
    problem(await client.patch(address, json=moved, headers={"If-Match": '"1"'}), 403, "outside_scope")
    assert (await client.patch(address, json={"labels": {"a": "b"}}, headers={"If-Match": '"1"'})).status_code == 200
    moved["credential_id"] = own
    assert (await client.patch(address, json=moved, headers={"If-Match": '"2"'})).status_code == 200


async def test_a_plan_of_another_ad_is_not_there(manager: Manager) -> None:
    mine, theirs = await add_ad(manager, "mine"), await add_ad(manager, "theirs")
    one, other = await manager.add_relay("mx1", ad_id=mine), await manager.add_relay("mx2", ad_id=theirs)
    everybody = await manager.as_role("operator")
    plan = (await everybody.post(f"/api/v1/relays/{other}/plan", json={"kind": "drain"})).json()
    client = await manager.as_role("operator", [mine])
    answer = await client.post(f"/api/v1/relays/{one}/apply", json={"plan": plan["id"]})
    assert "drain" not in problem(answer, 404, "not_found")["detail"]


async def test_the_way_to_a_device_stays_while_a_change_of_it_runs(manager_anywhere: Manager) -> None:
    manager = manager_anywhere
    relay_id, client = await manager.add_relay(), await manager.as_role("admin")
    made = await client.post(f"/api/v1/relays/{relay_id}/drain", json={})
    address = f"/api/v1/relays/{relay_id}"
    first = await client.patch(address, json={"host": "192.0.2.77"}, headers={"If-Match": '"1"'})
    assert first.status_code == 200, "it has not begun"
    async with manager.database.begin() as session:
        await session.execute(update(Job).where(Job.id == made.json()["id"]).values(state="running"))
    refused = await client.patch(address, json={"host": "192.0.2.78"}, headers={"If-Match": '"2"'})
    assert problem(refused, 409, "in_use")["job_id"] == made.json()["id"]
    kept = await client.patch(address, json={"poll_interval_seconds": 60}, headers={"If-Match": '"2"'})
    assert kept.status_code == 200


@pytest.mark.parametrize("method", ["session", "begin"])
async def test_a_database_that_is_away_is_said_to_be_away(manager: Manager, method: str, monkeypatch: Any) -> None:
    client = await manager.as_role("operator")
    relay_id = await manager.add_relay()
    await client.get("/api/v1/whoami")

    def away() -> Any:
        raise OperationalError("SELECT secret_column FROM secret_table", {}, Exception("host db.example at 10.0.0.1"))

    monkeypatch.setattr(manager.database, method, away)
    if method == "session":
        answer = await client.get("/api/v1/relays")
    else:
        manager.world.advance(3600)
        assert (await client.get("/api/v1/relays")).status_code == 200, "noting the use of a token is no must"
        answer = await client.post(f"/api/v1/relays/{relay_id}/drain", json={})
    body = problem(answer, 503, "not_ready")
    assert answer.headers["retry-after"]
    assert "secret" not in answer.text
    assert "db.example" not in answer.text
    assert "database" in body["detail"]


async def test_a_body_that_never_comes_is_not_waited_for(manager: Manager, monkeypatch: Any) -> None:
    import asyncio

    from relaymgr.api import boundary

    monkeypatch.setattr(boundary, "BODY_SECONDS", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/api/v1/login",
        "raw_path": b"/api/v1/login", "query_string": b"", "headers": [], "client": ("192.0.2.1", 1), "scheme": "http",
    }  # fmt: skip
    await asyncio.wait_for(manager.app(scope, receive, send), 20)
    assert sent[0]["status"] == 408


async def test_a_relay_is_moved_to_no_ad_of_others_and_seen_by_nobody_else(manager: Manager) -> None:
    mine, theirs = await add_ad(manager, "mine"), await add_ad(manager, "theirs")
    relay_id, other = await manager.add_relay("mx1", ad_id=mine), await manager.add_relay("mx2", ad_id=theirs)
    client = await manager.as_role("admin", [mine])
    for ad_id, status, code in ((theirs, 422, "unknown_reference"), (None, 403, "outside_scope")):
        answer = await client.patch(f"/api/v1/relays/{relay_id}", json={"ad_id": ad_id}, headers={"If-Match": '"1"'})
        problem(answer, status, code)
    answer = await client.patch(f"/api/v1/relays/{other}", json={"labels": {}}, headers={"If-Match": '"1"'})
    problem(answer, 404, "not_found")
    job = (await (await manager.as_role("operator")).post(f"/api/v1/relays/{other}/drain", json={})).json()
    problem(await client.post(f"/api/v1/jobs/{job['id']}/cancel"), 404, "not_found")
    problem(await client.post("/api/v1/rollouts", json={"name": "x", "relay_ids": [relay_id, other]}), 404, "not_found")
    async with manager.database.session() as session:
        row = await session.get(Relay, relay_id)
    assert row is not None
    assert row.ad_id == mine
