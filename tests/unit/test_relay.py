"""The relay machine: discovery, requests, tunnels, limits (RFC 7450 §5.3)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent.protocol.channels import NOTHING, Endpoint, Family, Filter
from agent.protocol.relay import (
    CloseReason,
    InterestChanged,
    Relay,
    RelayConfig,
    TunnelClosed,
    TunnelOpened,
)
from agent.protocol.wire import amt, group_packet, ip
from agent.protocol.wire.groups import AnySourceReport, GroupRecord, Leave, Query, RecordType, Report

RELAY4, RELAY6, ANYCAST = ip_address("198.51.100.1"), ip_address("2001:db8::1"), amt.ANYCAST_IPV4
GATEWAY = Endpoint(ip_address("192.0.2.7"), 40000)
MOVED = Endpoint(ip_address("192.0.2.7"), 40001)
OTHER = Endpoint(ip_address("192.0.2.8"), 40000)
GATEWAY6 = Endpoint(ip_address("2001:db8:7::7"), 40000)
HOST, HOST6 = ip_address("0.0.0.0"), ip_address("fe80::7")
SSM, ASM, SSM6 = (ip_address(text) for text in ("232.1.1.1", "239.1.1.1", "ff3e::1"))
S1, S2, S6 = (ip_address(text) for text in ("10.0.0.1", "10.0.0.2", "2001:db8:5::1"))
LIFETIME = 260.0


def record(kind, group=SSM, *sources):
    return Report((GroupRecord(kind, group, sources),))


ALLOW = record(RecordType.ALLOW_NEW_SOURCES, SSM, S1)
ALLOW6 = record(RecordType.ALLOW_NEW_SOURCES, SSM6, S6)
BLOCK = record(RecordType.BLOCK_OLD_SOURCES, SSM, S1)


class Bench:
    """A relay, and gateways that know what to say to it."""

    def __init__(self, **settings) -> None:
        self.secrets = iter(range(1, 100))
        self.relay = Relay(RelayConfig((RELAY4, RELAY6), **settings), lambda size: bytes([next(self.secrets)]) * size)

    def say(self, message, source=GATEWAY, local=RELAY4, now=0.0):
        data = message if isinstance(message, bytes) else message.encode()
        self.relay.receive_datagram(data, source, local, now)
        return self.relay.datagrams_to_send()

    def query(self, source=GATEWAY, nonce=7, now=0.0, local=RELAY4, **flags) -> amt.MembershipQuery:
        (datagram,) = self.say(amt.Request(nonce, **flags), source, local, now)
        assert (datagram.destination, datagram.source) == (source, local)
        message = amt.decode(datagram.data)
        assert isinstance(message, amt.MembershipQuery)
        assert message.nonce == nonce
        return message

    def update(self, report=ALLOW, source=GATEWAY, now=0.0, query=None, local=RELAY4):
        """Send an Update, answering `query` or a new Request; what it brought about."""
        query = query or self.query(source, now=now, local=local)
        inner = report if isinstance(report, bytes) else group_packet.encode(report, inner_source(report))
        answers = self.say(amt.MembershipUpdate(query.response_mac, query.nonce, inner), source, local, now)
        assert answers == []
        return self.relay.events()

    @property
    def refused(self):
        return dict(self.relay.counters.refused)

    @property
    def endpoints(self):
        return [view.tunnel for view in self.relay.tunnels()]


def inner_source(message):
    group = message.records[0].group if isinstance(message, Report) else message.group
    return HOST6 if group is not None and group.version == 6 else HOST


def interest(wanted, group=SSM, tunnel=GATEWAY, local=RELAY4):
    return InterestChanged(tunnel, local, group, wanted)


# Discovery


@pytest.mark.parametrize(
    ("gateway", "local", "relay"), [(GATEWAY, ANYCAST, RELAY4), (GATEWAY6, amt.ANYCAST_IPV6, RELAY6)]
)
def test_discovery_is_answered_from_the_address_asked_with_the_unicast_address(gateway, local, relay):
    (answer,) = Bench().say(amt.RelayDiscovery(0x01020304), gateway, local)
    assert answer.data == b"\x02\x00\x00\x00\x01\x02\x03\x04" + relay.packed
    assert (answer.destination, answer.source) == (gateway, local)


def test_discovery_is_not_answered_without_an_address_of_its_family():
    relay = Relay(RelayConfig((RELAY4,)), bytes)
    relay.receive_datagram(amt.RelayDiscovery(1).encode(), GATEWAY6, amt.ANYCAST_IPV6, 0)
    assert relay.datagrams_to_send() == []
    assert relay.counters.refused == {"no_address_of_family": 1}


# Request


def test_request_is_answered_with_an_igmpv3_query_of_48_bytes():
    """VLC takes no other size."""
    bench = Bench(query_interval=60, robustness_variable=3, query_response_interval=5)
    (answer,) = bench.say(amt.Request(9))
    assert len(answer.data) == 48
    assert answer.data[:2] == b"\x04\x00"
    packet = group_packet.decode(amt.decode(answer.data).packet)
    assert packet.message == Query(max_response_time=5.0, robustness=3, interval=60)
    assert (packet.source, packet.destination) == (RELAY4, group_packet.ALL_SYSTEMS)
    assert (packet.ttl, packet.router_alert) == (1, True)


@pytest.mark.parametrize("flags", [{"mld": True}, {"kernel_mld": True}])
def test_request_for_mld_in_either_bit_is_answered_with_an_mldv2_query(flags):
    """P is 0x01 in RFC 7450 §5.1.3.3 and 0x80 in the Linux kernel's driver."""
    query = Bench().query(**flags)
    packet = group_packet.decode(query.packet)
    assert (packet.source, packet.destination) == (ip_address("fe80::1"), group_packet.ALL_NODES)
    assert (packet.ttl, packet.router_alert) == (1, True)
    assert packet.message == Query(max_response_time=10.0, robustness=2, interval=125)


