"""AMT relay, tunnels and their membership (RFC 7450 §5.3.3.4, §5.3.3.5, §5.3.4)."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest
from scripted.relay_peer import (
    ASM_GROUP,
    GATEWAY,
    GROUP,
    LOCAL,
    SOURCE,
    ask,
    inner_families,
    join,
    open_tunnel,
    outer_families,
    query_of,
    refusals,
    relay,
    run,
    teardown,
    update,
)
from vectors.loader import load_vectors

from agent.protocol.channels import Endpoint, Family, Filter
from agent.protocol.relay_events import CloseReason, InterestChanged, TunnelClosed, TunnelOpened
from agent.protocol.wire import amt
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


# --- Membership Update


@outer_families
@inner_families
def test_valid_update_opens_a_tunnel(outer: Family, inner: Family) -> None:
    """RFC 7450 §5.3.3.4: IPv4 and IPv6 membership over IPv4 and IPv6 tunnels."""
    machine = relay()
    open_tunnel(machine, GATEWAY[outer], inner)
    assert machine.events() == [
        TunnelOpened(GATEWAY[outer], LOCAL[outer]),
        InterestChanged(GATEWAY[outer], LOCAL[outer], GROUP[inner], Filter.include([SOURCE[inner]])),
    ]
    (view,) = machine.tunnels()
    assert (view.tunnel, view.local) == (GATEWAY[outer], LOCAL[outer])


@inner_families
@pytest.mark.parametrize("kind", [RecordType.BLOCK_OLD_SOURCES, RecordType.CHANGE_TO_INCLUDE])
def test_leave_ends_interest_at_once(inner: Family, kind: RecordType) -> None:
    """RFC 7450 §5.3.3.4: one gateway is behind a tunnel; amtrelayd and we leave with BLOCK, others with TO_IN({})."""
    machine = relay()
    query = open_tunnel(machine, GATEWAY[Family.IPV4], inner)
    machine.events()
    sources = (SOURCE[inner],) if kind is RecordType.BLOCK_OLD_SOURCES else ()
    leave = Report((GroupRecord(kind, GROUP[inner], sources),))
    ask(machine, update(query, leave, inner), GATEWAY[Family.IPV4], 1)
    assert InterestChanged(GATEWAY[Family.IPV4], LOCAL[Family.IPV4], GROUP[inner], Filter.include()) in machine.events()


@inner_families
def test_any_source_join_and_leave(inner: Family) -> None:
    """RFC 3376 §6.4: TO_EX({}) wants every source; TO_IN({}) ends it."""
    machine = relay()
    query = query_of(machine, GATEWAY[Family.IPV4])
    records = [RecordType.CHANGE_TO_EXCLUDE, RecordType.CHANGE_TO_INCLUDE]
    for kind in records:
        report = Report((GroupRecord(kind, ASM_GROUP[inner]),))
        ask(machine, update(query, report, inner), GATEWAY[Family.IPV4])
    filters = [event.filter for event in machine.events() if isinstance(event, InterestChanged)]
    assert filters == [Filter.exclude(), Filter.include()]


@inner_families
def test_older_reports_are_understood(inner: Family) -> None:
    """RFC 3376 §7.3.2, RFC 3810 §8.3.2."""
    machine = relay()
    query = query_of(machine, GATEWAY[Family.IPV4])
    older = AnySourceReport(ASM_GROUP[inner], GroupVersion.ANY_SOURCE)
    for message in (older, Leave(ASM_GROUP[inner])):
        ask(machine, update(query, message, inner), GATEWAY[Family.IPV4])
    filters = [event.filter for event in machine.events() if isinstance(event, InterestChanged)]
    assert filters == [Filter.exclude(), Filter.include()]


@pytest.mark.parametrize("group", ["224.0.0.251", "224.0.0.1", "ff02::fb", "ff01::1"])
def test_link_local_groups_are_never_tunnelled(group: str) -> None:
    """RFC 5771 §4, RFC 4291 §2.7."""
    machine = relay()
    inner = Family.of(ip_address(group))
    query = query_of(machine, GATEWAY[Family.IPV4])
    report = Report((GroupRecord(RecordType.CHANGE_TO_EXCLUDE, ip_address(group)),))
    ask(machine, update(query, report, inner), GATEWAY[Family.IPV4])
    assert not [event for event in machine.events() if isinstance(event, InterestChanged)]


@inner_families
@pytest.mark.parametrize("kind", [RecordType.MODE_IS_EXCLUDE, RecordType.CHANGE_TO_EXCLUDE])
def test_any_source_join_in_the_source_specific_range_is_ignored(inner: Family, kind: RecordType) -> None:
    """RFC 4604 §2.2."""
    machine = relay()
    query = query_of(machine, GATEWAY[Family.IPV4])
    for message in (
        Report((GroupRecord(kind, GROUP[inner]),)),
        AnySourceReport(GROUP[inner], GroupVersion.ANY_SOURCE),
    ):
        ask(machine, update(query, message, inner), GATEWAY[Family.IPV4])
    assert not [event for event in machine.events() if isinstance(event, InterestChanged)]


@inner_families
def test_query_inside_an_update_is_refused(inner: Family) -> None:
    """RFC 7450 §5.1.5: an Update carries a report or leave."""
    machine = relay()
    query = query_of(machine, GATEWAY[Family.IPV4])
    ask(machine, update(query, Query(), inner), GATEWAY[Family.IPV4])
    assert machine.tunnels() == []
    assert refusals(machine) == 1


@pytest.mark.parametrize(
    "name", [name for name, vector in VECTORS.items() if vector.decoder == "group" and vector.error]
)
def test_malformed_report_is_counted_and_changes_nothing(name: str) -> None:
    """RFC 7450 §5.3.3.4: a valid MAC is no reason to trust the packet inside."""
    machine = relay()
    query = query_of(machine, GATEWAY[Family.IPV4])
    message = amt.MembershipUpdate(query.response_mac, query.nonce, VECTORS[name].data)
    assert ask(machine, message, GATEWAY[Family.IPV4]) == []
    assert machine.tunnels() == []
    assert refusals(machine) == 1


# --- Teardown


@outer_families
@pytest.mark.parametrize("sender", ["same", "moved"])
def test_teardown_ends_the_tunnel_of_the_embedded_address(outer: Family, sender: str) -> None:
    """RFC 7450 §5.3.3.5: the MAC is checked against the embedded address, because the sender has moved."""
    machine = relay()
    query = open_tunnel(machine, GATEWAY[outer])
    machine.events()
    moved = Endpoint(ip_address(int(GATEWAY[outer].address) + 1), 50000)
    source = GATEWAY[outer] if sender == "same" else moved
    assert ask(machine, teardown(query, GATEWAY[outer]), source, 1) == []
    assert machine.events() == [
        InterestChanged(GATEWAY[outer], LOCAL[outer], GROUP[Family.IPV4], Filter.include()),
        TunnelClosed(GATEWAY[outer], CloseReason.TEARDOWN),
    ]
    assert machine.tunnels() == []


@outer_families
@pytest.mark.parametrize("change", ["mac", "nonce", "port", "address"])
def test_teardown_without_a_valid_mac_is_dropped(outer: Family, change: str) -> None:
    """RFC 7450 §5.3.3.5, §5.3.5."""
    machine = relay()
    victim = GATEWAY[outer]
    query = open_tunnel(machine, victim)
    # The attacker holds a MAC of its own, good for another endpoint.
    attacker = Endpoint(ip_address(int(victim.address) + 1), victim.port)
    own = query_of(machine, attacker)
    message = {
        "mac": amt.Teardown(bytes(6), query.nonce, (victim.address, victim.port)),
        "nonce": amt.Teardown(query.response_mac, query.nonce ^ 1, (victim.address, victim.port)),
        "port": amt.Teardown(query.response_mac, query.nonce, (victim.address, victim.port + 1)),
        "address": amt.Teardown(own.response_mac, own.nonce, (victim.address, victim.port)),
    }[change]
    machine.events()
    ask(machine, message, attacker, 1)
    assert [view.tunnel for view in machine.tunnels()] == [victim]
    assert machine.events() == []
    assert refusals(machine) == 1


def test_teardown_works_after_a_rotation() -> None:
    """RFC 7450 §5.3.6 applies to Teardowns as well."""
    machine = relay()
    query = open_tunnel(machine, GATEWAY[Family.IPV4])
    machine.rotate_secret(1)
    ask(machine, teardown(query, GATEWAY[Family.IPV4]), GATEWAY[Family.IPV4], 2)
    assert machine.tunnels() == []


def test_teardown_of_no_tunnel_is_harmless() -> None:
    """RFC 7450 §5.3.3.5: a repeated Teardown finds nothing."""
    machine = relay()
    query = open_tunnel(machine, GATEWAY[Family.IPV4])
    for _ in range(2):
        ask(machine, teardown(query, GATEWAY[Family.IPV4]), GATEWAY[Family.IPV4], 1)
    assert machine.tunnels() == []


# --- time


@outer_families
def test_tunnel_without_updates_expires(outer: Family) -> None:
    """RFC 7450 §5.3.3.7, RFC 3376 §8.4: after the Group Membership Interval, 2 x 125 + 10 seconds."""
    machine = relay()
    open_tunnel(machine, GATEWAY[outer])
    machine.events()
    run(machine, 259.9)
    assert len(machine.tunnels()) == 1
    run(machine, 260.1)
    assert machine.tunnels() == []
    assert machine.events() == [
        InterestChanged(GATEWAY[outer], LOCAL[outer], GROUP[Family.IPV4], Filter.include()),
        TunnelClosed(GATEWAY[outer], CloseReason.EXPIRED),
    ]
    assert machine.next_deadline() is None or machine.next_deadline() > 260.1


def test_tunnel_with_updates_lives() -> None:
    """RFC 7450 §5.3.3.7."""
    machine = relay()
    for cycle in range(20):
        query = query_of(machine, GATEWAY[Family.IPV4], nonce=cycle + 1, now=cycle * 125)
        message = update(query, join(Family.IPV4, RecordType.MODE_IS_INCLUDE), Family.IPV4)
        ask(machine, message, GATEWAY[Family.IPV4], cycle * 125)
        run(machine, cycle * 125 + 124)
        assert len(machine.tunnels()) == 1
    assert Counter(type(event) for event in machine.events()) == {TunnelOpened: 1, InterestChanged: 1}


def test_stop_closes_every_tunnel() -> None:
    """RFC 7450 §5.3.4."""
    machine = relay()
    for outer in Family:
        open_tunnel(machine, GATEWAY[outer])
    machine.stop(10)
    closed = [event for event in machine.events() if isinstance(event, TunnelClosed)]
    assert {(event.tunnel, event.reason) for event in closed} == {
        (GATEWAY[outer], CloseReason.STOPPED) for outer in Family
    }
    assert machine.tunnels() == []
