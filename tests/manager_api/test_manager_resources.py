"""ADs, sites, credentials, relays: made, read, edited with ETags, deleted, audited."""

from __future__ import annotations

import json

import pytest
from manager_api.manager import HOST_KEY, Manager, problem
from sqlalchemy import select

from relaymgr.store.tables import AuditRow, CredentialRecord, Relay


async def test_an_ad_is_made_read_edited_and_deleted(manager_anywhere: Manager) -> None:
    client = await manager_anywhere.as_role("admin")
    body = {"name": "Example", "asn": 64500, "prefixes": ["203.0.113.0/24"]}
    made = await client.post("/api/v1/ads", json=body)
    assert made.status_code == 201
    assert made.headers["etag"] == '"1"'
    address = made.headers["location"]
    assert address == f"/api/v1/ads/{made.json()['id']}"

    problem(await client.patch(address, json={"asn": 64501}), 428, "etag_required")
    problem(await client.patch(address, json={"asn": 64501}, headers={"If-Match": '"7"'}), 412, "etag_mismatch")
    edited = await client.patch(address, json={"asn": 64501}, headers={"If-Match": '"1"'})
    assert (edited.status_code, edited.headers["etag"], edited.json()["asn"]) == (200, '"2"', 64501)
    assert edited.json()["prefixes"] == ["203.0.113.0/24"]
    problem(await client.patch(address, json={"asn": 64502}, headers={"If-Match": '"1"'}), 412, "etag_mismatch")

    same = await client.patch(address, json={"asn": 64501}, headers={"If-Match": '"2"'})
    assert same.headers["etag"] == '"2"'  # nothing changed, so nobody's ETag is spoiled
    problem(await client.delete(address, headers={"If-Match": '"1"'}), 412, "etag_mismatch")
    assert (await client.delete(address)).status_code == 204
    problem(await client.get(address), 404, "not_found")

    async with manager_anywhere.database.session() as session:
        rows = (await session.scalars(select(AuditRow).order_by(AuditRow.id))).all()
    assert [row.action for row in rows] == ["ad.create", "ad.update", "ad.delete"]
    assert rows[1].before is not None
    assert rows[1].before["asn"] == 64500
    assert rows[1].after is not None
    assert rows[1].after["asn"] == 64501
    assert rows[1].request_id == edited.headers["x-request-id"]


@pytest.mark.parametrize("kind", ["ads", "sites", "relays", "credentials", "users"])
async def test_a_name_is_taken_once(manager_anywhere: Manager, kind: str) -> None:
    client = await manager_anywhere.as_role("admin")
    body = {
        "ads": {"name": "same"},
        "sites": {"name": "same"},
        "relays": {"name": "same", "platform": "junos", "host": "192.0.2.1"},
        "credentials": {"name": "same", "username": "x", "source": "sealed", "secret": "s"},
        "users": {"name": "same", "role": "viewer"},
    }[kind]
    assert (await client.post(f"/api/v1/{kind}", json=body)).status_code == 201
    problem(await client.post(f"/api/v1/{kind}", json=body), 409, "name_taken")


async def test_what_is_referred_to_stays_and_must_exist(manager_anywhere: Manager) -> None:
    client = await manager_anywhere.as_role("admin")
    ad = (await client.post("/api/v1/ads", json={"name": "Example"})).json()["id"]
    site = {"name": "fra1", "ad_id": ad}
    assert (await client.post("/api/v1/sites", json=site)).status_code == 201
    problem(await client.delete(f"/api/v1/ads/{ad}"), 409, "in_use")
    missing = {"name": "mx1", "platform": "junos", "host": "192.0.2.1", "site_id": "0" * 32}
    problem(await client.post("/api/v1/relays", json=missing), 422, "unknown_reference")
    problem(await client.post("/api/v1/sites", json={"name": "x", "ad_id": "0" * 32}), 422, "unknown_reference")


