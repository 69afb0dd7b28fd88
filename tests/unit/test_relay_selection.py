"""Which relays bring a channel, and when it moves."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from agent.protocol.channels import Channel, Endpoint
from agent.protocol.relay_candidates import RelayCandidate
from agent.protocol.relay_selection import RelaySelection
from agent.protocol.relay_selection_config import SelectionConfig

FROM_TEN = Channel.parse("10.1.2.3", "232.1.1.1")
FROM_ELSEWHERE = Channel.parse("192.0.2.9", "232.1.1.1")
FROM_ANYWHERE = Channel.parse("*", "239.1.1.1")
OF_IPV6 = Channel.parse("2001:db8::1", "ff3e::1")
LIVE = Channel.parse("10.1.2.3", "232.9.1.1")

CONFIG = SelectionConfig(hold_down=100.0, failback_delay=30.0, patience=0.25, live_live=(ip_network("232.9.0.0/16"),))


def candidate(name: str, *prefixes: str, **fields) -> RelayCandidate:
    return RelayCandidate(name, tuple(ip_network(prefix) for prefix in prefixes), **fields)


def configured(*names: str, **config) -> RelaySelection:
    """Relays of the operator's in order of preference, none asked yet."""
    candidates = [candidate(name, preference=number) for number, name in enumerate(names)]
    return RelaySelection(replace(CONFIG, **config), candidates)


def found(*names: str) -> list[RelayCandidate]:
    """Discovered relays, one preference each."""
    return [candidate(name, preference=number, origin="driad") for number, name in enumerate(names)]


def established(*names: str, now: float = 0.0, **config) -> RelaySelection:
    """The same, all of them answering since `now`."""
    selection = configured(*names, **config)
    for name in names:
        selection.established(name, None, now)
    return selection


# Whom the operator named ----------------------------------------------------------------------------------------------


def test_longest_matching_source_prefix_decides():
    selection = RelaySelection(CONFIG, [candidate("wide", "10.0.0.0/8"), candidate("narrow", "10.1.0.0/16")])
    assert selection.select(FROM_TEN, 0) == ("narrow",)


def test_among_equals_the_first_configured_is_taken():
    assert configured("first", "second").select(FROM_TEN, 0) == ("first",)


def test_a_relay_without_prefixes_serves_every_source_of_both_families():
    selection = RelaySelection(CONFIG, [candidate("ten", "10.0.0.0/8"), candidate("rest")])
    chosen = [selection.select(channel, 0) for channel in (FROM_TEN, FROM_ELSEWHERE, OF_IPV6)]
    assert chosen == [("ten",), ("rest",), ("rest",)]


def test_a_source_outside_every_prefix_is_not_served():
    assert RelaySelection(CONFIG, [candidate("ten", "10.0.0.0/8")]).select(FROM_ELSEWHERE, 0) == ()


def test_a_prefix_of_one_family_says_nothing_about_the_other():
    assert RelaySelection(CONFIG, [candidate("ipv4", "0.0.0.0/0")]).select(OF_IPV6, 0) == ()


def test_any_source_channels_need_a_relay_for_every_source():
    selection = RelaySelection(CONFIG, [candidate("ten", "10.0.0.0/8"), candidate("all", "0.0.0.0/0")])
    assert selection.select(FROM_ANYWHERE, 0) == ("all",)
    assert RelaySelection(CONFIG, [candidate("ten", "10.0.0.0/8")]).select(FROM_ANYWHERE, 0) == ()


def test_discovered_relays_are_for_sources_the_operator_named_none_for():
    selection = RelaySelection(CONFIG, [candidate("ten", "10.0.0.0/8")])
    for channel in (FROM_TEN, FROM_ELSEWHERE):
        selection.discovered(channel.source, found("discovered"))
    assert selection.select(FROM_TEN, 0) == ("ten",)
    assert selection.select(FROM_ELSEWHERE, 0) == ("discovered",)


def test_a_relay_of_some_groups_brings_them_and_leaves_the_rest_to_discovery():
    selection = RelaySelection(CONFIG, [candidate("rp", groups=(ip_network("239.1.0.0/16"),))])
    selection.discovered(FROM_TEN.source, found("discovered"))
    anywhere, elsewhere = Channel.parse("*", "239.1.1.1"), Channel.parse("*", "239.2.1.1")
    assert selection.select(anywhere, 0) == ("rp",)
    assert selection.select(Channel.parse("10.1.0.1", "239.1.1.1"), 0) == ("rp",)
    assert selection.select(elsewhere, 0) == ()
    assert selection.select(FROM_TEN, 0) == ("discovered",)


