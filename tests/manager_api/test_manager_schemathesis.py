"""Whatever the specification allows, and what it forbids, is answered as it says and without a server error."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import databases
import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from manager_api.manager import Manager

from relaymgr.api.contract import contract
from relaymgr.store.database import Database
from relaymgr.store.tables import Ad

ENDLESS = ["follow_events", "follow_job"]
UNMAKING = ["log_out", "revoke_token"]
"""Would take the test its own token away."""
schema = schemathesis.openapi.from_dict(contract()).exclude(operation_id=[*ENDLESS, *UNMAKING])
schema.config.generation.update(modes=list(schemathesis.GenerationMode))


class Running:
    """One manager on one loop, and identifiers of what it holds."""

    def __init__(self, path: Path) -> None:
        self.runner = asyncio.Runner()
        self.manager = Manager(Database(f"sqlite:///{path}"))
        self.known: dict[str, str] = {}
        self.client = self.runner.run(self._populate())

    async def _populate(self) -> httpx.AsyncClient:
        now = self.manager.world.now
        async with self.manager.database.begin() as session:
            ad = Ad(name="Example", prefixes=["203.0.113.0/24"], created_at=now, updated_at=now)
            session.add(ad)
            await session.flush()
        client = await self.manager.as_role("admin")
        relay_id = await self.manager.add_relay(ad_id=ad.id)
        plan = (await client.post(f"/api/v1/relays/{relay_id}/plan")).json()["id"]
        job = (await client.post(f"/api/v1/relays/{relay_id}/apply", json={"plan": plan})).json()["id"]
        user = (await client.post("/api/v1/users", json={"name": "alice", "role": "viewer"})).json()["id"]
        self.known = {"ad_id": ad.id, "relay_id": relay_id, "plan_id": plan, "job_id": job, "user_id": user}
        return client

    def call(self, case: schemathesis.Case) -> httpx.Response:
        arguments = case.as_transport_kwargs(base_url="http://manager.example")
        cookies = arguments.pop("cookies", None) or {}
        content = {name: arguments[name] for name in ("params", "json", "data", "content") if name in arguments}
        headers = {
            name: str(value).encode("utf-8", "replace") for name, value in (arguments.get("headers") or {}).items()
        }
        if cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items()).encode()
        if isinstance(content.get("data"), bytes | str):
            content["content"] = content.pop("data")
        headers.pop("Authorization", None)
        request = self.client.build_request(arguments["method"], arguments["url"], headers=headers, **content)
        return self.runner.run(self.client.send(request))

    def close(self) -> None:
        self.runner.run(self.manager.close())
        self.runner.run(self.manager.database.close())
        self.runner.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = tmp_path_factory.mktemp("schemathesis") / "relaymgr.db"
    shutil.copy(databases._sqlite_template(), path)
    made = Running(path)
    yield made
    made.close()


@schema.given(data=st.data())
@schema.parametrize()
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_nothing_makes_the_service_fail(case: schemathesis.Case, data: Any, running: Running) -> None:
    for name in case.path_parameters or {}:
        if name in running.known and data.draw(st.booleans()):
            case.path_parameters[name] = running.known[name]
    answer = running.call(case)
    operation = case.operation.definition.raw
    assert answer.status_code < 500, (case.method, case.path, answer.text)
    documented = operation["responses"]
    assert str(answer.status_code) in documented, (operation["operationId"], answer.status_code, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert f"`{answer.json()['code']}`" in documented[str(answer.status_code)]["description"]
    case.operation.validate_response(answer, case=case)
