"""What discovery found becomes one list; how long answers count."""

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent.protocol.discovery import (
    DiscoveryMethod,
    Finding,
    Outcome,
    RelayLocation,
    combine,
    is_possible_relay,
    order_candidates,
)
from agent.protocol.discovery_reply import Lifetimes, Remembered

DNS_SD, ANYCAST, DRIAD = DiscoveryMethod
ORDER = (DNS_SD, ANYCAST, DRIAD)
SOURCE = ip_address("198.51.100.7")


def place(address, method=DRIAD, **fields):
    return RelayLocation(ip_address(address), method, **fields)


def order(*locations, methods=ORDER, unusable=(), seed=b"seed", limit=100):
    findings = [Finding(method, tuple(item for item in locations if item.method is method)) for method in methods]
    return order_candidates(findings, methods, lambda address: str(address) not in unusable, seed, limit)


def addresses(candidates):
    return [str(item.address) for item in candidates]


def test_methods_stand_in_the_configured_order():
    found = place("192.0.2.3"), place("192.0.2.2", ANYCAST), place("192.0.2.1", DNS_SD)
    assert addresses(order(*found)) == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert addresses(order(*found, methods=(DRIAD, DNS_SD, ANYCAST))) == ["192.0.2.3", "192.0.2.1", "192.0.2.2"]


def test_precedence_comes_before_the_family():
    found = place("2001:db8::1", precedence=20), place("192.0.2.1", precedence=10)
    assert addresses(order(*found)) == ["192.0.2.1", "2001:db8::1"]


def test_among_equals_ipv6_comes_first():
    found = place("192.0.2.1"), place("2001:db8::1")
    assert addresses(order(*found)) == ["2001:db8::1", "192.0.2.1"]


def test_what_cannot_be_reached_comes_last():
    found = place("2001:db8::1"), place("192.0.2.1", precedence=200)
    ordered = order(*found, unusable=["2001:db8::1"])
    assert [(str(item.address), item.is_usable) for item in ordered] == [("192.0.2.1", True), ("2001:db8::1", False)]


def test_equals_are_one_group():
    found = [
        place("192.0.2.1"),
        place("2001:db8::1"),
        place("192.0.2.2", precedence=7),
        place("192.0.2.3", ANYCAST),
    ]
    assert [item.preference for item in order(*found)] == [0, 1, 1, 2]


def test_chance_decides_among_equals():
    found = [place(f"192.0.2.{number}") for number in range(3)]
    first = Counter(order(*found, seed=number.to_bytes(4))[0].address for number in range(3000))
    assert len(first) == 3
    assert min(first.values()) > 850


def test_one_process_keeps_its_choice():
    found = [place(f"192.0.2.{number}") for number in range(20)]
    assert order(*found) == order(*reversed(found))


def test_services_are_chosen_by_weight():
    """RFC 2782: a probability proportional to the weight."""
    found = place("192.0.2.1", DNS_SD, weight=3), place("192.0.2.2", DNS_SD, weight=1)
    first = Counter(str(order(*found, seed=number.to_bytes(4))[0].address) for number in range(4000))
    assert 2800 < first["192.0.2.1"] < 3200


def test_services_of_weight_0_come_behind_others():
    found = place("192.0.2.1", DNS_SD, weight=0), place("192.0.2.2", DNS_SD, weight=1)
    first = Counter(str(order(*found, seed=number.to_bytes(4))[0].address) for number in range(1000))
    assert first["192.0.2.2"] > 990


def test_a_place_stands_once_where_it_is_best():
    found = place("192.0.2.1", precedence=20), place("192.0.2.1", DNS_SD), place("192.0.2.1", port=3000)
    assert [(item.method, item.port) for item in order(*found)] == [(DNS_SD, 2268), (DRIAD, 3000)]


def test_a_place_told_with_and_without_the_d_bit_is_discovered_at():
    found = place("192.0.2.1", discover=False), place("192.0.2.1")
    assert [item.discover for item in (*order(*found), *order(*reversed(found)))] == [True, True]


def test_there_are_not_more_than_the_limit():
    assert len(order(*(place(f"192.0.2.{number}") for number in range(50)), limit=8)) == 8


def test_no_relay_of_the_source_s_operator_is_the_last_word():
    findings = [Finding(DNS_SD, (place("192.0.2.1", DNS_SD),), Outcome.FOUND, 10.0)]
    findings.append(Finding(DRIAD, (), Outcome.NO_RELAY, 20.0))
    answer = combine(SOURCE, findings, (DNS_SD, DRIAD), (place("192.0.2.1", DNS_SD),), 1000.0)
    assert (answer.candidates, answer.outcome, answer.expires) == ((), Outcome.NO_RELAY, 1010.0)


@pytest.mark.parametrize(
    ("outcomes", "outcome"),
    [
        ((Outcome.NOTHING, Outcome.NOTHING), Outcome.NOTHING),
        ((Outcome.FAILED, Outcome.NOTHING), Outcome.FAILED),
        ((), Outcome.NOTHING),
    ],
)
def test_nothing_found_is_not_the_same_as_failed(outcomes, outcome):
    findings = [Finding(method, (), what, 5.0) for method, what in zip(ORDER, outcomes, strict=False)]
    answer = combine(SOURCE, findings, ORDER, (), 0.0)
    assert answer.outcome is outcome
    assert not answer.is_complete


def test_an_answer_is_complete_when_every_method_has_answered():
    finding = Finding(DRIAD, (place("192.0.2.1"),), Outcome.FOUND, 5.0)
    assert combine(SOURCE, [finding], (DRIAD,), finding.locations, 0.0).is_complete
    assert not combine(SOURCE, [finding], (DNS_SD, DRIAD), finding.locations, 0.0).is_complete


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.1.1",
        "240.0.0.1",
        "::",
        "::1",
        "::192.0.2.1",
        "::ffff:192.0.2.1",
        "fe80::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_no_relay_s(address):
    assert not is_possible_relay(ip_address(address))


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "192.52.193.1", "2001:3::1", "fd00::1"])
def test_addresses_that_may_be_a_relay_s(address):
    assert is_possible_relay(ip_address(address))


def test_answers_count_as_their_ttl_says_but_not_for_ever():
    lifetimes = Lifetimes(maximum=3600.0, negative=60.0)
    assert [lifetimes.positive(ttl) for ttl in (0, 1, 300, 2**31 - 1)] == [60.0, 1.0, 300.0, 3600.0]
    assert [lifetimes.denied(ttl) for ttl in (None, 0, 1, 300, 2**31 - 1)] == [60.0, 60.0, 1.0, 300.0, 3600.0]


def test_failures_count_shortly_and_twice_as_long_each_time():
    assert [Lifetimes(3600.0, 900.0).failed(times) for times in (1, 2, 3, 100)] == [5.0, 10.0, 20.0, 300.0]
    assert Lifetimes(3600.0, 2.0).failed(1) == 2.0


def test_what_was_not_used_for_longest_is_forgotten():
    known = Remembered[str, int](2)
    known.put("a", 1, 10.0)
    known.put("b", 2, 10.0)
    assert known.get("a", 3.0) == (1, 7.0)
    known.put("c", 3, 10.0)
    assert len(known) == 2
    assert known.get("b", 3.0) is None
    assert known.get("a", 10.0) is None
    assert known.expired("a") == 1
    known.clear()
    assert known.expired("a") is None


def test_a_name_makes_no_difference_between_places():
    assert place("192.0.2.1", name="relay.example.") == replace(place("192.0.2.1"), name="other.example.")
