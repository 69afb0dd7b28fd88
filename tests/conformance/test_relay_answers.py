"""AMT relay, what it answers and to whom (RFC 7450 §5.3.3.1 to §5.3.3.3, §5.3.5, §6.1)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scripted.relay_peer import (
    ANYCAST,
    GATEWAY,
    GROUP,
    HOST,
    LOCAL,
    NONCE,
    SOURCE,
    Entropy,
    ask,
    join,
    open_tunnel,
    outer_families,
    query_of,
    refusals,
    relay,
    update,
)
from vectors.loader import load_vectors

from agent.protocol.channels import Datagram, Endpoint, Family, Filter
from agent.protocol.relay import Relay
from agent.protocol.relay_config import RelayConfig
from agent.protocol.wire import amt
from agent.protocol.wire.group_packet import decode as decode_group
from agent.protocol.wire.group_packet import encode as encode_group
from agent.protocol.wire.groups import (
    Query,
    RecordType,
)

VECTORS = load_vectors()


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
