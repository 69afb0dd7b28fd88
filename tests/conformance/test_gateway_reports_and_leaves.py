"""AMT gateway, Updates and Teardowns (RFC 7450 §5.2.3.6 to §5.2.3.8) and the G flag."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scripted.gateway_peer import (
    GROUP,
    OTHER_MAC,
    SOURCE,
    Peer,
    established,
    inner_families,
    joined,
    next_request,
    outer_families,
    records,
)

from agent.protocol.channels import NOTHING, Endpoint, Family, Filter
from agent.protocol.gateway_events import GatewayAddressChanged
from agent.protocol.wire import amt
from agent.protocol.wire.groups import RecordType

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
