"""AMT gateway: one test a rule of RFC 7450 §5.2, and of what deployed relays need (reference: peers' quirks)."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from vectors.loader import load_vectors

from agent.protocol.channels import NOTHING, Address, Datagram, Endpoint, Family, Filter
from agent.protocol.gateway import Gateway
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.gateway_events import GatewayAddressChanged, RelayFound, RelayLimit, RelayLost
from agent.protocol.wire import amt
from agent.protocol.wire.group_packet import decode as decode_group
from agent.protocol.wire.group_packet import encode as encode_group
from agent.protocol.wire.groups import GroupRecord, Query, RecordType, Report

VECTORS = load_vectors()
DISCOVERY = {
    Family.IPV4: Endpoint(ip_address("192.52.193.1"), 2268),
    Family.IPV6: Endpoint(ip_address("2001:3::1"), 2268),
}
RELAY = {
    Family.IPV4: Endpoint(ip_address("198.51.100.1"), 2268),
    Family.IPV6: Endpoint(ip_address("2001:db8:1::1"), 2268),
}
QUERIER = {Family.IPV4: ip_address("198.51.100.1"), Family.IPV6: ip_address("fe80::1")}
GROUP = {Family.IPV4: ip_address("232.1.2.3"), Family.IPV6: ip_address("ff3e::1234")}
SOURCE = {Family.IPV4: ip_address("203.0.113.5"), Family.IPV6: ip_address("2001:db8::5")}
OUTER_HEADERS = {Family.IPV4: 28, Family.IPV6: 48}
"""IP and UDP headers around an AMT message."""
MAC, OTHER_MAC = b"\x0a\x0b\x0c\x0d\x0e\x0f", b"\x01\x02\x03\x04\x05\x06"

outer_families = pytest.mark.parametrize("outer", list(Family))
inner_families = pytest.mark.parametrize("inner", list(Family))


class Peer:
    """A gateway, its clock, and hands to play the relay with."""

    def __init__(self, outer: Family = Family.IPV4, entropy: Callable[[int], bytes] | None = None, **options: object):
        generator = random.Random(7450)
        self.outer = outer
        self.now = 1000.0
        self.config = GatewayConfig(DISCOVERY[outer].address, **{"jitter": 0.0, **options})
        self.gateway = Gateway(self.config, entropy or generator.randbytes)
        self.relay = RELAY[outer]
        self.started = self.now
        self.gateway.start(self.now)

    def join(self, inner: Family = Family.IPV4, wanted: Filter | None = None, group: Address | None = None) -> None:
        state = Filter.include([SOURCE[inner]]) if wanted is None else wanted
        self.gateway.set_membership(group or GROUP[inner], state, self.now)

    def sent(self) -> list[amt.Message]:
        """Messages sent now; all of them must go where gateways may send."""
        messages = []
        for datagram in self.datagrams():
            message = amt.decode(datagram.data)
            to_discovery = isinstance(message, amt.RelayDiscovery)
            assert datagram.destination == (DISCOVERY[self.outer] if to_discovery else self.relay)
            assert len(datagram.data) + OUTER_HEADERS[self.outer] <= self.config.mtu
            messages.append(message)
        return messages

    def datagrams(self) -> list[Datagram]:
        return self.gateway.datagrams_to_send()

    def only(self, kind: type[amt.Message]) -> amt.Message:
        (message,) = self.sent()
        assert isinstance(message, kind), message
        return message

    def receive(self, message: amt.Message | bytes, source: Endpoint | None = None) -> None:
        data = message if isinstance(message, bytes) else message.encode()
        self.gateway.receive_datagram(data, source or self.relay, self.now)

    def advance(self, seconds: float) -> list[tuple[float, amt.Message]]:
        """Let time go by; returns what was sent, with the time since the start."""
        end = self.now + seconds
        messages: list[tuple[float, amt.Message]] = []
        for _ in range(10000):
            deadline = self.gateway.next_deadline()
            if deadline is None or deadline > end:
                break
            self.now = max(self.now, deadline)
            self.gateway.handle_timer(self.now)
            messages += [(self.now - self.started, message) for message in self.sent()]
        else:
            pytest.fail("timers never come to an end")
        self.now = end
        return messages

    def discover(self) -> None:
        """Answer the Discovery."""
        discovery = self.only(amt.RelayDiscovery)
        self.receive(amt.RelayAdvertisement(discovery.nonce, self.relay.address), DISCOVERY[self.outer])

    def query(self, request: amt.Request, inner: Family = Family.IPV4, mac: bytes = MAC, **fields: object) -> bytes:
        limit, gateway = fields.pop("limit", False), fields.pop("gateway", None)
        packet = encode_group(Query(**fields), QUERIER[inner])
        return amt.MembershipQuery(mac, request.nonce, packet, limit, gateway).encode()

    def establish(self, inner: Family = Family.IPV4, **fields: object) -> amt.MembershipUpdate:
        """Discover, request, be asked, and report; returns the first Update."""
        self.discover()
        request = self.only(amt.Request)
        self.receive(self.query(request, inner, **fields))
        updates = self.sent()
        assert updates
        assert all(isinstance(update, amt.MembershipUpdate) for update in updates)
        return updates[0]

    def dropped(self) -> int:
        return sum(count for name, count in self.gateway.counters.items() if name.startswith("dropped_"))


def joined(outer: Family = Family.IPV4, inner: Family = Family.IPV4, **options: object) -> Peer:
    peer = Peer(outer, **options)
    peer.join(inner)
    return peer


def established(outer: Family = Family.IPV4, inner: Family = Family.IPV4, **options: object) -> Peer:
    peer = joined(outer, inner, **options)
    peer.establish(inner)
    peer.advance(5)
    return peer


def records(messages: list[amt.Message]) -> list[GroupRecord]:
    found: list[GroupRecord] = []
    for message in messages:
        if isinstance(message, amt.MembershipUpdate):
            report = decode_group(message.packet).message
            assert isinstance(report, Report)
            found += report.records
    return found


def next_request(peer: Peer, within: float = 200) -> amt.Request:
    """Let time go by until the gateway asks again."""
    for _ in range(int(within)):
        requests = [message for _, message in peer.advance(1) if isinstance(message, amt.Request)]
        if requests:
            return requests[0]
    pytest.fail("no Request")


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


# --- G flag, Teardown


ADDRESS = {
    Family.IPV4: (ip_address("203.0.113.7"), 54321),
    Family.IPV6: (ip_address("2001:db8:7::7"), 54321),
}
MOVED = {
    Family.IPV4: (ip_address("203.0.113.8"), 54321),
    Family.IPV6: (ip_address("2001:db8:7::8"), 54321),
}


@outer_families
def test_gateway_address_is_learned(outer: Family) -> None:
    """RFC 7450 §5.1.4.5, §5.2.3.7."""
    peer = joined(outer)
    peer.establish(gateway=ADDRESS[outer])
    assert peer.gateway.gateway_address == Endpoint(*ADDRESS[outer])
    assert GatewayAddressChanged(None, Endpoint(*ADDRESS[outer])) in peer.gateway.events()


@outer_families
@pytest.mark.parametrize("change", ["address", "port"])
def test_new_address_tears_down_the_old_tunnel_and_reports_anew(outer: Family, change: str) -> None:
    """RFC 7450 §5.2.3.7: Teardown with the OLD address, port, nonce and MAC; then the state goes to the new tunnel."""
    peer = joined(outer)
    first = peer.establish(gateway=ADDRESS[outer])
    peer.advance(5)
    peer.gateway.events()
    request = next_request(peer)
    moved = MOVED[outer] if change == "address" else (ADDRESS[outer][0], 12345)
    peer.receive(peer.query(request, mac=OTHER_MAC, gateway=moved))
    sent = peer.sent()
    teardowns = [message for message in sent if isinstance(message, amt.Teardown)]
    assert teardowns == [amt.Teardown(first.response_mac, first.nonce, ADDRESS[outer])]
    assert {record.group for record in records(sent)} == {GROUP[Family.IPV4]}
    updates = [message for message in sent if isinstance(message, amt.MembershipUpdate)]
    assert {update.nonce for update in updates} == {request.nonce}
    assert GatewayAddressChanged(Endpoint(*ADDRESS[outer]), Endpoint(*moved)) in peer.gateway.events()


def test_old_credentials_of_the_teardown_are_the_newest_of_that_address() -> None:
    """RFC 7450 §5.1.7: the last nonce and MAC given out for the address that is gone."""
    peer = joined()
    peer.establish(gateway=ADDRESS[Family.IPV4])
    peer.advance(5)
    second = next_request(peer)
    peer.receive(peer.query(second, mac=OTHER_MAC, gateway=ADDRESS[Family.IPV4]))
    peer.advance(5)
    third = next_request(peer)
    peer.receive(peer.query(third, mac=b"\x09" * 6, gateway=MOVED[Family.IPV4]))
    teardowns = [message for message in peer.sent() if isinstance(message, amt.Teardown)]
    assert teardowns == [amt.Teardown(OTHER_MAC, second.nonce, ADDRESS[Family.IPV4])]


def test_same_address_tears_nothing_down() -> None:
    """RFC 7450 §5.2.3.7."""
    peer = joined()
    peer.establish(gateway=ADDRESS[Family.IPV4])
    for _ in range(3):
        request = next_request(peer)
        peer.receive(peer.query(request, gateway=ADDRESS[Family.IPV4]))
        assert not [message for message in peer.sent() if isinstance(message, amt.Teardown)]


@inner_families
def test_stop_leaves_then_tears_down(inner: Family) -> None:
    """RFC 7450 §5.2.3.8: leave reports first, then Teardown where G gave an address."""
    peer = joined(inner=inner)
    first = peer.establish(inner, gateway=ADDRESS[Family.IPV4])
    peer.advance(5)
    peer.gateway.stop(peer.now)
    sent = peer.sent()
    assert sent[-1] == amt.Teardown(first.response_mac, first.nonce, ADDRESS[Family.IPV4])
    assert [(record.type, record.group, record.sources) for record in records(sent[:-1])] == [
        (RecordType.BLOCK_OLD_SOURCES, GROUP[inner], (SOURCE[inner],))
    ]
    assert peer.advance(10000) == []


def test_stop_without_an_address_leaves_only() -> None:
    """RFC 7450 §5.1.7: a Teardown needs the address the relay told."""
    peer = established()
    peer.gateway.stop(peer.now)
    sent = peer.sent()
    assert [record.type for record in records(sent)] == [RecordType.BLOCK_OLD_SOURCES]
    assert not [message for message in sent if isinstance(message, amt.Teardown)]


# --- membership


@inner_families
def test_join_of_an_established_gateway_needs_no_round_trip(inner: Family) -> None:
    """RFC 7450 §5.2.3.6: the MAC in hand is good for every Update."""
    peer = established(inner=inner)
    group = ip_address("232.9.9.9" if inner is Family.IPV4 else "ff3e::9")
    peer.join(inner, group=group)
    (record,) = records(peer.sent())
    assert (record.type, record.group, record.sources) == (RecordType.ALLOW_NEW_SOURCES, group, (SOURCE[inner],))


@inner_families
def test_source_specific_leave_is_a_block(inner: Family) -> None:
    """RFC 3376 §5.1; amtrelayd wants BLOCK to leave."""
    peer = established(inner=inner)
    peer.join(inner, NOTHING)
    (record,) = records(peer.sent())
    assert (record.type, record.group, record.sources) == (
        RecordType.BLOCK_OLD_SOURCES,
        GROUP[inner],
        (SOURCE[inner],),
    )


def test_change_is_repeated_robustness_times() -> None:
    """RFC 3376 §5.1, §8.1: as often as the querier's robustness variable says."""
    peer = joined()
    peer.discover()
    peer.receive(peer.query(peer.only(amt.Request), robustness=3))
    peer.sent()
    peer.advance(10)
    peer.join(group=ip_address("232.9.9.9"))
    told = len(records(peer.sent())) + len(records([message for _, message in peer.advance(10)]))
    assert told == 3