def test_a_more_specific_relay_that_the_operator_adds_takes_over():
    wide, narrow = candidate("wide"), candidate("narrow", "10.0.0.0/8")
    selection = RelaySelection(CONFIG, [wide])
    selection.established("wide", None, 0)
    assert selection.select(FROM_TEN, 0) == ("wide",)
    selection.reconfigure(CONFIG, [wide, narrow])
    assert selection.changed() == {FROM_TEN.group}
    assert selection.select(FROM_TEN, 1) == ("narrow",)


# Failure and hold-down ------------------------------------------------------------------------------------------------


def test_channels_of_a_relay_that_failed_go_to_the_next():
    selection = established("first", "second")
    assert selection.select(FROM_TEN, 1) == ("first",)
    selection.changed()
    selection.failed("first", "request_unanswered", 10.0)
    selection.trying("first", 10.0)
    assert selection.changed() == {FROM_TEN.group}
    assert selection.select(FROM_TEN, 10) == ("second",)
    assert selection.why_left(FROM_TEN, ("first",), ("second",), 10.0) == "request_unanswered"


def test_a_preferred_relay_has_channels_back_when_it_was_well_for_long_enough():
    selection = established("first", "second")
    selection.select(FROM_TEN, 1)
    selection.failed("first", "request_unanswered", 10.0)
    selection.trying("first", 10.0)
    assert selection.select(FROM_TEN, 10) == ("second",)
    selection.established("first", None, 50.0)
    moves = {}
    for now in (50.0, 109.0, 111.0, 139.0, 141.0):
        selection.handle_timer(now)
        moves[now] = selection.select(FROM_TEN, now)
    assert moves == {50: ("second",), 109: ("second",), 111: ("second",), 139: ("second",), 141: ("first",)}


def test_whoever_moves_back_is_told_so():
    selection = established("first", "second")
    selection.select(FROM_TEN, 1)
    selection.failed("first", "x", 10.0)
    selection.select(FROM_TEN, 10)
    selection.changed()
    selection.handle_timer(110.0)
    assert selection.released() == ["first"]
    selection.changed()
    assert selection.next_deadline() == 140.0
    selection.handle_timer(140.0)
    assert selection.changed() == {FROM_TEN.group}
    assert selection.select(FROM_TEN, 140.0) == ("first",)
    assert selection.why_left(FROM_TEN, ("second",), ("first",), 140.0) == "preferred_relay_is_back"


def test_hold_down_doubles_up_to_sixteen_times_and_a_stable_time_resets_it():
    selection, now, lengths = configured("first", "second"), 0.0, []
    for _ in range(7):
        until = selection.failed("first", "x", now)
        selection.trying("first", now)
        lengths.append(until - now)
        now = until
        selection.established("first", None, now)
        now += 1
    assert lengths == [100, 200, 400, 800, 1600, 1600, 1600]
    now += 100
    assert selection.failed("first", "x", now) == now + 100


def test_when_all_failed_the_one_that_failed_longest_ago_is_tried():
    selection = configured("first", "second")
    selection.failed("first", "x", 10.0)
    selection.failed("second", "x", 20.0)
    assert selection.select(FROM_TEN, 20) == ("first",)
    selection.failed("first", "x", 30.0)
    assert selection.select(FROM_TEN, 30) == ("second",)


def test_a_relay_held_down_that_answers_is_better_than_none():
    selection = configured("first", "second")
    for name in ("first", "second"):
        selection.failed(name, "x", 10.0)
        selection.trying(name, 10.0)
    selection.select(FROM_TEN, 10.0)
    selection.established("second", None, 12.0)
    assert selection.changed() == {FROM_TEN.group}
    assert selection.select(FROM_TEN, 12) == ("second",)
    selection.established("first", None, 13.0)
    assert selection.select(FROM_TEN, 13) == ("second",)


def test_with_one_relay_nothing_changes_a_selection():
    selection = configured("only")
    selection.select(FROM_TEN, 0)
    selection.changed()
    selection.failed("only", "x", 1.0)
    assert selection.select(FROM_TEN, 1) == ("only",)
    selection.established("only", None, 2.0)
    assert selection.select(FROM_TEN, 2) == ("only",)


