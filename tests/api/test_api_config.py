"""Candidate, commit, confirm, rollback over HTTP."""

import pytest

from agent.service.port import RefusedError

TOML = {"content-type": "application/toml"}


async def running_etag(client):
    answer = await client.get("/v1/config")
    assert answer.headers["etag"] == answer.json()["etag"]
    return answer.headers["etag"]


async def candidate(client, text, etag=None):
    headers = TOML | {"if-match": etag or await running_etag(client)}
    return await client.post("/v1/config/candidate", content=text, headers=headers)


async def commit(client, **document):
    headers = {"if-match": await running_etag(client)}
    return await client.post("/v1/config/commit", json=document, headers=headers)


@pytest.fixture
def changed(configuration_text):
    return configuration_text(channel_limit=7)


async def test_the_running_configuration_is_shown_with_its_etag(client, store):
    answer = (await client.get("/v1/config")).json()
    assert answer["text"] == store.path.read_text()
    assert answer["candidate"] is answer["confirm_deadline"] is None
    assert answer["versions"] == []


async def test_a_candidate_is_checked_and_shown_as_a_diff_and_nothing_is_applied(client, store, agent, changed):
    before = store.path.read_text()
    answer = await candidate(client, changed)
    assert answer.status_code == 200
    assert answer.json()["changed"] is True
    assert "+channel_limit = 7" in answer.json()["diff"].splitlines()
    shown = (await client.get("/v1/config")).json()
    assert (shown["candidate"], shown["candidate_diff"]) == (changed, answer.json()["diff"])
    assert store.path.read_text() == before
    assert agent.applied == []
    assert (await client.get("/v1/status")).json()["configuration"]["candidate"] is True


async def test_a_candidate_may_be_json(client, tmp_path, agent):
    document = {
        "role": "gateway",
        "gateway": {
            "downstream": ["eth1", "eth2"],
            "uplink": None,
            "state_dir": f"{tmp_path}/state",
            "relay": [{"address": "192.0.2.1", "sources": ["198.51.100.0/24"]}],
        },
        "api": {"listen": f"{tmp_path}/api.sock"},
    }
    answer = await client.post("/v1/config/candidate", json=document, headers={"if-match": "*"})
    assert answer.status_code == 200, answer.text
    assert (await commit(client)).status_code == 200
    assert agent.applied[-1].gateway.downstream == ("eth1", "eth2")


async def test_a_commit_applies_and_writes_the_file(client, store, agent, changed):
    await candidate(client, changed)
    answer = await commit(client)
    assert answer.status_code == 200
    assert answer.headers["etag"] == await running_etag(client)
    assert [configuration.gateway.channel_limit for configuration in agent.applied] == [7]
    assert store.path.read_text() == changed
    shown = (await client.get("/v1/config")).json()
    assert (shown["text"], shown["candidate"], shown["confirm_deadline"]) == (changed, None, None)
    assert [version["number"] for version in shown["versions"]] == [1]


async def test_every_fault_of_a_candidate_is_told_with_its_line(client, changed):
    answer = await candidate(client, changed.replace("downstream", "dawnstream") + "[igmp]\nquery_interval = 'x'\n")
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_configuration"
    assert [(fault["line"], fault["key"]) for fault in answer.json()["faults"]] == [
        (3, "gateway.dawnstream"),
        (11, "igmp.query_interval"),
    ]
    assert (await client.get("/v1/config")).json()["candidate"] is None


async def test_without_an_etag_or_with_an_old_one_nothing_is_taken(client, agent, changed, configuration_text):
    answer = await client.post("/v1/config/candidate", content=changed, headers=TOML)
    assert (answer.status_code, answer.json()["code"]) == (428, "etag_required")
    answer = await client.post("/v1/config/commit", json={})
    assert (answer.status_code, answer.json()["code"]) == (428, "etag_required")
    old = await running_etag(client)
    await candidate(client, changed)
    await commit(client)
    answer = await candidate(client, configuration_text(channel_limit=8), old)
    assert (answer.status_code, answer.json()["code"]) == (412, "configuration_changed")
    answer = await client.post("/v1/config/rollback", json={}, headers={"if-match": old})
    assert (answer.status_code, answer.json()["code"]) == (412, "configuration_changed")
    assert len(agent.applied) == 1


async def test_a_candidate_made_for_another_configuration_is_not_committed(client, store, changed, configuration_text):
    await candidate(client, changed)
    store.path.write_text(configuration_text(channel_limit=9))
    await store.reload()
    assert (await commit(client)).json()["code"] == "no_candidate"


async def test_committing_nothing_and_confirming_nothing_are_refused(client):
    answer = await commit(client)
    assert (answer.status_code, answer.json()["code"]) == (409, "no_candidate")
    answer = await client.post("/v1/config/confirm")
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_confirm")
    answer = await client.post("/v1/config/rollback", json={"number": 3})
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_version")


async def test_a_confirmed_commit_stays(client, store, changed):
    await candidate(client, changed)
    answer = await commit(client, confirm_seconds=600)
    assert answer.json()["confirm_deadline"] is not None
    assert (await client.get("/v1/status")).json()["configuration"]["confirm_deadline"] is not None
    assert (await client.post("/v1/config/confirm")).status_code == 204
    assert (await client.get("/v1/config")).json()["confirm_deadline"] is None
    assert store.path.read_text() == changed


async def test_rollback_without_a_number_undoes_an_unconfirmed_commit(client, store, agent, changed):
    before = store.path.read_text()
    await candidate(client, changed)
    await commit(client, confirm_seconds=600)
    answer = await client.post("/v1/config/rollback")
    assert answer.status_code == 200
    assert "-channel_limit = 7" in answer.json()["diff"].splitlines()
    assert answer.json()["confirm_deadline"] is None
    assert store.path.read_text() == before
    assert agent.applied[-1].gateway.channel_limit == 20_000


async def test_rollback_zero_forgets_the_candidate(client, changed):
    await candidate(client, changed)
    answer = await client.post("/v1/config/rollback", json={"number": 0})
    assert (answer.status_code, answer.json()["changed"]) == (200, False)
    assert (await client.get("/v1/config")).json()["candidate"] is None


async def test_what_the_daemon_refuses_leaves_everything_as_it_was(client, store, agent, changed):
    before = store.path.read_text()
    await candidate(client, changed)
    agent.refuse = RefusedError("not_applicable", "no such interface")
    answer = await commit(client)
    assert (answer.status_code, answer.json()["code"]) == (409, "not_applicable")
    assert store.path.read_text() == before
    assert (await client.get("/v1/config")).json()["candidate"] == changed


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (b"\xff", "application/toml", (422, "invalid_request")),
        (b"{", "application/json", (422, "invalid_request")),
        (b"[]", "application/json", (422, "invalid_request")),
        (b'{"role": {"a": [1, null, {"b": null}]}}', "application/json", (422, "invalid_configuration")),
        (b"x = 1", "application/xml", (415, "unsupported_media_type")),
        (b"x" * 262_145, "application/toml", (413, "too_large")),
        (b"", "application/toml", (422, "invalid_configuration")),
    ],
)
async def test_a_body_that_is_no_configuration_is_refused(client, content, kind, expected):
    headers = {"if-match": "*", "content-type": kind}
    answer = await client.post("/v1/config/candidate", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == expected


@pytest.mark.parametrize("document", [{"confirm_seconds": 0}, {"confirm_seconds": 1e9}, {"confirm": 5}])
async def test_a_commit_request_outside_the_contract_is_refused(client, changed, document):
    await candidate(client, changed)
    answer = await commit(client, **document)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
