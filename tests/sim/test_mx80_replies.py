"""Operational replies of the simulated MX80: valid by Juniper's YANG, and following what is committed."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from lxml import etree
from sim.mx80_client import raw_session

from lab.sim import mx80
from lab.sim.options import RunningSim, SimOptions
from lab.sim.population import Population, SimNeighbor, SimTunnel

VALIDATOR = next(
    (
        folder / "shared/yang/rpcval.py"
        for folder in Path(__file__).parents
        if (folder / "shared/yang/rpcval.py").exists()
    ),
    None,
)
RPCS = [
    ("get-amt-tunnel-information", ""),
    ("get-amt-tunnel-information", "<detail/>"),
    ("get-amt-tunnel-gateway-address", "<address>198.51.100.1</address><detail/>"),
    ("get-amt-tunnel-interface", "<interface>ud-0/0/0.1120257</interface>"),
    ("get-amt-summary", ""),
    ("get-amt-statistics", ""),
    ("get-igmp-interface-information", ""),
    ("get-igmp-group-information", ""),
    ("get-multicast-route-information", ""),
    ("get-multicast-route-information", "<extensive/>"),
    ("get-multicast-usage-information", ""),
    ("get-pim-neighbors-information", ""),
    ("get-pim-neighbors-information", "<detail/>"),
]


@pytest.fixture
async def sim() -> AsyncIterator[RunningSim]:
    async with mx80.start(SimOptions(tunnels=3, configured=True, tick_seconds=0)) as running:
        yield running


@pytest.fixture
async def session(sim: RunningSim) -> AsyncIterator[Any]:
    async with raw_session(sim) as opened:
        yield opened


def without_configuration(sim: RunningSim) -> None:
    sim.device.edit("delete protocols amt\ndelete protocols igmp\ndelete protocols pim")


@pytest.mark.skipif(VALIDATOR is None, reason="the vendor's YANG (shared/yang/rpcval.py) is not here")
@pytest.mark.skipif(shutil.which("yanglint") is None, reason="yanglint is not installed")
@pytest.mark.parametrize("state", ["full", "any source", "bare"])
async def test_replies_are_valid(sim: RunningSim, tmp_path: Path, state: str) -> None:
    if state == "bare":
        without_configuration(sim)
    if state == "any source":
        group = IPv4Address("239.1.1.1")
        sim.population.set_tunnels([SimTunnel(IPv4Address("203.0.113.1"), channels=((None, group),))])
    sim.population.advance(1_000_000)
    async with raw_session(sim) as session:
        for index, (name, arguments) in enumerate(RPCS):
            await session.send(f"<{name}>{arguments}</{name}>")
            reply = await session.receive()
            assert b"rpc-error" not in reply
            path = tmp_path / f"{index}.xml"
            path.write_bytes(reply)
            checker = await asyncio.create_subprocess_exec(
                sys.executable, str(VALIDATOR), name, str(path), stderr=asyncio.subprocess.PIPE
            )
            _, told = await checker.communicate()
            assert checker.returncode == 0, f"{name}: {told.decode()}\n{reply.decode()[:2000]}"


async def test_tunnels_in_detail(session: Any) -> None:
    reply = await session.rpc("<get-amt-tunnel-information><detail/></get-amt-tunnel-information>")
    tunnels = reply.findall(".//amt-tunnel")
    assert [tunnel.findtext("amt-tunnel-gateway-address") for tunnel in tunnels] == [
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.3",
    ]
    for tunnel in tunnels:
        assert int(tunnel.findtext("amt-tunnel-multicast-groups")) == len(tunnel.findall("mgm-group")) == 4
        assert int(tunnel.findtext("amt-tunnel-message-count/amt-request-message")) > 0
        assert tunnel.findtext("amt-tunnel-state") == "Active"
    brief = await session.rpc("<get-amt-tunnel-information/>")
    assert brief.find(".//mgm-group") is None


async def test_tunnels_by_gateway_and_interface(session: Any) -> None:
    everything = await session.rpc("<get-amt-tunnel-information/>")
    port = everything.findtext(".//amt-tunnel[2]/amt-tunnel-gateway-port")
    interface = everything.findtext(".//amt-tunnel[2]/amt-tunnel-interface")
    for body, count in (
        ("<get-amt-tunnel-gateway-address><address>198.51.100.2</address></get-amt-tunnel-gateway-address>", 1),
        (f"<get-amt-tunnel-gateway-address><port>{int(port) + 1}</port></get-amt-tunnel-gateway-address>", 0),
        (f"<get-amt-tunnel-interface><interface>{interface}</interface></get-amt-tunnel-interface>", 1),
    ):
        assert len((await session.rpc(body)).findall(".//amt-tunnel")) == count


async def test_summary_follows_the_committed_configuration(sim: RunningSim, session: Any) -> None:
    sim.device.edit(
        "set protocols amt relay family inet anycast-prefix 198.18.9.0/24\nset protocols amt relay tunnel-limit 77\n"
        "set interfaces lo0 unit 0 family inet address 198.18.9.9/32"
    )
    reply = (await session.rpc("<get-amt-summary/>")).find("amt-summary")
    assert {child.tag: child.text for child in reply} == {
        "amt-anycast-prefix": "198.18.9.0/24",
        "amt-anycast-address": "198.18.9.9",
        "amt-local-address": "192.0.2.80",
        "amt-tunnel-limit": "77",
        "amt-active-tunnels": "3",
        "amt-active-unicast-streams": "12",
    }


async def test_candidate_changes_nothing_before_the_commit(session: Any) -> None:
    await session.set("set protocols amt relay tunnel-limit 5")
    assert (await session.rpc("<get-amt-summary/>")).findtext(".//amt-tunnel-limit") == "1000"
    await session.ok("<commit-configuration/>")
    assert (await session.rpc("<get-amt-summary/>")).findtext(".//amt-tunnel-limit") == "5"


@pytest.mark.parametrize(
    "commands",
    [
        "delete protocols amt relay",
        "deactivate protocols amt",
        "delete chassis fpc 0 pic 0 tunnel-services",
        "set protocols amt relay tunnel-devices ud-1/0/0\ndelete protocols amt relay tunnel-devices ud-0/0/0",
    ],
)
async def test_no_relay_no_tunnels(sim: RunningSim, session: Any, commands: str) -> None:
    sim.device.edit(commands)
    for name in ("get-amt-tunnel-information", "get-igmp-group-information", "get-multicast-route-information"):
        reply = await session.rpc(f"<{name}/>")
        assert not reply.findall(".//amt-tunnel")
        assert not reply.findall(".//mgm-group")
        assert not reply.findall(".//multicast-route")


async def test_without_a_relay_the_summary_is_empty(sim: RunningSim, session: Any) -> None:
    without_configuration(sim)
    for name in ("get-amt-summary", "get-amt-statistics"):
        reply = await session.rpc(f"<{name}/>")
        assert len(reply[0]) == 0


async def test_other_instances_do_not_run(session: Any) -> None:
    reply = await session.rpc("<get-amt-summary><instance>all</instance></get-amt-summary>")
    assert reply.findtext("output") == "instance is not running"


async def test_pim_neighbors_need_pim(sim: RunningSim, session: Any) -> None:
    sim.population.set_neighbors(
        [
            SimNeighbor(IPv4Address("10.255.0.2"), "xe-0/0/0.0", 90061),
            SimNeighbor(IPv4Address("10.9.9.9"), "ge-1/0/0.0"),
        ]
    )
    reply = await session.rpc("<get-pim-neighbors-information/>")
    assert [one.text for one in reply.iter("pim-neighbor-address")] == ["10.255.0.2"]
    assert reply.findtext(".//pim-neighbor-uptime") == "1d 01:01:01"
    sim.device.edit("set protocols pim interface all")
    reply = await session.rpc("<get-pim-neighbors-information/>")
    assert len(list(reply.iter("pim-neighbor-address"))) == 2


async def test_counters_grow_with_ticks_and_can_be_cleared(sim: RunningSim, session: Any) -> None:
    async def number(body: str, path: str) -> int:
        return int((await session.rpc(body)).findtext(f".//{path}"))

    updates = ("<get-amt-statistics/>", "amt-membership-update-messages")
    packets = (
        "<get-multicast-route-information><extensive/></get-multicast-route-information>",
        "forwarded-packet-count",
    )
    first = await number(*updates), await number(*packets)
    sim.population.advance(100)
    second = await number(*updates), await number(*packets)
    assert second[0] > first[0]
    assert second[1] > first[1]
    await session.ok("<clear-amt-statistics/>")
    assert await number(*updates) == 0


async def test_cleared_tunnels_are_gone(session: Any) -> None:
    await session.ok(
        "<clear-amt-tunnel-gateway-address><address>198.51.100.1</address></clear-amt-tunnel-gateway-address>"
    )
    assert (await session.rpc("<get-amt-summary/>")).findtext(".//amt-active-tunnels") == "2"
    await session.ok("<clear-amt-tunnel/>")
    assert (await session.rpc("<get-amt-summary/>")).findtext(".//amt-active-tunnels") == "0"


async def test_routes_lead_to_the_tunnels_that_asked(sim: RunningSim, session: Any) -> None:
    pair = (IPv4Address("192.0.2.50"), IPv4Address("232.9.9.9"))
    other = (IPv4Address("192.0.2.51"), IPv4Address("232.9.9.10"))
    sim.population.set_tunnels(
        [
            SimTunnel(IPv4Address("203.0.113.1"), channels=(pair,)),
            SimTunnel(IPv4Address("203.0.113.2"), channels=(pair, other)),
        ]
    )
    reply = await session.rpc("<get-multicast-route-information/>")
    found = {
        route.findtext("multicast-group-address"): [
            one.text for one in route.findall("downstream-interface-names/interface-name")
        ]
        for route in reply.iter("multicast-route")
    }
    assert found == {
        "232.9.9.9": ["ud-0/0/0.1120256", "ud-0/0/0.1120257"],
        "232.9.9.10": ["ud-0/0/0.1120257"],
    }
    assert reply.find(".//forwarding-rate-packets") is None


def test_population_is_the_same_for_the_same_seed() -> None:
    one, two, three = (Population(50, seed=seed, tick_seconds=0, churn=0.1) for seed in (5, 5, 6))
    for population in (one, two, three):
        population.advance(7)
    assert one.snapshot().tunnels == two.snapshot().tunnels
    assert one.snapshot().tunnels != three.snapshot().tunnels
    assert one.snapshot() is one.snapshot()


def test_churn_replaces_its_share() -> None:
    population = Population(100, churn=0.1, tick_seconds=0)
    population.advance(10)
    before = population.snapshot().tunnels
    population.advance()
    changed = sum(old.nonce != new.nonce for old, new in zip(before, population.snapshot().tunnels, strict=True))
    assert changed == 10


async def test_a_reply_is_kept_until_something_changes(sim: RunningSim, session: Any) -> None:
    await session.rpc("<get-amt-summary/>")
    kept = sim.device.reply_cache["master summary"]
    await session.rpc("<get-amt-summary/>")
    assert sim.device.reply_cache["master summary"] is kept
    sim.population.advance()
    await session.rpc("<get-amt-summary/>")
    assert sim.device.reply_cache["master summary"] is not kept
    assert etree.fromstring(kept[1]) is not None


async def test_a_relay_in_a_routing_instance(sim: RunningSim, session: Any) -> None:
    without_configuration(sim)
    sim.device.edit(
        "set routing-instances MCAST instance-type virtual-router\n"
        "set routing-instances MCAST protocols amt relay family inet anycast-prefix 198.18.0.0/24\n"
        "set routing-instances MCAST protocols amt relay family inet local-address 192.0.2.80"
    )
    reply = await session.rpc("<get-amt-summary><instance>MCAST</instance></get-amt-summary>")
    assert reply.findtext(".//amt-active-tunnels") == "3"
    assert len((await session.rpc("<get-amt-summary/>"))[0]) == 0
