"""The simulated MX80 shows what an agent in relay role has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sim.mx80_client import DEADLINE, raw_session

from lab.sim import live, mx80
from lab.sim.options import SimOptions

TUNNEL = {
    "id": "t1",
    "state": "established",
    "gateway_address": "203.0.113.7",
    "gateway_port": 40001,
    "expires_in": 199.7,
    "established_at": "2026-01-01T00:00:00Z",
    "packets": 10,
    "bytes": 1000,
}
CHANNEL = {
    "source": "192.0.2.10",
    "group": "232.1.1.1",
    "since": "2026-01-01T00:00:00Z",
    "tunnels": ["t1"],
    "packets": 5000,
    "bytes": 700,
}
SIXES = (
    TUNNEL | {"id": "t6", "gateway_address": "2001:db8::7"},
    CHANNEL | {"group": "ff3e::1", "source": "2001:db8::1"},
)


class FakeAgent:
    """The three resources, with pages of one item."""

    def __init__(self) -> None:
        self.tunnels: list[dict[str, Any]] = [TUNNEL, SIXES[0]]
        self.channels: list[dict[str, Any]] = [CHANNEL, SIXES[1]]
        self.broken = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            while (await reader.readline()).strip():
                pass
            body = json.dumps(self._document(line.split()[1].decode())).encode()
            status = b"500 Broken" if self.broken else b"200 OK"
            writer.write(b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n" % status)
            writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()

    def _document(self, target: str) -> dict[str, Any]:
        path, _, query = target.partition("?")
        if path == "/v1/statistics":
            return {"control": {"relay": {"received_request": 7, "refused_bad_mac": 2}}}
        items = self.tunnels if path == "/v1/tunnels" else self.channels
        offset = int(query.rpartition("=")[2])
        more = offset + 1 if offset + 1 < len(items) else None
        return {"items": items[offset : offset + 1], "next_offset": more}


@pytest.fixture
async def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeAgent]:
    monkeypatch.setattr(live, "_INTERVAL", 0.05)
    fake = FakeAgent()
    async with await asyncio.start_unix_server(fake.serve, tmp_path / "agent"):
        yield fake


async def test_tunnels_of_the_agent_are_shown(agent: FakeAgent, tmp_path: Path) -> None:
    options = SimOptions(configured=True, live=f"unix://{tmp_path / 'agent'}")
    async with mx80.start(options) as sim, raw_session(sim) as session:

        async def shown() -> Any:
            return await session.rpc("<get-amt-tunnel-information><detail/></get-amt-tunnel-information>")

        async def until(count: int) -> Any:
            async with asyncio.timeout(DEADLINE):
                while len((reply := await shown()).findall(".//amt-tunnel")) != count:
                    await asyncio.sleep(0.02)
            return reply

        reply = await until(1)
        assert reply.findtext(".//amt-tunnel-gateway-address") == "203.0.113.7"
        assert reply.findtext(".//amt-tunnel-gateway-port") == "40001"
        assert reply.findtext(".//amt-inactivity-timeout") == "200"
        assert reply.findtext(".//mgm-group/multicast-group-address") == "232.1.1.1"
        routes = await session.rpc("<get-multicast-route-information><extensive/></get-multicast-route-information>")
        assert routes.findtext(".//forwarded-packet-count") == "5000"
        statistics = await session.rpc("<get-amt-statistics/>")
        assert statistics.findtext(".//amt-membership-request-messages") == "7"
        assert statistics.findtext(".//amt-invalid-mac") == "2"
        agent.tunnels.append(TUNNEL | {"id": "t2", "gateway_port": 40002})
        await until(2)
        agent.broken = True
        await until(0)
        agent.broken = False
        await until(2)


async def test_an_agent_that_is_not_there_shows_nothing(tmp_path: Path) -> None:
    options = SimOptions(configured=True, live=f"unix://{tmp_path / 'none'}")
    async with mx80.start(options) as sim, raw_session(sim) as session:
        reply = await session.rpc("<get-amt-summary/>")
        assert reply.findtext(".//amt-active-tunnels") == "0"
