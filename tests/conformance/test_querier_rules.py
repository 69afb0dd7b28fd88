"""Router side of IGMP and MLD on a link: queries, election, checks (RFC 3376 §4, §6, §7; RFC 3810 §5, §7, §8)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from vectors.loader import load_vectors

from agent.protocol.channels import Address, Family, Filter
from agent.protocol.group_state import InterestChanged
from agent.protocol.querier import Querier, QuerierChanged
from agent.protocol.querier_config import QuerierConfig
from agent.protocol.wire import ip
from agent.protocol.wire.group_packet import GroupPacket, decode, encode
from agent.protocol.wire.groups import (
    AnySourceReport,
    GroupMessage,
    GroupRecord,
    GroupVersion,
    Leave,
    Query,
    RecordType,
    Report,
)

VECTORS = load_vectors()
OURS = {Family.IPV4: ip_address("192.0.2.5"), Family.IPV6: ip_address("fe80::5")}
LOWER = {Family.IPV4: ip_address("192.0.2.4"), Family.IPV6: ip_address("fe80::4")}
HIGHER = {Family.IPV4: ip_address("192.0.2.6"), Family.IPV6: ip_address("fe80::6")}
HOST = {Family.IPV4: ip_address("192.0.2.10"), Family.IPV6: ip_address("fe80::10")}
GROUP = {Family.IPV4: ip_address("239.1.2.3"), Family.IPV6: ip_address("ff1e::5")}
SSM_GROUP = {Family.IPV4: ip_address("232.1.2.3"), Family.IPV6: ip_address("ff3e::1234")}
SOURCE = {Family.IPV4: ip_address("203.0.113.5"), Family.IPV6: ip_address("2001:db8::5")}
ALL_HOSTS = {Family.IPV4: ip_address("224.0.0.1"), Family.IPV6: ip_address("ff02::1")}
NETWORKS = (ip_network("192.0.2.0/24"),)

both_families = pytest.mark.parametrize("family", list(Family))


def querier(family: Family = Family.IPV4, *, started: bool = True, **options: object) -> Querier:
    machine = Querier(QuerierConfig(**options), family, OURS[family], NETWORKS)
    if started:
        machine.start(0)
    return machine


def sent(machine: Querier) -> list[GroupPacket]:
    return [decode(packet) for packet in machine.packets_to_send()]


def run(machine: Querier, until: float) -> list[tuple[float, GroupPacket]]:
    """Packets sent up to `until`, with their times."""
    packets = [(0.0, packet) for packet in sent(machine)]
    while (deadline := machine.next_deadline()) is not None and deadline <= until:
        machine.handle_timer(deadline)
        packets += [(deadline, packet) for packet in sent(machine)]
    return packets


def hear(machine: Querier, message: GroupMessage, source: Address | None = None, now: float = 1.0) -> None:
    machine.receive_packet(encode(message, source or HOST[machine_family(machine)]), now)


def machine_family(machine: Querier) -> Family:
    assert machine.address is not None
    return Family.of(machine.address)


def report(kind: RecordType, group: Address, *sources: Address) -> Report:
    return Report((GroupRecord(kind, group, sources),))


def interests(machine: Querier) -> list[tuple[Address, Filter]]:
    return [(event.group, event.filter) for event in machine.events() if isinstance(event, InterestChanged)]


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


# --- reports and checks


@both_families
def test_report_makes_interest_and_its_end_ends_it(family: Family) -> None:
    """RFC 3376 §6.2, §6.5."""
    machine = querier(family)
    hear(machine, report(RecordType.ALLOW_NEW_SOURCES, SSM_GROUP[family], SOURCE[family]), now=1)
    assert interests(machine) == [(SSM_GROUP[family], Filter.include([SOURCE[family]]))]
    run(machine, 261)
    assert interests(machine) == [(SSM_GROUP[family], Filter.include())]
    assert machine.groups() == []


def test_older_igmp_messages_count() -> None:
    """RFC 3376 §7.3.2; RFC 2236 §3."""
    machine = querier()
    hear(machine, AnySourceReport(GROUP[Family.IPV4], GroupVersion.ANY_SOURCE), now=1)
    assert interests(machine) == [(GROUP[Family.IPV4], Filter.exclude())]
    hear(machine, Leave(GROUP[Family.IPV4]), now=10)
    run(machine, 12)
    assert interests(machine) == [(GROUP[Family.IPV4], Filter.include())]


def test_version_one_report_needs_no_router_alert() -> None:
    """RFC 1112 appendix I is older than RFC 2113."""
    machine = querier()
    machine.receive_packet(VECTORS["igmpv1-report-without-router-alert"].data, 1)
    assert interests(machine) == [(GROUP[Family.IPV4], Filter.exclude())]


OUTSIDE = {Family.IPV4: ip_address("198.51.100.77"), Family.IPV6: ip_address("2001:db8::77")}


def refused(family: Family, packet: bytes) -> bool:
    """Whether a fresh querier counts a packet as refused and takes nothing from it."""
    machine = querier(family)
    machine.receive_packet(packet, 1)
    assert bool(interests(machine)) != bool(machine.refused)
    return bool(machine.refused)


@both_families
def test_report_without_router_alert_is_dropped(family: Family) -> None:
    """RFC 3810 §7.4; RFC 3376 §4 (every message carries it, IGMPv1's apart)."""
    packet = ip.decode(encode(report(RecordType.CHANGE_TO_EXCLUDE, GROUP[family]), HOST[family]))
    assert not refused(family, packet.encode())
    assert refused(family, replace(packet, options=b"").encode())


@both_families
def test_report_from_outside_the_link_is_dropped(family: Family) -> None:
    """RFC 3810 §7.4 (link-local source); RFC 3376 §9.2 (a source of the interface's subnets)."""
    message = report(RecordType.CHANGE_TO_EXCLUDE, GROUP[family])
    assert not refused(family, encode(message, HOST[family]))
    assert refused(family, encode(message, OUTSIDE[family]))


def test_mld_report_with_another_hop_limit_is_dropped() -> None:
    """RFC 3810 §7.4."""
    packet = ip.decode(encode(report(RecordType.CHANGE_TO_EXCLUDE, GROUP[Family.IPV6]), HOST[Family.IPV6]))
    assert refused(Family.IPV6, replace(packet, ttl=2).encode())
    assert refused(Family.IPV6, replace(packet, ttl=255).encode())


def test_mld_report_from_the_unspecified_address_is_dropped() -> None:
    """RFC 3810 §5.2.13, §7.4: allowed before DAD for the sake of snooping switches, discarded by a router."""
    machine = querier(Family.IPV6)
    machine.receive_packet(VECTORS["mldv2-report-from-unspecified"].data, 1)
    assert interests(machine) == []
    assert sum(machine.refused.values()) == 1


def test_igmp_report_from_the_unspecified_address_counts() -> None:
    """RFC 3376 §4.2.13: routers must accept a report with source 0.0.0.0."""
    machine = querier()
    machine.receive_packet(VECTORS["igmpv3-report-from-unspecified"].data, 1)
    assert interests(machine) == [(GROUP[Family.IPV4], Filter.exclude())]


def test_mld_query_not_from_a_link_local_address_is_dropped() -> None:
    """RFC 3810 §5.1.14: it must come from a link-local address, or it is discarded."""
    machine = querier(Family.IPV6)
    machine.receive_packet(encode(Query(), ip_address("2001:db8::1")), 1)
    machine.receive_packet(encode(Query(), ip_address("::")), 1)
    assert machine.is_querier
    assert sum(machine.refused.values()) == 2


@pytest.mark.parametrize(
    "name", [name for name, vector in VECTORS.items() if vector.decoder == "group" and vector.error]
)
def test_malformed_packet_is_counted_and_changes_nothing(name: str) -> None:
    """Every refused packet of the vector files."""
    family = Family.IPV6 if VECTORS[name].data[0] >> 4 == 6 else Family.IPV4
    machine = querier(family)
    sent(machine)
    machine.events()
    machine.receive_packet(VECTORS[name].data, 1)
    assert sum(machine.refused.values()) == 1
    assert machine.events() == []
    assert sent(machine) == []
    assert machine.groups() == []


@both_families
def test_packet_of_the_other_family_is_counted_and_changes_nothing(family: Family) -> None:
    """One machine serves one family."""
    other = next(member for member in Family if member is not family)
    machine = querier(family)
    machine.receive_packet(encode(report(RecordType.CHANGE_TO_EXCLUDE, GROUP[other]), HOST[other]), 1)
    assert interests(machine) == []
    assert sum(machine.refused.values()) == 1


@both_families
@pytest.mark.parametrize("kind", [RecordType.MODE_IS_EXCLUDE, RecordType.CHANGE_TO_EXCLUDE])
def test_any_source_join_in_the_source_specific_range_is_ignored(family: Family, kind: RecordType) -> None:
    """RFC 4604 §2.2: a router ignores EXCLUDE records in the SSM range."""
    machine = querier(family)
    hear(machine, report(kind, SSM_GROUP[family]))
    hear(machine, AnySourceReport(SSM_GROUP[family], GroupVersion.ANY_SOURCE))
    assert interests(machine) == []


@both_families
def test_older_report_in_the_source_specific_range_spoils_nothing(family: Family) -> None:
    """RFC 4604 §2.2: it must not put the group into the older mode, where source-specific leaves are ignored."""
    machine = querier(family, fast_leave=True)
    hear(machine, report(RecordType.ALLOW_NEW_SOURCES, SSM_GROUP[family], SOURCE[family]), now=1)
    hear(machine, AnySourceReport(SSM_GROUP[family], GroupVersion.ANY_SOURCE), now=2)
    hear(machine, report(RecordType.BLOCK_OLD_SOURCES, SSM_GROUP[family], SOURCE[family]), now=3)
    assert interests(machine) == [
        (SSM_GROUP[family], Filter.include([SOURCE[family]])),
        (SSM_GROUP[family], Filter.include()),
    ]


@pytest.mark.parametrize("group", ["224.0.0.251", "224.0.0.2", "ff02::fb", "ff01::1"])
def test_link_local_groups_are_no_interest(group: str) -> None:
    """RFC 5771 §4, RFC 4291 §2.7: nothing of them is ever forwarded."""
    family = Family.of(ip_address(group))
    machine = querier(family)
    hear(machine, report(RecordType.CHANGE_TO_EXCLUDE, ip_address(group)))
    assert interests(machine) == []


@both_families
def test_record_of_a_group_that_is_not_multicast_is_ignored_alone(family: Family) -> None:
    """RFC 3376 §4.2.9: nonsense in one record is no reason to lose the next."""
    machine = querier(family)
    strange = GroupRecord(RecordType.CHANGE_TO_EXCLUDE, SOURCE[family])
    hear(machine, Report((strange, GroupRecord(RecordType.CHANGE_TO_EXCLUDE, GROUP[family]))))
    assert interests(machine) == [(GROUP[family], Filter.exclude())]


@both_families
def test_source_that_cannot_send_is_ignored(family: Family) -> None:
    """RFC 3376 §4.2.9: sources are unicast addresses; nothing could ever arrive from another."""
    machine = querier(family)
    nonsense = (ALL_HOSTS[family], ip_address(0) if family is Family.IPV4 else ip_address("::"))
    hear(machine, report(RecordType.ALLOW_NEW_SOURCES, SSM_GROUP[family], *nonsense, SOURCE[family]))
    assert interests(machine) == [(SSM_GROUP[family], Filter.include([SOURCE[family]]))]


def test_fast_leave_ends_interest_at_once() -> None:
    """No query where one host is on the link."""
    machine = querier(fast_leave=True)
    sent(machine)
    group, source = SSM_GROUP[Family.IPV4], SOURCE[Family.IPV4]
    hear(machine, report(RecordType.ALLOW_NEW_SOURCES, group, source), now=1)
    hear(machine, report(RecordType.BLOCK_OLD_SOURCES, group, source), now=2)
    assert interests(machine) == [(group, Filter.include([source])), (group, Filter.include())]
    assert sent(machine) == []


@both_families
def test_groups_are_limited(family: Family) -> None:
    """Memory is bounded against a host that reports without end."""
    machine = querier(family, max_groups=3, max_sources=2)
    for number in range(1, 20):
        group = ip_address(f"239.0.1.{number}" if family is Family.IPV4 else f"ff1e::{number:x}")
        sources = [ip_address(int(SOURCE[family]) + offset) for offset in range(5)]
        hear(machine, report(RecordType.ALLOW_NEW_SOURCES, group, *sources))
    assert len(machine.groups()) == 3
    assert all(len(view.sources) <= 2 for view in machine.groups())
    assert sum(machine.refused.values()) >= 16


@both_families
def test_version_of_queries_can_be_lowered(family: Family) -> None:
    """RFC 3376 §7.3.1: by administrative choice where an older router is on the link."""
    machine = querier(family, version=GroupVersion.ANY_SOURCE)
    (packet,) = sent(machine)
    assert packet.message.version is GroupVersion.ANY_SOURCE
    assert packet.message.sources == ()


@both_families
def test_stop_forgets_and_is_silent(family: Family) -> None:
    """A stopped querier sends nothing more."""
    machine = querier(family)
    sent(machine)
    hear(machine, report(RecordType.CHANGE_TO_EXCLUDE, GROUP[family]))
    machine.stop()
    assert machine.groups() == []
    assert run(machine, 10000) == []
    assert interests(machine)[-1] == (GROUP[family], Filter.include())


@both_families
def test_configure_keeps_groups(family: Family) -> None:
    """A reload loses no stream."""
    machine = querier(family)
    hear(machine, report(RecordType.CHANGE_TO_EXCLUDE, GROUP[family]))
    machine.events()
    machine.configure(QuerierConfig(query_interval=60), 5)
    assert [view.group for view in machine.groups()] == [GROUP[family]]
    assert interests(machine) == []
    assert machine.timing.query_interval == 60