def test_mac_does_not_depend_on_the_family_asked_for():
    bench = Bench()
    macs = {bench.query(**flags).response_mac for flags in ({}, {"mld": True}, {"kernel_mld": True})}
    assert len(macs) == 1


def test_request_longer_than_8_bytes_is_answered():
    """VLC sends 9."""
    assert len(Bench().say(amt.Request(1).encode() + b"\x00")) == 1


def test_gateway_address_is_told_where_configured():
    bench = Bench(gateway_address_in_query=True)
    assert bench.query().gateway == (GATEWAY.address, GATEWAY.port)
    assert bench.query(GATEWAY6).gateway == (GATEWAY6.address, GATEWAY6.port)
    assert Bench().query().gateway is None


def test_inner_sources_of_queries_are_configurable():
    bench = Bench(query_source_ipv4=ip_address("10.1.1.1"), query_source_ipv6=ip_address("fe80::99"))
    assert group_packet.decode(bench.query().packet).source == ip_address("10.1.1.1")
    assert group_packet.decode(bench.query(mld=True).packet).source == ip_address("fe80::99")
    only6 = Relay(RelayConfig((RELAY6,)), bytes)
    only6.receive_datagram(amt.Request(1).encode(), GATEWAY6, RELAY6, 0)
    (answer,) = only6.datagrams_to_send()
    assert group_packet.decode(amt.decode(answer.data).packet).source == ip_address("0.0.0.0")


def test_requests_make_no_state():
    bench = Bench()
    for port in range(1, 200):
        bench.query(Endpoint(GATEWAY.address, port))
    assert bench.relay.tunnels() == []
    assert bench.relay.next_deadline() is None


# Update and tunnels


def test_update_opens_a_tunnel_and_tells_its_interest():
    bench = Bench()
    assert bench.update(now=5) == [TunnelOpened(GATEWAY, RELAY4), interest(Filter.include([S1]))]
    (view,) = bench.relay.tunnels()
    assert (view.tunnel, view.local, view.since, view.last_update, view.updates) == (GATEWAY, RELAY4, 5, 5, 1)
    assert view.groups == {SSM: Filter.include([S1])}
    assert view.expires == bench.relay.next_deadline() == 5 + LIFETIME


