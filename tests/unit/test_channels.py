"""Addresses, channels and filters."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from ipaddress import ip_address

import pytest

from agent.protocol.channels import (
    NOTHING,
    Channel,
    Datagram,
    Endpoint,
    Family,
    Filter,
    FilterMode,
    is_forwardable_group,
    is_ssm_group,
    is_unicast,
    merge_filters,
)

ONE, TWO, THREE = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3))


@pytest.mark.parametrize(("text", "family"), [("192.0.2.1", Family.IPV4), ("2001:db8::1", Family.IPV6)])
def test_family_is_the_version_on_the_wire(text, family):
    assert Family.of(ip_address(text)) is family
    assert family == ip_address(text).version


def test_endpoint_reads_as_address_and_port():
    assert str(Endpoint(ip_address("192.0.2.1"), 2268)) == "192.0.2.1:2268"
    assert str(Endpoint(ip_address("2001:db8::1"), 2268)) == "[2001:db8::1]:2268"


def test_nouns_are_values():
    assert {Endpoint(ONE, 1), Endpoint(ONE, 1)} == {Endpoint(ONE, 1)}
    assert Datagram(b"x", Endpoint(ONE, 1)).source is None
    with pytest.raises(FrozenInstanceError):
        Endpoint(ONE, 1).port = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("source", "group"), [("192.0.2.1", "232.1.2.3"), ("*", "239.1.2.3"), ("2001:db8::1", "ff3e::1"), ("*", "ff1e::1")]
)
def test_channel_is_parsed(source, group):
    channel = Channel.parse(source, group)
    assert channel.group == ip_address(group)
    assert channel.source == (None if source == "*" else ip_address(source))
    assert channel.family is Family.of(ip_address(group))
    assert source in str(channel)
    assert group in str(channel)


@pytest.mark.parametrize(
    ("source", "group"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("192.0.2.1", "ff3e::1"),
        ("2001:db8::1", "232.1.2.3"),
        ("nobody", "232.1.2.3"),
        ("192.0.2.1", "nothing"),
        ("", "232.1.2.3"),
    ],
)
def test_what_is_no_channel_is_refused(source, group):
    with pytest.raises(ValueError, match=r"."):
        Channel.parse(source, group)


def test_filter_admits_by_its_mode():
    assert Filter.include([ONE]).admits(ONE)
    assert not Filter.include([ONE]).admits(TWO)
    assert Filter.exclude([ONE]).admits(TWO)
    assert not Filter.exclude([ONE]).admits(ONE)


def test_only_include_of_nothing_wants_nothing():
    assert NOTHING.wants_nothing
    assert Filter.include() == NOTHING == Filter(FilterMode.INCLUDE, frozenset())
    assert not Filter.exclude().wants_nothing
    assert not Filter.include([ONE]).wants_nothing


def test_filter_does_not_care_for_order():
    assert Filter.include([ONE, TWO, ONE]) == Filter.include([TWO, ONE])


def test_merging_nothing_wants_nothing():
    assert merge_filters([]) == NOTHING
    assert merge_filters([NOTHING, NOTHING]) == NOTHING


def test_merging_takes_an_iterator():
    assert merge_filters(iter([Filter.exclude([ONE, TWO]), Filter.include([TWO, THREE])])) == Filter.exclude([ONE])


@pytest.mark.parametrize(
    ("text", "unicast"),
    [
        ("192.0.2.1", True),
        ("10.0.0.1", True),
        ("2001:db8::1", True),
        ("fe80::1", True),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("127.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("ff02::1", False),
    ],
)
def test_unicast_addresses(text, unicast):
    assert is_unicast(ip_address(text)) is unicast


@pytest.mark.parametrize(
    ("text", "forwardable"),
    [
        ("223.255.255.255", False),
        ("224.0.0.0", False),
        ("224.0.0.255", False),
        ("224.0.1.0", True),
        ("224.0.1.39", False),
        ("224.0.1.40", False),
        ("224.0.1.41", True),
        ("232.0.0.1", True),
        ("239.255.255.255", True),
        ("240.0.0.0", False),
        ("2001:db8::1", False),
        ("ff00::1", False),
        ("ff01::1", False),
        ("ff02::1", False),
        ("ff32::1", False),
        ("ff03::1", True),
        ("ff05::1", True),
        ("ff0e::1", True),
        ("ff3e::1", True),
    ],
)
def test_forwardable_groups(text, forwardable):
    """RFC 5771 §4; RFC 4291 §2.7, RFC 7346 §2: realm-local (3) and wider."""
    assert is_forwardable_group(ip_address(text)) is forwardable


@pytest.mark.parametrize(
    ("text", "ssm"),
    [
        ("231.255.255.255", False),
        ("232.0.0.0", True),
        ("232.255.255.255", True),
        ("233.0.0.0", False),
        ("ff3e::1", True),
        ("ff35::4000:1", True),
        ("ff3e:0:ffff::1", True),
        ("ff3e:40:2001:db8::1", False),
        ("ff1e::1", False),
        ("ff7e::1", False),
    ],
)
def test_source_specific_groups(text, ssm):
    """RFC 4607 §1: 232/8 and ff3x::/32; unicast-prefix-based groups (RFC 3306) with a prefix length are not."""
    assert is_ssm_group(ip_address(text)) is ssm