def test_the_l_flag_on_a_tunnel_keeps_it_unless_configured():
    selection = established("first", "second")
    selection.select(FROM_TEN, 1)
    assert not selection.limited("first", 5.0)
    assert selection.select(FROM_TEN, 5) == ("first",)
    selection = established("first", "second", move_on_limit=True)
    selection.select(FROM_TEN, 1)
    assert selection.limited("first", 5.0)
    assert selection.select(FROM_TEN, 5) == ("second",)


def test_the_l_flag_moves_nothing_to_a_relay_that_does_not_answer():
    selection = configured("first", "second", move_on_limit=True)
    selection.established("first", None, 0.0)
    selection.select(FROM_TEN, 1)
    selection.limited("first", 5.0)
    assert selection.select(FROM_TEN, 5) == ("first",)
    selection.established("second", None, 6.0)
    assert selection.changed() == {FROM_TEN.group}
    assert selection.select(FROM_TEN, 6) == ("second",)


def test_what_failed_before_a_reload_is_still_passed_over_after_it():
    selection = established("first", "second", "third")
    selection.failed("first", "x", 1.0)
    selection.failed("second", "x", 2.0)
    selection.reconfigure(
        CONFIG, [candidate(name, preference=n) for n, name in enumerate(("first", "second", "third"))]
    )
    assert selection.select(FROM_TEN, 3) == ("third",)


def test_when_the_way_to_the_relays_is_back_the_preferred_one_has_its_chance_first():
    selection = established("first", "second")
    selection.select(FROM_TEN, 1)
    for name in ("first", "second"):
        selection.failed(name, "x", 10.0)
        selection.trying(name, 10.0)
    selection.select(FROM_TEN, 10)
    selection.changed()
    selection.forgive(50.0)
    assert selection.changed() == {FROM_TEN.group}
    selection.established("second", None, 50.01)
    assert selection.select(FROM_TEN, 50.01) == ("first",)
    selection.established("first", None, 50.02)
    assert selection.select(FROM_TEN, 50.02) == ("first",)
    assert selection.released() == []


# DNS ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refreshed", [("second", "first"), ("second",), ("third", "second"), ()])
def test_a_dns_refresh_leaves_a_healthy_tunnel_alone(refreshed):
    selection = RelaySelection(CONFIG)
    selection.discovered(FROM_TEN.source, found("first", "second"))
    selection.select(FROM_TEN, 0)
    selection.established("first", None, 0.1)
    selection.discovered(FROM_TEN.source, found(*refreshed))
    for name in refreshed:
        selection.established(name, None, 1.0)
    for now in (1.0, 32.0, 1000.0):
        selection.handle_timer(now)
        assert selection.select(FROM_TEN, now) == ("first",)


def test_a_vanished_relay_is_left_when_it_fails():
    selection = RelaySelection(CONFIG)
    selection.discovered(FROM_TEN.source, found("first"))
    selection.select(FROM_TEN, 0)
    selection.established("first", None, 0.1)
    selection.discovered(FROM_TEN.source, found("second"))
    selection.select(FROM_TEN, 1)
    selection.changed()
    selection.failed("first", "x", 2.0)
    selection.trying("first", 2.0)
    assert selection.changed() == {FROM_TEN.group}
    assert selection.select(FROM_TEN, 2) == ("second",)


def test_a_vanished_relay_is_left_when_its_tunnel_ends():
    selection = RelaySelection(CONFIG)
    selection.discovered(FROM_TEN.source, found("first"))
    selection.select(FROM_TEN, 0)
    selection.established("first", None, 0.1)
    selection.discovered(FROM_TEN.source, ())
    assert selection.select(FROM_TEN, 1) == ("first",)
    selection.ended("first")
    assert selection.changed() == {FROM_TEN.group}
    assert selection.select(FROM_TEN, 2) == ()


def test_an_answer_of_the_dns_changes_what_waited_for_it():
    selection = RelaySelection(CONFIG)
    assert selection.select(FROM_TEN, 0) == ()
    assert not selection.knows(FROM_TEN.source)
    selection.discovered(FROM_TEN.source, found("first"))
    assert selection.changed() == {FROM_TEN.group}
    assert selection.select(FROM_TEN, 1) == ("first",)


def test_what_nobody_wants_is_forgotten():
    selection = RelaySelection(CONFIG)
    other = Channel(FROM_TEN.source, LIVE.group)
    selection.discovered(FROM_TEN.source, found("first"))
    for channel in (FROM_TEN, other):
        selection.select(channel, 0)
    assert not selection.release(FROM_TEN)
    assert selection.release(other)
    assert not selection.knows(FROM_TEN.source)
    assert selection.assigned.channels() == []