def test_refresh_tells_nothing_and_prolongs_the_tunnel():
    bench = Bench()
    bench.update()
    assert bench.update(record(RecordType.MODE_IS_INCLUDE, SSM, S1), now=100) == []
    (view,) = bench.relay.tunnels()
    assert (view.since, view.last_update, view.updates, view.expires) == (0, 100, 2, 100 + LIFETIME)


def test_tunnel_ends_without_updates():
    bench = Bench()
    bench.update()
    bench.relay.handle_timer(LIFETIME - 1)
    assert bench.relay.events() == []
    bench.relay.handle_timer(LIFETIME)
    assert bench.relay.events() == [interest(NOTHING), TunnelClosed(GATEWAY, CloseReason.EXPIRED)]
    assert (bench.relay.tunnels(), bench.relay.next_deadline()) == ([], None)


def test_group_that_is_no_longer_reported_ends_in_a_tunnel_that_lives():
    bench = Bench()
    bench.update()
    bench.update(record(RecordType.ALLOW_NEW_SOURCES, SSM, S2), now=100)
    bench.relay.handle_timer(LIFETIME)
    assert bench.relay.events() == [interest(Filter.include([S2]))]
    assert bench.relay.next_deadline() == 100 + LIFETIME


def test_leave_acts_at_once_and_the_tunnel_stays():
    bench = Bench()
    bench.update()
    assert bench.update(BLOCK, now=1) == [interest(NOTHING)]
    assert bench.endpoints == [GATEWAY]
    assert bench.update(now=2) == [interest(Filter.include([S1]))]


def test_both_families_of_groups_share_a_tunnel_of_either_family():
    for gateway, local in ((GATEWAY, RELAY4), (GATEWAY6, RELAY6)):
        bench = Bench()
        bench.update(source=gateway, local=local)
        assert bench.update(ALLOW6, gateway, local=local) == [interest(Filter.include([S6]), SSM6, gateway, local)]
        (view,) = bench.relay.tunnels()
        assert set(view.groups) == {SSM, SSM6}


def test_older_reports_and_leaves_are_taken():
    bench = Bench()
    assert bench.update(AnySourceReport(ASM))[-1] == interest(Filter.exclude(), ASM)
    assert bench.update(Leave(ASM), now=1) == [interest(NOTHING, ASM)]


def test_first_update_without_interest_opens_nothing():
    bench = Bench()
    assert bench.update(BLOCK) == []
    assert bench.update(AnySourceReport(SSM)) == []
    assert bench.relay.tunnels() == []
    assert bench.refused == {"no_interest": 2, "any_source_in_ssm_range": 1}


def test_new_port_of_a_gateway_is_a_new_tunnel():
    """A NAT that rebinds: the old one ends by itself."""
    bench = Bench()
    bench.update()
    bench.update(source=MOVED, now=100)
    assert bench.endpoints == [GATEWAY, MOVED]
    bench.relay.handle_timer(LIFETIME)
    assert bench.endpoints == [MOVED]


def test_gateway_that_talks_to_another_of_our_addresses_has_another_tunnel():
    bench = Bench()
    other = ip_address("198.51.100.2")
    bench.update()
    assert bench.update(local=other, now=1) == [
        interest(NOTHING),
        TunnelClosed(GATEWAY, CloseReason.MOVED),
        TunnelOpened(GATEWAY, other),
        interest(Filter.include([S1]), local=other),
    ]
    assert bench.update(BLOCK, now=2)[-1] == TunnelClosed(GATEWAY, CloseReason.MOVED)
    assert bench.relay.tunnels() == []


def test_update_reordered_behind_its_successor_does_no_harm():
    bench = Bench()
    old, new = bench.query(nonce=1), bench.query(nonce=2)
    bench.update(query=new)
    bench.update(query=old, now=1)
    assert bench.endpoints == [GATEWAY]


# Authentication


def test_update_without_a_valid_mac_makes_no_state():
    bench = Bench()
    query = bench.query()
    for forged in (
        replace(query, response_mac=bytes(6)),
        replace(query, nonce=8),
    ):
        assert bench.update(query=forged) == []
    assert bench.update(source=OTHER, query=query) == []
    assert bench.update(source=MOVED, query=query) == []
    assert bench.refused == {"bad_mac": 4}
    assert bench.relay.tunnels() == []


