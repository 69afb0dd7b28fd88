"""AMT relay: one test a rule of RFC 7450 §5.3, and of what deployed gateways need (reference: peers' quirks)."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest
from vectors.loader import load_vectors

from agent.protocol.channels import Address, Datagram, Endpoint, Family, Filter
from agent.protocol.relay import Relay
from agent.protocol.relay_config import RelayConfig
from agent.protocol.relay_events import CloseReason, InterestChanged, TunnelClosed, TunnelOpened
from agent.protocol.wire import amt
from agent.protocol.wire.group_packet import decode as decode_group
from agent.protocol.wire.group_packet import encode as encode_group
from agent.protocol.wire.groups import (
    AnySourceReport,
    GroupMessage,
    GroupRecord,
    GroupVersion,
    Leave,
    Query,
    RecordType,
    Report,
)

VECTORS = load_vectors()
LOCAL = {Family.IPV4: ip_address("198.51.100.1"), Family.IPV6: ip_address("2001:db8:1::1")}
GATEWAY = {
    Family.IPV4: Endpoint(ip_address("192.0.2.10"), 40000),
    Family.IPV6: Endpoint(ip_address("2001:db8:2::10"), 40000),
}
ANYCAST = {Family.IPV4: ip_address("192.52.193.1"), Family.IPV6: ip_address("2001:3::1")}
HOST = {Family.IPV4: ip_address("192.0.2.10"), Family.IPV6: ip_address("fe80::10")}
GROUP = {Family.IPV4: ip_address("232.1.2.3"), Family.IPV6: ip_address("ff3e::1234")}
ASM_GROUP = {Family.IPV4: ip_address("239.1.2.3"), Family.IPV6: ip_address("ff1e::5")}
SOURCE = {Family.IPV4: ip_address("203.0.113.5"), Family.IPV6: ip_address("2001:db8::5")}
NONCE = 0xA1B2C3D4

outer_families = pytest.mark.parametrize("outer", list(Family))
inner_families = pytest.mark.parametrize("inner", list(Family))


class Entropy:
    """Bytes that differ with every call, and say how often they were asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, length: int) -> bytes:
        self.calls += 1
        return bytes((self.calls * 37 + position * 11) & 0xFF for position in range(length))


def relay(**options: object) -> Relay:
    return Relay(RelayConfig(addresses=(LOCAL[Family.IPV4], LOCAL[Family.IPV6]), **options), Entropy())


def ask(
    machine: Relay, message: amt.Message | bytes, source: Endpoint, now: float = 0, local: Address | None = None
) -> list[Datagram]:
    data = message if isinstance(message, bytes) else message.encode()
    machine.receive_datagram(data, source, local or LOCAL[Family.of(source.address)], now)
    return machine.datagrams_to_send()


def query_of(machine: Relay, source: Endpoint, *, nonce: int = NONCE, now: float = 0, mld: bool = False):
    (answer,) = ask(machine, amt.Request(nonce, mld=mld), source, now)
    message = amt.decode(answer.data)
    assert isinstance(message, amt.MembershipQuery)
    return message


def update(query: amt.MembershipQuery, message: GroupMessage, inner: Family) -> amt.MembershipUpdate:
    return amt.MembershipUpdate(query.response_mac, query.nonce, encode_group(message, HOST[inner]))


def join(inner: Family, kind: RecordType = RecordType.ALLOW_NEW_SOURCES) -> Report:
    return Report((GroupRecord(kind, GROUP[inner], (SOURCE[inner],)),))


def open_tunnel(machine: Relay, source: Endpoint, inner: Family = Family.IPV4, now: float = 0, nonce: int = NONCE):
    query = query_of(machine, source, nonce=nonce, now=now, mld=inner is Family.IPV6)
    assert ask(machine, update(query, join(inner), inner), source, now) == []
    return query


def refusals(machine: Relay) -> int:
    return sum(machine.counters.refused.values())


# --- Relay Discovery


