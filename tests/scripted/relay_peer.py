"""Hands to play gateways with, for a relay under test."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from agent.protocol.channels import Address, Datagram, Endpoint, Family
from agent.protocol.relay import Relay
from agent.protocol.relay_config import RelayConfig
from agent.protocol.wire import amt
from agent.protocol.wire.group_packet import encode as encode_group
from agent.protocol.wire.groups import (
    GroupMessage,
    GroupRecord,
    RecordType,
    Report,
)

LOCAL = {Family.IPV4: ip_address("198.51.100.1"), Family.IPV6: ip_address("2001:db8:1::1")}
GATEWAY = {
    Family.IPV4: Endpoint(ip_address("192.0.2.10"), 40000),
    Family.IPV6: Endpoint(ip_address("2001:db8:2::10"), 40000),
}
ANYCAST = {Family.IPV4: ip_address("192.52.193.1"), Family.IPV6: ip_address("2001:3::1")}
HOST = {Family.IPV4: ip_address("192.0.2.10"), Family.IPV6: ip_address("fe80::10")}
GROUP = {Family.IPV4: ip_address("232.1.2.3"), Family.IPV6: ip_address("ff3e::1234")}
ASM_GROUP = {Family.IPV4: ip_address("239.1.2.3"), Family.IPV6: ip_address("ff1e::5")}
SOURCE = {Family.IPV4: ip_address("203.0.113.5"), Family.IPV6: ip_address("2001:db8::5")}
NONCE = 0xA1B2C3D4

outer_families = pytest.mark.parametrize("outer", list(Family))
inner_families = pytest.mark.parametrize("inner", list(Family))


class Entropy:
    """Bytes that differ with every call, and say how often they were asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, length: int) -> bytes:
        self.calls += 1
        return bytes((self.calls * 37 + position * 11) & 0xFF for position in range(length))


def relay(**options: object) -> Relay:
    return Relay(RelayConfig(addresses=(LOCAL[Family.IPV4], LOCAL[Family.IPV6]), **options), Entropy())


def ask(
    machine: Relay, message: amt.Message | bytes, source: Endpoint, now: float = 0, local: Address | None = None
) -> list[Datagram]:
    data = message if isinstance(message, bytes) else message.encode()
    machine.receive_datagram(data, source, local or LOCAL[Family.of(source.address)], now)
    return machine.datagrams_to_send()


def query_of(machine: Relay, source: Endpoint, *, nonce: int = NONCE, now: float = 0, mld: bool = False):
    (answer,) = ask(machine, amt.Request(nonce, mld=mld), source, now)
    message = amt.decode(answer.data)
    assert isinstance(message, amt.MembershipQuery)
    return message


def update(query: amt.MembershipQuery, message: GroupMessage, inner: Family) -> amt.MembershipUpdate:
    return amt.MembershipUpdate(query.response_mac, query.nonce, encode_group(message, HOST[inner]))


def join(inner: Family, kind: RecordType = RecordType.ALLOW_NEW_SOURCES) -> Report:
    return Report((GroupRecord(kind, GROUP[inner], (SOURCE[inner],)),))


def open_tunnel(machine: Relay, source: Endpoint, inner: Family = Family.IPV4, now: float = 0, nonce: int = NONCE):
    query = query_of(machine, source, nonce=nonce, now=now, mld=inner is Family.IPV6)
    assert ask(machine, update(query, join(inner), inner), source, now) == []
    return query


def refusals(machine: Relay) -> int:
    return sum(machine.counters.refused.values())


def teardown(query: amt.MembershipQuery, endpoint: Endpoint) -> amt.Teardown:
    return amt.Teardown(query.response_mac, query.nonce, (endpoint.address, endpoint.port))


def run(machine: Relay, until: float) -> None:
    for _ in range(1000):
        deadline = machine.next_deadline()
        if deadline is None or deadline > until:
            return
        machine.handle_timer(deadline)
        assert machine.datagrams_to_send() == [], "a relay speaks when spoken to"
    pytest.fail("timers never come to an end")
