"""What the endpoints answer, whole and in error."""

import asyncio
import json
from ipaddress import IPv4Address, ip_address

import httpx
import pytest

from agent.service.api.app import create_app
from agent.service.api.paging import SLICE
from agent.service.model import AgentStatus, ChannelStatus, TunnelStatus
from agent.service.port import RefusedError

PROBLEM = "application/problem+json"


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["status"] == answer.status_code
    assert answer.json()["type"] == f"urn:isthmus:problem:{answer.json()['code']}"
    return answer.status_code, answer.json()["code"]


async def test_status_is_what_the_daemon_says(client, agent):
    answer = await client.get("/v1/status")
    assert AgentStatus.model_validate(answer.json()) == agent.status()


async def test_tunnels_and_channels_are_what_the_daemon_says(client, agent):
    tunnels = (await client.get("/v1/tunnels")).json()
    channels = (await client.get("/v1/channels")).json()
    assert [TunnelStatus.model_validate(row) for row in tunnels["items"]] == agent.tunnel_rows
    assert [ChannelStatus.model_validate(row) for row in channels["items"]] == agent.channel_rows
    assert tunnels["next_offset"] is channels["next_offset"] is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=established", ["192.0.2.1:2268"]),
        ("state=discovering", ["192.0.2.2:2268"]),
        ("state=closed", []),
        ("address=192.0.2.1", ["192.0.2.1:2268"]),
        ("address=203.0.113.5", ["192.0.2.1:2268"]),
        ("address=192.52.193.1&state=discovering", []),
    ],
)
async def test_tunnels_are_filtered(client, query, expected):
    answer = await client.get(f"/v1/tunnels?{query}")
    assert [row["id"] for row in answer.json()["items"]] == expected


@pytest.mark.parametrize(
    ("query", "groups"),
    [
        ("source=198.51.100.7", ["232.1.1.1"]),
        ("group=ff3e::1", ["ff3e::1"]),
        ("interface=eth1", ["232.1.1.1"]),
        ("interface=amt0", ["232.1.1.1"]),
        ("tunnel=192.0.2.1:2268", ["232.1.1.1"]),
        ("idle=true", ["ff3e::1"]),
        ("idle=false", ["232.1.1.1"]),
        ("source=198.51.100.8", []),
    ],
)
async def test_channels_are_filtered(client, query, groups):
    answer = await client.get(f"/v1/channels?{query}")
    assert [row["group"] for row in answer.json()["items"]] == groups


def many(count: int) -> list[ChannelStatus]:
    return [
        ChannelStatus(source=ip_address("198.51.100.7"), group=IPv4Address(0xE8000000 + number), packets=number)
        for number in range(count)
    ]


async def test_pages_give_every_row_once(client, agent):
    agent.channel_rows = many(2 * SLICE + 7)
    seen, offset, pages = [], 0, 0
    while offset is not None:
        page = (await client.get(f"/v1/channels?limit=20&offset={offset}")).json()
        seen += [row["packets"] for row in page["items"]]
        offset = page["next_offset"]
        pages += 1
    assert seen == list(range(2 * SLICE + 7))
    assert pages == 7


@pytest.mark.parametrize(("count", "limit", "following"), [(0, 5, None), (5, 5, None), (6, 5, 5), (64, 64, None)])
async def test_the_last_page_says_so(client, agent, count, limit, following):
    agent.channel_rows = many(count)
    page = (await client.get(f"/v1/channels?limit={limit}")).json()
    assert (len(page["items"]), page["next_offset"]) == (min(count, limit), following)


async def test_ten_thousand_channels_leave_the_loop_free(client, agent):
    agent.channel_rows = many(10_000)
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    answer = await client.get("/v1/channels?limit=100000")
    metrics = await client.get("/metrics")
    counting.cancel()
    assert len(answer.json()["items"]) == 10_000
    assert turns > 2 * 10_000 // SLICE
    assert metrics.text.count("isthmus_channel_packets_total{") == 1000
    assert 'isthmus_rows_omitted{kind="channel"} 9000.0' in metrics.text