@outer_families
@pytest.mark.parametrize("asked", ["anycast", "own"])
def test_discovery_is_answered_with_the_unicast_address(outer: Family, asked: str) -> None:
    """RFC 7450 §5.3.3.2, §5.1.2: same nonce, to the asker's port, from the address asked; no state."""
    machine = relay()
    local = ANYCAST[outer] if asked == "anycast" else LOCAL[outer]
    answers = ask(machine, amt.RelayDiscovery(NONCE), GATEWAY[outer], local=local)
    expected = amt.RelayAdvertisement(NONCE, LOCAL[outer]).encode()
    assert answers == [Datagram(expected, GATEWAY[outer], local)]
    assert machine.tunnels() == []
    assert machine.events() == []


def test_discovery_of_a_family_without_address_is_not_answered() -> None:
    """RFC 7450 §5.1.2.4: the Advertisement's address is of the family it travels in."""
    machine = Relay(RelayConfig(addresses=(LOCAL[Family.IPV4],)), Entropy())
    assert ask(machine, amt.RelayDiscovery(NONCE), GATEWAY[Family.IPV6]) == []
    assert refusals(machine) == 1


# --- Request


@outer_families
@pytest.mark.parametrize(
    ("request_message", "inner"),
    [
        (amt.Request(NONCE), Family.IPV4),
        (amt.Request(NONCE, mld=True), Family.IPV6),
        (amt.Request(NONCE, kernel_mld=True), Family.IPV6),
        (amt.Request(NONCE, mld=True, kernel_mld=True), Family.IPV6),
    ],
    ids=["igmp", "mld", "kernel-mld", "both-flags"],
)
def test_request_is_answered_with_a_general_query(outer: Family, request_message: amt.Request, inner: Family) -> None:
    """RFC 7450 §5.3.3.3, §5.1.3.4, §5.1.4: P decides the family; RFC 3376 §4.1, RFC 3810 §5.1: a valid packet."""
    machine = relay(query_interval=60, robustness_variable=3, query_response_interval=5)
    (answer,) = ask(machine, request_message, GATEWAY[outer])
    assert (answer.destination, answer.source) == (GATEWAY[outer], LOCAL[outer])
    message = amt.decode(answer.data)
    assert isinstance(message, amt.MembershipQuery)
    assert (message.nonce, message.limit, message.gateway) == (NONCE, False, None)
    packet = decode_group(message.packet)
    assert packet.message == Query(max_response_time=5, robustness=3, interval=60)
    assert (Family.of(packet.source), packet.ttl, packet.router_alert) == (inner, 1, True)
    if inner is Family.IPV6:
        assert packet.source.is_link_local, "RFC 3810 §5.1.14"


def test_igmp_query_without_gateway_address_has_48_bytes() -> None:
    """VLC takes an IPv4 Membership Query of exactly 48 bytes."""
    (answer,) = ask(relay(), amt.Request(NONCE), GATEWAY[Family.IPV4])
    assert len(answer.data) == 48


def test_longer_request_is_answered() -> None:
    """VLC pads its Request to nine bytes."""
    (answer,) = ask(relay(), VECTORS["request-nine-bytes"].data, GATEWAY[Family.IPV4])
    assert amt.decode(answer.data).nonce == NONCE


@outer_families
def test_request_leaves_no_state(outer: Family) -> None:
    """RFC 7450 §5.3.3.3, §5.3.5: the MAC is what makes state unnecessary."""
    machine = relay()
    for port in range(1024, 1224):
        ask(machine, amt.Request(NONCE), Endpoint(GATEWAY[outer].address, port))
    assert machine.tunnels() == []
    assert machine.events() == []


@outer_families
@pytest.mark.parametrize("name", ["request-igmp", "request-mld", "relay-discovery", "request-nine-bytes"])
def test_answer_to_the_unauthenticated_is_one_and_short(outer: Family, name: str) -> None:
    """RFC 7450 §6.1 (amplification): at most the layout of §5.1.2 or §5.1.4."""
    machine = relay(gateway_address_in_query=True)
    answers = ask(machine, VECTORS[name].data, GATEWAY[outer])
    assert len(answers) == 1
    assert len(answers[0].data) <= 12 + 76 + 18


