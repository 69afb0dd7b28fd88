"""Discovery of the sources that are wanted: a scripted DNS server, and time that stands still until it is advanced."""

import asyncio
import contextlib
import json
from ipaddress import ip_address

import pytest
from scripted.dns_peer import dns_peer, reply, zone
from scripted.still_loop import StillLoop

from agent.protocol.discovery import DiscoveryMethod, Outcome
from agent.service.config import parse
from agent.service.discovery_service import RelayDiscovery

SOURCE, OTHER = ip_address("198.51.100.7"), ip_address("198.51.100.8")
NAME, OTHER_NAME = "7.100.51.198.in-addr.arpa.", "8.100.51.198.in-addr.arpa."
SERVICE = "_amt._udp.example.net."


GATEWAY = """
role = "gateway"
[gateway]
downstream = "lan0"
[[gateway.relay]]
address = "192.0.2.99"
[discovery]
"""


def configuration(port, methods, **keys):
    lines = {"methods": methods, "resolvers": ["127.0.0.1"], "resolver_port": port, "queries_per_second": 100_000}
    lines |= {"domain": "example.net", "query_timeout": 2.0} | keys
    return parse(GATEWAY + "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()))


class Bench:
    """Discovery, its server, and what it said."""

    def __init__(self, peer, methods, **keys):
        self.peer = peer
        self.loop = StillLoop()
        self.told = []
        self.discovery = RelayDiscovery(
            self.loop, configuration(peer.port, methods, **keys), self.told.append, seed=b"seed"
        )

    async def answer(self, source=SOURCE, times=None):
        """The answer, when it was told of for the `times`-th time."""
        self.discovery.lookup(source)
        await self.until(lambda: len(self.told) >= (times or 1))
        return self.discovery.lookup(source)

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    async def asked(self, times, name=NAME, kind="AMTRELAY"):
        """Wait until the server was asked, and what came of it was taken."""
        await self.until(lambda: self.peer.asked[f"{name} {kind} udp"] >= times)
        await self.until(lambda: all(entry.task is None for entry in self.discovery._entries.values()))


@contextlib.asynccontextmanager
async def bench_of(script, methods=("driad",), **keys):
    async with dns_peer(script) as peer:
        bench = Bench(peer, list(methods), **keys)
        try:
            yield bench
        finally:
            await bench.discovery.close()


def relays(*records, ttl=300, name=NAME):
    return {(name, "AMTRELAY"): [f"{name} {ttl} AMTRELAY {record}" for record in records]}


def addresses(answer):
    return [str(candidate.address) for candidate in answer.candidates]


def failing(query, _):
    return reply(query, rcode="SERVFAIL").to_wire()


async def test_an_answer_is_pending_then_told_once_then_there():
    async with bench_of(zone(relays("10 0 1 192.0.2.1"))) as bench:
        assert bench.discovery.lookup(SOURCE) is None
        assert bench.told == []
        answer = await bench.answer()
        assert bench.told == [SOURCE]
        assert addresses(answer) == ["192.0.2.1"]
        assert answer.expires == bench.loop.now + 300
        assert answer.is_complete


async def test_lookups_at_once_are_one_question():
    async with bench_of(zone(relays("10 0 1 192.0.2.1"))) as bench:
        for _ in range(100):
            assert bench.discovery.lookup(SOURCE) is None
        await bench.answer()
        assert bench.peer.asked.total() == 1
        assert bench.told == [SOURCE]


async def test_sources_that_share_a_relay_s_name_share_its_addresses():
    records = relays("10 1 3 relay.example.") | relays("10 1 3 relay.example.", name=OTHER_NAME)
    records |= {("relay.example.", "A"): ["relay.example. 300 A 192.0.2.1"]}
    async with bench_of(zone(records)) as bench:
        await bench.answer(SOURCE)
        await bench.answer(OTHER, times=2)
        assert bench.peer.asked["relay.example. A udp"] == 1


async def test_without_a_method_nobody_is_asked():
    async with bench_of(failing, ()) as bench:
        assert not bench.discovery.is_enabled
        assert bench.discovery.lookup(SOURCE) is None
        assert not bench.discovery._entries


async def test_no_relay_is_told_apart_from_nothing():
    async with bench_of(zone(relays("0 0 0 ."))) as bench:
        assert (await bench.answer()).outcome is Outcome.NO_RELAY
        assert (await bench.answer(OTHER, times=2)).outcome is Outcome.NOTHING


async def test_nothing_is_asked_again_after_its_time():
    async with bench_of(zone({}, soa="51.198.in-addr.arpa.")) as bench:
        answer = await bench.answer()
        assert (answer.outcome, answer.expires) == (Outcome.NOTHING, bench.loop.now + 40)
        bench.peer.script = zone(relays("10 0 1 192.0.2.1"))
        bench.loop.advance(30)
        assert bench.discovery.lookup(SOURCE).outcome is Outcome.NOTHING
        assert bench.peer.asked.total() == 1
        bench.loop.advance(6)
        assert addresses(await bench.answer(times=2)) == ["192.0.2.1"]


async def test_a_failure_is_asked_again_soon():
    async with bench_of(failing) as bench:
        answer = await bench.answer()
        assert (answer.outcome, answer.expires) == (Outcome.FAILED, bench.loop.now + 5)
        bench.peer.script = zone(relays("10 0 1 192.0.2.1"))
        bench.loop.advance(4.6)
        assert addresses(await bench.answer(times=2)) == ["192.0.2.1"]


async def test_an_answer_is_refreshed_before_it_expires_and_told_only_when_it_is_another():
    async with bench_of(zone(relays("10 0 1 192.0.2.1"))) as bench:
        first = await bench.answer()
        bench.loop.advance(271)
        assert bench.discovery.lookup(SOURCE) == first
        await bench.asked(2)
        refreshed = bench.discovery.lookup(SOURCE)
        assert refreshed.expires == bench.loop.now + 300
        assert bench.told == [SOURCE]
        bench.peer.script = zone(relays("10 0 1 192.0.2.2"))
        bench.loop.advance(271)
        await bench.asked(3)
        assert bench.told == [SOURCE, SOURCE]
        assert addresses(bench.discovery.lookup(SOURCE)) == ["192.0.2.2"]


async def test_a_source_nobody_looks_up_is_forgotten_when_its_answer_expires():
    async with bench_of(zone(relays("10 0 1 192.0.2.1"))) as bench:
        await bench.answer()
        bench.loop.advance(271)
        await bench.asked(2)
        bench.loop.advance(271)
        bench.loop.advance(30)
        assert not bench.discovery._entries
        assert bench.peer.asked.total() == 2


async def test_a_released_source_is_not_asked_about_again():
    async with bench_of(zone(relays("10 0 1 192.0.2.1"))) as bench:
        await bench.answer()
        bench.discovery.release(SOURCE)
        bench.discovery.release(OTHER)
        bench.loop.advance(271)
        bench.loop.advance(30)
        assert not bench.discovery._entries
        assert bench.peer.asked.total() == 1


async def test_an_answer_goes_on_while_the_servers_fail():
    async with bench_of(zone(relays("10 0 1 192.0.2.1"))) as bench:
        await bench.answer()
        bench.peer.script = failing
        bench.loop.advance(271)
        bench.discovery.lookup(SOURCE)
        await bench.asked(2)
        answer = bench.discovery.lookup(SOURCE)
        assert addresses(answer) == ["192.0.2.1"]
        assert answer.expires == bench.loop.now + 5
        assert bench.told == [SOURCE]
        assert bench.discovery.counters["stale_answers"] == 1


async def test_an_answer_does_not_go_on_when_its_records_are_gone():
    async with bench_of(zone(relays("10 0 1 192.0.2.1"))) as bench:
        await bench.answer()
        bench.peer.script = zone({}, soa="51.198.in-addr.arpa.")
        bench.loop.advance(271)
        bench.discovery.lookup(SOURCE)
        await bench.asked(2)
        answer = bench.discovery.lookup(SOURCE)
        assert (answer.candidates, answer.outcome) == ((), Outcome.NOTHING)
        assert bench.told == [SOURCE, SOURCE]


async def test_a_stale_answer_ends_after_the_longest_time_answers_are_kept():
    async with bench_of(zone(relays("10 0 1 192.0.2.1", ttl=10)), maximum_ttl=20.0) as bench:
        await bench.answer()
        bench.peer.script = failing
        for times, seconds in ((2, 10), (3, 30)):
            assert addresses(bench.discovery.lookup(SOURCE)) == ["192.0.2.1"]
            bench.loop.advance(seconds)
            bench.discovery.lookup(SOURCE)
            await bench.asked(times)
        assert bench.discovery.lookup(SOURCE).outcome is Outcome.FAILED


def answer_late(records, silent):
    """A zone, and questions that stay without an answer."""
    said = zone(records, soa=".")
    return lambda query, transport: None if query.question[0].name.to_text() in silent else said(query, transport)


DNS_SD = {
    (SERVICE, "SRV"): [f"{SERVICE} 300 SRV 0 0 2300 relay.example."],
    ("relay.example.", "A"): ["relay.example. 300 A 192.0.2.2"],
}


async def test_what_a_preferred_method_found_does_not_wait_for_the_others():
    script = answer_late(DNS_SD | relays("10 0 1 192.0.2.1"), {NAME})
    async with bench_of(script, ["dns-sd", "driad"]) as bench:
        answer = await bench.answer()
        assert not answer.is_complete
        assert [(str(item.address), item.port) for item in answer.candidates] == [("192.0.2.2", 2300)]


async def test_what_a_less_preferred_method_found_is_told_when_the_preferred_one_is_silent():
    async with bench_of(answer_late(relays("10 0 1 192.0.2.1"), {SERVICE}), ["dns-sd", "driad"]) as bench:
        bench.discovery.lookup(SOURCE)
        await bench.until(lambda: bench.peer.asked[f"{NAME} AMTRELAY udp"])
        bench.loop.advance(2)
        answer = await bench.answer()
        assert not answer.is_complete
        assert [item.method for item in answer.candidates] == [DiscoveryMethod.DRIAD]


async def test_methods_together_stand_in_configured_order():
    async with bench_of(zone(DNS_SD | relays("10 0 1 192.0.2.1"), soa="."), ["driad", "anycast", "dns-sd"]) as bench:
        answer = await bench.answer()
        methods = [item.method.value for item in sorted(answer.candidates, key=lambda item: item.preference)]
        assert methods[0] == "driad"
        assert {"driad", "anycast", "dns-sd"} == set(methods)


async def test_anycast_asks_nobody_and_is_looked_at_again_for_routes():
    async with bench_of(failing, ["anycast"], anycast=["192.0.2.50"], maximum_ttl=100.0) as bench:
        answer = await bench.answer()
        assert addresses(answer) == ["192.0.2.50"]
        assert answer.expires == bench.loop.now + 100
        assert bench.peer.asked.total() == 0


async def test_another_configuration_asks_anew_and_answers_stay_until_then():
    async with bench_of(zone(relays("10 0 1 192.0.2.1"))) as bench:
        await bench.answer()
        bench.discovery.reconfigure(configuration(bench.peer.port, ["driad"]))
        assert bench.peer.asked.total() == 1
        bench.peer.script = zone(relays("10 0 1 192.0.2.2"))
        bench.discovery.reconfigure(configuration(bench.peer.port, ["driad"], maximum_ttl=50.0))
        assert addresses(bench.discovery.lookup(SOURCE)) == ["192.0.2.1"]
        assert addresses(await bench.answer(times=2)) == ["192.0.2.2"]
        assert bench.discovery.lookup(SOURCE).expires == bench.loop.now + 50
        bench.discovery.reconfigure(configuration(bench.peer.port, []))
        assert bench.discovery.lookup(SOURCE) is None
        assert not bench.discovery._entries


async def test_who_cannot_take_an_answer_does_not_lose_it(caplog):
    async with bench_of(zone(relays("10 0 1 192.0.2.1"))) as bench:
        bench.discovery._on_answer = lambda source: bench.told.append(source) or 1 / 0
        assert addresses(await bench.answer()) == ["192.0.2.1"]
        assert "could not be taken" in caplog.text


async def test_a_fault_of_ours_is_a_failure_and_asked_again(monkeypatch, caplog):
    async with bench_of(failing) as bench:
        monkeypatch.setattr("agent.service.discovery_service.ask_driad", lambda *_: 1 / 0)
        answer = await bench.answer()
        assert answer.outcome is Outcome.FAILED
        assert "relay discovery failed" in caplog.text
        await bench.until(lambda: bench.discovery.lookup(SOURCE).expires == bench.loop.now + 5)


async def test_nothing_is_told_after_closing():
    async with bench_of(answer_late({}, {NAME})) as bench:
        bench.discovery.lookup(SOURCE)
        await bench.until(bench.peer.asked.total)
        await bench.discovery.close()
        assert bench.told == []
        assert bench.discovery.lookup(SOURCE) is None


async def test_sources_beyond_the_limit_push_out_the_oldest(monkeypatch):
    monkeypatch.setattr("agent.service.discovery_service._MOST_SOURCES", 3)
    async with bench_of(zone({}, soa=".")) as bench:
        for number in range(1, 6):
            bench.discovery.lookup(ip_address(f"198.51.100.{number}"))
        assert [str(source) for source in bench.discovery._entries] == ["198.51.100.3", "198.51.100.4", "198.51.100.5"]
        assert bench.discovery.counters["forgotten_sources"] == 2


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("methods", '["driad", "driad"]', "names a method twice"),
        ("methods", '["dhcp"]', "methods"),
        ("domain", '"a..b"', "is not a domain"),
        ("domain", '"exämple.net"', "is not a domain"),
        ("queries_per_second", "1", "queries_per_second"),
    ],
)
def test_settings_that_make_no_sense_are_refused(key, value, why):
    from agent.service.config import ConfigurationError

    with pytest.raises(ConfigurationError, match=why):
        parse(f"{GATEWAY}{key} = {value}")


