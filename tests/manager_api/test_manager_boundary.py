"""The outermost layer: problems for everything, request ids, bounds, headers, health, metrics, logins."""

from __future__ import annotations

import logging

import pytest
from manager_api.manager import Manager, problem
from sqlalchemy import select

from relaymgr.api.limits import LoginLimiter
from relaymgr.store.tables import AuditRow


async def test_every_error_is_a_problem(manager: Manager) -> None:
    client = await manager.as_role("admin")
    problem(await client.get("/api/v1/nothing"), 404, "not_found")
    problem(await client.get("/api/v1/relays/"), 404, "not_found")
    refused = await client.put("/api/v1/relays", json={})
    problem(refused, 405, "method_not_allowed")
    assert "GET" in refused.headers["allow"]
    text = {"Content-Type": "text/plain"}
    problem(await client.post("/api/v1/ads", content=b"x", headers=text), 415, "unsupported_media_type")
    broken = {"Content-Type": "application/json"}
    problem(await client.post("/api/v1/ads", content=b"{", headers=broken), 422, "invalid_request")
    nul = b'{"name": "a\\u0000b"}'
    problem(await client.post("/api/v1/ads", content=nul, headers=broken), 422, "invalid_request")
    long = b"[" + b"1," * 3_000_000 + b"1]"
    problem(await client.post("/api/v1/ads", content=long, headers=broken), 413, "too_large")


async def test_without_a_good_token_nothing_is_told(manager: Manager) -> None:
    for client in (manager.client(), manager.client("ist_wrong"), manager.client("x" * 5000)):
        answer = await client.get("/api/v1/whoami")
        problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_failure_tells_nothing_but_its_request(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> dict[str, str]:
        raise RuntimeError("the password is hunter2")

    manager.services.ready = broken
    answer = await manager.client().get("/readyz", headers={"X-Request-Id": "mine-1"})
    assert problem(answer, 500, "internal")["request_id"] == "mine-1"
    assert "hunter2" not in answer.text
    assert any(getattr(record, "request_id", None) == "mine-1" for record in caplog.records)


async def test_request_ids_are_taken_over_where_they_are_harmless(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relaymgr.api.boundary")
    client = manager.client()
    assert (await client.get("/healthz", headers={"X-Request-Id": "abc-1"})).headers["x-request-id"] == "abc-1"
    odd = (await client.get("/healthz", headers={"X-Request-Id": 'a b"c'})).headers["x-request-id"]
    assert odd != 'a b"c'
    assert [getattr(record, "request_id", None) for record in caplog.records] == ["abc-1", odd]


async def test_headers_keep_browsers_from_guessing(manager: Manager) -> None:
    for path in ("/healthz", "/api/v1/nothing", "/openapi.json"):
        headers = (await manager.client().get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]


async def test_ready_is_more_than_alive(manager: Manager) -> None:
    client = manager.client()
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"status": "ready", "parts": {"database": "ok"}}
    manager.services.ready = lambda: {"jobs": "the engine does not answer"}
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["parts"]["jobs"] == "the engine does not answer"


async def test_metrics_count_requests_and_jobs(manager: Manager) -> None:
    relay_id = await manager.add_relay()
    client = await manager.as_role("operator")
    await client.post(f"/api/v1/relays/{relay_id}/drain", json={})
    await client.get(f"/api/v1/relays/{relay_id}")
    await client.get("/x/y/z")
    text = (await client.get("/metrics")).text
    assert 'relaymgr_jobs{state="queued"} 1.0' in text
    assert 'relaymgr_relays{reachability="unknown"} 1.0' in text
    assert 'relaymgr_api_requests_total{method="GET",route="/api/v1/relays/{relay_id}",status="200"} 1.0' in text
    assert 'route="unmatched",status="404"' in text


async def test_a_local_user_logs_in_and_out(manager: Manager) -> None:
    admin = await manager.as_role("admin")
    password = "a long enough password"
    made = await admin.post("/api/v1/users", json={"name": "alice", "password": password, "role": "operator"})
    assert password not in made.text
    client = manager.client()
    session = await client.post("/api/v1/login", json={"name": "alice", "password": password})
    assert session.status_code == 200
    user = manager.client(session.json()["token"])
    assert (await user.get("/api/v1/whoami")).json()["actor"] == "user:alice"

    edited = await admin.patch(made.headers["location"], json={"role": "viewer"}, headers={"If-Match": '"1"'})
    assert edited.json()["role"] == "viewer"
    assert (await user.get("/api/v1/whoami")).json()["role"] == "viewer"  # at once, not at the next login
    assert (await user.post("/api/v1/logout")).status_code == 204
    problem(await user.get("/api/v1/whoami"), 401, "unauthorized")
    await admin.patch(made.headers["location"], json={"enabled": False}, headers={"If-Match": '"2"'})
    problem(await client.post("/api/v1/login", json={"name": "alice", "password": password}), 401, "login_refused")
    audit = await admin.get("/api/v1/audit")
    assert password not in audit.text
    assert {"user.login", "user.logout", "user.create", "user.update"} <= {
        row["action"] for row in audit.json()["items"]
    }


async def test_a_new_password_ends_the_sessions(manager: Manager) -> None:
    admin = await manager.as_role("admin")
    user = {"name": "alice", "password": "a long enough password", "role": "operator"}
    made = await admin.post("/api/v1/users", json=user)
    del user["role"]
    session = (await manager.client().post("/api/v1/login", json=user)).json()["token"]
    changed = await admin.patch(
        made.headers["location"], json={"password": "another long password"}, headers={"If-Match": '"1"'}
    )
    assert changed.headers["etag"] == '"2"'
    problem(await manager.client(session).get("/api/v1/whoami"), 401, "unauthorized")
    problem(await manager.client().post("/api/v1/login", json=user), 401, "login_refused")


async def test_guessing_is_slowed_down(manager: Manager) -> None:
    seconds = [0.0]
    manager.app.state.login_limiter = LoginLimiter(3, 30.0, clock=lambda: seconds[0])
    client = manager.client()
    guess = {"name": "nobody", "password": "guess"}
    for _ in range(3):
        problem(await client.post("/api/v1/login", json=guess), 401, "login_refused")
    answer = await client.post("/api/v1/login", json=guess)
    problem(answer, 429, "rate_limited")
    assert answer.headers["retry-after"] == "30"
    seconds[0] = 30.0
    problem(await client.post("/api/v1/login", json=guess), 401, "login_refused")
    problem(await client.post("/api/v1/login", json=guess), 429, "rate_limited")
    async with manager.database.session() as session:
        rows = (await session.scalars(select(AuditRow).where(AuditRow.action == "user.login"))).all()
    assert {(row.actor, row.outcome) for row in rows} == {("user:nobody", "login_refused")}


def test_a_right_password_is_no_guess_and_names_are_forgotten() -> None:
    seconds = [0.0]
    limiter = LoginLimiter(2, 10.0, clock=lambda: seconds[0])
    for _ in range(5):
        assert limiter.take("name:a", "address:x") == 0
        limiter.succeeded("name:a", "address:x")
    assert [limiter.take("name:b", "address:x") for _ in range(3)] == [0, 0, 10]
    assert limiter.take("name:a", "address:y") == 0
    seconds[0] = 10.0
    assert limiter.take("name:b", "address:x") == 0
