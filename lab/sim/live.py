"""What a running agent in relay role has, shown as a simulated router's population."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any, Final

import httpx

from lab.sim.population import DEFAULT_NEIGHBORS, Counters, Population, SimChannel, SimNeighbor, SimTunnel, Snapshot

_PAGE: Final = 1000
_INTERVAL: Final = 2.0
_STATES: Final = {"established": "Active", "active": "Active"}


class LivePopulation(Population):
    """Shows what was last read; empty until then, and after the agent has not answered.

    Args:
        url: the agent's REST API, `http://…` or `unix:///path`.
    """

    def __init__(self, url: str) -> None:
        super().__init__(tick_seconds=0)
        self.url = url
        self._generation = 0
        self._latest = Snapshot(0, neighbors=DEFAULT_NEIGHBORS)
        self._rates: dict[tuple[str | None, str], tuple[float, int, int]] = {}

    def snapshot(self) -> Snapshot:
        """What was last read."""
        return self._latest

    def set_neighbors(self, neighbors: Iterable[SimNeighbor]) -> None:
        """Show these PIM neighbours."""
        super().set_neighbors(neighbors)
        self._generation += 1
        latest = self._latest
        self._latest = Snapshot(
            self._generation, latest.tunnels, latest.channels, tuple(self._neighbors), latest.counters
        )

    async def refresh(self, client: httpx.AsyncClient) -> None:
        """Read the agent once.

        Raises:
            httpx.HTTPError: it did not answer as it should.
        """
        tunnels = await _all_items(client, "/v1/tunnels")
        channels = [one for one in await _all_items(client, "/v1/channels") if ":" not in one["group"]]
        statistics = (await _get(client, "/v1/statistics"))["control"].get("relay", {})
        wanted: dict[str, list[tuple[IPv4Address | None, IPv4Address]]] = {}
        for channel in channels:
            pair = (IPv4Address(channel["source"]) if channel["source"] else None, IPv4Address(channel["group"]))
            for tunnel in channel["tunnels"]:
                wanted.setdefault(tunnel, []).append(pair)
        self._generation += 1
        self._latest = Snapshot(
            self._generation,
            tuple(
                _tunnel(one, tuple(wanted.get(one["id"], ())))
                for one in tunnels
                if one["gateway_address"] and ":" not in one["gateway_address"]
            ),
            tuple(self._channel(one) for one in channels),
            tuple(self._neighbors),
            _counters(statistics),
        )

    def forget(self) -> None:
        """Show nothing: the agent is away."""
        if self._latest.tunnels or self._latest.channels:
            self._generation += 1
            self._latest = Snapshot(self._generation, neighbors=tuple(self._neighbors))

    def _channel(self, one: dict[str, Any]) -> SimChannel:
        key = (one["source"], one["group"])
        now = time.monotonic()
        before = self._rates.get(key)
        self._rates[key] = (now, one["packets"], one["bytes"])
        packet_rate = byte_rate = None
        if before is not None and now > before[0]:
            packet_rate = max(0, round((one["packets"] - before[1]) / (now - before[0])))
            byte_rate = max(0, round((one["bytes"] - before[2]) / (now - before[0]) / 1000))
        return SimChannel(
            source=IPv4Address(one["source"]) if one["source"] else None,
            group=IPv4Address(one["group"]),
            packets=one["packets"],
            bytes=one["bytes"],
            packets_per_second=packet_rate,
            kilobytes_per_second=byte_rate,
            uptime_seconds=_age(one["since"]),
        )


@asynccontextmanager
async def following(population: LivePopulation) -> AsyncIterator[None]:
    """Keep reading the agent until the context ends."""
    transport, base = None, population.url
    if base.startswith("unix://"):
        transport, base = httpx.AsyncHTTPTransport(uds=base.removeprefix("unix://")), "http://agent"
    async with httpx.AsyncClient(base_url=base, transport=transport, timeout=5.0) as client:
        with contextlib.suppress(httpx.HTTPError):
            await population.refresh(client)
        task = asyncio.create_task(_follow(population, client))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _follow(population: LivePopulation, client: httpx.AsyncClient) -> None:
    while True:
        await asyncio.sleep(_INTERVAL)
        try:
            await population.refresh(client)
        except httpx.HTTPError:
            population.forget()


async def _get(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await client.get(path)
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    return document


async def _all_items(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    offset: int | None = 0
    while offset is not None:
        page = await _get(client, f"{path}?limit={_PAGE}&offset={offset}")
        items += page["items"]
        offset = page["next_offset"]
    return items


def _tunnel(one: dict[str, Any], channels: tuple[tuple[IPv4Address | None, IPv4Address], ...]) -> SimTunnel:
    return SimTunnel(
        gateway_address=IPv4Address(one["gateway_address"]),
        gateway_port=one["gateway_port"] or 0,
        channels=channels,
        state=_STATES.get(one["state"], str(one["state"]).capitalize()),
        expires_seconds=round(one["expires_in"] or 0),
        packets=one["packets"],
        bytes=one["bytes"],
        uptime_seconds=_age(one["established_at"]),
    )


def _counters(control: dict[str, int]) -> Counters:
    """The agent's own names of messages, as far as they are known here."""

    def count(*names: str) -> int:
        return sum(control.get(name, 0) for name in names)

    return Counters(
        discoveries=count("received_relay_discovery"),
        advertisements=count("sent_relay_advertisement"),
        requests=count("received_request"),
        queries=count("sent_membership_query"),
        updates=count("received_membership_update"),
        invalid_mac=count("refused_bad_mac"),
        no_gateway=count("refused_unknown_tunnel"),
    )


def _age(moment: str | None) -> int:
    if moment is None:
        return 0
    return max(0, int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))
