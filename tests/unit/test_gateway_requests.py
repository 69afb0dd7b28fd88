"""Request cycles and the Queries that answer them (RFC 7450 §5.2.3.5)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from agent.protocol.channels import Endpoint, Family, Filter
from agent.protocol.gateway_events import (
    FamilyUnanswered,
    GatewayAddressChanged,
    LostReason,
    RelayFound,
    RelayLimit,
    RelayLost,
)
from agent.protocol.gateway_state import State
from agent.protocol.wire import amt, group_packet
from agent.protocol.wire.groups import GroupVersion, Leave, Query, RecordType

S4, S6 = "198.51.100.1", "2001:db8::1"
G4, G6 = "232.1.1.1", "ff3e::8000:1"
RELAY = Endpoint(ip_address("192.0.2.1"), 2268)


@pytest.fixture
def bench(direct_bench):
    """Configured relay, one IPv4 channel wanted, its first Request not yet drained."""
    bench = direct_bench()
    bench.gateway.start(bench.now)
    bench.join(G4, S4)
    return bench


def requests(sent):
    return [(round(when, 3), message) for when, message in sent if isinstance(message, amt.Request)]


def test_a_query_brings_an_update_with_its_nonce_and_mac_at_once(bench):
    nonce = bench.request_nonce()
    assert bench.gateway.query_interval is None
    bench.query(nonce, mac=b"\x01\x02\x03\x04\x05\x06")
    (update,) = bench.sent()
    assert (update.nonce, update.response_mac) == (nonce, b"\x01\x02\x03\x04\x05\x06")
    packet = group_packet.decode(update.packet)
    assert str(packet.destination) == "224.0.0.22"
    assert packet.router_alert
    assert packet.ttl == 1
    assert packet.message.records[0].sources == (ip_address(S4),)
    assert bench.gateway.state is State.ESTABLISHED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nonce": 1}, "wrong_nonce"),
        ({"source": Endpoint(RELAY.address, 2269)}, "wrong_source"),
        ({"source": Endpoint(ip_address("192.0.2.2"), 2268)}, "wrong_source"),
        ({"family": Family.IPV6}, "wrong_family"),
        ({"group": ip_address(G4)}, "not_a_general_query"),
        ({"version": GroupVersion.ANY_SOURCE}, "not_a_general_query"),
    ],
)
def test_a_query_that_is_not_the_answer_is_counted_and_changes_nothing(bench, change, reason):
    nonce = bench.request_nonce()
    deadline = bench.gateway.next_deadline()
    bench.query(change.pop("nonce", 0) ^ nonce, **change)
    assert bench.gateway.counters[f"dropped_{reason}"] == 1
    assert bench.sent() == []
    assert bench.gateway.state is State.REQUESTING
    assert bench.gateway.next_deadline() == deadline


def test_a_query_with_something_else_inside_is_dropped(bench):
    nonce = bench.request_nonce()
    report = group_packet.encode(Leave(ip_address("239.1.1.1")), ip_address("192.0.2.1"))
    bench.receive(amt.MembershipQuery(b"mac-01", nonce, report))
    assert bench.gateway.counters["dropped_not_a_general_query"] == 1
    broken = bytearray(group_packet.encode(Query(), ip_address("192.0.2.1")))
    broken[-1] ^= 1
    bench.receive(amt.MembershipQuery(b"mac-01", nonce, bytes(broken)))
    assert bench.gateway.counters["dropped_bad_checksum"] == 1
    assert bench.gateway.state is State.REQUESTING


def test_a_replayed_query_is_a_duplicate(bench):
    nonce = bench.request_nonce()
    bench.query(nonce)
    bench.run(5)
    bench.query(nonce, mac=b"mac-99")
    assert bench.gateway.counters["dropped_duplicate_query"] == 1
    assert bench.sent() == []


def test_a_query_of_the_cycle_before_is_refused(bench):
    nonce = bench.request_nonce()
    bench.query(nonce, interval=10)
    (_, request), *_ = requests(bench.run(10.5))
    bench.query(nonce)
    assert bench.gateway.counters["dropped_wrong_nonce"] == 1
    bench.query(request.nonce)
    assert bench.gateway.counters["received_membership_query"] == 2


@pytest.mark.parametrize(
    ("interval", "wait"), [(10, 10), (127, 127), (128, 128), (248, 248), (31744, 31744), (0, 125), (1, 1)]
)
def test_the_next_cycle_begins_with_a_fresh_nonce_after_the_query_interval(bench, interval, wait):
    nonce = bench.request_nonce()
    bench.query(nonce, interval=interval)
    assert bench.gateway.query_interval == wait
    ((when, request),) = requests(bench.run(wait + 0.5))
    assert when == wait
    assert bench.gateway.last_query == bench.now - wait - 0.5
    assert request.nonce not in (0, nonce)
    assert bench.gateway.state is State.ESTABLISHED


def test_the_query_interval_is_bounded_by_configuration(direct_bench):
    for interval, wait in [(1, 20), (3600, 200)]:
        bench = direct_bench(minimum_query_interval=20, maximum_query_interval=200)
        bench.gateway.start(bench.now)
        bench.join(G4, S4)
        bench.query(bench.request_nonce(), interval=interval)
        assert [when for when, _ in requests(bench.run(wait + 0.5))] == [wait]


def test_updates_use_the_newest_mac(bench):
    bench.query(bench.request_nonce(), mac=b"mac-01", interval=10)
    (_, request), *_ = requests(bench.run(10.5))
    bench.query(request.nonce, mac=b"mac-02")
    (answer,) = bench.sent(amt.MembershipUpdate)
    bench.join("232.1.1.2", S4)
    (update,) = bench.sent()
    for message in (answer, update):
        assert (message.nonce, message.response_mac) == (request.nonce, b"mac-02")


def test_while_a_cycle_is_unanswered_joins_go_out_with_the_mac_in_hand(bench):
    nonce = bench.request_nonce()
    bench.query(nonce, mac=b"mac-01", interval=10)
    bench.run(10.5)
    bench.join("232.1.1.2", S4)
    (update,) = bench.sent()
    assert (update.nonce, update.response_mac) == (nonce, b"mac-01")


def test_requests_back_off_and_the_relay_is_lost_after_fifteen_seconds(gateway_bench):
    bench = gateway_bench()
    bench.join(G4, S4)
    bench.gateway.start(bench.now)
    (discovery,) = bench.sent()
    bench.advertise(discovery.nonce)
    sent = bench.run(15.5)
    assert [round(when) for when, _ in requests(sent)] == [0, 1, 3, 7]
    assert len({request.nonce for _, request in requests(sent)}) == 1
    assert isinstance(sent[-1][1], amt.RelayDiscovery)
    assert bench.events(RelayLost) == [RelayLost(RELAY, LostReason.REQUEST_UNANSWERED)]
    assert bench.gateway.relay is None
    assert bench.gateway.state is State.DISCOVERING
    bench.advertise(sent[-1][1].nonce, "192.0.2.7")
    bench.relay = bench.gateway.relay
    bench.answer(bench.sent(amt.Request))
    assert [record.group for record in bench.records()] == [ip_address(G4)]
    assert bench.events(RelayFound) == [RelayFound(Endpoint(ip_address("192.0.2.7"), 2268))]


def test_a_configured_relay_is_asked_for_ever_and_lost_is_told_once_an_outage(bench):
    sent = requests(bench.run(250))
    assert [when for when, _ in sent] == [0, 1, 3, 7, 15, 31, 63, 127, 247, 248, 250]
    assert len({request.nonce for _, request in sent}) == 2
    assert bench.events(RelayLost) == [RelayLost(RELAY, LostReason.REQUEST_UNANSWERED)]
    bench.query(sent[-1][1].nonce, interval=10)
    assert bench.gateway.state is State.ESTABLISHED
    bench.run(30)
    assert bench.events(RelayLost) == [RelayLost(RELAY, LostReason.REQUEST_UNANSWERED)]
    assert bench.gateway.state is State.REQUESTING


def test_a_restarted_relay_hears_everything_again_in_the_next_cycle(bench):
    bench.query(bench.request_nonce(), interval=10)
    (_, request), *_ = requests(bench.run(10.5))
    bench.query(request.nonce, mac=b"reborn")
    assert [(record.type, record.group) for record in bench.records()] == [
        (RecordType.MODE_IS_INCLUDE, ip_address(G4)),
    ]


def test_a_relay_lost_and_back_hears_everything_twice(bench):
    bench.query(bench.request_nonce(), interval=10)
    bench.run(30)
    assert bench.gateway.state is State.REQUESTING
    *_, (_, request) = requests(bench.run(20))
    bench.query(request.nonce, mac=b"reborn")
    told = [m for _, m in bench.run(1.5) if isinstance(m, amt.MembershipUpdate)]
    kinds = [record.type for m in told for record in group_packet.decode(m.packet).message.records]
    assert kinds == [RecordType.MODE_IS_INCLUDE, RecordType.ALLOW_NEW_SOURCES]


def test_a_gateway_that_left_everything_repeats_the_leave_and_falls_silent(bench):
    bench.query(bench.request_nonce(), interval=60)
    bench.run(5)
    bench.leave(G4)
    sent = bench.run(1.5)
    records = [record for _, m in sent for record in group_packet.decode(m.packet).message.records]
    assert [record.type for record in records] == [RecordType.BLOCK_OLD_SOURCES] * 2
    assert bench.run(3600) == []
    assert bench.gateway.state is State.IDLE
    assert bench.gateway.next_deadline() is None


def test_within_the_query_interval_a_new_join_needs_no_round_trip(bench):
    nonce = bench.request_nonce()
    bench.query(nonce, interval=60)
    bench.run(2)
    bench.leave(G4)
    bench.run(30)
    bench.join(G4, S4)
    (update,) = bench.sent()
    assert isinstance(update, amt.MembershipUpdate)


# Families -------------------------------------------------------------------------------------------------------------


def test_each_family_has_its_request_only_when_it_has_groups(direct_bench):
    for groups, expected in [([(G4, S4)], [False]), ([(G6, S6)], [True]), ([(G4, S4), (G6, S6)], [False, True])]:
        bench = direct_bench()
        for group, source in groups:
            bench.join(group, source)
        bench.gateway.start(bench.now)
        sent = bench.sent(amt.Request)
        assert [request.mld for request in sent] == expected
        assert len({request.nonce for request in sent}) == 1


def test_both_families_report_over_one_tunnel_each_on_its_own_query(bench):
    bench.join(G6, S6)
    v4, v6 = bench.sent(amt.Request)
    assert v4.nonce == v6.nonce
    bench.query(v6.nonce, Family.IPV6, mac=b"mac-06", interval=100)
    (update,) = bench.sent()
    assert update.response_mac == b"mac-06"
    assert group_packet.decode(update.packet).source.version == 6
    bench.query(v4.nonce, Family.IPV4, mac=b"mac-04", interval=50)
    (update,) = bench.sent()
    assert update.response_mac == b"mac-04"
    assert group_packet.decode(update.packet).source.version == 4
    bench.join("ff3e::8000:2", S6)
    (update,) = bench.sent()
    assert update.response_mac == b"mac-06"
    sent = requests(bench.run(50.5))
    assert [(when, request.mld) for when, request in sent] == [(50, False), (50, True)]


def test_a_first_group_of_the_other_family_is_told_at_once_and_asked_for_with_the_same_nonce(bench):
    nonce = bench.request_nonce()
    bench.query(nonce, mac=b"mac-04")
    bench.sent()
    bench.join(G6, S6)
    request, update = bench.sent()
    assert request == amt.Request(nonce, mld=True)
    assert (update.nonce, update.response_mac) == (nonce, b"mac-04")
    assert group_packet.decode(update.packet).message.records[0].group == ip_address(G6)
    bench.query(nonce, Family.IPV6, mac=b"mac-06")
    assert [record.type for record in bench.records()] == [RecordType.MODE_IS_INCLUDE]


def test_a_family_that_comes_up_during_a_request_joins_the_cycle(bench):
    nonce = bench.request_nonce()
    bench.run(1.5)
    bench.join(G6, S6)
    assert bench.sent() == [amt.Request(nonce, mld=True)]
    bench.leave(G6)
    bench.join(G6, S6)
    assert bench.sent() == []  # asked already
    bench.leave(G6)
    assert [request.mld for _, request in requests(bench.run(2))] == [False]


def test_the_kernel_relay_is_asked_with_its_own_mld_flag_and_that_is_remembered(direct_bench):
    bench = direct_bench()
    bench.join(G6, S6)
    bench.gateway.start(bench.now)
    first = bench.sent()
    assert first == [amt.Request(first[0].nonce, mld=True)]
    ((when, second),) = bench.run(1.5)
    assert (when, second) == (1.0, amt.Request(first[0].nonce, kernel_mld=True))
    bench.query(second.nonce, Family.IPV6, interval=20)
    ((_, third),) = requests(bench.run(20.5))
    assert third == amt.Request(third.nonce, kernel_mld=True)
    flags = [request.kernel_mld for _, request in requests(bench.run(9))]
    assert flags == [True, False, True]  # it may have become another relay: again as known, then the other way


def test_an_mld_request_after_an_answered_igmp_request_begins_with_the_rfc_flag(bench):
    bench.run(1.5)
    bench.query(bench.gateway._cycle.nonce)
    bench.sent()
    bench.join(G6, S6)
    assert bench.sent(amt.Request)[0].mld


def test_a_relay_of_one_family_keeps_its_tunnel_and_the_other_family_is_given_up_until_the_next_cycle(bench):
    bench.join(G6, S6)
    v4, _ = bench.sent(amt.Request)
    bench.query(v4.nonce, interval=60)
    sent = requests(bench.run(50))
    assert [when for when, _ in sent] == [1, 3, 7]
    assert all(request.mld or request.kernel_mld for _, request in sent)
    assert bench.events(FamilyUnanswered) == [FamilyUnanswered(Family.IPV6)]
    assert bench.events(RelayLost) == []
    assert bench.gateway.state is State.ESTABLISHED
    bench.query(v4.nonce, Family.IPV6)  # late, but an answer
    assert [record.group for record in bench.records()] == [ip_address(G6)]
    assert [when for when, _ in requests(bench.run(10.5))] == [10, 10]


def test_a_family_given_up_while_nobody_wants_it_any_more_is_not_reported(bench):
    bench.join(G6, S6)
    v4, _ = bench.sent(amt.Request)
    bench.query(v4.nonce, interval=60)
    bench.leave(G6)
    assert requests(bench.run(50)) == []
    assert bench.events(FamilyUnanswered) == []


# L and G flags --------------------------------------------------------------------------------------------------------


def test_the_limit_flag_stops_a_new_tunnel_and_is_asked_again_later(gateway_bench):
    bench = gateway_bench(limit_retry=300.0)
    bench.join(G4, S4)
    bench.gateway.start(bench.now)
    bench.advertise(bench.sent()[0].nonce)
    bench.query(bench.request_nonce(), limit=True)
    assert bench.gateway.state is State.LIMITED
    assert bench.gateway.limit
    assert bench.events(RelayLimit) == [RelayLimit(RELAY)]
    bench.join("232.1.1.2", S4)
    sent = bench.run(300.5)
    assert [(round(when), type(message)) for when, message in sent] == [(300, amt.RelayDiscovery)]
    bench.advertise(sent[0][1].nonce)
    bench.query(bench.request_nonce())
    assert len(bench.records()) == 2
    assert not bench.gateway.limit


def test_the_limit_flag_without_retry_waits_for_the_owner(direct_bench):
    bench = direct_bench(limit_retry=None)
    bench.join(G4, S4)
    bench.gateway.start(bench.now)
    bench.query(bench.request_nonce(), limit=True)
    assert bench.run(100_000) == []
    bench.gateway.refresh(bench.now)
    assert [type(message) for message in bench.sent()] == [amt.Request]
    bench.query(bench.gateway._cycle.nonce, limit=True)
    bench.leave(G4)
    bench.gateway.refresh(bench.now)
    assert bench.gateway.state is State.IDLE


def test_the_limit_flag_leaves_an_existing_tunnel_alone(bench):
    bench.query(bench.request_nonce(), interval=10)
    ((_, request),) = requests(bench.run(10.5))
    bench.query(request.nonce, limit=True)
    assert bench.gateway.limit
    assert bench.gateway.state is State.ESTABLISHED
    assert len(bench.records()) == 1
    assert bench.events(RelayLimit) == []


def test_a_warm_tunnel_that_carries_no_group_is_new_to_the_limit(direct_bench):
    bench = direct_bench(keep_warm=frozenset({Family.IPV4}))
    bench.establish(interval=10)
    ((_, request),) = requests(bench.run(10.5))
    bench.query(request.nonce, limit=True)
    assert bench.events(RelayLimit) == [RelayLimit(RELAY)]


def test_a_changed_gateway_address_tears_down_the_old_tunnel_and_reports_everything_anew(bench):
    old, new = (ip_address("203.0.113.5"), 4000), (ip_address("203.0.113.5"), 4001)
    nonce = bench.request_nonce()
    bench.query(nonce, mac=b"mac-01", interval=10, gateway=old)
    assert bench.gateway.gateway_address == Endpoint(*old)
    assert bench.events(GatewayAddressChanged) == [GatewayAddressChanged(None, Endpoint(*old))]
    ((_, request),) = requests(bench.run(10.5))
    bench.query(request.nonce, mac=b"mac-02", gateway=new)
    teardown, update = bench.sent()
    assert teardown == amt.Teardown(b"mac-01", nonce, old)
    assert (update.nonce, update.response_mac) == (request.nonce, b"mac-02")
    assert bench.events(GatewayAddressChanged) == [GatewayAddressChanged(Endpoint(*old), Endpoint(*new))]
    assert [type(message) for _, message in bench.run(1.5)] == [amt.MembershipUpdate]  # told as news: repeated


def test_the_same_address_again_changes_nothing_but_the_teardown_to_come(bench):
    seen = (ip_address("203.0.113.5"), 4000)
    bench.query(bench.request_nonce(), mac=b"mac-01", interval=10, gateway=seen)
    ((_, request),) = requests(bench.run(10.5))
    bench.query(request.nonce, mac=b"mac-02", gateway=seen)
    assert bench.sent(amt.Teardown) == []
    bench.gateway.stop(bench.now)
    assert bench.sent(amt.Teardown) == [amt.Teardown(b"mac-02", request.nonce, seen)]


@pytest.mark.parametrize("gateway", [(ip_address("::"), 4000), (ip_address("203.0.113.5"), 0)])
def test_an_impossible_gateway_address_is_ignored(bench, gateway):
    bench.query(bench.request_nonce(), gateway=gateway)
    assert bench.gateway.gateway_address is None
    assert bench.gateway.state is State.ESTABLISHED


# Stop -----------------------------------------------------------------------------------------------------------------


def test_stop_leaves_every_group_then_tears_down_and_nothing_follows(bench):
    seen = (ip_address("203.0.113.5"), 4000)
    bench.join(G6, S6)
    bench.gateway.set_membership(ip_address("239.1.1.1"), Filter.exclude(), bench.now)
    nonce, _ = (request.nonce for request in bench.sent(amt.Request))
    bench.query(nonce, gateway=seen)
    bench.query(nonce, Family.IPV6, gateway=seen)
    bench.run(2)
    bench.gateway.stop(bench.now)
    *updates, teardown = bench.sent()
    records = [record for update in updates for record in group_packet.decode(update.packet).message.records]
    assert {(record.type, str(record.group)) for record in records} == {
        (RecordType.BLOCK_OLD_SOURCES, G4),
        (RecordType.CHANGE_TO_INCLUDE, "239.1.1.1"),
        (RecordType.BLOCK_OLD_SOURCES, G6),
    }
    assert teardown == amt.Teardown(b"mac-01", nonce, seen)
    assert bench.gateway.state is State.STOPPED
    bench.gateway.stop(bench.now)
    assert bench.run(3600) == []


def test_stop_without_a_tunnel_says_nothing_and_start_begins_anew(bench):
    bench.sent()
    bench.gateway.stop(bench.now)
    assert bench.run(3600) == []
    bench.gateway.start(bench.now)
    bench.gateway.start(bench.now)
    assert [type(message) for message in bench.sent()] == [amt.Request]


def test_after_stop_a_discovered_relay_is_forgotten(gateway_bench):
    bench = gateway_bench()
    bench.join(G4, S4)
    bench.establish()
    bench.gateway.stop(bench.now)
    assert bench.gateway.relay is None
    bench.sent()
    bench.gateway.start(bench.now)
    assert [type(message) for message in bench.sent()] == [amt.RelayDiscovery]


def test_a_relay_kept_warm_from_now_on_is_asked_at_once_and_its_groups_stay(direct_bench):
    bench = direct_bench()
    bench.gateway.start(bench.now)
    assert bench.sent(amt.Request) == []
    bench.gateway.keep_warm(frozenset({Family.IPV4}), bench.now)
    bench.answer(bench.sent(amt.Request))
    assert bench.gateway.state is State.ESTABLISHED
    bench.join("232.1.1.1", "198.51.100.1")
    bench.gateway.keep_warm(frozenset(), bench.now)
    assert bench.gateway.state is State.ESTABLISHED
    assert list(bench.gateway.memberships) == [ip_address("232.1.1.1")]