def test_mac_is_accepted_across_one_rotation():
    bench = Bench(secret_lifetime=1000)
    query = bench.query(now=900)
    bench.update(query=query, now=1100)
    assert bench.endpoints == [GATEWAY]
    late = bench.query(OTHER, now=1100)
    assert bench.update(source=OTHER, query=late, now=3100) == []
    assert bench.refused == {"bad_mac": 1}


def test_gateway_that_never_asks_again_keeps_its_tunnel_over_rotations():
    """VLC sends its first Update again every query interval."""
    bench = Bench(secret_lifetime=200)
    query = bench.query()
    for now in range(0, 2000, 125):
        bench.relay.handle_timer(now)
        bench.update(query=query, now=now)
    assert bench.endpoints == [GATEWAY]
    assert bench.relay.tunnels()[0].updates == 16
    bench.update(query=replace(query, nonce=8), now=2000)
    bench.update(query=replace(query, response_mac=bytes(6)), now=2000)
    assert bench.refused == {"bad_mac": 2}


def test_each_family_of_a_gateway_that_never_asks_again_keeps_its_mac():
    bench = Bench(secret_lifetime=200)
    first, second = bench.query(nonce=1), bench.query(nonce=2, mld=True)
    for now in range(0, 2000, 125):
        bench.relay.handle_timer(now)
        bench.update(query=first, now=now)
        bench.update(ALLOW6, query=second, now=now)
    assert set(bench.relay.tunnels()[0].groups) == {SSM, SSM6}
    assert bench.refused == {}


def test_remembering_macs_can_be_off():
    bench = Bench(secret_lifetime=100, tunnel_keeps_mac=False)
    query = bench.query()
    bench.update(query=query)
    bench.update(query=query, now=250)
    assert bench.refused == {"bad_mac": 1}


def test_secret_rotated_by_hand():
    bench = Bench()
    query = bench.query()
    bench.relay.rotate_secret(1)
    bench.relay.rotate_secret(2)
    bench.update(query=query, now=3)
    assert bench.refused == {"bad_mac": 1}


# Teardown


def teardown(query, endpoint=GATEWAY):
    return amt.Teardown(query.response_mac, query.nonce, (endpoint.address, endpoint.port))


def test_teardown_ends_the_tunnel_it_names_from_wherever_it_comes():
    bench = Bench()
    query = bench.query()
    bench.update(query=query)
    assert bench.say(teardown(query), MOVED, now=1) == []
    assert bench.relay.events() == [interest(NOTHING), TunnelClosed(GATEWAY, CloseReason.TEARDOWN)]
    assert bench.relay.next_deadline() is None


def test_teardown_is_authenticated_against_the_address_in_it():
    bench = Bench()
    bench.update()
    mine = bench.query(MOVED)
    bench.say(teardown(mine), MOVED)
    bench.say(teardown(mine), GATEWAY)
    assert bench.endpoints == [GATEWAY]
    assert bench.refused == {"bad_mac": 2}


def test_teardown_over_ipv6():
    bench = Bench()
    query = bench.query(GATEWAY6, local=RELAY6)
    bench.update(source=GATEWAY6, local=RELAY6, query=query)
    bench.say(teardown(query, GATEWAY6), GATEWAY6, RELAY6)
    assert bench.relay.tunnels() == []


def test_teardown_of_no_tunnel_is_counted():
    bench = Bench()
    bench.say(teardown(bench.query()))
    assert bench.refused == {"unknown_tunnel": 1}


def test_teardown_with_the_mac_its_tunnel_keeps():
    bench = Bench(secret_lifetime=50)
    query = bench.query()
    bench.update(query=query)
    bench.say(teardown(query), now=200)
    assert bench.relay.tunnels() == []


# Limits, drain, stop


def test_full_relay_tells_new_gateways_and_keeps_its_tunnels():
    bench = Bench(tunnel_limit=1)
    assert not bench.query().limit
    bench.update()
    assert bench.relay.is_full
    assert not bench.query(now=1).limit  # the kernel's gateway drops queries with L
    query = bench.query(OTHER, now=1)
    assert query.limit
    assert bench.update(source=OTHER, query=query, now=1) == []
    assert bench.refused == {"tunnel_limit": 1}
    bench.update(record(RecordType.ALLOW_NEW_SOURCES, SSM, S2), now=2)
    assert bench.relay.tunnels()[0].groups == {SSM: Filter.include([S1, S2])}


