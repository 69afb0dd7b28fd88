"""AMT gateway, discovery (RFC 7450 §5.2.3.4), and what it takes from nobody (§5.2.3.2, reference: peers)."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest
from scripted.gateway_peer import (
    DISCOVERY,
    RELAY,
    Peer,
    established,
    joined,
    outer_families,
)
from vectors.loader import load_vectors

from agent.protocol.channels import Endpoint, Family
from agent.protocol.gateway_events import RelayFound, RelayLost
from agent.protocol.wire import amt

VECTORS = load_vectors()


# --- discovery


@outer_families
def test_discovery_goes_to_the_discovery_address(outer: Family) -> None:
    """RFC 7450 §5.2.3.4, §5.1.1, §7.2."""
    peer = joined(outer)
    (datagram,) = peer.datagrams()
    assert datagram.destination == DISCOVERY[outer]
    message = amt.decode(datagram.data)
    assert isinstance(message, amt.RelayDiscovery)
    assert message.nonce != 0


def test_idle_gateway_is_silent() -> None:
    """RFC 7450 §5.2.3.1: nothing is asked before there is something to ask for."""
    peer = Peer()
    assert peer.sent() == []
    assert peer.advance(1000) == []


def test_zero_is_never_a_nonce() -> None:
    """Reference: nonces are never 0, even when the random source says so."""
    supply = iter(b"\x00" * 8 + bytes(range(1, 200)) * 50)
    peer = Peer(entropy=lambda length: bytes(next(supply) for _ in range(length)))
    peer.join()
    assert peer.only(amt.RelayDiscovery).nonce != 0


@outer_families
def test_advertisement_leads_to_a_request(outer: Family) -> None:
    """RFC 7450 §5.2.3.4, §5.2.3.5: the Request goes to the advertised address."""
    peer = joined(outer)
    peer.discover()
    request = peer.only(amt.Request)
    assert request.nonce != 0
    assert peer.gateway.relay == RELAY[outer]
    assert RelayFound(RELAY[outer]) in peer.gateway.events()


@outer_families
@pytest.mark.parametrize("source", ["other-address", "other-port", "relay-itself"])
def test_advertisement_from_elsewhere_is_dropped(outer: Family, source: str) -> None:
    """RFC 7450 §5.2.3.4: only the address asked may answer."""
    peer = joined(outer)
    discovery = peer.only(amt.RelayDiscovery)
    sender = {
        "other-address": Endpoint(ip_address(int(DISCOVERY[outer].address) + 1), 2268),
        "other-port": Endpoint(DISCOVERY[outer].address, 2269),
        "relay-itself": RELAY[outer],
    }[source]
    peer.receive(amt.RelayAdvertisement(discovery.nonce, RELAY[outer].address), sender)
    assert peer.gateway.relay is None
    assert peer.sent() == []
    assert peer.dropped() == 1


@outer_families
def test_advertisement_with_another_nonce_is_dropped(outer: Family) -> None:
    """RFC 7450 §5.2.3.4, §5.1.2.3."""
    peer = joined(outer)
    discovery = peer.only(amt.RelayDiscovery)
    peer.receive(amt.RelayAdvertisement(discovery.nonce ^ 1, RELAY[outer].address), DISCOVERY[outer])
    assert peer.gateway.relay is None
    assert peer.dropped() == 1


@pytest.mark.parametrize(
    ("outer", "address"),
    [
        (Family.IPV4, "2001:db8:1::1"),
        (Family.IPV4, "224.0.0.1"),
        (Family.IPV4, "0.0.0.0"),
        (Family.IPV4, "255.255.255.255"),
        (Family.IPV4, "127.0.0.1"),
        (Family.IPV6, "198.51.100.1"),
        (Family.IPV6, "ff02::1"),
        (Family.IPV6, "::"),
        (Family.IPV6, "::1"),
    ],
)
def test_advertisement_of_an_impossible_relay_is_dropped(outer: Family, address: str) -> None:
    """RFC 7450 §5.1.2.4: a unicast address of the family the Discovery travelled in."""
    peer = joined(outer)
    discovery = peer.only(amt.RelayDiscovery)
    peer.receive(amt.RelayAdvertisement(discovery.nonce, ip_address(address)), DISCOVERY[outer])
    assert peer.gateway.relay is None
    assert peer.sent() == []
    assert peer.dropped() == 1


def test_second_advertisement_changes_nothing() -> None:
    """RFC 7450 §5.2.3.4: a replayed or late answer to a Discovery that is over is dropped."""
    peer = joined()
    discovery = peer.only(amt.RelayDiscovery)
    for address in ("198.51.100.1", "198.51.100.99"):
        peer.receive(amt.RelayAdvertisement(discovery.nonce, ip_address(address)), DISCOVERY[Family.IPV4])
    assert peer.gateway.relay == RELAY[Family.IPV4]
    assert len(peer.sent()) == 1
    assert peer.dropped() == 1


def test_unanswered_discovery_backs_off_exponentially() -> None:
    """RFC 7450 §5.2.3.4.3: 1, 2, 4 ... up to the cap of 120 seconds, then discovery starts anew."""
    peer = joined()
    first = peer.only(amt.RelayDiscovery)
    sent = [(when, message) for when, message in peer.advance(2469) if isinstance(message, amt.RelayDiscovery)]
    assert [when for when, _ in sent[:8]] == [1, 3, 7, 15, 31, 63, 127, 247]
    assert sent[8][1].nonce != first.nonce
    assert len(sent) <= 80, "ten rounds of 247 seconds"


def test_waits_are_jittered() -> None:
    """Reference: so that gateways cut off together do not come back together."""
    times = set()
    for seed in range(10):
        generator = random.Random(seed)
        peer = Peer(entropy=generator.randbytes, jitter=0.1)
        peer.join()
        peer.sent()
        times.add(peer.advance(1.2)[0][0])
    assert len(times) > 5
    assert all(0.9 <= when <= 1.1 for when in times)


def test_lost_relay_is_told_and_sought_further() -> None:
    """RFC 7450 §5.2.3.4.3."""
    peer = joined()
    peer.advance(1000)
    lost = [event for event in peer.gateway.events() if isinstance(event, RelayLost)]
    assert [event.relay for event in lost] == [None]
    assert peer.gateway.next_deadline() is not None


def test_configured_relay_needs_no_discovery() -> None:
    """RFC 7450 §5.2.2: a unicast relay address may be configured; the Request goes there at once."""
    peer = Peer(discover=False)
    peer.relay = DISCOVERY[Family.IPV4]
    peer.join()
    assert isinstance(peer.only(amt.Request), amt.Request)


# --- what a gateway does not take


def test_icmp_error_is_a_hint_only() -> None:
    """Reference: ICMP errors can be forged; they never end a tunnel."""
    peer = established()
    peer.gateway.events()
    for _ in range(100):
        peer.gateway.receive_error(peer.now)
    assert peer.gateway.relay == RELAY[Family.IPV4]
    assert not [event for event in peer.gateway.events() if isinstance(event, RelayLost)]
    assert len(peer.sent()) <= 1


@pytest.mark.parametrize(
    "name",
    [
        "relay-discovery",
        "request-igmp",
        "request-kernel-mld",
        "membership-update-igmp",
        "teardown-ipv4",
        *(name for name, vector in VECTORS.items() if vector.decoder == "amt" and vector.error),
    ],
)
def test_message_that_is_not_for_a_gateway_is_counted_and_dropped(name: str) -> None:
    """RFC 7450 §5.2.3.2: Advertisement, Query and Data are a gateway's."""
    peer = established()
    before = peer.dropped()
    peer.receive(VECTORS[name].data)
    assert peer.sent() == []
    assert peer.dropped() == before + 1


def test_unsolicited_messages_move_nothing() -> None:
    """RFC 7450 §5.2.3: before anything was asked, nothing can be an answer."""
    peer = Peer()
    for name in ("relay-advertisement-ipv4", "membership-query-igmp", "membership-query-igmp-gateway-ipv4"):
        for source in (DISCOVERY[Family.IPV4], RELAY[Family.IPV4]):
            peer.receive(VECTORS[name].data, source)
    assert peer.sent() == []
    assert peer.gateway.relay is None
    assert peer.gateway.gateway_address is None
    assert peer.dropped() == 6


def test_query_is_no_way_to_make_a_gateway_flood() -> None:
    """RFC 7450 §6.2: the same valid Query again and again brings no more than a bounded number of Updates."""
    peer = joined()
    peer.discover()
    query = peer.query(peer.only(amt.Request))
    for _ in range(1000):
        peer.receive(query)
    assert len(peer.sent()) <= 32


def test_shortest_interval_is_bounded() -> None:
    """RFC 7450 §6.2: a relay cannot make a gateway spin."""
    peer = joined()
    peer.establish(interval=1)
    requests = [message for _, message in peer.advance(60) if isinstance(message, amt.Request)]
    assert len(requests) <= 60