# --- Response MAC


@outer_families
def test_mac_binds_address_port_and_nonce(outer: Family) -> None:
    """RFC 7450 §5.3.5."""
    machine = relay()
    query = query_of(machine, GATEWAY[outer])
    same = query_of(machine, GATEWAY[outer])
    assert query.response_mac == same.response_mac
    neighbour = Endpoint(ip_address(int(GATEWAY[outer].address) + 1), GATEWAY[outer].port)
    others = [
        query_of(machine, GATEWAY[outer], nonce=NONCE + 1).response_mac,
        query_of(machine, Endpoint(GATEWAY[outer].address, 40001)).response_mac,
        query_of(machine, neighbour).response_mac,
    ]
    assert len({query.response_mac, *others}) == 4


@outer_families
def test_mac_does_not_depend_on_the_p_flag(outer: Family) -> None:
    """Gateways use the MAC of one Query for Updates of both families (kernel: the newest of an address)."""
    machine = relay()
    igmp, mld = query_of(machine, GATEWAY[outer]), query_of(machine, GATEWAY[outer], mld=True)
    assert igmp.response_mac == mld.response_mac
    ask(machine, update(igmp, join(Family.IPV6), Family.IPV6), GATEWAY[outer])
    assert [view.groups for view in machine.tunnels()] == [{GROUP[Family.IPV6]: Filter.include([SOURCE[Family.IPV6]])}]


def test_mac_depends_on_the_secret() -> None:
    """RFC 7450 §5.3.6: two relays with other randomness give other MACs."""
    one = relay()
    entropy = Entropy()
    entropy.calls = 100
    other = Relay(RelayConfig(addresses=(LOCAL[Family.IPV4],)), entropy)
    assert query_of(one, GATEWAY[Family.IPV4]).response_mac != query_of(other, GATEWAY[Family.IPV4]).response_mac


@outer_families
@pytest.mark.parametrize("change", ["mac", "nonce", "port", "address"])
def test_update_without_a_valid_mac_is_dropped(outer: Family, change: str) -> None:
    """RFC 7450 §5.3.3.4, §5.3.5: no tunnel, no answer, counted."""
    machine = relay()
    query = query_of(machine, GATEWAY[outer])
    source, mac, nonce = GATEWAY[outer], query.response_mac, query.nonce
    if change == "mac":
        mac = mac[:5] + bytes([mac[5] ^ 1])
    elif change == "nonce":
        nonce ^= 1
    elif change == "port":
        source = Endpoint(source.address, source.port + 1)
    else:
        source = Endpoint(ip_address(int(source.address) + 1), source.port)
    packet = encode_group(join(Family.IPV4), HOST[Family.IPV4])
    assert ask(machine, amt.MembershipUpdate(mac, nonce, packet), source) == []
    assert machine.tunnels() == []
    assert machine.events() == []
    assert refusals(machine) == 1


@outer_families
def test_mac_survives_one_rotation_of_the_secret(outer: Family) -> None:
    """RFC 7450 §5.3.6: the previous secret stays valid for a time, so that no Update in flight is lost."""
    machine = relay()
    query = query_of(machine, GATEWAY[outer])
    machine.rotate_secret(1)
    assert query_of(machine, GATEWAY[outer], now=1).response_mac != query.response_mac
    ask(machine, update(query, join(Family.IPV4), Family.IPV4), GATEWAY[outer], 2)
    assert len(machine.tunnels()) == 1


@outer_families
def test_mac_does_not_survive_two_rotations(outer: Family) -> None:
    """RFC 7450 §5.3.6."""
    machine = relay()
    query = query_of(machine, GATEWAY[outer])
    machine.rotate_secret(1)
    machine.rotate_secret(2)
    ask(machine, update(query, join(Family.IPV4), Family.IPV4), GATEWAY[outer], 3)
    assert machine.tunnels() == []
    assert refusals(machine) == 1