# Happy eyeballs -------------------------------------------------------------------------------------------------------


def families(relay: str = "relay") -> list[RelayCandidate]:
    return [candidate(name, relay=relay) for name in ("six", "four")]


def test_the_second_family_is_asked_when_the_first_is_late_and_the_winner_is_alone():
    selection = RelaySelection(CONFIG, families())
    assert selection.asked(0.0) == {"six"}
    selection.trying("six", 0.0)
    assert selection.asked(0.1) == {"six"}
    assert selection.next_deadline() == 0.25
    assert selection.asked(0.3) == {"six", "four"}
    selection.trying("four", 0.3)
    selection.established("four", None, 0.4)
    assert selection.asked(0.4) == {"four"}
    assert selection.select(FROM_TEN, 0.4) == ("four",)


def test_a_channel_waits_for_the_first_family_and_moves_to_whoever_answers():
    selection = RelaySelection(CONFIG, families())
    assert selection.select(FROM_TEN, 0.0) == ("six",)
    selection.trying("six", 0.0)
    selection.trying("four", 0.2)
    selection.established("four", None, 0.3)
    assert selection.changed() == {FROM_TEN.group}
    assert selection.select(FROM_TEN, 0.3) == ("four",)
    selection.established("six", None, 0.5)
    for now in (0.5, 100.0):
        assert selection.select(FROM_TEN, now) == ("four",)


def test_when_the_winner_fails_the_other_family_is_asked_at_once():
    selection = RelaySelection(CONFIG, families())
    selection.established("six", None, 0.0)
    assert selection.asked(0.0) == {"six"}
    selection.failed("six", "x", 5.0)
    selection.trying("six", 5.0)
    assert "four" in selection.asked(5.0)
    assert selection.select(FROM_TEN, 5.0) == ("four",)


def test_a_relay_that_answers_goes_before_the_untried_family_of_one_that_failed():
    selection = RelaySelection(CONFIG, [*families(), candidate("other", preference=1)])
    for name in ("six", "other"):
        selection.established(name, None, 0.0)
    assert selection.select(FROM_TEN, 1) == ("six",)
    selection.failed("six", "x", 5.0)
    selection.trying("six", 5.0)
    assert selection.select(FROM_TEN, 5) == ("other",)
    assert "four" in selection.asked(5.0)


def test_every_relay_of_the_operator_is_kept_asked_once_there_is_a_choice():
    assert configured("only").asked(0.0) == set()
    assert established("first", "second", "third").asked(10.0) == {"first", "second", "third"}


def test_of_discovered_relays_those_before_the_one_in_use_are_kept_asked():
    selection = RelaySelection(CONFIG)
    selection.discovered(FROM_TEN.source, found("first", "second", "third"))
    selection.select(FROM_TEN, 0.0)
    assert selection.asked(0.0) == {"first"}
    selection.trying("first", 0.0)
    assert selection.asked(1.0) == {"first", "second"}
    selection.established("second", None, 1.1)
    assert selection.select(FROM_TEN, 1.1) == ("second",)
    assert selection.asked(50.0) == {"first", "second"}
    selection.established("first", None, 50.0)
    assert selection.select(FROM_TEN, 79.0) == ("second",)
    assert selection.select(FROM_TEN, 80.0) == ("first",)


# A channel that does not come -----------------------------------------------------------------------------------------


def test_a_silent_channel_alone_tries_the_next_relay():
    selection = established("first", "second")
    for channel in (FROM_TEN, LIVE, FROM_ELSEWHERE):
        selection.select(channel, 1)
    selection.changed()
    assert selection.channel_silent(FROM_TEN, "first", 5.0)
    assert selection.changed() == {FROM_TEN.group}
    assert selection.select(FROM_TEN, 5) == ("second",)
    assert selection.select(FROM_ELSEWHERE, 5) == ("first",)
    assert selection.why_left(FROM_TEN, ("first",), ("second",), 5.0) == "channel_silent"


def test_a_silent_channel_goes_back_after_a_hold_down_of_its_own_that_doubles():
    selection = established("first", "second")
    selection.select(FROM_TEN, 1)
    selection.channel_silent(FROM_TEN, "first", 5.0)
    assert selection.select(FROM_TEN, 104) == ("second",)
    selection.changed()
    selection.handle_timer(105.0)
    assert selection.changed() == {FROM_TEN.group}
    assert selection.select(FROM_TEN, 105) == ("first",)
    selection.channel_silent(FROM_TEN, "first", 110.0)
    assert selection.select(FROM_TEN, 309) == ("second",)
    assert selection.select(FROM_TEN, 310) == ("first",)


