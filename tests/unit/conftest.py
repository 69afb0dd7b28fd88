"""A gateway machine on a clock of our own, and the words a relay would say to it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from agent.protocol.channels import Datagram, Endpoint, Family, Filter
from agent.protocol.gateway import Gateway
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.gateway_state import State
from agent.protocol.wire import amt, group_packet
from agent.protocol.wire.groups import GroupRecord, Query, Report

DISCOVERY = Endpoint(amt.ANYCAST_IPV4, 2268)
RELAY = Endpoint(ip_address("192.0.2.1"), 2268)
QUERY_SOURCES = {Family.IPV4: ip_address("192.0.2.1"), Family.IPV6: ip_address("fe80::1")}


def counting_entropy() -> Callable[[int], bytes]:
    """Another nonce each time, and fractions of nearly 0.5, so that jitter is next to nothing."""
    numbers = itertools.count(0x8000_0001)
    return lambda size: (next(numbers) % 2 ** (8 * size)).to_bytes(size, "big")


class GatewayBench:
    """A gateway, its clock, and what it has sent."""

    def __init__(self, config: GatewayConfig, entropy: Callable[[int], bytes]) -> None:
        self.gateway = Gateway(config, entropy)
        self.now = 1000.0
        self.relay = RELAY if config.discover else config.endpoint
        self.told = []

    def datagrams(self) -> list[Datagram]:
        return self.gateway.datagrams_to_send()

    def sent(self, kind: type | None = None) -> list:
        """Messages drained now, of one kind if asked."""
        messages = [amt.decode(datagram.data) for datagram in self.datagrams()]
        return [message for message in messages if kind is None or isinstance(message, kind)]

    def records(self) -> list[GroupRecord]:
        """Records of the Updates drained now."""
        return [record for message in self.sent(amt.MembershipUpdate) for record in records_of(message)]

    def run(self, seconds: float) -> list[tuple[float, object]]:
        """Let time pass; what was sent, with the time since the call."""
        begin, end = self.now, self.now + seconds
        sent = [(0.0, message) for message in self.sent()]
        for _ in range(100_000):
            deadline = self.gateway.next_deadline()
            if deadline is None or deadline > end:
                self.now = end
                return sent
            self.now = max(self.now, deadline)
            self.gateway.handle_timer(self.now)
            sent += [(self.now - begin, message) for message in self.sent()]
        raise AssertionError("the gateway's deadline does not move on")

    def join(self, group: str, *sources: str) -> None:
        state = Filter.include(map(ip_address, sources)) if sources else Filter.exclude()
        self.gateway.set_membership(ip_address(group), state, self.now)

    def leave(self, group: str) -> None:
        self.gateway.set_membership(ip_address(group), Filter.include(), self.now)

    def receive(self, message: amt.Message | bytes, source: Endpoint | None = None) -> None:
        data = message if isinstance(message, bytes) else message.encode()
        self.gateway.receive_datagram(data, source or self.relay, self.now)

    def advertise(self, nonce: int, relay: str = "192.0.2.1", source: Endpoint = DISCOVERY) -> None:
        self.receive(amt.RelayAdvertisement(nonce, ip_address(relay)), source)

    def query(self, nonce: int, family: Family = Family.IPV4, mac: bytes = b"mac-01", **fields) -> None:
        """A Membership Query from the relay; `limit`, `gateway`, `source` as in the message, the rest as in Query."""
        source = fields.pop("source", None)
        outer = {name: fields.pop(name) for name in ("limit", "gateway") if name in fields}
        packet = group_packet.encode(Query(**fields), QUERY_SOURCES[family])
        self.receive(amt.MembershipQuery(mac, nonce, packet, **outer), source)

    def request_nonce(self) -> int:
        (request, *_) = self.sent(amt.Request)
        return request.nonce

    def establish(self, **query) -> None:
        """Start, discover if need be, and answer the first Requests; what was sent is dropped but for the reports."""
        self.gateway.start(self.now)
        if self.gateway.state is State.DISCOVERING:
            (discovery,) = self.sent(amt.RelayDiscovery)
            self.advertise(discovery.nonce)
        self.answer(self.sent(amt.Request), **query)
        assert self.gateway.state is State.ESTABLISHED

    def answer(self, requests: list[amt.Request], **query) -> None:
        for request in requests:
            self.query(request.nonce, Family.IPV6 if request.mld or request.kernel_mld else Family.IPV4, **query)

    def events(self, kind: type | None = None) -> list:
        return [event for event in self.gateway.events() if kind is None or isinstance(event, kind)]


def records_of(update: amt.MembershipUpdate) -> tuple[GroupRecord, ...]:
    message = group_packet.decode(update.packet).message
    assert isinstance(message, Report)
    return message.records


@pytest.fixture
def gateway_bench() -> Callable[..., GatewayBench]:
    """Make a bench: fields of GatewayConfig, and `entropy`."""

    def make(**fields) -> GatewayBench:
        entropy = fields.pop("entropy", None) or counting_entropy()
        return GatewayBench(GatewayConfig(**{"address": DISCOVERY.address, "jitter": 0.0, **fields}), entropy)

    return make


@pytest.fixture
def direct_bench(gateway_bench) -> Callable[..., GatewayBench]:
    """Make a bench whose relay is configured."""
    return lambda **fields: gateway_bench(**{"address": RELAY.address, "discover": False, **fields})
