"""Two that write at the same time, on each database: one of them is told."""

from __future__ import annotations

import asyncio

from manager_api.manager import INTENT, Manager
from sqlalchemy import func, select

from relaymgr.store.tables import AuditRow, IntentRevision, Job, Relay


async def test_of_intents_put_at_once_one_is_kept(manager_anywhere: Manager) -> None:
    manager = manager_anywhere
    relay_id, client = await manager.add_relay(), await manager.as_role("operator")
    answers = await asyncio.gather(
        *(
            client.put(
                f"/api/v1/relays/{relay_id}/intent",
                json=INTENT | {"tunnel_limit": 200 + number},
                headers={"If-Match": '"1"'},
            )
            for number in range(6)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, *[412] * 5]
    async with manager.database.session() as session:
        assert await session.scalar(select(func.max(IntentRevision.version))) == 2
        assert await session.scalar(select(func.count()).where(AuditRow.action == "intent.put")) == 1


async def test_of_changes_asked_for_at_once_one_is_taken(manager_anywhere: Manager) -> None:
    manager = manager_anywhere
    relay_id, client = await manager.add_relay(), await manager.as_role("operator")
    answers = await asyncio.gather(*(client.post(f"/api/v1/relays/{relay_id}/drain", json={}) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [202, *[409] * 5]
    async with manager.database.session() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 1


async def test_a_relay_is_edited_or_deleted_by_one_of_many(manager_anywhere: Manager) -> None:
    manager = manager_anywhere
    relay_id, client = await manager.add_relay(), await manager.as_role("admin")
    address = f"/api/v1/relays/{relay_id}"
    edits = [
        client.patch(address, json={"labels": {"by": str(number)}}, headers={"If-Match": '"1"'}) for number in range(4)
    ]
    assert sorted(answer.status_code for answer in await asyncio.gather(*edits)) == [200, 412, 412, 412]
    both = await asyncio.gather(client.delete(address), client.post(f"{address}/drain", json={}))
    assert tuple(answer.status_code for answer in both) in {(204, 404), (409, 202)}
    async with manager.database.session() as session:
        left = await session.get(Relay, relay_id) is not None
        assert await session.scalar(select(func.count()).select_from(Job)) == int(left)
