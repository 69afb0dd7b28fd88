"""Two operators at one relay never overwrite each other; once more on PostgreSQL, where there may be workers."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator

import pytest
from acceptance.stage import INTENTS, Noc, eventually, routers
from databases import fresh_postgresql

from lab.manager import Manager

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def on_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Noc]:
    directory = tmp_path_factory.mktemp("postgresql")
    with fresh_postgresql() as url, routers("mx80", directory, 1) as spare:
        key = directory / "sealing.key"
        key.write_bytes(base64.b64encode(secrets.token_bytes(32)))
        key.chmod(0o600)
        manager = Manager(directory, database_url=url, options=("--key-file", str(key)))
        try:
            manager.start()
            yield Noc(manager, {"mx80": spare})
        finally:
            manager.stop()


@pytest.fixture(params=["noc", "on_postgresql"])
def desk(request: pytest.FixtureRequest) -> Noc:
    found: Noc = request.getfixturevalue(request.param)
    return found


def refusal(desk: Noc, relay: str, plan: str, kind: str = "apply") -> str:
    """Why a plan came to nothing: told at once, or by the job that looked at the device."""
    status, answer = desk.problem("POST", f"/relays/{relay}/{kind}", json={"plan": plan})
    if status == 202:
        ended = desk.manager.wait_for_job(answer["id"])
        assert ended["state"] == "failed", ended
        return str(ended["error_code"])
    assert status == 409, answer
    return str(answer["code"])


def test_neither_takes_the_others_work_away(desk: Noc):
    router = desk.router("mx80")
    relay = desk.enrol(router, "two-operators", poll_interval_seconds=3600)
    path, intent = f"/relays/{relay}/intent", INTENTS["mx80"]
    first = desk.manager.request("GET", path).headers["ETag"]
    assert desk.problem("PUT", path, json=intent)[0] == 428
    changed = desk.manager.request("PUT", path, json=intent | {"tunnel_limit": 10}, headers={"If-Match": first})
    assert changed.status_code == 200
    status, problem = desk.problem("PUT", path, json=intent | {"tunnel_limit": 20}, headers={"If-Match": first})
    assert (status, problem["code"]) == (412, "etag_mismatch")
    assert desk.manager.call("GET", path)["intent"]["tunnel_limit"] == 10

    stale = desk.plan(relay)
    router.order(edit="set system host-name renamed")
    assert refusal(desk, relay, stale["id"]) in {"plan_expired", "device_changed"}
    assert "tunnel-limit" not in router.configuration()

    good, other = desk.plan(relay), desk.plan(relay, "drain")
    router.order(fault="slow:1")
    job = desk.manager.call("POST", f"/relays/{relay}/apply", json={"plan": good["id"], "confirm_minutes": 10})
    eventually(lambda: desk.relay(relay)["window_job_id"] == job["id"])
    status, problem = desk.problem("POST", f"/relays/{relay}/apply", json={"plan": good["id"]})
    assert (status, problem["code"], problem.get("job_id")) == (409, "confirm_window_open", job["id"]), problem
    assert desk.problem("POST", f"/relays/{relay}/plan", json={"kind": "drain"})[0] == 409
    router.order(fault=None)
    ended = desk.manager.wait_for_job(job["id"])
    assert ended["state"] == "succeeded", desk.log_of(job["id"])
    assert "tunnel-limit 10;" in router.configuration()
    assert refusal(desk, relay, other["id"], "drain") in {"plan_expired", "device_changed"}
