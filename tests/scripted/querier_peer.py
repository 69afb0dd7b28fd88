"""A querier under test, and hands to play the hosts and routers of its link with."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from agent.protocol.channels import Address, Family, Filter
from agent.protocol.group_state import InterestChanged
from agent.protocol.querier import Querier
from agent.protocol.querier_config import QuerierConfig
from agent.protocol.wire.group_packet import GroupPacket, decode, encode
from agent.protocol.wire.groups import (
    GroupMessage,
    GroupRecord,
    RecordType,
    Report,
)

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