def test_secret_is_replaced_by_time() -> None:
    """RFC 7450 §5.3.6: replaced periodically; a MAC is worth nothing after two lifetimes."""
    machine = relay(secret_lifetime=100)
    query = query_of(machine, GATEWAY[Family.IPV4])
    newer = query_of(machine, GATEWAY[Family.IPV4], now=150)
    assert newer.response_mac != query.response_mac
    ask(machine, update(query, join(Family.IPV4), Family.IPV4), GATEWAY[Family.IPV4], 300)
    assert machine.tunnels() == []


def test_long_silence_outdates_a_mac() -> None:
    """RFC 7450 §5.3.6: also when nobody asked in between."""
    machine = relay(secret_lifetime=100)
    query = query_of(machine, GATEWAY[Family.IPV4])
    ask(machine, update(query, join(Family.IPV4), Family.IPV4), GATEWAY[Family.IPV4], 10_000)
    assert machine.tunnels() == []


def test_tunnel_may_go_on_with_its_old_mac() -> None:
    """VLC never sends another Request: its Updates carry one MAC for as long as it plays."""
    machine = relay(secret_lifetime=300)
    query = open_tunnel(machine, GATEWAY[Family.IPV4])
    for now in range(125, 5000, 125):
        machine.handle_timer(now)
        ask(
            machine,
            update(query, join(Family.IPV4, RecordType.MODE_IS_INCLUDE), Family.IPV4),
            GATEWAY[Family.IPV4],
            now,
        )
        assert len(machine.tunnels()) == 1, now


# --- Membership Update


@outer_families
@inner_families
def test_valid_update_opens_a_tunnel(outer: Family, inner: Family) -> None:
    """RFC 7450 §5.3.3.4: IPv4 and IPv6 membership over IPv4 and IPv6 tunnels."""
    machine = relay()
    open_tunnel(machine, GATEWAY[outer], inner)
    assert machine.events() == [
        TunnelOpened(GATEWAY[outer], LOCAL[outer]),
        InterestChanged(GATEWAY[outer], LOCAL[outer], GROUP[inner], Filter.include([SOURCE[inner]])),
    ]
    (view,) = machine.tunnels()
    assert (view.tunnel, view.local) == (GATEWAY[outer], LOCAL[outer])


@inner_families
@pytest.mark.parametrize("kind", [RecordType.BLOCK_OLD_SOURCES, RecordType.CHANGE_TO_INCLUDE])
def test_leave_ends_interest_at_once(inner: Family, kind: RecordType) -> None:
    """RFC 7450 §5.3.3.4: one gateway is behind a tunnel; amtrelayd and we leave with BLOCK, others with TO_IN({})."""
    machine = relay()
    query = open_tunnel(machine, GATEWAY[Family.IPV4], inner)
    machine.events()
    sources = (SOURCE[inner],) if kind is RecordType.BLOCK_OLD_SOURCES else ()
    leave = Report((GroupRecord(kind, GROUP[inner], sources),))
    ask(machine, update(query, leave, inner), GATEWAY[Family.IPV4], 1)
    assert InterestChanged(GATEWAY[Family.IPV4], LOCAL[Family.IPV4], GROUP[inner], Filter.include()) in machine.events()


@inner_families
def test_any_source_join_and_leave(inner: Family) -> None:
    """RFC 3376 §6.4: TO_EX({}) wants every source; TO_IN({}) ends it."""
    machine = relay()
    query = query_of(machine, GATEWAY[Family.IPV4])
    records = [RecordType.CHANGE_TO_EXCLUDE, RecordType.CHANGE_TO_INCLUDE]
    for kind in records:
        report = Report((GroupRecord(kind, ASM_GROUP[inner]),))
        ask(machine, update(query, report, inner), GATEWAY[Family.IPV4])
    filters = [event.filter for event in machine.events() if isinstance(event, InterestChanged)]
    assert filters == [Filter.exclude(), Filter.include()]