@pytest.mark.parametrize("group", ["224.0.0.251", "ff02::fb", "192.0.2.1"])
def test_link_local_groups_are_never_reported(group: str) -> None:
    """RFC 5771 §4, RFC 4291 §2.7."""
    peer = Peer()
    source = SOURCE[Family.of(ip_address(group))]
    with pytest.raises(ValueError, match=r"."):
        peer.gateway.set_membership(ip_address(group), Filter.include([source]), peer.now)
    assert peer.sent() == []
    assert peer.gateway.memberships == {}


@outer_families
@inner_families
def test_long_reports_are_split_to_fit(outer: Family, inner: Family) -> None:
    """RFC 3376 §4.2.16: `Peer.sent` checks that each datagram fits the MTU; together they name every source."""
    peer = Peer(outer)
    first = int(SOURCE[inner])
    many = {ip_address(first + number) for number in range(2000)}
    peer.join(inner, Filter.include(many))
    peer.discover()
    request = peer.only(amt.Request)
    peer.receive(peer.query(request, inner))
    told = records(peer.sent()) + records([message for _, message in peer.advance(0.9)])
    assert {source for record in told for source in record.sources} == many


def test_every_query_is_answered_with_the_whole_state() -> None:
    """RFC 7450 §5.2.3.6: a relay that restarted has everything again within one query interval."""
    peer = joined()
    others = [ip_address(f"232.0.1.{number}") for number in range(1, 50)]
    for group in others:
        peer.join(group=group)
    peer.establish()
    peer.advance(5)
    request = next_request(peer)
    peer.receive(peer.query(request))
    told = records(peer.sent()) + records([message for _, message in peer.advance(5)])
    assert {record.group for record in told} == {GROUP[Family.IPV4], *others}


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
