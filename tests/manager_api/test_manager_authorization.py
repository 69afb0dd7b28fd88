"""Who may do what: every route of the application against every role and scope. A route that declares none fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from manager_api.manager import INTENT, Manager

from relaymgr.api.app import ROUTERS
from relaymgr.api.contract import contract
from relaymgr.api.security import Public, RoleRequired
from relaymgr.store.principals import Role
from relaymgr.store.tables import Ad

BODIES: dict[str, Any] = {
    "create_ad": {"name": "new"},
    "edit_ad": {"contact": "x"},
    "create_site": {"name": "new"},
    "edit_site": {"location": "x"},
    "create_credential": {"name": "new", "username": "x", "source": "sealed", "secret": "s"},
    "edit_credential": {"username": "y"},
    "create_relay": {"name": "new", "platform": "junos", "host": "192.0.2.1"},
    "edit_relay": {"labels": {}},
    "scan_host_key": {"host": "192.0.2.1"},
    "put_relays": {"relays": [{"name": "new", "platform": "junos", "host": "192.0.2.1"}]},
    "put_intent": INTENT,
    "put_intents": {"intents": [{"relay": "mx1", "intent": INTENT}]},
    "plan_changes": {"relay_ids": ["0" * 32]},
    "apply_plan": {"plan": "0" * 32},
    "create_rollout": {"name": "new", "relay_ids": ["0" * 32]},
    "create_token": {"name": "new", "role": "viewer"},
    "create_user": {"name": "new", "role": "viewer"},
    "edit_user": {"enabled": True},
    "log_in": {"name": "x", "password": "y"},
}
QUERIES = {"compare_backups": {"from_id": "0", "to_id": "0"}}
OPERATOR = {
    "put_intent", "put_intents", "plan_change", "plan_changes", "apply_plan", "drain_relay", "undrain_relay",
    "roll_back_relay", "restore_relay", "accept_drift", "check_drift", "take_backup", "cancel_job", "create_rollout",
    "pause_rollout", "resume_rollout", "abort_rollout", "list_credentials", "get_credential", "list_audit",
    "compare_backups", "get_backup_content",
}  # fmt: skip
EVERYWHERE = {
    "create_ad", "delete_ad", "list_tokens", "create_token", "get_token", "revoke_token", "list_users", "create_user",
    "get_user", "edit_user", "delete_user", "get_metrics",
}  # fmt: skip
ADMIN = EVERYWHERE - {"get_metrics"} | {
    "edit_ad", "create_site", "edit_site", "delete_site", "create_credential", "edit_credential", "delete_credential",
    "create_relay", "edit_relay", "delete_relay", "scan_host_key", "put_relays",
}  # fmt: skip
PUBLIC = {"get_health", "get_readiness", "log_in", "begin_oidc_login", "end_oidc_login"}
ENDLESS = {"follow_events"}
"""Whose answer never ends; asked without a right to it only."""


@dataclass(frozen=True)
class Operation:
    name: str
    method: str
    path: str
    declared: tuple[RoleRequired, ...]


def operations() -> Iterator[Operation]:
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            declared = [depends.dependency for depends in route.dependencies]
            roles = tuple(one for one in declared if isinstance(one, RoleRequired))
            assert route.operation_id is not None
            for method in route.methods:
                yield Operation(route.operation_id, method, route.path, roles)


OPERATIONS = {operation.name: operation for operation in operations()}


def test_every_route_declares_one_role() -> None:
    for operation in OPERATIONS.values():
        assert len(operation.declared) == 1, operation
    documented = {(method.upper(), path) for path, item in contract()["paths"].items() for method in item}
    assert documented == {(operation.method, operation.path) for operation in OPERATIONS.values()}


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_the_role_is_the_one_it_should_be(name: str) -> None:
    declared = OPERATIONS[name].declared[0]
    expected = Role.OPERATOR if name in OPERATOR else Role.ADMIN if name in ADMIN else Role.VIEWER
    assert declared.role == (None if name in PUBLIC else expected)
    assert declared.everywhere == (name in EVERYWHERE)
    assert isinstance(declared, Public) == (name in PUBLIC)
    if OPERATIONS[name].method != "GET" and name not in PUBLIC | {"log_out"}:
        assert declared.role is not Role.VIEWER  # a viewer writes nothing


def test_no_name_is_listed_that_there_is_not() -> None:
    assert (OPERATOR | ADMIN | PUBLIC | BODIES.keys() | QUERIES.keys() | ENDLESS) <= OPERATIONS.keys()


async def _ask(client: httpx.AsyncClient, operation: Operation) -> httpx.Response:
    path = operation.path
    while "{" in path:
        path = path[: path.index("{")] + "0" * 32 + path[path.index("}") + 1 :]
    body = BODIES.get(operation.name, {} if operation.method in {"POST", "PUT", "PATCH"} else None)
    return await client.request(operation.method, path, json=body, params=QUERIES.get(operation.name))


async def test_every_role_may_do_what_is_declared_and_nothing_else(manager: Manager) -> None:
    async with manager.database.begin() as session:
        ad = Ad(name="a", prefixes=[], created_at=manager.world.now, updated_at=manager.world.now)
        session.add(ad)
        await session.flush()
    for role in Role:
        for scope in ((), (ad.id,)):
            client = await manager.as_role(role.value, scope)
            for operation in OPERATIONS.values():
                if operation.name == "log_out" or operation.name in PUBLIC:
                    continue
                declared = operation.declared[0]
                assert declared.role is not None
                low, beyond = not role.includes(declared.role), bool(scope) and declared.everywhere
                if operation.name in ENDLESS and not low:
                    continue
                answer = await _ask(client, operation)
                where = (role, scope, operation)
                assert answer.status_code not in {401, 500}, (where, answer.text)
                code = answer.json().get("code") if "problem" in answer.headers.get("content-type", "") else None
                assert (code == "forbidden") == low, (where, answer.text)
                if beyond and not low:
                    assert code == "outside_scope", where


async def test_without_a_token_only_what_is_public(manager: Manager) -> None:
    for client in (manager.client(), manager.client("ist_" + "x" * 43)):
        for operation in OPERATIONS.values():
            answer = await _ask(client, operation)
            refused = answer.status_code == 401 and answer.json()["code"] == "unauthorized"
            assert refused == (operation.name not in PUBLIC), operation


async def test_an_admin_of_an_ad_stays_in_it(manager: Manager) -> None:
    admin = await manager.as_role("admin")
    own, other = [(await admin.post("/api/v1/ads", json={"name": name})).json()["id"] for name in ("own", "other")]
    shared = {"name": "shared", "username": "x", "source": "sealed", "secret": "s"}
    credential = (await admin.post("/api/v1/credentials", json=shared)).json()["id"]
    foreign = (await admin.post("/api/v1/credentials", json=shared | {"name": "f", "ad_id": other})).json()["id"]
    client = await manager.as_role("admin", [own])
    relay = {"name": "mx1", "platform": "junos", "host": "192.0.2.1"}

    async def refused(method: str, path: str, status: int, **how: Any) -> None:
        answer = await client.request(method, f"/api/v1/{path}", **how)
        assert answer.status_code == status, answer.text

    await refused("POST", "relays", 403, json=relay)
    await refused("POST", "relays", 403, json=relay | {"ad_id": other})
    await refused("POST", "relays", 422, json=relay | {"ad_id": own, "credential_id": foreign})
    await refused("POST", "relays", 403, json=relay | {"ad_id": own, "credential_id": credential})
    made = await client.post("/api/v1/relays", json=relay | {"ad_id": own})
    assert made.status_code == 201
    address = made.headers["location"].removeprefix("/api/v1/")
    await refused("PATCH", address, 422, json={"ad_id": other}, headers={"If-Match": '"1"'})
    await refused("PATCH", address, 403, json={"ad_id": None}, headers={"If-Match": '"1"'})
    await refused("PATCH", f"credentials/{credential}", 403, json={"username": "y"}, headers={"If-Match": '"1"'})
    await refused("GET", f"credentials/{foreign}", 404)
    await refused("DELETE", f"credentials/{foreign}", 404)
    reference = {"name": "e", "username": "x", "source": "env", "reference": "ISTHMUS_CREDENTIAL_X", "ad_id": own}
    await refused("POST", "credentials", 403, json=reference)
    await refused("PATCH", f"ads/{other}", 404, json={"contact": "x"}, headers={"If-Match": '"1"'})
    await refused("PATCH", f"ads/{own}", 200, json={"contact": "x"}, headers={"If-Match": '"1"'})


async def test_a_scoped_operator_changes_only_relays_of_its_ad(manager: Manager) -> None:
    admin = await manager.as_role("admin")
    own, other = [(await admin.post("/api/v1/ads", json={"name": name})).json()["id"] for name in ("own", "other")]
    mine = await manager.add_relay("mx1", ad_id=own)
    foreign = await manager.add_relay("mx2", ad_id=other)
    client = await manager.as_role("operator", [own])
    for action in ("plan", "drain", "undrain", "restore", "rollback", "accept", "check-drift", "backup"):
        body = {} if action not in {"check-drift", "backup"} else None
        answer = await client.post(f"/api/v1/relays/{foreign}/{action}", json=body)
        assert answer.status_code == 404, (action, answer.text)
    assert (await client.post(f"/api/v1/relays/{mine}/plan")).status_code == 201
    bulk = (await client.put("/api/v1/intents/bulk", json={"intents": [{"relay": "mx2", "intent": INTENT}]})).json()
    assert bulk["items"][0]["problem"]["code"] == "not_found"
    rollout = await client.post("/api/v1/rollouts", json={"name": "x", "relay_ids": [mine, foreign]})
    assert rollout.status_code == 404
    both = await admin.post("/api/v1/rollouts", json={"name": "x", "relay_ids": [foreign, mine]})
    assert both.status_code == 201
    assert (await client.get(both.headers["location"])).status_code == 404
    assert (await client.get("/api/v1/rollouts")).json()["items"] == []
    job = (await admin.get("/api/v1/jobs", params={"relay_id": foreign})).json()["items"]
    for one in job:
        assert (await client.get(f"/api/v1/jobs/{one['id']}")).status_code == 404
        assert (await client.get(f"/api/v1/jobs/{one['id']}/events")).status_code == 404
    assert job