@pytest.mark.parametrize(
    "path",
    [
        "/v1/channels?limit=0",
        "/v1/channels?limit=100001",
        "/v1/channels?offset=-1",
        "/v1/channels?group=nothing",
        "/v1/tunnels?state=odd",
        "/v1/tunnels?colour=red",
    ],
)
async def test_a_query_outside_the_contract_is_refused_with_its_key(client, path):
    answer = await client.get(path)
    assert code(answer) == (422, "invalid_request")
    assert answer.json()["faults"][0]["key"] == path.split("?")[1].split("=")[0]


async def test_a_join_is_added_listed_once_and_removed(client, agent):
    join = {"source": "198.51.100.7", "group": "232.1.1.1"}
    first = await client.post("/v1/joins", json=join)
    again = await client.post("/v1/joins", json=join)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == join | {"interface": None, "origin": "api"}
    assert (await client.get("/v1/joins")).json() == {"items": [first.json()]}
    removed = await client.request("DELETE", "/v1/joins", json=join)
    assert (removed.status_code, removed.content) == (204, b"")
    assert code(await client.request("DELETE", "/v1/joins", json=join)) == (404, "no_such_join")
    assert agent.api_joins == {}


@pytest.mark.parametrize(
    "join",
    [
        {},
        {"group": "232.1.1.300"},
        {"group": "232.1.1.1", "sauce": "198.51.100.7"},
        {"group": "232.1.1.1", "interface": "x" * 16},
        [],
        "text",
    ],
)
async def test_a_join_outside_the_contract_is_refused(client, agent, join):
    assert code(await client.post("/v1/joins", json=join)) == (422, "invalid_request")
    assert agent.api_joins == {}


@pytest.mark.parametrize(
    ("refusal", "status"),
    [("wrong_role", 409), ("limit_reached", 409), ("invalid_channel", 422), ("unknown_interface", 422), ("odd", 409)],
)
async def test_what_the_daemon_refuses_keeps_its_code(client, agent, refusal, status):
    agent.refuse = RefusedError(refusal, "because")
    answer = await client.post("/v1/joins", json={"group": "239.1.1.1"})
    assert code(answer) == (status, refusal)
    assert answer.json()["detail"] == "because"


async def test_drain_is_switched(client, agent):
    answer = await client.put("/v1/drain", json={"enabled": True})
    assert answer.json() == {"draining": True, "tunnels": 1}
    assert (await client.get("/v1/status")).json()["draining"] is True
    assert code(await client.put("/v1/drain", json={"enabled": "perhaps"})) == (422, "invalid_request")


async def test_health_follows_readiness_and_needs_no_token(agent, store):
    from agent.service.api.security import TokenFile

    token = store.path.with_name("token")
    token.write_text("a-long-enough-token\n")
    transport = httpx.ASGITransport(create_app(agent, store, TokenFile(token)))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        assert (await client.get("/healthz")).status_code == 200
        agent.ready = False
        assert (await client.get("/healthz")).status_code == 503


async def test_unknown_paths_and_methods_are_problems(client):
    assert code(await client.get("/v1/nothing")) == (404, "not_found")
    assert code(await client.post("/v1/status")) == (405, "method_not_allowed")


async def test_a_body_too_long_is_refused_before_it_is_looked_at(client, agent):
    answer = await client.post("/v1/joins", content=b"[" * 300_000, headers={"content-type": "application/json"})
    assert code(answer) == (413, "too_large")


async def test_a_body_nested_too_deeply_is_refused(client):
    body = b"[" * 100_000
    for path in ("/v1/joins", "/v1/config/candidate"):
        headers = {"content-type": "application/json", "if-match": "*"}
        answer = await client.post(path, content=body, headers=headers)
        assert code(answer)[0] in {400, 422}


async def test_a_failure_of_the_daemon_is_a_problem_without_its_inside(agent, store):
    def fail():
        raise RuntimeError("secret detail")

    agent.interfaces = fail
    transport = httpx.ASGITransport(create_app(agent, store), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
        answer = await client.get("/v1/interfaces")
    assert code(answer) == (500, "internal")
    assert "secret" not in answer.text


async def test_statistics_and_neighbours_are_what_the_daemon_says(client, agent):
    statistics = (await client.get("/v1/statistics")).json()
    assert statistics == json.loads(agent.statistics().model_dump_json())
    neighbors = (await client.get("/v1/neighbors")).json()["items"]
    assert neighbors == [json.loads(row.model_dump_json()) for row in agent.neighbors()]
    assert (await client.get("/v1/interfaces")).json()["items"][0]["queriers"][0]["elected"] is True