PUBLISHERS = {
    ("_dorms._tcp.7.100.51.198.in-addr.arpa.", "SRV"): [
        "_dorms._tcp.7.100.51.198.in-addr.arpa. 300 SRV 20 0 443 late.example.net.",
        "_dorms._tcp.7.100.51.198.in-addr.arpa. 300 SRV 10 5 8443 early.example.net.",
        "_dorms._tcp.7.100.51.198.in-addr.arpa. 300 SRV 5 0 1 .",
    ]
}


async def test_servers_are_told_by_priority_and_asked_for_once_without_any_method() -> None:
    async with bench_of(zone(PUBLISHERS), methods=()) as bench:
        name = "_dorms._tcp.7.100.51.198.in-addr.arpa"
        for _ in range(2):
            assert await bench.discovery.servers_of(name) == [("early.example.net", 8443), ("late.example.net", 443)]
        assert bench.peer.asked[f"{name}. SRV udp"] == 1


@pytest.mark.parametrize("name", ["_dorms._tcp.1.0.0.192.in-addr.arpa", "a..b", "x" * 64 + ".example.net"])
async def test_a_name_without_servers_and_no_name_at_all_have_none(name: str) -> None:
    async with bench_of(zone(PUBLISHERS), methods=()) as bench:
        assert await bench.discovery.servers_of(name) == []
