"""AMT gateway, Requests and Queries (RFC 7450 §5.2.3.5) and the L flag."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scripted.gateway_peer import (
    GROUP,
    MAC,
    OTHER_MAC,
    RELAY,
    SOURCE,
    established,
    inner_families,
    joined,
    next_request,
    outer_families,
    records,
)
from vectors.loader import load_vectors

from agent.protocol.channels import Endpoint, Family
from agent.protocol.gateway_events import RelayLimit, RelayLost
from agent.protocol.wire import amt
from agent.protocol.wire.group_packet import decode as decode_group
from agent.protocol.wire.groups import RecordType

VECTORS = load_vectors()


# --- Request and Query


@outer_families
@inner_families
def test_request_asks_for_the_family_wanted(outer: Family, inner: Family) -> None:
    """RFC 7450 §5.1.3.4: P 0 for IGMPv3, 1 for MLDv2."""
    peer = joined(outer, inner)
    peer.discover()
    request = peer.only(amt.Request)
    assert (request.mld, request.kernel_mld) == (inner is Family.IPV6, False)


def test_both_families_share_one_nonce() -> None:
    """The kernel's relay accepts only the newest nonce of an address."""
    peer = joined()
    peer.join(Family.IPV6)
    peer.discover()
    requests = peer.sent()
    assert {request.mld for request in requests} == {False, True}
    assert len({request.nonce for request in requests}) == 1


@outer_families
@inner_families
def test_query_is_answered_with_an_update(outer: Family, inner: Family) -> None:
    """RFC 7450 §5.2.3.6, §5.1.5: nonce and MAC of the Query, a report as the RFC of its family lays it out."""
    peer = joined(outer, inner)
    peer.discover()
    request = peer.only(amt.Request)
    peer.receive(peer.query(request, inner))
    update = peer.sent()[0]
    assert isinstance(update, amt.MembershipUpdate)
    assert (update.nonce, update.response_mac) == (request.nonce, MAC)
    packet = decode_group(update.packet)
    assert (packet.ttl, packet.router_alert) == (1, True)
    assert packet.destination == ip_address("224.0.0.22" if inner is Family.IPV4 else "ff02::16")
    if inner is Family.IPV6:
        assert packet.source.is_link_local, "RFC 3810 §5.2.13"
    (record,) = records([update])
    assert (record.group, record.sources) == (GROUP[inner], (SOURCE[inner],))
    assert record.type in {RecordType.MODE_IS_INCLUDE, RecordType.ALLOW_NEW_SOURCES}


@outer_families
@pytest.mark.parametrize("change", ["address", "port", "nonce"])
def test_query_that_answers_nothing_is_dropped(outer: Family, change: str) -> None:
    """RFC 7450 §5.2.3.5: from the relay's address and port, with the nonce of the Request."""
    peer = joined(outer)
    peer.discover()
    request = peer.only(amt.Request)
    source = {
        "address": Endpoint(ip_address(int(RELAY[outer].address) + 1), 2268),
        "port": Endpoint(RELAY[outer].address, 2269),
    }.get(change, RELAY[outer])
    nonce = request.nonce ^ (change == "nonce")
    peer.receive(peer.query(amt.Request(nonce)), source)
    assert peer.sent() == []
    assert peer.dropped() == 1


def test_query_of_an_earlier_cycle_is_dropped() -> None:
    """RFC 7450 §5.2.3.5: a stale nonce, as a replay has."""
    peer = joined()
    peer.discover()
    first = peer.only(amt.Request)
    stale = peer.query(first)
    peer.receive(stale)
    peer.advance(5)
    second = next_request(peer)
    assert second.nonce != first.nonce
    before = peer.dropped()
    peer.receive(stale)
    assert peer.sent() == []
    assert peer.dropped() == before + 1


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, vector in VECTORS.items()
        if vector.decoder == "group" and (vector.error or vector.expect != "Query")
    ],
)
def test_query_with_something_else_inside_is_dropped(name: str) -> None:
    """RFC 7450 §5.1.4.8: an IGMPv3 or MLDv2 general query; malformed ones and reports are none."""
    peer = joined()
    peer.discover()
    request = peer.only(amt.Request)
    peer.receive(amt.MembershipQuery(MAC, request.nonce, VECTORS[name].data))
    assert peer.sent() == []
    assert peer.dropped() == 1


