"""Intent, plan, apply, drain, rollback, drift over HTTP, carried out by the real job service on a synthetic device."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from manager_api.manager import INTENT, Manager, problem
from sqlalchemy import func, select, true

from relaymgr.api.routes import events as event_routes
from relaymgr.store import events
from relaymgr.store.tables import AuditRow, Job, Lease


async def apply(client: httpx.AsyncClient, manager: Manager, relay_id: str, **more: Any) -> dict[str, Any]:
    plan = (await client.post(f"/api/v1/relays/{relay_id}/plan")).json()
    job = (await client.post(f"/api/v1/relays/{relay_id}/apply", json={"plan": plan["id"], **more})).json()
    await manager.finish(job["id"])
    ended: dict[str, Any] = (await client.get(f"/api/v1/jobs/{job['id']}")).json()
    return ended


async def test_the_first_intent_is_given_with_the_etag_of_none(manager_anywhere: Manager) -> None:
    manager = manager_anywhere
    client = await manager.as_role("operator")
    relay_id = await manager.add_relay(intent=None, intent_version=0)
    address = f"/api/v1/relays/{relay_id}/intent"
    empty = await client.get(address)
    assert (empty.headers["etag"], empty.json()["intent"]) == ('"0"', None)
    problem(await client.put(address, json=INTENT), 428, "etag_required")
    first = await client.put(address, json=INTENT, headers={"If-Match": '"0"'})
    assert (first.status_code, first.headers["etag"]) == (200, '"1"')
    problem(await client.put(address, json=INTENT, headers={"If-Match": '"0"'}), 412, "etag_mismatch")
    same = await client.put(address, json=INTENT, headers={"If-Match": '"1"'})
    assert same.headers["etag"] == '"1"'
    second = await client.put(address, json=INTENT | {"tunnel_limit": 200}, headers={"If-Match": '"1"'})
    assert second.json()["version"] == 2
    revisions = (await client.get(address + "/revisions")).json()["items"]
    assert [revision["intent"]["tunnel_limit"] for revision in revisions] == [200, 100]
    assert (await client.get(f"/api/v1/relays/{relay_id}")).headers["etag"] == '"1"'


async def test_an_intent_the_platform_cannot_do_names_the_capability(manager: Manager) -> None:
    client = await manager.as_role("operator")
    relay_id = await manager.add_relay()
    family = {"anycast_prefix": "2001:db8::/64", "local_address": "2001:db8:1::1"}
    answer = await client.put(
        f"/api/v1/relays/{relay_id}/intent", json=INTENT | {"inet6": family}, headers={"If-Match": '"1"'}
    )
    assert problem(answer, 422, "capability_missing")["capability"] == "amt-ipv6"
    inside = {"inet": INTENT["inet"] | {"local_address": "192.0.2.7"}}
    answer = await client.put(f"/api/v1/relays/{relay_id}/intent", json=inside, headers={"If-Match": '"1"'})
    assert "lies inside" in problem(answer, 422, "invalid_request")["faults"][0]["message"]


async def test_a_plan_is_applied_and_followed(manager_anywhere: Manager) -> None:
    manager = manager_anywhere
    client = await manager.as_role("operator")
    relay_id = await manager.add_relay()
    planned = await client.post(f"/api/v1/relays/{relay_id}/plan")
    plan = planned.json()
    assert planned.status_code == 201
    assert plan["diff"]
    assert not plan["unchanged"]
    assert (await client.get(planned.headers["location"])).json() == plan
    body = {"plan": plan["id"], "comment": "raise", "ticket": "NOC-1"}
    accepted = await client.post(f"/api/v1/relays/{relay_id}/apply", json=body)
    assert accepted.status_code == 202
    address = accepted.headers["location"]
    await manager.finish(accepted.json()["id"])
    job = (await client.get(address)).json()
    assert (job["state"], job["comment"], job["ticket"], job["progress"]) == ("succeeded", "raise", "NOC-1", 100)
    log = (await client.get(address + "/log")).json()["items"]
    assert len(log) > 2
    stream = (await client.get(address + "/events")).text
    assert f"id: {log[0]['id']}\n" in stream
    resumed = (await client.get(address + "/events", headers={"Last-Event-ID": str(log[1]["id"])})).text
    assert f"id: {log[1]['id']}\n" not in resumed
    assert f"id: {log[2]['id']}\n" in resumed
    assert resumed.rstrip().split("\n")[-2] == "event: job"
    problem(await client.post(address + "/cancel"), 409, "job_finished")
    problem(await client.get(address + "/events", headers={"Last-Event-ID": "x"}), 422, "invalid_request")
    relay = (await client.get(f"/api/v1/relays/{relay_id}")).json()
    assert relay["applied_intent_version"] == 1
    async with manager.database.session() as session:
        row = await session.scalar(select(AuditRow).where(AuditRow.action == "job.create"))
    assert row is not None
    assert (row.comment, row.ticket, row.actor) == ("raise", "NOC-1", "token:operator")


async def test_a_plan_does_not_outlive_its_intent_or_its_time(manager: Manager) -> None:
    client = await manager.as_role("operator")
    relay_id = await manager.add_relay()
    other = await manager.add_relay("mx2")
    plan = (await client.post(f"/api/v1/relays/{relay_id}/plan")).json()
    body = {"plan": plan["id"]}
    problem(await client.post(f"/api/v1/relays/{other}/apply", json=body), 409, "plan_mismatch")
    problem(await client.post(f"/api/v1/relays/{relay_id}/drain", json=body), 409, "plan_mismatch")
    problem(await client.post(f"/api/v1/relays/{relay_id}/apply", json={"plan": "0" * 32}), 404, "not_found")
    problem(await client.post(f"/api/v1/relays/{relay_id}/apply", json={}), 422, "invalid_request")
    await client.put(
        f"/api/v1/relays/{relay_id}/intent", json=INTENT | {"tunnel_limit": 7}, headers={"If-Match": '"1"'}
    )
    problem(await client.post(f"/api/v1/relays/{relay_id}/apply", json=body), 409, "plan_expired")
    fresh = (await client.post(f"/api/v1/relays/{relay_id}/plan")).json()
    manager.world.advance(7200)
    assert (await client.get(f"/api/v1/plans/{fresh['id']}")).json()["expired"]
    answer = await client.post(f"/api/v1/relays/{relay_id}/apply", json={"plan": fresh["id"]})
    problem(answer, 409, "plan_expired")


async def test_drain_undrain_rollback_restore_and_accept(manager: Manager) -> None:
    client = await manager.as_role("operator")
    relay_id = await manager.add_relay()
    address = f"/api/v1/relays/{relay_id}"
    problem(await client.post(f"{address}/rollback", json={}), 409, "not_applied")
    problem(await client.post(f"{address}/accept", json={}), 409, "no_drift")
    assert (await apply(client, manager, relay_id))["state"] == "succeeded"

    seen = await client.post(f"{address}/drain", json={"dry_run": True})
    assert seen.status_code == 200
    assert seen.json()["kind"] == "drain"
    for kind, drained in (("drain", True), ("undrain", False), ("rollback", True)):
        answer = await client.post(f"{address}/{kind}", json={"confirm_minutes": 2})
        assert answer.status_code == 202, answer.text
        await manager.finish(answer.json()["id"])
        assert (await client.get(address)).json()["drained"] is drained

    manager.setting.devices[relay_id].foreign("amt", "something else")
    checked = await client.post(f"{address}/check-drift")
    await manager.finish(checked.json()["id"])
    drift = (await client.get(f"{address}/drift")).json()
    assert drift["state"] == "drifted"
    assert drift["diff"]
    assert drift["relay_name"] == "mx1"
    assert (await client.get("/api/v1/drift", params={"state": "drifted"})).json()["items"] == [drift]
    accepted = await client.post(f"{address}/accept", json={"comment": "as agreed"})
    assert accepted.json()["state"] == "none"
    problem(await client.post(f"{address}/accept", json={}), 409, "no_drift")


@pytest.mark.parametrize(
    ("values", "status", "code"),
    [
        ({"host_key": None}, 409, "host_key_not_pinned"),
        ({"credential_id": None}, 409, "no_credential"),
        ({"enabled": False}, 409, "relay_disabled"),
        ({"intent": None, "intent_version": 0}, 409, "no_intent"),
        ({"window_job_id": "f" * 32}, 409, "confirm_window_open"),
    ],
)
async def test_what_is_missing_is_said_before_the_device_is_touched(
    manager: Manager, values: dict[str, Any], status: int, code: str
) -> None:
    client = await manager.as_role("operator")
    relay_id = await manager.add_relay(**values)
    problem(await client.post(f"/api/v1/relays/{relay_id}/plan"), status, code)
    problem(await client.post(f"/api/v1/relays/{relay_id}/drain", json={}), status, code)
    async with manager.database.session() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 0


async def test_one_key_makes_one_job(manager_anywhere: Manager) -> None:
    manager = manager_anywhere
    client = await manager.as_role("operator")
    relay_id = await manager.add_relay()
    plan = (await client.post(f"/api/v1/relays/{relay_id}/plan")).json()["id"]
    address, key = f"/api/v1/relays/{relay_id}/apply", {"Idempotency-Key": "one"}
    first, second = await asyncio.gather(*(client.post(address, json={"plan": plan}, headers=key) for _ in range(2)))
    ids = {answer.json()["id"] for answer in (first, second) if answer.status_code == 202}
    assert len(ids) == 1
    again = await client.post(address, json={"plan": plan}, headers=key)
    assert again.status_code == 202
    assert again.json()["id"] in ids
    other = await client.post(address, json={"plan": plan, "probe": True}, headers=key)
    problem(other, 422, "idempotency_key_reused")
    refused = await client.post(address, json={"plan": "0" * 32}, headers={"Idempotency-Key": "two"})
    problem(refused, 404, "not_found")
    async with manager.database.session() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 1
        keys = await session.scalars(select(Lease.name).where(Lease.name.startswith("idempotency:")))
        assert len(list(keys)) == 1  # what made no job keeps no key


async def test_many_intents_and_plans_at_once(manager: Manager) -> None:
    client = await manager.as_role("operator")
    one, two = await manager.add_relay("mx1"), await manager.add_relay("mx2", host_key=None)
    intents = [
        {"relay": "mx1", "intent": INTENT},
        {"relay": two, "intent": INTENT | {"tunnel_limit": 7}, "version": 1},
        {"relay": "mx9", "intent": INTENT},
        {"relay": "mx2", "intent": INTENT, "version": 1},
    ]
    answer = (await client.put("/api/v1/intents/bulk", json={"intents": intents})).json()
    assert [item["outcome"] for item in answer["items"]] == ["unchanged", "updated", "failed", "failed"]
    assert [item["problem"]["code"] for item in answer["items"][2:]] == ["not_found", "etag_mismatch"]
    plans = (await client.post("/api/v1/plans/bulk", json={"relay_ids": [one, two]})).json()
    assert [item["outcome"] for item in plans["items"]] == ["created", "failed"]
    assert plans["items"][1]["problem"]["code"] == "host_key_not_pinned"
    assert (await client.get(f"/api/v1/plans/{plans['items'][0]['id']}")).json()["relay_id"] == one


async def test_a_rollout_goes_in_waves_and_is_steered(manager: Manager) -> None:
    client = await manager.as_role("operator")
    relays = [await manager.add_relay(f"mx{number}") for number in range(3)]
    body = {"name": "limit", "relay_ids": relays, "sizes": [1, "100%"], "comment": "why"}
    made = await client.post("/api/v1/rollouts", json=body)
    assert made.status_code == 201, made.text
    rollout = made.json()
    assert rollout["wave_sizes"] == [1, 2]
    address = made.headers["location"]
    assert (await client.post(f"{address}/pause", json={"comment": "wait"})).json()["state"] == "paused"
    assert (await client.post(f"{address}/resume")).json()["state"] == "running"
    parts = (await client.get(f"{address}/relays")).json()["items"]
    assert sorted(part["relay_id"] for part in parts) == sorted(relays)
    assert (await client.post(f"{address}/abort")).json()["state"] == "aborted"
    problem(await client.post(f"{address}/resume"), 409, "rollout_finished")
    bad = body | {"relay_ids": [relays[0], relays[0]]}
    problem(await client.post("/api/v1/rollouts", json=bad), 422, "invalid_request")
    listed = (await client.get("/api/v1/rollouts", params={"state": "aborted"})).json()["items"]
    assert [item["id"] for item in listed] == [rollout["id"]]


async def test_events_are_streamed_and_resumed(manager_anywhere: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = manager_anywhere
    monkeypatch.setattr(event_routes, "POLL_SECONDS", 0.01)

    async def happen(message: str) -> int:
        async with manager.database.begin() as session:
            event = await events.emit(session, "relay.unreachable", "warning", message, now=manager.world.now)
            await session.flush()
            return event.id

    first = await happen("one")
    source = event_routes._source(manager.services, true(), first)
    waiting = asyncio.ensure_future(anext(source))
    second = await happen("two")
    sent = await asyncio.wait_for(waiting, 20)
    assert (sent.id, sent.event, sent.data["message"]) == (second, "relay.unreachable", "two")
    await source.aclose()
    listed = await (await manager.as_role("viewer")).get("/api/v1/events", params={"sort": "id"})
    assert [item["id"] for item in listed.json()["items"]] == [first, second]
    assert json.loads(listed.text)["next_cursor"] is None
