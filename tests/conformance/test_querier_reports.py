"""Router side of IGMP and MLD on a link: what reports are taken (RFC 3376 §4.2, §7; RFC 3810 §5.2, §7.4, §8)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from scripted.querier_peer import (
    ALL_HOSTS,
    GROUP,
    HOST,
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
from vectors.loader import load_vectors

from agent.protocol.channels import Family, Filter
from agent.protocol.querier_config import QuerierConfig
from agent.protocol.wire import ip
from agent.protocol.wire.group_packet import encode
from agent.protocol.wire.groups import (
    AnySourceReport,
    GroupRecord,
    GroupVersion,
    Leave,
    Query,
    RecordType,
    Report,
)

VECTORS = load_vectors()


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
