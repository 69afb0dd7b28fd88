"""Relay discovery (RFC 7450 §5.2.3.4)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from agent.protocol.channels import Endpoint, Family
from agent.protocol.gateway_events import LostReason, RelayFound, RelayLost, StateChanged
from agent.protocol.gateway_state import State
from agent.protocol.wire import amt

RELAY = Endpoint(ip_address("192.0.2.1"), 2268)
DISCOVERY = Endpoint(amt.ANYCAST_IPV4, 2268)


@pytest.fixture
def bench(gateway_bench):
    bench = gateway_bench()
    bench.gateway.start(bench.now)
    return bench


def discovering(bench):
    bench.join("232.1.1.1", "198.51.100.1")
    (message,) = bench.sent()
    assert isinstance(message, amt.RelayDiscovery)
    return message


def test_a_gateway_without_groups_is_silent(bench):
    assert bench.gateway.state is State.IDLE
    assert bench.gateway.next_deadline() is None
    assert bench.run(3600) == []


def test_before_start_and_after_stop_groups_are_only_remembered(gateway_bench):
    bench = gateway_bench()
    bench.join("232.1.1.1", "198.51.100.1")
    assert bench.run(3600) == []
    bench.gateway.start(bench.now)
    assert len(bench.sent(amt.RelayDiscovery)) == 1
    bench.gateway.stop(bench.now)
    bench.join("232.1.1.2", "198.51.100.1")
    assert bench.run(3600) == []
    assert len(bench.gateway.memberships) == 2


def test_the_first_group_starts_discovery_at_the_discovery_address(bench):
    bench.join("232.1.1.1", "198.51.100.1")
    (datagram,) = bench.datagrams()
    assert datagram.destination == DISCOVERY
    assert bench.gateway.state is State.DISCOVERING
    assert bench.gateway.relay is None


def test_an_advertisement_leads_to_a_request_at_the_relay(bench):
    discovery = discovering(bench)
    bench.advertise(discovery.nonce)
    (datagram,) = bench.datagrams()
    request = amt.decode(datagram.data)
    assert request == amt.Request(request.nonce)
    assert request.nonce not in (0, discovery.nonce)
    assert datagram.destination == RELAY == bench.gateway.relay
    assert bench.events() == [
        StateChanged(State.STOPPED, State.IDLE),
        StateChanged(State.IDLE, State.DISCOVERING),
        RelayFound(RELAY),
        StateChanged(State.DISCOVERING, State.REQUESTING),
    ]


@pytest.mark.parametrize(
    ("relay", "source", "wrong_nonce", "reason"),
    [
        ("192.0.2.1", RELAY, 0, "wrong_source"),
        ("192.0.2.1", Endpoint(DISCOVERY.address, 2269), 0, "wrong_source"),
        ("192.0.2.1", DISCOVERY, 1, "wrong_nonce"),
        ("2001:db8::1", DISCOVERY, 0, "wrong_family"),
        ("232.1.1.1", DISCOVERY, 0, "relay_not_unicast"),
        ("0.0.0.0", DISCOVERY, 0, "relay_not_unicast"),
        ("255.255.255.255", DISCOVERY, 0, "relay_not_unicast"),
    ],
)
def test_an_advertisement_that_is_not_the_answer_is_counted_and_changes_nothing(
    bench, relay, source, wrong_nonce, reason
):
    discovery = discovering(bench)
    deadline = bench.gateway.next_deadline()
    bench.advertise(discovery.nonce ^ wrong_nonce, relay, source)
    assert bench.gateway.counters[f"dropped_{reason}"] == 1
    assert bench.sent() == []
    assert bench.gateway.state is State.DISCOVERING
    assert bench.gateway.next_deadline() == deadline


def test_a_second_advertisement_is_unsolicited(bench):
    discovery = discovering(bench)
    bench.advertise(discovery.nonce)
    bench.sent()
    bench.advertise(discovery.nonce, "192.0.2.99")
    assert bench.gateway.counters["dropped_unsolicited_advertisement"] == 1
    assert bench.gateway.relay == RELAY
    assert bench.sent() == []


def test_discovery_backs_off_to_the_cap_and_then_starts_again_with_a_fresh_nonce(bench):
    first = discovering(bench)
    sent = bench.run(494.5)
    times = [round(when) for when, _ in sent]
    assert times == [1, 3, 7, 15, 31, 63, 127, 247, 248, 250, 254, 262, 278, 310, 374, 494]
    nonces = [message.nonce for _, message in sent]
    assert set(nonces[:7]) == {first.nonce}
    assert len(set(nonces[7:-1])) == 1
    assert first.nonce not in nonces[7:]


def test_jitter_spreads_the_retransmissions(gateway_bench):
    waits = set()
    for number in (0, 0x8000_0000, 0xFFFF_FFFF):
        bench = gateway_bench(jitter=0.1, entropy=lambda size, number=number: number.to_bytes(4, "big")[:size])
        bench.gateway.start(bench.now)
        bench.join("232.1.1.1", "198.51.100.1")
        waits.add(round(bench.gateway.next_deadline() - bench.now, 3))
    assert waits == {0.9, 1.0, 1.1}


def test_an_unanswered_discovery_is_told_once_and_goes_on(bench):
    discovering(bench)
    bench.run(14.9)
    assert bench.events(RelayLost) == []
    bench.run(0.2)
    assert bench.events(RelayLost) == [RelayLost(None, LostReason.DISCOVERY_UNANSWERED)]
    bench.run(2000)
    assert bench.events(RelayLost) == []
    (_, discovery), *_ = bench.run(130)
    bench.advertise(discovery.nonce)
    assert bench.gateway.state is State.REQUESTING


def test_leaving_the_last_group_ends_discovery(bench):
    discovery = discovering(bench)
    bench.leave("232.1.1.1")
    assert bench.gateway.state is State.IDLE
    assert bench.run(300) == []
    bench.advertise(discovery.nonce)
    assert bench.gateway.counters["dropped_unsolicited_advertisement"] == 1


def test_refresh_asks_at_once_and_starts_the_back_off_anew(bench):
    discovering(bench)
    bench.run(100)
    bench.gateway.refresh(bench.now)
    assert [round(when) for when, _ in bench.run(10)] == [0, 1, 3, 7]


def test_refresh_without_anything_wanted_sends_nothing(bench):
    bench.gateway.refresh(bench.now)
    assert bench.run(10) == []


def test_ipv6_discovery_takes_an_ipv6_relay(gateway_bench):
    bench = gateway_bench(address=amt.ANYCAST_IPV6)
    bench.gateway.start(bench.now)
    discovery = discovering(bench)
    source = Endpoint(amt.ANYCAST_IPV6, 2268)
    bench.advertise(discovery.nonce, "192.0.2.1", source)
    assert bench.gateway.counters["dropped_wrong_family"] == 1
    bench.advertise(discovery.nonce, "2001:db8::1", source)
    assert bench.gateway.relay == Endpoint(ip_address("2001:db8::1"), 2268)


def test_a_configured_relay_is_asked_without_discovery(direct_bench):
    bench = direct_bench(address=ip_address("192.0.2.77"), port=2269)
    bench.gateway.start(bench.now)
    assert bench.gateway.relay == Endpoint(ip_address("192.0.2.77"), 2269)
    assert bench.events(RelayFound) == [RelayFound(bench.gateway.relay)]
    bench.join("232.1.1.1", "198.51.100.1")
    (datagram,) = bench.datagrams()
    assert isinstance(amt.decode(datagram.data), amt.Request)
    assert datagram.destination == bench.gateway.relay


def test_a_relay_found_before_is_asked_first_until_its_lifetime_is_over(bench):
    bench.join("232.1.1.1", "198.51.100.1")
    bench.establish(interval=20)
    bench.leave("232.1.1.1")
    bench.run(60)
    assert bench.gateway.state is State.IDLE
    bench.join("232.1.1.1", "198.51.100.1")
    assert [type(message) for message in bench.sent()] == [amt.Request]
    bench.leave("232.1.1.1")
    bench.run(400)
    bench.join("232.1.1.1", "198.51.100.1")
    assert [type(message) for message in bench.sent()] == [amt.RelayDiscovery]


def test_kept_warm_a_gateway_discovers_and_requests_without_groups(gateway_bench):
    bench = gateway_bench(keep_warm=frozenset({Family.IPV4}))
    bench.establish(interval=60)
    kinds = [(round(when), type(message)) for when, message in bench.run(59)]
    assert kinds == []
    bench.join("232.1.1.1", "198.51.100.1")
    assert [record.group for record in bench.records()] == [ip_address("232.1.1.1")]