@inner_families
def test_older_reports_are_understood(inner: Family) -> None:
    """RFC 3376 §7.3.2, RFC 3810 §8.3.2."""
    machine = relay()
    query = query_of(machine, GATEWAY[Family.IPV4])
    older = AnySourceReport(ASM_GROUP[inner], GroupVersion.ANY_SOURCE)
    for message in (older, Leave(ASM_GROUP[inner])):
        ask(machine, update(query, message, inner), GATEWAY[Family.IPV4])
    filters = [event.filter for event in machine.events() if isinstance(event, InterestChanged)]
    assert filters == [Filter.exclude(), Filter.include()]


@pytest.mark.parametrize("group", ["224.0.0.251", "224.0.0.1", "ff02::fb", "ff01::1"])
def test_link_local_groups_are_never_tunnelled(group: str) -> None:
    """RFC 5771 §4, RFC 4291 §2.7."""
    machine = relay()
    inner = Family.of(ip_address(group))
    query = query_of(machine, GATEWAY[Family.IPV4])
    report = Report((GroupRecord(RecordType.CHANGE_TO_EXCLUDE, ip_address(group)),))
    ask(machine, update(query, report, inner), GATEWAY[Family.IPV4])
    assert not [event for event in machine.events() if isinstance(event, InterestChanged)]


@inner_families
@pytest.mark.parametrize("kind", [RecordType.MODE_IS_EXCLUDE, RecordType.CHANGE_TO_EXCLUDE])
def test_any_source_join_in_the_source_specific_range_is_ignored(inner: Family, kind: RecordType) -> None:
    """RFC 4604 §2.2."""
    machine = relay()
    query = query_of(machine, GATEWAY[Family.IPV4])
    for message in (
        Report((GroupRecord(kind, GROUP[inner]),)),
        AnySourceReport(GROUP[inner], GroupVersion.ANY_SOURCE),
    ):
        ask(machine, update(query, message, inner), GATEWAY[Family.IPV4])
    assert not [event for event in machine.events() if isinstance(event, InterestChanged)]


@inner_families
def test_query_inside_an_update_is_refused(inner: Family) -> None:
    """RFC 7450 §5.1.5: an Update carries a report or leave."""
    machine = relay()
    query = query_of(machine, GATEWAY[Family.IPV4])
    ask(machine, update(query, Query(), inner), GATEWAY[Family.IPV4])
    assert machine.tunnels() == []
    assert refusals(machine) == 1


@pytest.mark.parametrize(
    "name", [name for name, vector in VECTORS.items() if vector.decoder == "group" and vector.error]
)
def test_malformed_report_is_counted_and_changes_nothing(name: str) -> None:
    """RFC 7450 §5.3.3.4: a valid MAC is no reason to trust the packet inside."""
    machine = relay()
    query = query_of(machine, GATEWAY[Family.IPV4])
    message = amt.MembershipUpdate(query.response_mac, query.nonce, VECTORS[name].data)
    assert ask(machine, message, GATEWAY[Family.IPV4]) == []
    assert machine.tunnels() == []
    assert refusals(machine) == 1


# --- L flag and limits


def test_limit_is_told_to_new_gateways_only() -> None:
    """RFC 7450 §5.1.4.4, §5.3.3.3: L to whom has no tunnel; existing tunnels go on."""
    machine = relay(tunnel_limit=1)
    open_tunnel(machine, GATEWAY[Family.IPV4])
    assert machine.is_full
    assert not query_of(machine, GATEWAY[Family.IPV4], nonce=5).limit
    assert query_of(machine, GATEWAY[Family.IPV6]).limit


