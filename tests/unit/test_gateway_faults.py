"""Hints, hostile input, and the recovery times that gateway.py promises."""

from __future__ import annotations

import itertools
import random
from ipaddress import ip_address

import pytest

from agent.protocol.channels import Endpoint, Family
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.gateway_events import LimitSet, RelayLost
from agent.protocol.gateway_exchange import Chance
from agent.protocol.gateway_state import TRANSITIONS, NoTransition, State, Trigger, transition
from agent.protocol.wire import amt, group_packet
from agent.protocol.wire.groups import Query, Report

SOURCE = "198.51.100.1"
GROUP = "232.1.1.1"


@pytest.fixture
def bench(direct_bench):
    """A tunnel that carries one channel, two minutes before its next Request."""
    bench = direct_bench()
    bench.join(GROUP, SOURCE)
    bench.establish(interval=120)
    bench.run(2)
    return bench


def kinds(sent):
    return [(round(when, 2), type(message)) for when, message in sent]


# Hints ----------------------------------------------------------------------------------------------------------------


def test_an_icmp_error_on_a_tunnel_brings_the_next_cycle_forward_and_ends_nothing(bench):
    for _ in range(5):
        bench.gateway.receive_error(bench.now)
    assert bench.sent() == []
    sent = bench.run(1.5)
    assert kinds(sent) == [(1.0, amt.Request)]
    assert bench.gateway.state is State.ESTABLISHED
    assert bench.gateway.counters["hint_icmp"] == 5
    bench.query(sent[0][1].nonce)
    bench.gateway.receive_error(bench.now)  # too soon for another cycle
    assert [kind for _, kind in kinds(bench.run(10)) if kind is amt.Request] == []


def test_icmp_errors_quicken_retries_but_leave_a_back_off(direct_bench):
    bench = direct_bench()
    bench.gateway.start(bench.now)
    bench.join(GROUP, SOURCE)
    bench.sent()
    begin, times, lost_at = bench.now, [], None
    while bench.now - begin < 400:
        bench.gateway.receive_error(bench.now)
        bench.gateway.receive_error(bench.now)
        bench.now = bench.gateway.next_deadline()
        bench.gateway.handle_timer(bench.now)
        times += [bench.now - begin for _ in bench.sent(amt.Request)]
        lost_at = lost_at or (bench.now - begin if bench.events(RelayLost) else None)
    assert times[:6] == [1, 2, 3, 5, 9, 17]
    assert lost_at == 5
    assert len(times) < 60  # eight a minute, where one with each error would be four hundred


def test_an_icmp_error_during_discovery_quickens_it(gateway_bench):
    bench = gateway_bench()
    bench.gateway.start(bench.now)
    bench.join(GROUP, SOURCE)
    bench.run(7.5)
    bench.gateway.receive_error(bench.now)
    assert kinds(bench.run(2)) == [(1.88, amt.RelayDiscovery)]


def test_icmp_errors_wake_no_idle_gateway(direct_bench):
    bench = direct_bench()
    bench.gateway.receive_error(bench.now)
    bench.gateway.start(bench.now)
    bench.gateway.receive_error(bench.now)
    assert bench.run(100) == []


def test_silence_of_the_relay_starts_a_cycle_at_once_but_not_often(bench):
    bench.gateway.relay_silent(bench.now)
    (request,) = bench.sent()
    assert isinstance(request, amt.Request)
    bench.gateway.relay_silent(bench.now)
    assert bench.sent() == []
    bench.query(request.nonce, mac=b"reborn")
    assert [str(record.group) for record in bench.records()] == [GROUP]
    bench.gateway.relay_silent(bench.now)
    assert bench.sent() == []
    bench.run(5)
    bench.gateway.relay_silent(bench.now)
    assert kinds(bench.run(0)) == [(0.0, amt.Request)]


def test_silence_of_an_unwanted_relay_means_nothing(direct_bench):
    bench = direct_bench()
    bench.gateway.start(bench.now)
    bench.gateway.relay_silent(bench.now)
    assert bench.run(10) == []


def test_refresh_of_a_tunnel_renews_it_without_giving_it_up(bench):
    bench.gateway.refresh(bench.now)
    assert kinds(bench.run(0)) == [(0.0, amt.Request)]
    assert bench.gateway.state is State.ESTABLISHED


# Recovery -------------------------------------------------------------------------------------------------------------


def test_a_lost_update_of_a_cold_join_is_repeated_within_a_second(direct_bench):
    bench = direct_bench()
    bench.join(GROUP, SOURCE)
    bench.establish()
    assert len(bench.records()) == 1  # lost
    ((when, update),) = bench.run(1.0)
    assert isinstance(update, amt.MembershipUpdate)
    assert 0 < when <= 1.0


