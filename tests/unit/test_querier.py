"""The querier of one interface: its queries, its election, and what it believes (RFC 3376 §6.6, RFC 3810 §7.6)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from agent.protocol.channels import NOTHING, Family, Filter
from agent.protocol.querier import InterestChanged, Querier, QuerierChanged, QuerierConfig
from agent.protocol.wire import group_packet, ip
from agent.protocol.wire.groups import AnySourceReport, GroupRecord, GroupVersion, Leave, Query, RecordType, Report

US, LOWER, LOWEST, HIGHER, HOST = (ip_address(f"192.0.2.{n}") for n in (10, 5, 2, 200, 77))
US6, LOWER6, HOST6 = ip_address("fe80::10"), ip_address("fe80::5"), ip_address("fe80::77")
NETWORKS = (ip_network("192.0.2.0/24"),)
GROUP, GROUP6, S1, S2 = (ip_address(text) for text in ("239.1.1.1", "ff1e::1", "10.0.0.1", "10.0.0.2"))
V1, V2, V3 = GroupVersion.ANY_SOURCE_BASIC, GroupVersion.ANY_SOURCE, GroupVersion.SOURCE_SPECIFIC

ALLOW = Report((GroupRecord(RecordType.ALLOW_NEW_SOURCES, GROUP, (S1,)),))
BLOCK = Report((GroupRecord(RecordType.BLOCK_OLD_SOURCES, GROUP, (S1,)),))
ALLOW6 = Report((GroupRecord(RecordType.CHANGE_TO_EXCLUDE, GROUP6),))


def running(address=US, family=Family.IPV4, **settings) -> Querier:
    querier = Querier(QuerierConfig(**settings), family, address, NETWORKS)
    querier.start(0)
    return querier


def deliver(querier, message, source=HOST, now=1.0):
    querier.receive_packet(group_packet.encode(message, source), now)


def sent(querier):
    return [group_packet.decode(packet) for packet in querier.packets_to_send()]


def run_until(querier, now):
    """Fire every timer due up to `now`; times and messages of what was sent."""
    queries = []
    while (deadline := querier.next_deadline()) is not None and deadline <= now:
        querier.handle_timer(deadline)
        queries += [(deadline, packet.message) for packet in sent(querier)]
    return queries


# General queries


def test_startup_queries_come_fast_and_then_every_query_interval():
    """RFC 3376 §8.6, §8.7."""
    querier = running(query_interval=100, startup_query_count=3)
    (packet,) = sent(querier)
    expected = Query(max_response_time=10.0, robustness=2, interval=100)
    assert (packet.message, packet.source, packet.destination) == (expected, US, group_packet.ALL_SYSTEMS)
    assert (packet.ttl, packet.router_alert) == (1, True)
    assert run_until(querier, 300) == [(25, expected), (50, expected), (150, expected), (250, expected)]


def test_mld_queries_are_asked_from_the_link_local_address():
    querier = running(US6, Family.IPV6)
    (packet,) = sent(querier)
    assert (packet.source, packet.destination) == (US6, group_packet.ALL_NODES)
    assert packet.message == Query(max_response_time=10.0, robustness=2, interval=125)
    assert (packet.ttl, packet.router_alert) == (1, True)


def test_robustness_0_means_2():
    querier = running(robustness_variable=0)
    assert sent(querier)[0].message.robustness == 2
    assert [when for when, _ in run_until(querier, 200)] == [31.25, 156.25]


def test_configured_version_is_asked_in():
    """RFC 3376 §7.3.1: the version is lowered by hand; IGMPv2 cannot ask about sources."""
    querier = running(version=V2)
    assert sent(querier)[0].message.version is V2
    deliver(querier, ALLOW)
    deliver(querier, BLOCK, now=2)
    assert sent(querier) == []
    deliver(querier, AnySourceReport(GROUP), now=3)
    deliver(querier, Leave(GROUP), now=4)
    (packet,) = sent(querier)
    assert (packet.message.group, packet.message.version) == (GROUP, V2)


def test_version_1_asks_about_no_group():
    querier = running(version=V1)
    assert sent(querier)[0].message.version is V1
    deliver(querier, AnySourceReport(GROUP), now=3)
    deliver(querier, Leave(GROUP), now=4)
    assert sent(querier) == []
    run_until(querier, 6)
    assert querier.groups() == []


def test_silent_before_start_and_after_stop():
    querier = Querier(QuerierConfig(), Family.IPV4, US, NETWORKS)
    assert (querier.next_deadline(), querier.querier_address, querier.is_querier) == (None, None, False)
    deliver(querier, ALLOW)
    assert querier.refused == {"not_running": 1}
    querier.start(0)
    querier.start(0)
    assert len(sent(querier)) == 1
    deliver(querier, ALLOW)
    querier.events()
    querier.stop()
    assert querier.events() == [QuerierChanged(None), InterestChanged(GROUP, NOTHING)]
    assert (querier.next_deadline(), querier.packets_to_send(), querier.groups()) == (None, [], [])


def test_interface_without_address_learns_but_does_not_ask():
    querier = running(address=None)
    assert sent(querier) == []
    deliver(querier, ALLOW)
    deliver(querier, BLOCK, now=2)
    deliver(querier, Query(), LOWER, now=3)
    assert run_until(querier, 100) == []
    assert querier.events() == [InterestChanged(GROUP, Filter.include([S1]))]


def test_address_that_comes_later_starts_the_election_anew():
    querier = running(address=None)
    querier.set_address(US, NETWORKS, 50)
    assert querier.events() == [QuerierChanged(US)]
    assert len(sent(querier)) == 1
    assert run_until(querier, 100)[0][0] == 50 + 31.25
    querier.set_address(US, (), 101)
    assert sent(querier) == []
    querier.set_address(LOWER, NETWORKS, 102)
    assert sent(querier)[0].source == LOWER
    assert querier.address == querier.querier_address == LOWER


def test_address_may_be_set_before_start():
    querier = Querier(QuerierConfig(), Family.IPV4)
    querier.set_address(US, NETWORKS, 0)
    assert querier.next_deadline() is None
    querier.start(1)
    assert querier.is_querier


# Election


def test_lower_address_takes_over_and_is_given_its_time():
    """RFC 3376 §6.6.2, §8.5."""
    querier = running()
    querier.packets_to_send()
    querier.events()
    deliver(querier, Query(robustness=3, interval=60), LOWER, now=10)
    assert querier.events() == [QuerierChanged(LOWER)]
    assert not querier.is_querier
    assert run_until(querier, 194.9) == []
    (first, *_) = run_until(querier, 195)  # 3 x 60 + 10 / 2 after 10
    assert first[0] == 195
    assert querier.events() == [QuerierChanged(US)]
    assert querier.timing.query_interval == 125


def test_elected_querier_is_followed_as_long_as_it_asks():
    querier = running()
    for now in (10, 130, 260, 390):
        deliver(querier, Query(), LOWER, now=now)
        assert run_until(querier, now + 100) == []
    assert querier.querier_address == LOWER


def test_higher_address_and_own_queries_change_nothing():
    querier = running()
    deliver(querier, Query(), HIGHER)
    deliver(querier, Query(), US)
    assert querier.is_querier
    assert querier.refused == {"own_packet": 1}


def test_lowest_of_several_wins():
    querier = running()
    for source in (LOWER, LOWEST, LOWER):
        deliver(querier, Query(), source)
    assert querier.querier_address == LOWEST
    assert querier.events() == [QuerierChanged(US), QuerierChanged(LOWER), QuerierChanged(LOWEST)]


def test_mld_election():
    querier = running(US6, Family.IPV6)
    deliver(querier, Query(), LOWER6)
    assert querier.querier_address == LOWER6


def test_query_from_a_snooping_switch_elects_nobody():
    """RFC 4541 §2.1.1: proxied queries come from 0.0.0.0."""
    querier = running()
    deliver(querier, Query(), ip_address("0.0.0.0"))
    assert querier.is_querier


def test_older_queries_elect_and_are_counted_for_the_operator():
    """RFC 3376 §7.3.1; IGMPv1 knows no election."""
    querier = running()
    deliver(querier, Query(version=V1), LOWEST)
    assert querier.is_querier
    deliver(querier, Query(version=V2), LOWER)
    assert querier.querier_address == LOWER
    assert querier.received["older_query"] == 2
    assert querier.timing == QuerierConfig().timing


def test_timers_of_the_elected_querier_are_adopted():
    """RFC 3376 §4.1.6, §4.1.7; 0 stands for the defaults."""
    querier = running(robustness_variable=4, query_interval=30, query_response_interval=5)
    deliver(querier, Query(robustness=3, interval=60), LOWER)
    assert (querier.timing.robustness, querier.timing.query_interval) == (3, 60)
    deliver(querier, ALLOW, now=2)
    assert querier.groups()[0].sources == {S1: 2 + 3 * 60 + 5}
    deliver(querier, Query(robustness=0, interval=0), LOWER)
    assert (querier.timing.robustness, querier.timing.query_interval) == (2, 30)
    deliver(querier, Query(robustness=7, interval=31744), LOWER)
    assert querier.timing.query_interval == 3600
    deliver(querier, Query(robustness=1, interval=1), LOWER)
    assert querier.timing.query_response_interval == 0.5


def test_configured_other_querier_present_interval_is_used():
    querier = running(other_querier_present_interval=33)
    deliver(querier, Query(), LOWER, now=1)
    assert querier.next_deadline() == 34


# Specific queries


def test_leave_is_asked_about_and_ends_without_an_answer():
    querier = running(last_member_query_interval=0.5, last_member_query_count=3)
    deliver(querier, ALLOW)
    sent(querier)
    deliver(querier, BLOCK, now=2)
    (packet,) = sent(querier)
    assert packet.destination == GROUP
    assert packet.message == Query(GROUP, (S1,), 0.5, robustness=2, interval=125)
    assert [when for when, _ in run_until(querier, 4)] == [2.5, 3.0]
    assert querier.events()[-1] == InterestChanged(GROUP, NOTHING)


def test_fast_leave_needs_no_query():
    querier = running(fast_leave=True)
    deliver(querier, ALLOW)
    sent(querier)
    deliver(querier, BLOCK, now=2)
    assert sent(querier) == []
    assert querier.events()[-1] == InterestChanged(GROUP, NOTHING)


def test_specific_query_of_the_elected_querier_lowers_timers():
    querier = running()
    deliver(querier, Query(), LOWER)
    deliver(querier, ALLOW)
    deliver(querier, Query(GROUP, (S1,), 1.0), LOWER, now=10)
    run_until(querier, 12)
    assert querier.groups() == []
    deliver(querier, ALLOW, now=20)
    deliver(querier, Query(GROUP, (S1,), 1.0), HIGHER, now=21)
    run_until(querier, 30)
    assert len(querier.groups()) == 1


# What is believed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ttl": 2}, "ttl_not_1"),
        ({"options": b""}, "no_router_alert"),
        ({"source": ip_address("198.51.100.1")}, "source_off_link"),
        ({"source": US}, "own_packet"),
        ({"payload": b"\x22"}, "truncated"),
        ({"payload": b"\x22" + bytes(7)}, "bad_checksum"),
        ({"protocol": 17}, "unknown_type"),
        ({"more_fragments": True}, "malformed"),
    ],
)
def test_packet_that_is_not_as_it_should_be_is_refused(change, reason):
    querier = running()
    packet = ip.decode(group_packet.encode(ALLOW, HOST))
    querier.receive_packet(replace(packet, **change).encode(), 1)
    assert querier.refused == {reason: 1}
    assert querier.groups() == []


@pytest.mark.parametrize("source", ["::", "2001:db8::1"])
@pytest.mark.parametrize("message", [ALLOW6, Query(), AnySourceReport(GROUP6)])
def test_mld_from_no_link_local_address_is_dropped(source, message):
    """RFC 3810 §5.1.14 and §5.2.13: a router takes no report from `::`, though hosts may send it."""
    querier = running(US6, Family.IPV6)
    deliver(querier, message, ip_address(source))
    assert querier.refused == {"source_not_link_local": 1}
    assert querier.groups() == []


def test_mld_report_from_a_link_local_address_is_taken():
    querier = running(US6, Family.IPV6)
    deliver(querier, ALLOW6, HOST6)
    assert querier.events()[-1] == InterestChanged(GROUP6, Filter.exclude())


def test_other_family_is_refused():
    querier = running()
    deliver(querier, ALLOW6, HOST6)
    assert querier.refused == {"wrong_family": 1}


def test_host_without_an_address_may_report():
    """RFC 3376 §4.2.13."""
    querier = running()
    deliver(querier, ALLOW, ip_address("0.0.0.0"))
    assert len(querier.groups()) == 1


@pytest.mark.parametrize("settings", [{"check_source": False}, {}])
def test_check_of_sources_can_be_off_or_lack_networks(settings):
    querier = running(**settings)
    if not settings:
        querier.set_address(US, (), 0)
    deliver(querier, ALLOW, ip_address("198.51.100.1"))
    assert len(querier.groups()) == 1


def test_router_alert_may_be_missing_where_configured_and_from_version_1_hosts():
    for settings, message in (({"require_router_alert": False}, ALLOW), ({}, AnySourceReport(GROUP, V1))):
        querier = running(**settings)
        packet = replace(ip.decode(group_packet.encode(message, HOST)), options=b"")
        querier.receive_packet(packet.encode(), 1)
        assert len(querier.groups()) == 1


def test_messages_are_counted_by_kind():
    querier = running()
    for message in (ALLOW, AnySourceReport(GROUP), Leave(GROUP)):
        deliver(querier, message)
    deliver(querier, Query(), HIGHER)
    assert querier.received == {"report": 1, "older_report": 1, "leave": 1, "query": 1}


def test_limits_are_those_configured():
    querier = running(max_groups=1, max_sources=1)
    deliver(querier, Report((GroupRecord(RecordType.ALLOW_NEW_SOURCES, GROUP, (S1, S2)),)))
    deliver(querier, AnySourceReport(ip_address("239.1.1.2")))
    assert querier.groups()[0].filter == Filter.include([S1])
    assert querier.refused == {"too_many_sources": 1, "too_many_groups": 1}


# Configuration


def test_new_configuration_keeps_groups_and_asks_at_once():
    querier = running()
    sent(querier)
    deliver(querier, ALLOW)
    querier.configure(QuerierConfig(query_interval=60, fast_leave=True, max_groups=1), 5)
    deliver(querier, AnySourceReport(ip_address("239.1.1.2")), now=5)
    (packet,) = [message for _, message in run_until(querier, 5)]
    assert packet.interval == 60
    assert len(querier.groups()) == 1
    deliver(querier, BLOCK, now=6)
    assert querier.groups() == []


def test_new_configuration_leaves_the_elected_querier_alone():
    querier = running()
    sent(querier)
    deliver(querier, Query(interval=60), LOWER)
    querier.configure(QuerierConfig(query_interval=30), 5)
    assert run_until(querier, 5) == []
    assert querier.timing.query_interval == 60


def test_new_configuration_before_start_is_the_one_started_with():
    querier = Querier(QuerierConfig(), Family.IPV4, US)
    querier.configure(QuerierConfig(query_interval=30), 0)
    assert (querier.next_deadline(), querier.timing.query_interval) == (None, 30)


@pytest.mark.parametrize(
    "settings",
    [
        {"robustness_variable": 8},
        {"robustness_variable": -1},
        {"query_interval": 0},
        {"query_interval": 31745},
        {"query_response_interval": 0},
        {"query_response_interval": 125},
        {"startup_query_interval": 0},
        {"startup_query_count": 0},
        {"last_member_query_interval": 0},
        {"last_member_query_count": 0},
        {"other_querier_present_interval": 0},
        {"max_groups": 0},
        {"max_sources": 0},
        {"maximum_adopted_interval": 0},
    ],
)
def test_configuration_out_of_bounds_is_refused(settings):
    with pytest.raises(ValueError, match=r"\w"):
        QuerierConfig(**settings)