def test_update_beyond_the_limit_opens_nothing() -> None:
    """RFC 7450 §5.3.3.4: an Update of a new endpoint is refused at the limit; the others are not disturbed."""
    machine = relay(tunnel_limit=1)
    early = query_of(machine, GATEWAY[Family.IPV6])
    query = open_tunnel(machine, GATEWAY[Family.IPV4])
    machine.events()
    ask(machine, update(early, join(Family.IPV4), Family.IPV4), GATEWAY[Family.IPV6], 1)
    assert [view.tunnel for view in machine.tunnels()] == [GATEWAY[Family.IPV4]]
    assert machine.events() == []
    assert refusals(machine) == 1
    ask(machine, update(query, join(Family.IPV6), Family.IPV6), GATEWAY[Family.IPV4], 2)
    assert len(machine.tunnels()[0].groups) == 2


def test_draining_turns_new_gateways_away() -> None:
    """RFC 7450 §5.1.4.4: L may be set for any reason; drained tunnels live on."""
    machine = relay()
    open_tunnel(machine, GATEWAY[Family.IPV4])
    early = query_of(machine, GATEWAY[Family.IPV6])
    machine.drain(enabled=True, now=1)
    assert query_of(machine, GATEWAY[Family.IPV6], now=1).limit
    assert not query_of(machine, GATEWAY[Family.IPV4], now=1).limit
    ask(machine, update(early, join(Family.IPV4), Family.IPV4), GATEWAY[Family.IPV6], 2)
    assert [view.tunnel for view in machine.tunnels()] == [GATEWAY[Family.IPV4]]
    machine.drain(enabled=False, now=3)
    assert not query_of(machine, GATEWAY[Family.IPV6], now=3).limit


def test_channels_of_a_tunnel_are_limited() -> None:
    """RFC 7450 §6.1: an authenticated gateway must not exhaust the relay either."""
    machine = relay(channels_per_tunnel=10)
    query = query_of(machine, GATEWAY[Family.IPV4])
    for number in range(1, 100):
        record = GroupRecord(RecordType.ALLOW_NEW_SOURCES, ip_address(f"232.0.1.{number}"), (SOURCE[Family.IPV4],))
        ask(machine, update(query, Report((record,)), Family.IPV4), GATEWAY[Family.IPV4])
    (view,) = machine.tunnels()
    assert len(view.groups) == 10
    assert refusals(machine) >= 89


def test_requests_of_one_address_are_limited_and_others_are_not_starved() -> None:
    """RFC 7450 §6.1: a flood gets a bounded number of answers."""
    machine = relay(requests_per_second=10, request_burst=20)
    flood = sum(
        len(ask(machine, amt.Request(number + 1), Endpoint(GATEWAY[Family.IPV4].address, 1024 + number), number / 1000))
        for number in range(1000)
    )
    assert 20 <= flood <= 31
    assert refusals(machine) == 1000 - flood
    assert len(ask(machine, amt.Request(1), Endpoint(ip_address("192.0.2.11"), 1), 1)) == 1


def test_kernel_gateway_is_never_limited() -> None:
    """The kernel's gateway asks about every 2 s, for both families, whatever QQIC says."""
    machine = relay()
    open_tunnel(machine, GATEWAY[Family.IPV4])
    for second in range(0, 600, 2):
        for kernel_mld in (False, True):
            message = amt.Request(NONCE + second, kernel_mld=kernel_mld)
            assert len(ask(machine, message, GATEWAY[Family.IPV4], second)) == 1


# --- G flag


@outer_families
@inner_families
def test_gateway_address_is_told_when_configured(outer: Family, inner: Family) -> None:
    """RFC 7450 §5.1.4.5, §5.1.4.9."""
    machine = relay(gateway_address_in_query=True)
    message = query_of(machine, GATEWAY[outer], mld=inner is Family.IPV6)
    assert message.gateway == (GATEWAY[outer].address, GATEWAY[outer].port)


# --- Teardown


def teardown(query: amt.MembershipQuery, endpoint: Endpoint) -> amt.Teardown:
    return amt.Teardown(query.response_mac, query.nonce, (endpoint.address, endpoint.port))