def test_a_lost_query_costs_a_second(direct_bench):
    bench = direct_bench()
    bench.gateway.start(bench.now)
    bench.join(GROUP, SOURCE)
    sent = bench.run(1.1)
    assert kinds(sent) == [(0.0, amt.Request), (1.0, amt.Request)]
    bench.query(sent[0][1].nonce)
    assert len(bench.records()) == 1


def test_a_clock_that_jumps_does_not_make_a_burst(bench):
    bench.now += 100_000
    bench.gateway.handle_timer(bench.now)
    assert len(bench.sent()) == 1
    bench.gateway.handle_timer(bench.now - 50)  # and one that steps back is held
    assert bench.sent() == []


# Hostile input --------------------------------------------------------------------------------------------------------


def test_every_message_that_is_not_for_a_gateway_is_counted(bench):
    report = group_packet.encode(Report(()), ip_address("192.0.2.5"))
    for message in (
        amt.RelayDiscovery(1),
        amt.Request(1),
        amt.MembershipUpdate(b"mac-01", 1, report),
        amt.Teardown(b"mac-01", 1, (ip_address("192.0.2.5"), 1)),
    ):
        bench.receive(message)
    bench.receive(amt.MulticastData(b"\x45" + bytes(40)))
    bench.receive(b"")
    bench.receive(b"\x15\x00")
    bench.receive(b"\x0f\x00")
    counters = bench.gateway.counters
    assert counters["dropped_wrong_direction"] == 4
    assert counters["dropped_data"] == 1
    assert counters["dropped_truncated"] == 1
    assert counters["dropped_malformed"] == 1
    assert counters["dropped_unknown_type"] == 1
    assert bench.sent() == []


def test_a_gateway_that_was_not_started_takes_nothing(gateway_bench):
    bench = gateway_bench()
    bench.advertise(1)
    bench.query(1)
    assert bench.gateway.counters == {"dropped_unsolicited_advertisement": 1, "dropped_unsolicited_query": 1}
    assert bench.gateway.state is State.STOPPED


def random_message(rng, bench, nonces):
    """Bytes an attacker on the path might send: pieces of what is valid, in any combination."""
    nonce = rng.choice([*nonces, rng.getrandbits(32)])
    family = rng.choice(list(Family))
    source = ip_address("192.0.2.1") if family is Family.IPV4 else ip_address("fe80::1")
    packet = group_packet.encode(Query(interval=rng.choice([0, 1, 125])), source)
    data = rng.choice(
        [
            amt.RelayAdvertisement(nonce, ip_address(rng.choice(["192.0.2.1", "239.1.1.1", "2001:db8::1"]))),
            amt.MembershipQuery(
                rng.randbytes(6),
                nonce,
                packet,
                limit=rng.random() < 0.2,
                gateway=rng.choice([None, (ip_address("203.0.113.5"), rng.randrange(3))]),
            ),
            amt.MulticastData(rng.randbytes(50)),
            amt.Request(nonce),
        ]
    ).encode()
    if rng.random() < 0.3:
        data = data[: rng.randrange(len(data) + 1)] + rng.randbytes(rng.randrange(4))
    address = rng.choice([bench.relay, Endpoint(amt.ANYCAST_IPV4, 2268), Endpoint(ip_address("192.0.2.9"), 2268)])
    return data, address


@pytest.mark.parametrize("seed", range(40))
def test_whatever_comes_nothing_raises_and_sends_stay_answers_to_what_was_asked(gateway_bench, direct_bench, seed):
    rng = random.Random(seed)
    bench = rng.choice([gateway_bench, direct_bench])(limit_retry=rng.choice([None, 5.0]), entropy=rng.randbytes)
    groups = [(f"232.1.1.{last}", SOURCE) for last in range(1, 4)] + [("ff3e::8000:1", "2001:db8::5"), ("239.1.1.1",)]
    bench.gateway.start(bench.now)
    nonces = [1]
    for _ in range(400):
        before = bench.gateway.counters.copy()
        action = rng.randrange(8)
        if action == 0:
            bench.join(*rng.choice(groups))
        elif action == 1:
            bench.leave(rng.choice(groups)[0])
        elif action == 2:
            bench.now += rng.choice([0.0, 0.3, 2.0, 50.0])
            bench.gateway.handle_timer(bench.now)
        elif action == 3:
            rng.choice([bench.gateway.receive_error, bench.gateway.relay_silent, bench.gateway.refresh])(bench.now)
        elif action == 4 and rng.random() < 0.1:
            bench.gateway.stop(bench.now)
            bench.sent()
            bench.gateway.start(bench.now)
        else:
            bench.receive(*random_message(rng, bench, nonces))
        sent = bench.sent()
        nonces = nonces[-6:] + [message.nonce for message in sent if hasattr(message, "nonce")]
        received = bench.gateway.counters["received_membership_query"] - before["received_membership_query"]
        advertised = bench.gateway.counters["received_relay_advertisement"] - before["received_relay_advertisement"]
        if action > 4 and not received and not advertised:
            assert sent == []  # what was dropped causes nothing
        assert len(sent) <= 8
        assert len(bench.gateway._timers) <= 2
        assert len(bench.events()) <= 6
    assert len(bench.gateway.counters) < 40