def test_a_silent_channel_stays_where_there_is_no_other_relay():
    selection = established("only")
    selection.select(FROM_TEN, 1)
    assert not selection.channel_silent(FROM_TEN, "only", 5.0)
    assert selection.select(FROM_TEN, 5) == ("only",)


# Live-live ------------------------------------------------------------------------------------------------------------


def test_a_live_live_channel_comes_from_the_two_best_relays():
    selection = established("first", "second", "third")
    assert selection.select(LIVE, 1) == ("first", "second")
    assert selection.select(FROM_TEN, 1) == ("first",)
    selection.failed("first", "x", 5.0)
    selection.trying("first", 5.0)
    assert selection.select(LIVE, 5) == ("second", "third")


def test_one_relay_does_when_only_one_is_well_and_the_other_joins_in_as_soon_as_it_answers():
    selection = established("first", "second")
    selection.select(LIVE, 1)
    selection.failed("second", "x", 5.0)
    selection.trying("second", 5.0)
    assert selection.select(LIVE, 5) == ("first",)
    selection.changed()
    selection.established("second", None, 20.0)
    assert selection.changed() == {LIVE.group}
    assert selection.select(LIVE, 20) == ("first", "second")


def test_two_families_of_a_relay_are_no_two_relays():
    selection = RelaySelection(CONFIG, [*families(), candidate("other", preference=1)])
    for name in ("six", "four", "other"):
        selection.established(name, None, 0.0)
    assert selection.select(LIVE, 1) == ("six", "other")
    alone = RelaySelection(CONFIG, families())
    for name in ("six", "four"):
        alone.established(name, None, 0.0)
    assert alone.select(LIVE, 1) == ("six",)


def test_two_ways_to_one_relay_are_no_two_relays():
    selection = configured("anycast", "direct", "other")
    relay = Endpoint(ip_address("192.0.2.1"), 2268)
    selection.established("anycast", relay, 0.0)
    selection.established("direct", relay, 0.0)
    assert selection.select(LIVE, 1) == ("anycast", "other")


# Several tunnels to a relay -------------------------------------------------------------------------------------------

CHANNELS = [Channel.parse(f"10.0.{number // 200}.{number % 200 + 1}", "232.1.1.1") for number in range(1000)]


def test_channels_are_spread_evenly_and_stably_over_the_tunnels_of_a_relay():
    spread = [RelaySelection(CONFIG, [candidate("relay", tunnels=4)]) for _ in range(2)]
    chosen = [[selection.select(channel, 0)[0] for channel in CHANNELS] for selection in spread]
    assert chosen[0] == chosen[1]
    counts = {name: chosen[0].count(name) for name in ("relay", "relay#2", "relay#3", "relay#4")}
    assert sum(counts.values()) == 1000
    assert min(counts.values()) > 150


def test_any_source_channels_go_through_the_first_tunnel():
    selection = RelaySelection(CONFIG, [candidate("relay", tunnels=4)])
    groups = [Channel.parse("*", f"239.1.1.{number}") for number in range(1, 50)]
    assert {selection.select(channel, 0) for channel in groups} == {("relay",)}


def test_channels_of_a_tunnel_that_fails_go_through_the_others_of_its_relay():
    selection = RelaySelection(CONFIG, [candidate("relay", tunnels=2)])
    for name in ("relay", "relay#2"):
        selection.established(name, None, 0.0)
    before = {channel: selection.select(channel, 1) for channel in CHANNELS}
    selection.failed("relay#2", "x", 2.0)
    selection.trying("relay#2", 2.0)
    assert {selection.select(channel, 2) for channel in CHANNELS} == {("relay",)}
    assert ("relay#2",) in before.values()
    selection.established("relay#2", None, 3.0)
    assert {selection.select(channel, 5) for channel in CHANNELS} == {("relay",)}


def test_the_tunnels_of_one_relay_are_never_two_relays():
    selection = RelaySelection(CONFIG, [candidate("relay", tunnels=2), candidate("other", preference=1)])
    for name in ("relay", "relay#2", "other"):
        selection.established(name, None, 0.0)
    chosen = {selection.select(Channel(channel.source, LIVE.group), 1) for channel in CHANNELS}
    assert chosen == {("relay", "other"), ("relay#2", "other")}
