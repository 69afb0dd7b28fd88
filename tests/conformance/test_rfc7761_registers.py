"""Registers at an RP (RFC 7761 §4.4.2, §4.9.3, §4.9.4) and what the source-specific range forbids (§4.8.1).

Our (*,G) does not lead to the sources, so every Register is stopped, as by an RP with an empty olist that wants the
source's own tree.
"""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scripted.pim_peer import (
    LOWER,
    OURS,
    RENDEZVOUS_GROUPS,
    beside_neighbors,
    both_families,
    group,
    messages,
    router,
    secondary,
    sent,
    shared,
    source,
    tell,
)

from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim import PimInterface
from agent.protocol.pim_events import SourceRegistered
from agent.protocol.pim_packet import encode_packet
from agent.protocol.pim_rendezvous import Rendezvous
from agent.protocol.wire.checksum import internet_checksum
from agent.protocol.wire.ip import IPPacket
from agent.protocol.wire.pim import PROTOCOL_PIM, JoinPrune, Register, RegisterStop

NOT_OURS = {Family.IPV4: ip_address("238.1.1.1"), Family.IPV6: ip_address("ff15::1:1")}


def rendezvous_point(family: Family) -> PimInterface:
    """A machine that is the RP of 239/8 and ff1e::/16 at a routed address, beside one neighbour."""
    machine = beside_neighbors(LOWER, family=family)
    machine.set_rendezvous_addresses([the_rp(family)])
    return machine


def the_rp(family: Family) -> Address:
    return secondary(200, family)


def the_dr(family: Family) -> Address:
    """Far away, and no neighbour."""
    return secondary(77, family)


def inner(destination: Address, payload: bytes = bytes(20)) -> bytes:
    return IPPacket(source(1, Family.of(destination)), destination, 17, payload).encode()


def null_inner(destination: Address) -> bytes:
    """A header alone (IPv4), or with an empty PIM message behind it (IPv6, §4.9.3)."""
    payload = b"" if destination.version == 4 else bytes([0x20, 0, 0, 0])
    return IPPacket(source(1, Family.of(destination)), destination, PROTOCOL_PIM, payload).encode()


def register(machine: PimInterface, message: Register, family: Family, *, to: Address | None = None, now=10.0) -> None:
    machine.receive_packet(encode_packet(message, the_dr(family), to or the_rp(family)), now)


def stops(machine: PimInterface) -> list[tuple[Address, Address, RegisterStop]]:
    return [(packet.source, packet.destination, packet.message) for packet in sent(machine)]


@both_families
@pytest.mark.parametrize("border", [False, True])
def test_a_register_for_our_group_is_stopped_and_its_source_told(family, border) -> None:
    """The border bit means nothing any longer (§4.9.3)."""
    machine = rendezvous_point(family)
    register(machine, Register(inner(shared(1, family)), border=border), family)
    stop = RegisterStop(shared(1, family), source(1, family))
    assert stops(machine) == [(the_rp(family), the_dr(family), stop)]
    assert tell(machine, SourceRegistered) == [SourceRegistered(Channel(source(1, family), shared(1, family)))]


@both_families
def test_a_null_register_is_stopped_like_another(family) -> None:
    machine = rendezvous_point(family)
    register(machine, Register(null_inner(shared(1, family)), null=True), family)
    stop = RegisterStop(shared(1, family), source(1, family))
    assert stops(machine) == [(the_rp(family), the_dr(family), stop)]
    assert len(tell(machine, SourceRegistered)) == 1


@both_families
def test_a_register_for_a_group_of_another_rp_is_stopped_and_tells_nothing(family) -> None:
    machine = rendezvous_point(family)
    register(machine, Register(inner(NOT_OURS[family])), family)
    assert [message for _, _, message in stops(machine)] == [RegisterStop(NOT_OURS[family], source(1, family))]
    assert machine.events() == []


@both_families
def test_a_register_to_an_address_that_is_not_ours_is_dropped_in_silence(family) -> None:
    machine = rendezvous_point(family)
    register(machine, Register(inner(shared(1, family))), family, to=secondary(201, family))
    assert stops(machine) == []
    assert machine.events() == []


