"""Preference among relays (RFC 8777 §2.3.2) and what the answers of the methods come to, for the public functions."""

from __future__ import annotations

import math
from collections import Counter
from ipaddress import ip_address
from itertools import permutations

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
from agent.service.config.discovery_section import DiscoverySection

DNS_SD, ANYCAST, DRIAD = DiscoveryMethod.DNS_SD, DiscoveryMethod.ANYCAST, DiscoveryMethod.DRIAD
DEFAULT = (DNS_SD, ANYCAST, DRIAD)
SOURCE = ip_address("198.51.100.12")


def at(address: str, method: DiscoveryMethod = DRIAD, precedence: int = 10, **options: object) -> RelayLocation:
    return RelayLocation(ip_address(address), method, precedence=precedence, **options)


def finding(*locations: RelayLocation, method: DiscoveryMethod = DRIAD, lifetime: float = 300.0) -> Finding:
    outcome = Outcome.FOUND if locations else Outcome.NOTHING
    return Finding(method, tuple(locations), outcome, lifetime)


def order(*findings: Finding, methods=DEFAULT, unusable=(), seed: bytes = b"seed", limit: int = 100):
    return order_candidates(findings, methods, lambda address: str(address) not in unusable, seed, limit)


def names(candidates: tuple[RelayLocation, ...]) -> list[str]:
    return [str(candidate.address) for candidate in candidates]


# --- The order of the methods


def test_the_anycast_method_asks_the_well_known_addresses() -> None:
    """RFC 7450 §7; nothing is asked before the administrator names the methods, in an order of his own."""
    assert [str(address) for address in DiscoverySection().anycast] == ["192.52.193.1", "2001:3::1"]
    assert DiscoverySection().methods == ()


@pytest.mark.parametrize("methods", list(permutations(DEFAULT)))
def test_the_order_of_the_methods_comes_first_and_can_be_configured(methods) -> None:
    """Whatever precedences, families and the order of arrival say."""
    locations = {
        DNS_SD: at("192.0.2.1", DNS_SD, 65535),
        ANYCAST: at("2001:db8::2", ANYCAST, 128),
        DRIAD: at("2001:db8::3", DRIAD, 0),
    }
    findings = [finding(locations[method], method=method) for method in (DRIAD, DNS_SD, ANYCAST)]
    assert [candidate.method for candidate in order(*findings, methods=methods)] == list(methods)


# --- Precedence before address selection


def test_lower_precedence_goes_first_whatever_the_family() -> None:
    found = finding(at("2001:db8::1", precedence=20), at("192.0.2.1", precedence=10), at("192.0.2.2", precedence=0))
    assert names(order(found)) == ["192.0.2.2", "192.0.2.1", "2001:db8::1"]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (127, 128), (0, 255)])
def test_precedence_is_an_unsigned_number(low, high) -> None:
    found = finding(at("192.0.2.2", precedence=high), at("192.0.2.1", precedence=low))
    assert names(order(found)) == ["192.0.2.1", "192.0.2.2"]


# --- Address selection among equal precedences (RFC 6724 §6)


def test_an_address_without_a_route_goes_behind_all_others() -> None:
    """Rule 1; not even its precedence helps it."""
    found = finding(at("2001:db8::1", precedence=0), at("192.0.2.1", precedence=200))
    assert names(order(found, unusable={"2001:db8::1"})) == ["192.0.2.1", "2001:db8::1"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2001:db8::1", "192.0.2.1"),
        ("2001:3::1", "192.52.193.1"),  # the well-known addresses of AMT
        ("192.0.2.1", "2002:c000:201::1"),  # 6to4
        ("192.0.2.1", "2001:0:c000:201::1"),  # Teredo
        ("192.0.2.1", "fd00::1"),  # unique local
        ("2001:db8::1", "2002:c000:201::1"),
        ("2002:c000:201::1", "2001:0:c000:201::1"),
        ("2001:0:c000:201::1", "fd00::1"),
    ],
)
@pytest.mark.parametrize("seed", [b"a", b"b", b"c"])
def test_the_higher_precedence_of_the_default_policy_table_goes_first(first, second, seed) -> None:
    """Rule 6 with the table of RFC 6724 §2.1."""
    assert names(order(finding(at(second), at(first)), seed=seed)) == [first, second]
    assert names(order(finding(at(first), at(second)), seed=seed)) == [first, second]


# --- Chance among equals


def test_equals_come_in_random_order() -> None:
    found = finding(*(at(f"192.0.2.{number}") for number in range(1, 5)))
    firsts = Counter(names(order(found, seed=str(count).encode()))[0] for count in range(400))
    assert set(firsts) == {f"192.0.2.{number}" for number in range(1, 5)}
    assert max(firsts.values()) < 200


