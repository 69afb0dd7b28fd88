"""The faults the lab injects are the ones it is asked for."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from agent.protocol.wire.amt import (
    MembershipQuery,
    MembershipUpdate,
    MulticastData,
    RelayAdvertisement,
    RelayDiscovery,
    Request,
    decode,
)
from agent.protocol.wire.ip import IPPacket
from lab.faults import Disturbance, Faults

FRONT = ip_address("192.0.2.2")
INNER = IPPacket(ip_address("192.0.2.1"), ip_address("224.0.0.1"), 2, bytes(12)).encode()
QUERY = MembershipQuery(b"abcdef", 7, INNER, gateway=(ip_address("203.0.113.1"), 40000))
REQUEST = Request(7).encode()


def disturbance(**faults: object) -> Disturbance:
    made = Disturbance(FRONT, seed=1)
    made.faults = Faults.from_json(faults)
    return made


def altered(made: Disturbance, query: MembershipQuery = QUERY) -> MembershipQuery:
    (data,) = made.towards_gateway(query.encode())
    message = decode(data)
    assert isinstance(message, MembershipQuery)
    return message


def test_without_faults_only_the_advertised_address_changes():
    made = disturbance()
    for data in (RelayDiscovery(3).encode(), REQUEST, MembershipUpdate(b"abcdef", 7, INNER).encode()):
        assert made.towards_relay(data) == [data]
    assert made.towards_gateway(QUERY.encode()) == [QUERY.encode()]
    advertisement = RelayAdvertisement(3, ip_address("192.0.2.1")).encode()
    assert made.towards_gateway(advertisement) == [RelayAdvertisement(3, FRONT).encode()]


def test_silence_stops_the_relay_but_not_the_gateway():
    made = disturbance(silence=True)
    assert made.towards_gateway(QUERY.encode()) == []
    assert made.towards_relay(REQUEST) == [REQUEST]


@pytest.mark.parametrize(("group", "other"), [("232.1.1.1", "232.1.1.2"), ("ff3e::8000:1", "ff3e::8000:2")])
def test_muted_groups_alone_never_reach_the_gateway(group, other):
    made = disturbance(mute=[group])
    source = ip_address("2001:db8::1" if ":" in group else "192.0.2.9")
    muted, heard = (
        MulticastData(IPPacket(source, ip_address(to), 17, bytes(40)).encode()).encode() for to in (group, other)
    )
    assert made.towards_gateway(muted) == []
    for data in (heard, QUERY.encode(), muted[:10]):
        assert made.towards_gateway(data) == [data]


def test_total_loss_spares_message_types_not_named():
    made = disturbance(loss=1.0, only=["MULTICAST_DATA"])
    assert made.towards_gateway(MulticastData(INNER).encode()) == []
    assert made.towards_gateway(QUERY.encode()) == [QUERY.encode()]


def test_loss_has_the_share_asked_for():
    made = disturbance(loss=0.25)
    arrived = sum(len(made.towards_relay(REQUEST)) for _ in range(4000))
    assert 2850 < arrived < 3150


def test_duplicates_come_twice_and_reordered_come_after_the_next():
    assert disturbance(duplicate=1.0).towards_relay(REQUEST) == [REQUEST, REQUEST]
    made = disturbance(reorder=1.0)
    later = Request(8).encode()
    assert made.towards_relay(REQUEST) == []
    assert made.towards_relay(later) == [later, REQUEST]


def test_query_faults_touch_only_their_field():
    assert altered(disturbance(limit=True)).limit
    assert altered(disturbance(gateway_field="strip")).gateway is None
    assert altered(disturbance(wrong_mac=True)).response_mac != QUERY.response_mac
    made = disturbance(stale_nonce=True)
    assert altered(made).nonce == 0
    assert altered(made).nonce == QUERY.nonce


def test_a_key_rotation_spoils_only_macs_from_before_it():
    made = disturbance(key=1)
    old = altered(made).response_mac
    (accepted,) = made.towards_relay(MembershipUpdate(old, 7, INNER).encode())
    assert accepted == MembershipUpdate(QUERY.response_mac, 7, INNER).encode()
    made.faults = Faults.from_json({"key": 2})
    (refused,) = made.towards_relay(MembershipUpdate(old, 7, INNER).encode())
    assert decode(refused).response_mac != QUERY.response_mac
    fresh = altered(made).response_mac
    (accepted,) = made.towards_relay(MembershipUpdate(fresh, 7, INNER).encode())
    assert accepted == MembershipUpdate(QUERY.response_mac, 7, INNER).encode()


@pytest.mark.parametrize("garbage", [b"", b"\x04", b"\x04" * 40, b"\xff" * 20])
def test_garbage_passes_untouched(garbage):
    made = disturbance(limit=True, wrong_mac=True)
    assert made.towards_gateway(garbage) == [garbage]


def test_unknown_faults_are_refused():
    with pytest.raises(ValueError, match="sharks"):
        Faults.from_json({"sharks": True})
    with pytest.raises(ValueError, match="SMOKE_SIGNAL"):
        Faults.from_json({"only": ["SMOKE_SIGNAL"]})