def test_a_random_generator_that_is_stuck_still_gives_fresh_nonces_that_are_not_zero():
    for value in (b"\x00" * 4, b"\xff" * 4, b"\x00\x00\x00\x07"):
        chance = Chance(lambda size, value=value: value[:size])
        nonces = [chance.nonce() for _ in range(4)]
        assert 0 not in nonces
        assert all(first != second for first, second in itertools.pairwise(nonces))


# The table and the configuration --------------------------------------------------------------------------------------


def test_a_move_that_is_not_in_the_table_raises():
    with pytest.raises(NoTransition, match="QUERY in IDLE"):
        transition(State.IDLE, Trigger.QUERY)
    assert transition(State.REQUESTING, Trigger.QUERY) is State.ESTABLISHED
    assert {state for state, _ in TRANSITIONS} == set(State)


@pytest.mark.parametrize(
    "fields",
    [
        {"address": ip_address("232.1.1.1")},
        {"address": ip_address("0.0.0.0")},
        {"port": 0},
        {"initial_timeout": 0.0},
        {"maximum_timeout": 0.5},
        {"jitter": 1.0},
        {"request_attempts": 0},
        {"minimum_query_interval": 200.0},
        {"limit_retry": 0.0},
        {"hint_interval": -1.0},
        {"update_burst": 0},
        {"mtu": 500},
    ],
)
def test_a_configuration_that_cannot_work_is_refused(fields):
    with pytest.raises(ValueError):
        GatewayConfig(**{"address": amt.ANYCAST_IPV4, **fields})


# Fast probes, where channels have another relay to go to --------------------------------------------------------------


def test_a_fast_probe_gives_a_silent_relay_up_after_three_short_waits(bench):
    bench.gateway.probe_fast(0.5)
    bench.gateway.relay_silent(bench.now)
    assert kinds(bench.run(1.4)) == [(0, amt.Request), (0.5, amt.Request), (1.0, amt.Request)]
    assert bench.events(RelayLost) == []
    bench.run(0.2)
    assert len(bench.events(RelayLost)) == 1


def test_silence_makes_a_wait_that_runs_already_short(bench):
    """The relay died just before it was to be asked anyway."""
    bench.gateway.probe_fast(0.5)
    bench.gateway.refresh(bench.now)
    bench.run(0.1)
    assert bench.gateway.relay_silent(bench.now)
    assert len(kinds(bench.run(1.4))) == 2
    assert bench.events(RelayLost) == []
    bench.run(0.2)
    assert len(bench.events(RelayLost)) == 1


def test_a_hint_that_comes_too_soon_is_to_come_again(bench):
    assert bench.gateway.relay_silent(bench.now)
    bench.query(bench.sent(amt.Request)[-1].nonce)
    assert not bench.gateway.relay_silent(bench.now)
    bench.run(bench.gateway.config.hint_interval)
    assert bench.gateway.relay_silent(bench.now)
    assert bench.sent(amt.Request)


def test_an_icmp_error_starts_a_fast_probe_and_quarters_its_waits(bench):
    bench.gateway.probe_fast(0.4)
    begin = bench.now
    bench.gateway.receive_error(bench.now)
    assert bench.sent(amt.Request)
    while not (lost := bench.events(RelayLost)):
        bench.gateway.receive_error(bench.now)
        bench.now = bench.gateway.next_deadline()
        bench.gateway.handle_timer(bench.now)
        bench.sent()
    assert len(lost) == 1
    assert bench.now - begin == pytest.approx(0.3)


def test_an_answered_fast_probe_ends_nothing(bench):
    bench.gateway.probe_fast(0.5)
    bench.gateway.relay_silent(bench.now)
    bench.query(bench.sent(amt.Request)[-1].nonce)
    bench.run(10)
    assert bench.events(RelayLost) == []
    assert bench.gateway.state is State.ESTABLISHED


def test_a_relay_given_up_fast_is_asked_again_patiently(bench):
    bench.gateway.probe_fast(0.5)
    bench.gateway.relay_silent(bench.now)
    sent = bench.run(120)
    assert bench.events(RelayLost)
    assert len([message for _, message in sent if isinstance(message, amt.Request)]) < 12


def test_the_l_flag_on_a_tunnel_is_told_once(bench):
    for _ in range(2):
        bench.gateway.refresh(bench.now)
        bench.query(bench.sent(amt.Request)[-1].nonce, limit=True)
    assert [type(event) for event in bench.events(LimitSet)] == [LimitSet]
    assert bench.gateway.state is State.ESTABLISHED
