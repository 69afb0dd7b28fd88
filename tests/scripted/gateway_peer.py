"""A gateway under test with its clock, and hands to play the relay with."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from agent.protocol.channels import Address, Datagram, Endpoint, Family, Filter
from agent.protocol.gateway import Gateway
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.wire import amt
from agent.protocol.wire.group_packet import decode as decode_group
from agent.protocol.wire.group_packet import encode as encode_group
from agent.protocol.wire.groups import GroupRecord, Query, Report

DISCOVERY = {
    Family.IPV4: Endpoint(ip_address("192.52.193.1"), 2268),
    Family.IPV6: Endpoint(ip_address("2001:3::1"), 2268),
}
RELAY = {
    Family.IPV4: Endpoint(ip_address("198.51.100.1"), 2268),
    Family.IPV6: Endpoint(ip_address("2001:db8:1::1"), 2268),
}
QUERIER = {Family.IPV4: ip_address("198.51.100.1"), Family.IPV6: ip_address("fe80::1")}
GROUP = {Family.IPV4: ip_address("232.1.2.3"), Family.IPV6: ip_address("ff3e::1234")}
SOURCE = {Family.IPV4: ip_address("203.0.113.5"), Family.IPV6: ip_address("2001:db8::5")}
OUTER_HEADERS = {Family.IPV4: 28, Family.IPV6: 48}
"""IP and UDP headers around an AMT message."""
MAC, OTHER_MAC = b"\x0a\x0b\x0c\x0d\x0e\x0f", b"\x01\x02\x03\x04\x05\x06"

outer_families = pytest.mark.parametrize("outer", list(Family))
inner_families = pytest.mark.parametrize("inner", list(Family))


class Peer:
    """A gateway, its clock, and hands to play the relay with."""

    def __init__(self, outer: Family = Family.IPV4, entropy: Callable[[int], bytes] | None = None, **options: object):
        generator = random.Random(7450)
        self.outer = outer
        self.now = 1000.0
        self.config = GatewayConfig(DISCOVERY[outer].address, **{"jitter": 0.0, **options})
        self.gateway = Gateway(self.config, entropy or generator.randbytes)
        self.relay = RELAY[outer]
        self.started = self.now
        self.gateway.start(self.now)

    def join(self, inner: Family = Family.IPV4, wanted: Filter | None = None, group: Address | None = None) -> None:
        state = Filter.include([SOURCE[inner]]) if wanted is None else wanted
        self.gateway.set_membership(group or GROUP[inner], state, self.now)

    def sent(self) -> list[amt.Message]:
        """Messages sent now; all of them must go where gateways may send."""
        messages = []
        for datagram in self.datagrams():
            message = amt.decode(datagram.data)
            to_discovery = isinstance(message, amt.RelayDiscovery)
            assert datagram.destination == (DISCOVERY[self.outer] if to_discovery else self.relay)
            assert len(datagram.data) + OUTER_HEADERS[self.outer] <= self.config.mtu
            messages.append(message)
        return messages

    def datagrams(self) -> list[Datagram]:
        return self.gateway.datagrams_to_send()

    def only(self, kind: type[amt.Message]) -> amt.Message:
        (message,) = self.sent()
        assert isinstance(message, kind), message
        return message

    def receive(self, message: amt.Message | bytes, source: Endpoint | None = None) -> None:
        data = message if isinstance(message, bytes) else message.encode()
        self.gateway.receive_datagram(data, source or self.relay, self.now)

    def advance(self, seconds: float) -> list[tuple[float, amt.Message]]:
        """Let time go by; returns what was sent, with the time since the start."""
        end = self.now + seconds
        messages: list[tuple[float, amt.Message]] = []
        for _ in range(10000):
            deadline = self.gateway.next_deadline()
            if deadline is None or deadline > end:
                break
            self.now = max(self.now, deadline)
            self.gateway.handle_timer(self.now)
            messages += [(self.now - self.started, message) for message in self.sent()]
        else:
            pytest.fail("timers never come to an end")
        self.now = end
        return messages

    def discover(self) -> None:
        """Answer the Discovery."""
        discovery = self.only(amt.RelayDiscovery)
        self.receive(amt.RelayAdvertisement(discovery.nonce, self.relay.address), DISCOVERY[self.outer])

    def query(self, request: amt.Request, inner: Family = Family.IPV4, mac: bytes = MAC, **fields: object) -> bytes:
        limit, gateway = fields.pop("limit", False), fields.pop("gateway", None)
        packet = encode_group(Query(**fields), QUERIER[inner])
        return amt.MembershipQuery(mac, request.nonce, packet, limit, gateway).encode()

    def establish(self, inner: Family = Family.IPV4, **fields: object) -> amt.MembershipUpdate:
        """Discover, request, be asked, and report; returns the first Update."""
        self.discover()
        request = self.only(amt.Request)
        self.receive(self.query(request, inner, **fields))
        updates = self.sent()
        assert updates
        assert all(isinstance(update, amt.MembershipUpdate) for update in updates)
        return updates[0]

    def dropped(self) -> int:
        return sum(count for name, count in self.gateway.counters.items() if name.startswith("dropped_"))


def joined(outer: Family = Family.IPV4, inner: Family = Family.IPV4, **options: object) -> Peer:
    peer = Peer(outer, **options)
    peer.join(inner)
    return peer


def established(outer: Family = Family.IPV4, inner: Family = Family.IPV4, **options: object) -> Peer:
    peer = joined(outer, inner, **options)
    peer.establish(inner)
    peer.advance(5)
    return peer


def records(messages: list[amt.Message]) -> list[GroupRecord]:
    found: list[GroupRecord] = []
    for message in messages:
        if isinstance(message, amt.MembershipUpdate):
            report = decode_group(message.packet).message
            assert isinstance(report, Report)
            found += report.records
    return found


def next_request(peer: Peer, within: float = 200) -> amt.Request:
    """Let time go by until the gateway asks again."""
    for _ in range(int(within)):
        requests = [message for _, message in peer.advance(1) if isinstance(message, amt.Request)]
        if requests:
            return requests[0]
    pytest.fail("no Request")
