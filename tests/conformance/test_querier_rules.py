"""Router side of IGMP and MLD on a link: queries and election (RFC 3376 §4.1, §6.6; RFC 3810 §5.1, §7.6)."""

from __future__ import annotations

from ipaddress import ip_address

from scripted.querier_peer import (
    ALL_HOSTS,
    GROUP,
    HIGHER,
    LOWER,
    NETWORKS,
    OURS,
    SOURCE,
    SSM_GROUP,
    both_families,
    hear,
    interests,
    querier,
    report,
    run,
    sent,
)

from agent.protocol.channels import Family, Filter
from agent.protocol.querier import Querier, QuerierChanged
from agent.protocol.querier_config import QuerierConfig
from agent.protocol.wire import ip
from agent.protocol.wire.group_packet import GroupPacket
from agent.protocol.wire.groups import (
    Query,
    RecordType,
)

# --- general queries


@both_families
def test_startup_and_general_queries_keep_their_times(family: Family) -> None:
    """RFC 3376 §6.6.2, §8.2, §8.6, §8.7: [Startup Query Count] queries a quarter interval apart, then each interval."""
    packets = run(querier(family), 300)
    assert [when for when, _ in packets] == [0, 31.25, 156.25, 281.25]


@both_families
def test_general_query_as_the_rfc_lays_it_out(family: Family) -> None:
    """RFC 3376 §4, §4.1.12; RFC 3810 §5, §5.1.14: TTL 1, Router Alert, all hosts, from our (link-local) address."""
    (packet,) = sent(querier(family))
    assert packet == GroupPacket(OURS[family], ALL_HOSTS[family], Query(), ttl=1, router_alert=True)


def test_ipv4_packets_have_internetwork_control() -> None:
    """RFC 3376 §4: IP Precedence of Internetwork Control, TOS 0xc0."""
    (packet,) = querier().packets_to_send()
    assert ip.decode(packet).traffic_class == 0xC0


@both_families
def test_configured_timers_stand_in_the_query(family: Family) -> None:
    """RFC 3376 §4.1.1, §4.1.6, §4.1.7: Max Resp Code, QRV and QQIC say what is configured."""
    machine = querier(family, robustness_variable=3, query_interval=60, query_response_interval=4)
    (packet,) = sent(machine)
    assert packet.message == Query(max_response_time=4, robustness=3, interval=60)


def test_robustness_above_seven_is_not_told() -> None:
    """RFC 3376 §4.1.6: a Robustness Variable above 7 travels as QRV 0, or is refused as configuration."""
    try:
        config = QuerierConfig(robustness_variable=8)
    except ValueError:
        return
    machine = Querier(config, Family.IPV4, OURS[Family.IPV4], NETWORKS)
    machine.start(0)
    assert sent(machine)[0].message.robustness == 0


@both_families
def test_nothing_is_sent_without_an_address(family: Family) -> None:
    """RFC 3810 §5.1.14 (a query needs a valid link-local source); RFC 3376 §4.1.12."""
    machine = Querier(QuerierConfig(), family)
    machine.start(0)
    assert run(machine, 500) == []
    machine.set_address(OURS[family], NETWORKS, 500)
    assert sent(machine)[0].source == OURS[family]


# --- election


@both_families
def test_lower_address_wins_and_silences_us(family: Family) -> None:
    """RFC 3376 §6.6.2; RFC 3810 §7.6.2: the router with the lowest address is the querier."""
    machine = querier(family)
    sent(machine)
    machine.events()
    hear(machine, Query(), LOWER[family], 10)
    assert not machine.is_querier
    assert machine.querier_address == LOWER[family]
    assert QuerierChanged(LOWER[family]) in machine.events()
    assert run(machine, 250) == []


@both_families
def test_higher_address_changes_nothing(family: Family) -> None:
    """RFC 3376 §6.6.2."""
    machine = querier(family)
    hear(machine, Query(), HIGHER[family], 10)
    assert machine.is_querier