def test_draining_relay_keeps_its_tunnels_and_takes_new_ones_again_later():
    bench = Bench()
    bench.update()
    bench.relay.drain(True, 10)
    bench.relay.drain(True, 20)
    assert bench.relay.draining_since == 10
    assert (bench.query().limit, bench.query(OTHER).limit) == (False, True)
    bench.update(source=OTHER)
    assert bench.refused == {"draining": 1}
    bench.update(now=30)
    assert bench.endpoints == [GATEWAY]
    bench.relay.drain(False, 40)
    assert bench.relay.draining_since is None
    bench.update(source=OTHER, now=50)
    assert bench.endpoints == [GATEWAY, OTHER]


def test_tunnels_per_address_are_limited_where_configured():
    bench = Bench(tunnels_per_address=1)
    bench.update()
    assert bench.query(MOVED).limit
    bench.update(source=MOVED)
    bench.update(source=OTHER)
    assert bench.endpoints == [GATEWAY, OTHER]
    assert bench.refused == {"tunnels_per_address": 1}
    bench.relay.handle_timer(LIFETIME)
    bench.update(source=MOVED, now=LIFETIME)
    assert bench.endpoints == [MOVED]


def test_channels_of_a_tunnel_are_limited():
    bench = Bench(channels_per_tunnel=2)
    bench.update(Report(tuple(GroupRecord(RecordType.ALLOW_NEW_SOURCES, SSM + n, (S1,)) for n in range(5))))
    bench.update(ALLOW6, now=1)
    bench.update(source=OTHER)
    assert [len(view.groups) for view in bench.relay.tunnels()] == [2, 1]
    assert bench.refused == {"too_many_groups": 4}


def test_requests_are_limited_by_address():
    bench = Bench(requests_per_second=1, request_burst=5)
    answers = [bench.say(amt.Request(1), Endpoint(GATEWAY.address, port)) for port in range(1, 8)]
    assert [len(answer) for answer in answers] == [1, 1, 1, 1, 1, 0, 0]
    assert bench.say(amt.RelayDiscovery(1)) == []
    assert bench.refused == {"rate_limit": 3}
    assert len(bench.say(amt.Request(1), OTHER)) == 1
    assert len(bench.say(amt.RelayDiscovery(1), now=1)) == 1


def test_a_family_that_is_not_offered_is_neither_asked_about_nor_joined():
    bench = Bench(families=frozenset({Family.IPV4}))
    assert bench.say(amt.Request(1, mld=True)) == bench.say(amt.Request(1, kernel_mld=True)) == []
    assert bench.update(ALLOW6, query=bench.query()) == []
    assert bench.refused == {"family_not_offered": 3}
    assert bench.update()


def test_flood_from_its_own_address_does_not_starve_a_tunnel():
    bench = Bench(requests_per_second=1, request_burst=5)
    query = bench.query()
    bench.update(query=query)
    for port in range(1, 20):
        bench.say(amt.Request(1), Endpoint(GATEWAY.address, port))
    for second in range(1, 50):
        for port in range(1, 20):
            bench.say(amt.Request(1), Endpoint(GATEWAY.address, port), now=second)
        assert len(bench.say(amt.Request(1), now=second)) == 1


def test_kernel_gateways_pace_is_never_limited():
    """Both families every two seconds, for an hour, at the default limits."""
    bench = Bench()
    for now in range(0, 3600, 2):
        bench.query(now=now)
        bench.query(now=now, kernel_mld=True)
        bench.update(now=now)
    assert bench.refused == {}


def test_stop_closes_every_tunnel():
    bench = Bench()
    bench.update()
    bench.update(source=OTHER)
    bench.relay.stop(1)
    assert [event for event in bench.relay.events() if isinstance(event, TunnelClosed)] == [
        TunnelClosed(GATEWAY, CloseReason.STOPPED),
        TunnelClosed(OTHER, CloseReason.STOPPED),
    ]
    assert bench.relay.next_deadline() is None