@pytest.mark.parametrize("name", ["igmpv3-group-query-suppressed", "igmpv3-source-query"])
def test_specific_query_is_dropped(name: str) -> None:
    """RFC 7450 §5.1.4.8: general queries only."""
    peer = joined()
    peer.discover()
    request = peer.only(amt.Request)
    peer.receive(amt.MembershipQuery(MAC, request.nonce, VECTORS[name].data))
    assert peer.sent() == []
    assert peer.dropped() == 1


@pytest.mark.parametrize(("interval", "seconds"), [(10, 10), (125, 125), (128, 128), (208, 208), (31744, 31744)])
def test_next_request_follows_the_query_interval(interval: int, seconds: float) -> None:
    """RFC 7450 §5.2.3.5, RFC 3376 §4.1.7: from 128 up QQIC is an exponent form."""
    peer = joined()
    peer.establish(interval=interval)
    at = peer.now - peer.started
    requests = [when for when, message in peer.advance(seconds + 1) if isinstance(message, amt.Request)]
    assert requests[:1] == [at + seconds]


def test_query_without_an_interval_takes_the_default() -> None:
    """RFC 3376 §4.1.7: a QQIC of 0 says nothing."""
    peer = joined()
    peer.establish(interval=0)
    requests = [when for when, message in peer.advance(126) if isinstance(message, amt.Request)]
    assert requests[:1] == [125]


def test_each_cycle_has_a_fresh_nonce() -> None:
    """Reference: nonces are fresh for each cycle."""
    peer = joined()
    peer.establish(interval=10)
    seen = set()
    for _ in range(10):
        request = next_request(peer)
        peer.receive(peer.query(request, interval=10))
        peer.advance(3)
        seen.add(request.nonce)
    assert len(seen) == 10


def test_unanswered_request_backs_off_and_leads_to_discovery() -> None:
    """RFC 7450 §5.2.3.5: retransmitted with back-off, then the relay counts as lost and is sought anew."""
    peer = joined()
    peer.discover()
    peer.only(amt.Request)
    sent = peer.advance(60)
    requests = [when for when, message in sent if isinstance(message, amt.Request)]
    discoveries = [when for when, message in sent if isinstance(message, amt.RelayDiscovery)]
    assert requests == [1, 3, 7]
    assert discoveries
    assert min(discoveries) > max(requests)
    assert any(isinstance(event, RelayLost) for event in peer.gateway.events())


def test_updates_use_the_newest_nonce_and_mac() -> None:
    """RFC 7450 §5.2.3.6; key rotation at the relay loses nothing."""
    peer = established()
    request = next_request(peer)
    peer.receive(peer.query(request, mac=OTHER_MAC))
    updates = [message for message in peer.sent() if isinstance(message, amt.MembershipUpdate)]
    assert {(update.nonce, update.response_mac) for update in updates} == {(request.nonce, OTHER_MAC)}
    peer.advance(3)
    peer.join(group=ip_address("232.9.9.9"))
    (update,) = peer.sent()
    assert (update.nonce, update.response_mac) == (request.nonce, OTHER_MAC)


def test_mld_request_falls_back_to_the_kernel_flag() -> None:
    """The kernel's relay drops P 0x01 and answers 0x80: a gateway falls back when an MLD Request stays unanswered."""
    peer = joined(inner=Family.IPV6)
    peer.discover()
    assert not peer.only(amt.Request).kernel_mld
    later = [message for _, message in peer.advance(8) if isinstance(message, amt.Request)]
    kernel = [message for message in later if message.kernel_mld]
    assert kernel
    peer.receive(peer.query(kernel[-1], Family.IPV6))
    assert records(peer.sent())


# --- L flag


def test_limit_without_a_tunnel_stops_the_join_and_tells_the_owner() -> None:
    """RFC 7450 §5.1.4.4: no Update; another relay is to be tried."""
    peer = joined()
    peer.discover()
    peer.receive(peer.query(peer.only(amt.Request), limit=True))
    assert peer.sent() == []
    assert RelayLimit(RELAY[Family.IPV4]) in peer.gateway.events()
    assert peer.gateway.limit


def test_limit_with_a_tunnel_keeps_it() -> None:
    """RFC 7450 §5.1.4.4: L is about new tunnels."""
    peer = established()
    peer.gateway.events()
    request = next_request(peer)
    peer.receive(peer.query(request, limit=True))
    assert records(peer.sent())
    assert not [event for event in peer.gateway.events() if isinstance(event, RelayLimit)]
    assert peer.gateway.relay == RELAY[Family.IPV4]
