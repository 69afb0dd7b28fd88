"""Response MACs and their secrets (RFC 7450 §5.3.5, §5.3.6)."""

from __future__ import annotations

import itertools
from ipaddress import ip_address

import pytest

from agent.protocol.relay_authentication import ResponseMacs

A4, B4, A6 = ip_address("192.0.2.1"), ip_address("192.0.2.2"), ip_address("2001:db8::1")


def macs(lifetime=100.0):
    numbers = itertools.count(1)
    return ResponseMacs(lambda size: next(numbers).to_bytes(size, "big"), lifetime)


def test_mac_is_six_bytes_and_verifies():
    relay = macs()
    for address in (A4, A6):
        mac = relay.compute(address, 4000, 7, 0)
        assert len(mac) == 6
        assert relay.verify(mac, address, 4000, 7, 0)


@pytest.mark.parametrize(
    ("address", "port", "nonce"),
    [(B4, 4000, 7), (A6, 4000, 7), (A4, 4001, 7), (A4, 4000, 8), (ip_address("::192.0.2.1"), 4000, 7)],
)
def test_mac_belongs_to_one_address_port_and_nonce(address, port, nonce):
    relay = macs()
    assert not relay.verify(relay.compute(A4, 4000, 7, 0), address, port, nonce, 0)


@pytest.mark.parametrize("mac", [b"", bytes(6), bytes(32)])
def test_wrong_mac_is_refused(mac):
    assert not macs().verify(mac, A4, 4000, 7, 0)


def test_another_secret_makes_another_mac():
    first, second = (ResponseMacs(lambda size, fill=fill: bytes([fill]) * size, 100) for fill in (1, 2))
    assert not second.verify(first.compute(A4, 1, 1, 0), A4, 1, 1, 0)


def test_mac_survives_one_replacement_of_the_secret_and_not_two():
    relay = macs()
    mac = relay.compute(A4, 1, 1, 0)
    assert relay.verify(mac, A4, 1, 1, 99)
    assert relay.compute(A4, 1, 1, 100) != mac
    assert relay.verify(mac, A4, 1, 1, 199)
    assert not relay.verify(mac, A4, 1, 1, 200)


def test_mac_of_long_ago_is_refused_though_nobody_asked_in_between():
    relay = macs()
    mac = relay.compute(A4, 1, 1, 0)
    assert not relay.verify(mac, A4, 1, 1, 200)


def test_secret_is_replaced_on_its_hour_however_late_that_is_noticed():
    relay = macs()
    mac = relay.compute(A4, 1, 1, 0)
    assert relay.verify(mac, A4, 1, 1, 150)
    assert not relay.verify(mac, A4, 1, 1, 200)


def test_secret_replaced_by_hand():
    relay = macs()
    mac = relay.compute(A4, 1, 1, 0)
    relay.rotate(10)
    assert relay.verify(mac, A4, 1, 1, 50)
    relay.rotate(60)
    assert not relay.verify(mac, A4, 1, 1, 61)