def test_chance_never_overrides_precedence_or_family() -> None:
    found = finding(at("192.0.2.1"), at("192.0.2.2"), at("2001:db8::1"), at("192.0.2.9", precedence=11))
    for count in range(50):
        ordered = names(order(found, seed=str(count).encode()))
        assert (ordered[0], ordered[-1]) == ("2001:db8::1", "192.0.2.9")


# --- One relay once


def test_a_relay_found_by_two_methods_stands_where_the_better_one_puts_it() -> None:
    first, again = at("192.0.2.1", DNS_SD, 5), at("192.0.2.1", DRIAD, 0)
    ordered = order(finding(again, at("192.0.2.2", DRIAD, 0)), finding(first, method=DNS_SD))
    assert [(str(one.address), one.method) for one in ordered] == [("192.0.2.1", DNS_SD), ("192.0.2.2", DRIAD)]


def test_discovery_is_needed_where_one_of_equal_records_says_so() -> None:
    """§4.2.2: with D clear an Advertisement has to come before a Request."""
    for records in permutations([at("192.0.2.1", discover=False), at("192.0.2.1", discover=True)]):
        (only,) = order(finding(*records))
        assert only.discover


def test_names_and_addresses_come_to_the_same() -> None:
    """§4.2.4: D bit and precedence of a name are those of its addresses."""
    by_name = finding(at("192.0.2.1", name="amtrelays.example.com."), at("2001:db8::1", name="amtrelays.example.com."))
    by_address = finding(at("192.0.2.1"), at("2001:db8::1"))
    assert order(by_name) == order(by_address)


def test_no_more_than_the_limit_are_kept_the_best_ones() -> None:
    found = finding(*(at(f"192.0.2.{number}", precedence=number) for number in range(1, 101)))
    assert names(order(found, limit=3)) == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]


def test_equals_share_a_preference_group_and_others_do_not() -> None:
    found = finding(at("192.0.2.1"), at("2001:db8::1"), at("192.0.2.2", precedence=11))
    assert [candidate.preference for candidate in order(found)] == [0, 0, 1]


# --- What the methods come to


def answer(*findings: Finding, methods=DEFAULT, now: float = 1000.0):
    return combine(SOURCE, findings, methods, order(*findings, methods=methods), now)


def test_no_relay_shall_be_used_when_a_type_0_record_says_so() -> None:
    """§4.2.4: for traffic of this source, so relays of other methods are out too."""
    refused = Finding(DRIAD, (), Outcome.NO_RELAY, 60.0)
    result = answer(finding(at("192.0.2.1", DNS_SD), method=DNS_SD), refused, finding(method=ANYCAST))
    assert (result.outcome, result.candidates) == (Outcome.NO_RELAY, ())
    assert result.expires == 1060.0


def test_candidates_are_there_before_every_method_answered() -> None:
    """§2.4.2: connecting does not wait for lagging answers."""
    result = answer(finding(at("192.0.2.1", DNS_SD), method=DNS_SD))
    assert (result.outcome, names(result.candidates)) == (Outcome.FOUND, ["192.0.2.1"])
    assert not result.is_complete


def test_an_answer_lasts_as_long_as_the_shortest_lived_part_of_it() -> None:
    result = answer(
        finding(at("192.0.2.1", DNS_SD), method=DNS_SD, lifetime=120.0),
        finding(at("192.52.193.1", ANYCAST), method=ANYCAST, lifetime=math.inf),
        finding(at("192.0.2.2"), lifetime=30.0),
    )
    assert result.expires == 1030.0
    assert result.is_complete


@pytest.mark.parametrize(
    ("outcome", "expected"), [(Outcome.NOTHING, Outcome.NOTHING), (Outcome.FAILED, Outcome.FAILED)]
)
def test_without_candidates_nothing_found_differs_from_no_answer(outcome, expected) -> None:
    findings = [Finding(DRIAD, (), outcome, 30.0), finding(method=DNS_SD), finding(method=ANYCAST)]
    assert answer(*findings).outcome is outcome


def test_a_failed_method_does_not_hide_what_others_found() -> None:
    result = answer(finding(at("192.0.2.1", DNS_SD), method=DNS_SD), Finding(DRIAD, (), Outcome.FAILED, 5.0))
    assert result.outcome is Outcome.FOUND
    assert result.expires == 1005.0


# --- Addresses that cannot be a relay's


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "192.52.193.1", "2001:db8::1", "2001:3::1", "fd00::1"])
def test_unicast_addresses_are_possible(address) -> None:
    assert is_possible_relay(ip_address(address))


HOST_AND_LINK_IPV4 = ("0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255")
HOST_AND_LINK_IPV6 = ("::", "::1", "fe80::1", "ff02::1", "::ffff:192.0.2.1", "::192.0.2.1")


@pytest.mark.parametrize("address", [*HOST_AND_LINK_IPV4, *HOST_AND_LINK_IPV6])
def test_addresses_of_this_host_its_links_or_groups_are_not(address) -> None:
    assert not is_possible_relay(ip_address(address))