@outer_families
@pytest.mark.parametrize("sender", ["same", "moved"])
def test_teardown_ends_the_tunnel_of_the_embedded_address(outer: Family, sender: str) -> None:
    """RFC 7450 §5.3.3.5: the MAC is checked against the embedded address, because the sender has moved."""
    machine = relay()
    query = open_tunnel(machine, GATEWAY[outer])
    machine.events()
    moved = Endpoint(ip_address(int(GATEWAY[outer].address) + 1), 50000)
    source = GATEWAY[outer] if sender == "same" else moved
    assert ask(machine, teardown(query, GATEWAY[outer]), source, 1) == []
    assert machine.events() == [
        InterestChanged(GATEWAY[outer], LOCAL[outer], GROUP[Family.IPV4], Filter.include()),
        TunnelClosed(GATEWAY[outer], CloseReason.TEARDOWN),
    ]
    assert machine.tunnels() == []


@outer_families
@pytest.mark.parametrize("change", ["mac", "nonce", "port", "address"])
def test_teardown_without_a_valid_mac_is_dropped(outer: Family, change: str) -> None:
    """RFC 7450 §5.3.3.5, §5.3.5."""
    machine = relay()
    victim = GATEWAY[outer]
    query = open_tunnel(machine, victim)
    # The attacker holds a MAC of its own, good for another endpoint.
    attacker = Endpoint(ip_address(int(victim.address) + 1), victim.port)
    own = query_of(machine, attacker)
    message = {
        "mac": amt.Teardown(bytes(6), query.nonce, (victim.address, victim.port)),
        "nonce": amt.Teardown(query.response_mac, query.nonce ^ 1, (victim.address, victim.port)),
        "port": amt.Teardown(query.response_mac, query.nonce, (victim.address, victim.port + 1)),
        "address": amt.Teardown(own.response_mac, own.nonce, (victim.address, victim.port)),
    }[change]
    machine.events()
    ask(machine, message, attacker, 1)
    assert [view.tunnel for view in machine.tunnels()] == [victim]
    assert machine.events() == []
    assert refusals(machine) == 1


def test_teardown_works_after_a_rotation() -> None:
    """RFC 7450 §5.3.6 applies to Teardowns as well."""
    machine = relay()
    query = open_tunnel(machine, GATEWAY[Family.IPV4])
    machine.rotate_secret(1)
    ask(machine, teardown(query, GATEWAY[Family.IPV4]), GATEWAY[Family.IPV4], 2)
    assert machine.tunnels() == []


def test_teardown_of_no_tunnel_is_harmless() -> None:
    """RFC 7450 §5.3.3.5: a repeated Teardown finds nothing."""
    machine = relay()
    query = open_tunnel(machine, GATEWAY[Family.IPV4])
    for _ in range(2):
        ask(machine, teardown(query, GATEWAY[Family.IPV4]), GATEWAY[Family.IPV4], 1)
    assert machine.tunnels() == []


# --- time


@outer_families
def test_tunnel_without_updates_expires(outer: Family) -> None:
    """RFC 7450 §5.3.3.7, RFC 3376 §8.4: after the Group Membership Interval, 2 x 125 + 10 seconds."""
    machine = relay()
    open_tunnel(machine, GATEWAY[outer])
    machine.events()
    run(machine, 259.9)
    assert len(machine.tunnels()) == 1
    run(machine, 260.1)
    assert machine.tunnels() == []
    assert machine.events() == [
        InterestChanged(GATEWAY[outer], LOCAL[outer], GROUP[Family.IPV4], Filter.include()),
        TunnelClosed(GATEWAY[outer], CloseReason.EXPIRED),
    ]
    assert machine.next_deadline() is None or machine.next_deadline() > 260.1


