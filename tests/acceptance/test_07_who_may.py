"""A token sees what its AD owns and the tunnels to it, nothing else anywhere; roles, ends and guesses are held to."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from acceptance.stage import Noc, eventually


@pytest.fixture(scope="module")
def two_ads(noc: Noc) -> dict[str, Any]:
    call = noc.manager.call
    mine = call("POST", "/ads", json={"name": "mine", "asn": 64501, "prefixes": ["203.0.113.0/24"]})["id"]
    theirs = call("POST", "/ads", json={"name": "theirs", "asn": 64502, "prefixes": ["198.18.0.0/15"]})["id"]
    found: dict[str, Any] = {"mine": mine, "theirs": theirs}
    for name, ad in (("mine", mine), ("theirs", theirs)):
        call("POST", "/sites", json={"name": f"site of {name}", "ad_id": ad})
        router = noc.router("mx80")
        router.order(tunnels=20)
        found[f"relay-{name}"] = noc.enrol(router, f"relay of {name}", ad_id=ad)
        assert noc.apply(found[f"relay-{name}"])["state"] == "succeeded"
    for name in ("mine", "theirs"):
        relay = found[f"relay-{name}"]
        eventually(lambda: noc.manager.items(f"/tunnels?relay_id={relay}"), 60.0)  # noqa: B023
    return found


def token(noc: Noc, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = noc.manager.call("POST", "/tokens", json={"name": f"t{time.monotonic_ns()}", **more})
    return made


def client(noc: Noc, text: str) -> httpx.Client:
    return httpx.Client(base_url=f"{noc.manager.url}/api/v1", headers={"Authorization": f"Bearer {text}"}, timeout=30)


def collections(noc: Noc) -> list[str]:
    """Every path of the specification that is a collection, or belongs to a relay."""
    paths = httpx.get(f"{noc.manager.url}/openapi.json").json()["paths"]
    return [
        path.removeprefix("/api/v1")
        for path, operations in paths.items()
        if "get" in operations and path.startswith("/api/v1/") and not path.endswith("/stream")
        and "oidc" not in path
    ]  # fmt: skip


def test_a_scoped_token_sees_its_own_and_nothing_else(noc: Noc, two_ads: dict[str, Any]):
    scoped = token(noc, role="admin", ad_ids=[two_ads["mine"]])["token"]
    hidden = {two_ads["theirs"], two_ads["relay-theirs"], "relay of theirs", "site of theirs"}
    own, seen = two_ads["relay-mine"], set()
    with client(noc, scoped) as mine:
        assert [row["id"] for row in mine.get("/relays").json()["items"]] == [own]
        for path in collections(noc):
            if "{" not in path:
                answer = mine.get(path, params={"limit": 1000} if path != "/backups/diff" else {})
                assert answer.status_code in {200, 403, 422}, (path, answer.text)
                if path == "/whoami" or answer.is_error:
                    continue
                if path == "/tunnels":
                    rows = answer.json()["items"]
                    foreign = [row for row in rows if row["relay_id"] != own]
                    assert all(row["ad_id"] == two_ads["mine"] for row in foreign)
                    assert {row["relay_id"] for row in rows} >= {own}
                    continue
                assert not [word for word in hidden if word in answer.text], path
                seen.add(path)
            elif path.startswith("/relays/{relay_id}"):
                foreign = path.replace("{relay_id}", two_ads["relay-theirs"])
                assert mine.get(foreign).status_code == 404, path
        assert {"/relays", "/jobs", "/plans", "/channels", "/events", "/backups", "/drift"} <= seen
        for path in ("/jobs", "/plans", "/backups"):
            row = noc.manager.items(f"{path}?relay_id={two_ads['relay-theirs']}")[0]["id"]
            assert mine.get(f"{path}/{row}").status_code == 404
        assert mine.get(f"/ads/{two_ads['theirs']}").status_code == 404
        assert mine.post(f"/relays/{two_ads['relay-theirs']}/plan", json={"kind": "apply"}).status_code == 404


def test_a_viewer_cannot_write(noc: Noc, two_ads: dict[str, Any]):
    relay = two_ads["relay-mine"]
    with client(noc, token(noc, role="viewer")["token"]) as viewer:
        assert viewer.get(f"/relays/{relay}").status_code == 200
        for verb, path, body in (
            ("POST", "/ads", {"name": "x"}),
            ("POST", f"/relays/{relay}/plan", {"kind": "apply"}),
            ("POST", f"/relays/{relay}/drain", {}),
            ("POST", "/tokens", {"name": "x", "role": "admin"}),
            ("PUT", f"/relays/{relay}/intent", {}),
            ("DELETE", f"/relays/{relay}", None),
            ("POST", "/rollouts", {"name": "x", "relay_ids": [relay]}),
        ):
            answer = viewer.request(verb, path, json=body, headers={"If-Match": '"1"'})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (verb, path, answer.text)


def test_expired_and_revoked_tokens_are_nothing(noc: Noc):
    soon = token(noc, role="viewer", expires_at=(datetime.now(UTC) + timedelta(seconds=2)).isoformat())
    gone = token(noc, role="viewer")
    with client(noc, gone["token"]) as user, client(noc, soon["token"]) as short:
        assert user.get("/relays").status_code == 200
        noc.manager.call("DELETE", f"/tokens/{gone['id']}")
        assert user.get("/relays").json()["code"] == "unauthorized"
        eventually(lambda: short.get("/relays").status_code == 401, 10.0)


def test_guessing_passwords_is_slowed(noc: Noc):
    password = "a long enough password"
    noc.manager.call("POST", "/users", json={"name": "alice", "password": password, "role": "viewer"})
    login = f"{noc.manager.url}/api/v1/login"
    good = httpx.post(login, json={"name": "alice", "password": password})
    assert good.status_code == 200, good.text
    answers = [httpx.post(login, json={"name": "alice", "password": "wrong"}, timeout=30) for _ in range(12)]
    assert answers[0].json()["code"] == "login_refused"
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) > 0