async def test_a_secret_goes_in_and_never_out(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    client = await manager.as_role("admin")
    secret = "correct-horse-battery"
    body = {"name": "c", "username": "isthmus", "source": "sealed", "secret": secret}
    made = await client.post("/api/v1/credentials", json=body)
    assert made.status_code == 201
    address = made.headers["location"]
    another = "another-secret-horse"
    edited = await client.patch(address, json={"secret": another}, headers={"If-Match": '"1"'})
    assert edited.headers["etag"] == '"2"'
    listed = await client.get("/api/v1/credentials")
    audit = await client.get("/api/v1/audit")
    refused = await client.post("/api/v1/credentials", json=body | {"kind": secret})
    problem(refused, 422, "invalid_request")
    for word in (secret, another):
        for answer in (made, edited, listed, audit, refused):
            assert word not in answer.text
        assert word not in caplog.text
    async with manager.database.session() as session:
        row = await session.scalar(select(CredentialRecord))
    assert row is not None
    assert row.sealed is not None
    assert another.encode() not in row.sealed
    assert manager.services.sealer.open(row.sealed, f"credential:{row.id}") == another.encode()


async def test_references_of_credentials_are_bounded(manager: Manager) -> None:
    client = await manager.as_role("admin")
    for source, reference in (("file", "/etc/shadow"), ("env", "HOME"), ("vault", "../x")):
        body = {"name": source, "username": "x", "source": source, "reference": reference}
        problem(await client.post("/api/v1/credentials", json=body), 422, "credential_unusable")
    problem(
        await client.post("/api/v1/credentials", json={"name": "x", "username": "x", "source": "env", "secret": "s"}),
        422,
        "invalid_request",
    )


async def test_the_operator_sees_the_host_key_before_it_is_pinned(manager: Manager) -> None:
    client = await manager.as_role("admin")
    scanned = (await client.post("/api/v1/relays/scan-host-key", json={"host": "mx1.example.net", "port": 830})).json()
    assert scanned["fingerprint"].startswith("SHA256:")
    body = {"name": "mx1", "platform": "junos", "host": "mx1.example.net", "host_key": scanned["host_key"]}
    relay = (await client.post("/api/v1/relays", json=body)).json()
    assert relay["host_key_fingerprint"] == scanned["fingerprint"]
    dead = await client.post("/api/v1/relays/scan-host-key", json={"host": "dead.example.net"})
    problem(dead, 504, "device_unreachable")
    problem(await client.post("/api/v1/relays", json=body | {"host_key": "no key"}), 422, "invalid_request")


async def test_a_new_relay_is_unknown_and_not_zero(manager: Manager) -> None:
    client = await manager.as_role("admin")
    made = await client.post("/api/v1/relays", json={"name": "mx1", "platform": "junos", "host": "192.0.2.1"})
    relay = made.json()
    for name in ("polled_at", "age_seconds", "active_tunnels", "active_channels", "facts", "poll_seconds"):
        assert relay[name] is None
    assert (relay["reachability"], relay["drift_state"], relay["intent_version"]) == ("unknown", "unknown", 0)
    assert (await client.get(made.headers["location"])).json() == relay


async def test_an_edited_relay_gives_its_session_up(manager: Manager) -> None:
    client = await manager.as_role("admin")
    relay_id = await manager.add_relay()
    address = f"/api/v1/relays/{relay_id}"
    edited = await client.patch(address, json={"host": "192.0.2.77"}, headers={"If-Match": '"1"'})
    assert edited.json()["host"] == "192.0.2.77"
    assert manager.access.forgotten == [relay_id]
    cleared = await client.patch(address, json={"host_key": None}, headers={"If-Match": '"2"'})
    assert cleared.json()["host_key"] is None
    problem(
        await client.patch(address, json={"host": "https://x/"}, headers={"If-Match": '"3"'}), 422, "invalid_request"
    )
    problem(await client.patch(address, json={"name": None}, headers={"If-Match": '"3"'}), 422, "invalid_request")


async def test_the_way_to_a_device_stays_while_a_change_waits_there(manager: Manager) -> None:
    client = await manager.as_role("admin")
    relay_id = await manager.add_relay(window_job_id="f" * 32)
    address = f"/api/v1/relays/{relay_id}"
    refused = await client.patch(address, json={"host": "192.0.2.77"}, headers={"If-Match": '"1"'})
    assert problem(refused, 409, "confirm_window_open")["job_id"] == "f" * 32
    problem(await client.delete(address), 409, "confirm_window_open")
    labelled = await client.patch(address, json={"labels": {"region": "eu"}}, headers={"If-Match": '"1"'})
    assert labelled.json()["labels"] == {"region": "eu"}


async def test_relays_in_bulk_are_made_once(manager_anywhere: Manager) -> None:
    manager = manager_anywhere
    client = await manager.as_role("admin")
    relays = [{"name": f"mx{number}", "platform": "junos", "host": "192.0.2.1"} for number in range(3)]
    relays[1]["site_id"] = "0" * 32
    first = (await client.post("/api/v1/relays/bulk", json={"relays": relays})).json()
    assert [item["outcome"] for item in first["items"]] == ["created", "failed", "created"]
    assert (first["failed"], first["changed"]) == (1, 2)
    assert first["items"][1]["problem"]["code"] == "unknown_reference"
    del relays[1]["site_id"]
    relays[2]["host"] = "192.0.2.2"
    again = (await client.post("/api/v1/relays/bulk", json={"relays": relays})).json()
    assert [item["outcome"] for item in again["items"]] == ["unchanged", "created", "updated"]
    assert manager.access.forgotten == [again["items"][2]["id"]]
    third = (await client.post("/api/v1/relays/bulk", json={"relays": relays})).json()
    assert third["changed"] == third["failed"] == 0
    other = [relays[0] | {"platform": "ios"}]
    refused = (await client.post("/api/v1/relays/bulk", json={"relays": other})).json()
    assert refused["items"][0]["problem"]["code"] == "conflict"


async def test_a_bulk_keeps_a_pinned_key(manager: Manager) -> None:
    client = await manager.as_role("admin")
    relay = {"name": "mx1", "platform": "junos", "host": "192.0.2.1", "host_key": HOST_KEY}
    await client.post("/api/v1/relays/bulk", json={"relays": [relay]})
    del relay["host_key"]
    again = (await client.post("/api/v1/relays/bulk", json={"relays": [relay]})).json()
    assert again["items"][0]["outcome"] == "unchanged"
    async with manager.database.session() as session:
        assert await session.scalar(select(Relay.host_key)) == HOST_KEY


async def test_tokens_are_shown_once_and_revoked_for_good(manager: Manager) -> None:
    admin = await manager.as_role("admin")
    made = await admin.post("/api/v1/tokens", json={"name": "robot", "role": "viewer"})
    text = made.json()["token"]
    client = manager.client(text)
    assert (await client.get("/api/v1/whoami")).json()["actor"] == "token:robot"
    listed = await admin.get("/api/v1/tokens")
    assert text not in listed.text
    assert text not in (await admin.get("/api/v1/audit")).text
    assert text not in (await admin.get(made.headers["location"])).text
    assert (await admin.delete(made.headers["location"])).status_code == 204
    assert (await admin.delete(made.headers["location"])).status_code == 204
    problem(await client.get("/api/v1/whoami"), 401, "unauthorized")
    unknown = {"name": "x", "role": "viewer", "ad_ids": ["0" * 32]}
    problem(await admin.post("/api/v1/tokens", json=unknown), 422, "unknown_reference")
    ended = {"name": "x", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}
    problem(await admin.post("/api/v1/tokens", json=ended), 422, "invalid_request")


async def test_numbers_are_not_made_from_texts(manager: Manager) -> None:
    client = await manager.as_role("admin")
    answer = await client.post("/api/v1/ads", json={"name": "x", "asn": "64500"})
    faults = problem(answer, 422, "invalid_request")["faults"]
    assert [(fault["key"], fault["location"]) for fault in faults] == [("asn", "body")]
    extra = await client.post("/api/v1/ads", json={"name": "x", "as": 64500})
    assert problem(extra, 422, "invalid_request")["faults"][0]["key"] == "as"
    assert json.loads((await client.get("/api/v1/ads")).text)["items"] == []