@both_families
def test_a_register_for_a_source_specific_group_is_stopped_and_tells_nothing(family) -> None:
    """§4.8.1."""
    machine = rendezvous_point(family)
    register(machine, Register(inner(group(1, family))), family)
    assert [message for _, _, message in stops(machine)] == [RegisterStop(group(1, family), source(1, family))]
    assert machine.events() == []


@both_families
def test_what_is_in_a_register_is_never_forwarded(family) -> None:
    machine = rendezvous_point(family)
    register(machine, Register(inner(shared(1, family))), family)
    assert [type(message) for _, _, message in stops(machine)] == [RegisterStop]


@both_families
def test_a_source_counts_as_active_for_the_rp_keepalive_period(family) -> None:
    """Three times Register_Suppression_Time and Register_Probe_Time: 185 s (§4.11)."""
    active, registered = source(1, family), shared(1, family)
    rendezvous = Rendezvous([the_rp(family)], RENDEZVOUS_GROUPS)
    rendezvous.receive(Register(inner(registered)), the_dr(family), the_rp(family), 10.0)
    assert rendezvous.sources(registered, 10.0 + 184.9) == [active]
    rendezvous.receive(Register(null_inner(registered), null=True), the_dr(family), the_rp(family), 100.0)
    assert rendezvous.sources(registered, 100.0 + 184.9) == [active]
    assert rendezvous.sources(registered, 100.0 + 185.1) == []


@pytest.mark.parametrize("covered", ["header", "whole"])
def test_a_register_checksum_may_cover_its_header_or_all_of_it(covered) -> None:
    """§4.9: senders cover eight bytes; receivers accept the whole message too."""
    machine = rendezvous_point(Family.IPV4)
    data = bytes([0x21, 0, 0, 0]) + bytes(4) + inner(shared(1))
    checksum = internet_checksum(data[:8] if covered == "header" else data)
    packet = IPPacket(
        the_dr(Family.IPV4), the_rp(Family.IPV4), PROTOCOL_PIM, data[:2] + checksum.to_bytes(2, "big") + data[4:]
    )
    machine.receive_packet(packet.encode(), 10.0)
    assert len(stops(machine)) == 1


@both_families
@pytest.mark.parametrize("what", ["empty", "short", "not multicast"])
def test_a_register_without_a_packet_for_a_group_is_refused(family, what) -> None:
    machine = rendezvous_point(family)
    packet = {"empty": b"", "short": inner(shared(1, family))[:12], "not multicast": inner(router(OURS, family))}[what]
    register(machine, Register(packet), family)
    assert stops(machine) == []
    assert machine.events() == []
    assert machine.refused.total() == 1


@both_families
def test_a_register_stop_travels_by_unicast_with_a_routable_ttl(family) -> None:
    machine = rendezvous_point(family)
    register(machine, Register(inner(shared(1, family))), family)
    (packet,) = sent(machine)
    assert packet.ttl > 1


@both_families
def test_a_source_specific_channel_is_joined_without_rpt_and_wildcard(family) -> None:
    """§4.8.1: no (*,G) and no (S,G,rpt) of a source-specific group."""
    machine = beside_neighbors(LOWER, family=family)
    machine.join_upstream(Channel(source(1, family), group(1, family)), router(LOWER, family), 10.0)
    machine.prune_upstream(Channel(source(1, family), group(1, family)), 10.0)
    machine.join_upstream(Channel(source(1, family), group(1, family)), router(LOWER, family), 11.0)
    entries = [
        entry
        for message in messages(machine, JoinPrune)
        for item in message.groups
        for entry in item.joins + item.prunes
    ]
    assert entries
    assert not any(entry.rpt or entry.wildcard for entry in entries)


@both_families
def test_no_shared_tree_of_another_rp_is_ever_joined(family) -> None:
    machine = beside_neighbors(LOWER, family=family)
    with pytest.raises(ValueError, match="shared tree"):
        machine.join_upstream(Channel(None, group(1, family)), router(LOWER, family), 10.0)