@both_families
def test_our_own_query_heard_back_changes_nothing(family: Family) -> None:
    """A packet looped by the link is no other querier."""
    machine = querier(family)
    hear(machine, Query(), OURS[family], 10)
    assert machine.is_querier


@both_families
def test_silent_querier_is_replaced(family: Family) -> None:
    """RFC 3376 §8.5: after the Other Querier Present Interval, 2 x 125 + 10 / 2 seconds, we query again."""
    machine = querier(family)
    sent(machine)
    hear(machine, Query(), LOWER[family], 10)
    assert run(machine, 10 + 254.9) == []
    packets = run(machine, 10 + 255)
    assert [when for when, _ in packets] == [265]
    assert machine.is_querier


@both_families
def test_heard_querier_stays_while_it_queries(family: Family) -> None:
    """RFC 3376 §6.6.2: each of its general queries restarts the timer."""
    machine = querier(family)
    sent(machine)
    for now in range(10, 1000, 125):
        hear(machine, Query(), LOWER[family], now)
        assert run(machine, now + 124) == []
    assert not machine.is_querier


@both_families
def test_timers_of_the_elected_querier_are_adopted(family: Family) -> None:
    """RFC 3376 §4.1.6, §4.1.7, §8.1, §8.2: QRV and QQIC of the querier replace our own, except where they are 0."""
    machine = querier(family)
    hear(machine, Query(robustness=3, interval=60), LOWER[family], 10)
    assert (machine.timing.robustness, machine.timing.query_interval) == (3, 60)
    hear(machine, Query(robustness=0, interval=0), LOWER[family], 20)
    assert (machine.timing.robustness, machine.timing.query_interval) == (2, 125)


@both_families
def test_timers_of_another_are_not_adopted(family: Family) -> None:
    """RFC 3376 §4.1.6: only those of the querier, which has the lowest address."""
    machine = querier(family)
    hear(machine, Query(robustness=7, interval=1000), HIGHER[family], 10)
    assert (machine.timing.robustness, machine.timing.query_interval) == (2, 125)


def test_query_from_the_unspecified_address_takes_no_part_in_the_election() -> None:
    """RFC 4541 §2.1.1: snooping switches proxy queries with source 0.0.0.0, which is no address of a router."""
    machine = querier()
    hear(machine, Query(), ip_address(0), 10)
    assert machine.is_querier


@both_families
def test_elected_querier_lowers_our_timers(family: Family) -> None:
    """RFC 3376 §6.6.1."""
    machine = querier(family)
    hear(machine, Query(), LOWER[family], 10)
    hear(machine, report(RecordType.CHANGE_TO_EXCLUDE, GROUP[family]), now=20)
    hear(machine, Query(group=GROUP[family], max_response_time=1), LOWER[family], 30)
    (view,) = machine.groups()
    assert view.expires == 32


@both_families
def test_last_member_query_goes_to_the_group(family: Family) -> None:
    """RFC 3376 §4.1.12, §6.6.3: specific queries go to the group itself, with the interval as response time."""
    machine = querier(family)
    sent(machine)
    hear(machine, report(RecordType.ALLOW_NEW_SOURCES, SSM_GROUP[family], SOURCE[family]), now=1)
    hear(machine, report(RecordType.BLOCK_OLD_SOURCES, SSM_GROUP[family], SOURCE[family]), now=10)
    packets = sent(machine) + [packet for _, packet in run(machine, 12)]
    assert [(packet.source, packet.destination, packet.ttl, packet.router_alert) for packet in packets] == 2 * [
        (OURS[family], SSM_GROUP[family], 1, True)
    ]
    assert {packet.message for packet in packets} == {
        Query(group=SSM_GROUP[family], sources=(SOURCE[family],), max_response_time=1)
    }
    assert interests(machine)[-1] == (SSM_GROUP[family], Filter.include())