def run(machine: Relay, until: float) -> None:
    for _ in range(1000):
        deadline = machine.next_deadline()
        if deadline is None or deadline > until:
            return
        machine.handle_timer(deadline)
        assert machine.datagrams_to_send() == [], "a relay speaks when spoken to"
    pytest.fail("timers never come to an end")


def test_tunnel_with_updates_lives() -> None:
    """RFC 7450 §5.3.3.7."""
    machine = relay()
    for cycle in range(20):
        query = query_of(machine, GATEWAY[Family.IPV4], nonce=cycle + 1, now=cycle * 125)
        message = update(query, join(Family.IPV4, RecordType.MODE_IS_INCLUDE), Family.IPV4)
        ask(machine, message, GATEWAY[Family.IPV4], cycle * 125)
        run(machine, cycle * 125 + 124)
        assert len(machine.tunnels()) == 1
    assert Counter(type(event) for event in machine.events()) == {TunnelOpened: 1, InterestChanged: 1}


def test_stop_closes_every_tunnel() -> None:
    """RFC 7450 §5.3.4."""
    machine = relay()
    for outer in Family:
        open_tunnel(machine, GATEWAY[outer])
    machine.stop(10)
    closed = [event for event in machine.events() if isinstance(event, TunnelClosed)]
    assert {(event.tunnel, event.reason) for event in closed} == {
        (GATEWAY[outer], CloseReason.STOPPED) for outer in Family
    }
    assert machine.tunnels() == []


# --- what a relay does not take


@pytest.mark.parametrize(
    "name",
    [
        "relay-advertisement-ipv4",
        "relay-advertisement-ipv6",
        "membership-query-igmp",
        "membership-query-mld-gateway-ipv6-limit",
        "multicast-data-ipv4",
        "multicast-data-ipv6",
        *(name for name, vector in VECTORS.items() if vector.decoder == "amt" and vector.error),
    ],
)
def test_message_that_is_not_for_a_relay_is_counted_and_dropped(name: str) -> None:
    """RFC 7450 §5.3.3.1: Discovery, Request, Update and Teardown are a relay's; nothing answers the others."""
    machine = relay()
    assert ask(machine, VECTORS[name].data, GATEWAY[Family.IPV4]) == []
    assert machine.tunnels() == []
    assert refusals(machine) == 1


def test_two_gateways_behind_one_address_are_two_tunnels() -> None:
    """RFC 7450 §5.3.3.4: a tunnel is an address and a port (the kernel's relay keys by address alone)."""
    machine = relay()
    ports = (40000, 40001)
    for port in ports:
        open_tunnel(machine, Endpoint(GATEWAY[Family.IPV4].address, port))
    assert {view.tunnel.port for view in machine.tunnels()} == set(ports)


@pytest.mark.parametrize("address", ["224.0.0.1", "0.0.0.0", "255.255.255.255", "ff02::1", "::"])
def test_source_that_is_no_gateway_is_not_answered(address: str) -> None:
    """RFC 7450 §6.1, RFC 1122 §3.2.1.3: an answer would hit everybody but who asked."""
    machine = relay()
    assert ask(machine, amt.Request(NONCE), Endpoint(ip_address(address), 40000)) == []
    assert refusals(machine) == 1


def test_port_zero_is_not_answered() -> None:
    """RFC 768: a source port of zero says that no reply is wanted."""
    machine = relay()
    assert ask(machine, amt.Request(NONCE), Endpoint(GATEWAY[Family.IPV4].address, 0)) == []


def test_configure_keeps_tunnels_and_secret() -> None:
    """A reload loses no stream."""
    machine = relay()
    query = open_tunnel(machine, GATEWAY[Family.IPV4])
    machine.events()
    machine.configure(RelayConfig(addresses=(LOCAL[Family.IPV4],), query_interval=60))
    assert len(machine.tunnels()) == 1
    assert machine.events() == []
    assert query_of(machine, GATEWAY[Family.IPV4]).response_mac == query.response_mac
    assert decode_group(query_of(machine, GATEWAY[Family.IPV4]).packet).message.interval == 60
