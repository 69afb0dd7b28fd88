"""Which configured relay brings a channel."""

from ipaddress import ip_network

import pytest

from agent.protocol.channels import Channel
from agent.protocol.relay_selection import RelayCandidate, RelaySelection


def candidate(name: str, *prefixes: str) -> RelayCandidate:
    return RelayCandidate(name, tuple(ip_network(prefix) for prefix in prefixes))


FROM_TEN = Channel.parse("10.1.2.3", "232.1.1.1")
FROM_ELSEWHERE = Channel.parse("192.0.2.9", "232.1.1.1")
FROM_ANYWHERE = Channel.parse("*", "239.1.1.1")
OF_IPV6 = Channel.parse("2001:db8::1", "ff3e::1")


def test_longest_matching_source_prefix_decides():
    selection = RelaySelection([candidate("wide", "10.0.0.0/8"), candidate("narrow", "10.1.0.0/16")])
    assert selection.select(FROM_TEN) == "narrow"


def test_among_equals_the_first_configured_is_taken():
    selection = RelaySelection([candidate("first", "10.0.0.0/8"), candidate("second", "10.0.0.0/8")])
    assert selection.candidates(FROM_TEN) == ["first", "second"]
    assert selection.select(FROM_TEN) == "first"


def test_a_relay_without_prefixes_serves_every_source_of_both_families():
    selection = RelaySelection([candidate("ten", "10.0.0.0/8"), candidate("rest")])
    assert [selection.select(channel) for channel in (FROM_TEN, FROM_ELSEWHERE, OF_IPV6)] == ["ten", "rest", "rest"]


def test_what_failed_before_a_reload_is_still_passed_over_after_it():
    candidates = [candidate("first"), candidate("second"), candidate("third")]
    before = RelaySelection(candidates)
    before.failed("first", 1.0)
    before.failed("second", 2.0)
    after = RelaySelection(candidates, before.failures(["first"]))
    assert after.select(FROM_TEN) == "second"
    assert after.recovered("first")
    assert after.select(FROM_TEN) == "first"


def test_a_source_outside_every_prefix_is_not_served():
    assert RelaySelection([candidate("ten", "10.0.0.0/8")]).select(FROM_ELSEWHERE) is None


def test_a_prefix_of_one_family_says_nothing_about_the_other():
    assert RelaySelection([candidate("ipv4", "0.0.0.0/0")]).select(OF_IPV6) is None


def test_any_source_channels_need_a_relay_for_every_source():
    selection = RelaySelection([candidate("ten", "10.0.0.0/8"), candidate("all", "0.0.0.0/0")])
    assert selection.select(FROM_ANYWHERE) == "all"
    assert RelaySelection([candidate("ten", "10.0.0.0/8")]).select(FROM_ANYWHERE) is None


def test_a_failed_relay_is_passed_over_until_it_recovers():
    selection = RelaySelection([candidate("first"), candidate("second")])
    assert selection.failed("first", 10.0)
    assert selection.select(FROM_TEN) == "second"
    assert selection.recovered("first")
    assert selection.select(FROM_TEN) == "first"


def test_when_all_failed_the_one_that_failed_longest_ago_is_tried():
    selection = RelaySelection([candidate("first"), candidate("second")])
    selection.failed("first", 10.0)
    assert selection.failed("second", 20.0)
    assert selection.select(FROM_TEN) == "first"
    assert selection.failed("first", 30.0)
    assert selection.select(FROM_TEN) == "second"


@pytest.mark.parametrize("event", ["failed", "recovered"])
def test_with_one_relay_nothing_changes_a_selection(event):
    selection = RelaySelection([candidate("only")])
    assert not selection.failed("only", 1.0)
    if event == "recovered":
        assert not selection.recovered("only")
    assert selection.select(FROM_TEN) == "only"
