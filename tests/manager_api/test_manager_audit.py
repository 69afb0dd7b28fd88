"""Every write leaves one audit row that says who, why and by which request; a key makes one thing, whoever dies."""

from __future__ import annotations

from typing import Any

import pytest
from manager_api.manager import Manager, problem
from sqlalchemy import func, select

from relaymgr.store.tables import Ad, AuditRow, Job, Rollout

WHY = {"comment": "as agreed", "ticket": "NOC-9"}


async def rows(manager: Manager, *actions: str) -> list[Any]:
    async with manager.database.session() as session:
        return list(await session.scalars(select(AuditRow).where(AuditRow.action.in_(actions)).order_by(AuditRow.id)))


def explained(row: Any, answer: Any, ad_id: str | None) -> None:
    assert (row.comment, row.ticket, row.ad_id) == ("as agreed", "NOC-9", ad_id)
    assert row.request_id == answer.headers["x-request-id"]


async def add_ad(manager: Manager) -> str:
    async with manager.database.begin() as session:
        ad = Ad(name="synthetic", created_at=manager.world.now, updated_at=manager.world.now)
        session.add(ad)
        await session.flush()
        return ad.id


async def test_a_job_is_audited_when_it_is_made_when_it_is_cancelled_and_when_it_ends(manager: Manager) -> None:
    client, ad_id = await manager.as_role("operator"), await add_ad(manager)
    relay_id = await manager.add_relay(ad_id=ad_id)
    made = await client.post(f"/api/v1/relays/{relay_id}/drain", json=WHY)
    [row] = await rows(manager, "job.create")
    explained(row, made, ad_id)
    assert (row.resource_type, row.resource_id, row.after["kind"]) == ("job", made.json()["id"], "drain")
    cancelled = await client.post(f"/api/v1/jobs/{made.json()['id']}/cancel", json=WHY)
    [row] = await rows(manager, "job.cancel")
    explained(row, cancelled, ad_id)
    assert (row.before["state"], row.after["state"], row.actor) == ("queued", "cancelled", "token:operator")
    second = await client.post(f"/api/v1/relays/{relay_id}/drain", json=WHY)
    await manager.finish(second.json()["id"])
    [row] = await rows(manager, "job.drain")
    assert (row.resource_id, row.after["job_id"]) == (relay_id, second.json()["id"])


async def test_accepted_drift_is_audited_once(manager: Manager) -> None:
    client, ad_id = await manager.as_role("operator"), await add_ad(manager)
    relay_id = await manager.add_relay(ad_id=ad_id)
    address = f"/api/v1/relays/{relay_id}"
    await manager.finish((await client.post(f"{address}/undrain", json={})).json()["id"])
    manager.setting.device.foreign("amt", "something else")
    await manager.finish((await client.post(f"{address}/check-drift")).json()["id"])
    accepted = await client.post(f"{address}/accept", json=WHY)
    assert accepted.status_code == 200
    [row] = await rows(manager, "drift.accept")
    explained(row, accepted, ad_id)
    assert "something else" in row.before["diff"]


async def test_a_rollout_is_audited_once_for_each_thing_done_to_it(manager: Manager) -> None:
    client, ad_id = await manager.as_role("operator"), await add_ad(manager)
    relays = [await manager.add_relay(f"mx{number}", ad_id=ad_id) for number in range(2)]
    made = await client.post("/api/v1/rollouts", json={"name": "x", "relay_ids": relays, **WHY})
    steps = ("pause", "resume", "abort")
    answers = [made, *[await client.post(f"{made.headers['location']}/{step}", json=WHY) for step in steps]]
    found = await rows(manager, "rollout.create", "rollout.pause", "rollout.resume", "rollout.abort")
    assert [row.action.split(".")[1] for row in found] == ["create", "pause", "resume", "abort"]
    for row, answer in zip(found, answers, strict=True):
        explained(row, answer, ad_id)
    assert found[0].after["waves"] == [[relays[0]], [relays[1]]]
    async with manager.database.session() as session:
        every = await session.scalar(select(func.count()).where(AuditRow.resource_type == "rollout"))
    assert every == 4


async def test_one_key_makes_one_rollout(manager_anywhere: Manager) -> None:
    manager = manager_anywhere
    client = await manager.as_role("operator")
    relay_id = await manager.add_relay()
    body, key = {"name": "x", "relay_ids": [relay_id]}, {"Idempotency-Key": "one"}
    first = await client.post("/api/v1/rollouts", json=body, headers=key)
    again = await client.post("/api/v1/rollouts", json=body, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    other = await client.post("/api/v1/rollouts", json=body | {"probe": True}, headers=key)
    problem(other, 422, "idempotency_key_reused")
    other = await client.post(f"/api/v1/relays/{relay_id}/drain", json={}, headers=key)
    problem(other, 422, "idempotency_key_reused")
    async with manager.database.session() as session:
        assert await session.scalar(select(func.count()).select_from(Rollout)) == 1


@pytest.mark.parametrize("died", ["before", "after"])
async def test_a_key_is_good_for_one_job_also_when_the_manager_died_in_between(manager: Manager, died: str) -> None:
    """`after`: the job was stored, and nothing else of the request happened any more."""
    client = await manager.as_role("operator")
    relay_id = await manager.add_relay()
    address, key = f"/api/v1/relays/{relay_id}/drain", {"Idempotency-Key": "one"}
    first = await client.post(address, json={}, headers=key)
    async with manager.database.begin() as session:
        if died == "before":
            await session.execute(Job.__table__.delete())
    again = await client.post(address, json={}, headers=key)
    if died == "after":
        assert again.json()["id"] == first.json()["id"]
        manager.world.advance(3600)
        assert (await client.post(address, json={}, headers=key)).json()["id"] == first.json()["id"]
    else:
        problem(again, 409, "conflict")
        manager.world.advance(61)
        assert (await client.post(address, json={}, headers=key)).status_code == 202
    async with manager.database.session() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 1


async def test_metrics_are_of_every_ad_and_so_for_unscoped_tokens_only(manager: Manager) -> None:
    ad_id = await add_ad(manager)
    problem(await (await manager.as_role("viewer", [ad_id])).get("/metrics"), 403, "outside_scope")
    assert (await (await manager.as_role("viewer")).get("/metrics")).status_code == 200