def test_new_configuration_keeps_tunnels_and_their_macs():
    bench = Bench()
    query = bench.query()
    bench.update(query=query)
    config = RelayConfig((RELAY4,), query_interval=30, tunnel_limit=0, channels_per_tunnel=1, secret_lifetime=60)
    bench.relay.configure(config)
    assert bench.relay.config == config
    assert bench.update(query=query, now=10) == []
    (view,) = bench.relay.tunnels()
    assert view.expires == bench.relay.next_deadline() == 10 + 70
    assert bench.query(OTHER, now=10).limit
    assert bench.update(ALLOW6, now=10) == []
    assert bench.refused == {"too_many_groups": 1}
    assert group_packet.decode(bench.query(now=10).packet).message.interval == 30


def test_new_lifetime_of_secrets_is_in_effect_at_once():
    bench = Bench()
    query = bench.query()
    bench.relay.configure(RelayConfig((RELAY4,), secret_lifetime=60))
    bench.update(query=query, now=130)
    assert bench.refused == {"bad_mac": 1}


@pytest.mark.parametrize(
    "settings",
    [
        {"channels_per_tunnel": 0},
        {"requests_per_second": 0},
        {"request_burst": 0},
        {"rate_limited_addresses": 0},
        {"tunnel_limit": -1},
        {"tunnel_requests_per_second": -1},
        {"tunnels_per_address": 0},
        {"secret_lifetime": 0},
        {"query_source_ipv6": ip_address("2001:db8::1")},
        {"query_interval": 5},
    ],
)
def test_configuration_out_of_bounds_is_refused(settings):
    with pytest.raises(ValueError, match=r"\w"):
        RelayConfig((RELAY4,), **settings)


# Bad input


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"\x01\x00", "truncated"),
        (b"\x11" + bytes(7), "malformed"),
        (b"\x0f" + bytes(7), "unknown_type"),
        (amt.RelayAdvertisement(1, RELAY4).encode(), "not_for_a_relay"),
        (amt.MulticastData(b"").encode(), "not_for_a_relay"),
    ],
)
def test_message_that_is_not_for_a_relay_is_counted(data, reason):
    bench = Bench()
    assert bench.say(data) == []
    assert bench.refused == {reason: 1}


@pytest.mark.parametrize("source", [("0.0.0.0", 1), ("239.1.1.1", 1), ("192.0.2.1", 0)])
def test_request_from_nowhere_is_not_answered(source):
    bench = Bench()
    assert bench.say(amt.Request(1), Endpoint(ip_address(source[0]), source[1])) == []
    assert bench.refused == {"bad_source": 1}


def changed(**fields):
    return replace(ip.decode(group_packet.encode(ALLOW, HOST)), **fields).encode()


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        (changed(payload=b"\x22" + bytes(7)), "inner_bad_checksum"),
        (changed(payload=b"\x22"), "inner_truncated"),
        (changed(protocol=17), "inner_unknown_type"),
        (changed(more_fragments=True), "inner_malformed"),
        (Query(), "inner_query"),
    ],
)
def test_bad_report_with_a_valid_mac_is_counted_and_harms_nobody(inner, reason):
    bench = Bench()
    bench.update(source=OTHER)
    if isinstance(inner, Query):
        inner = group_packet.encode(inner, HOST)
    assert bench.update(inner) == []
    assert bench.refused == {reason: 1}
    assert bench.endpoints == [OTHER]


def test_reports_need_neither_router_alert_nor_ttl_1_inside_a_tunnel():
    """The MAC proves more than they do, and players leave them out."""
    bench = Bench()
    bench.update(changed(options=b"", ttl=64))
    assert bench.endpoints == [GATEWAY]


def test_messages_are_counted_by_type():
    bench = Bench()
    bench.say(amt.RelayDiscovery(1))
    query = bench.query()
    bench.update(query=query)
    bench.say(teardown(query))
    counters = bench.relay.counters
    assert counters.received == {"relay_discovery": 1, "request": 1, "membership_update": 1, "teardown": 1}
    assert counters.sent == {"relay_advertisement": 1, "membership_query": 1}
