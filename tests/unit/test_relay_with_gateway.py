"""Our gateway and our relay over a network that loses, repeats, reorders and rebinds: they come to agree."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import replace
from ipaddress import ip_address

import pytest

from agent.protocol.channels import NOTHING, Endpoint, Filter
from agent.protocol.gateway import Gateway
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.relay import InterestChanged, Relay, RelayConfig, TunnelClosed, TunnelOpened

ANYCAST, RELAY = ip_address("192.52.193.1"), ip_address("198.51.100.1")
NAT = ip_address("192.0.2.7")
SSM, ASM, SSM6 = (ip_address(text) for text in ("232.1.1.1", "239.1.1.1", "ff3e::1"))
SOURCES = [ip_address(f"10.0.0.{number}") for number in range(1, 5)]
SOURCES6 = [ip_address(f"2001:db8::{number}") for number in range(1, 5)]
SETTLING = 700.0  # beyond a group's lifetime (260 s) after the longest wait between retransmissions


class Network:
    """One gateway behind a NAT, one relay, and datagrams under way."""

    def __init__(self, seed: int, **settings) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.loss = self.repetition = 0.0
        self.port = 40000
        self.relay = Relay(RelayConfig((RELAY,), **settings), self.random.randbytes)
        self.gateway = Gateway(GatewayConfig(ANYCAST), self.random.randbytes)
        self.followed: dict[Endpoint, dict] = {}
        self.closed: list[TunnelClosed] = []
        self._order = itertools.count()
        self._under_way: list = []
        self.gateway.start(self.now)

    def run(self, seconds: float) -> None:
        """Let time pass; every timer and datagram has its turn."""
        end = self.now + seconds
        while True:
            self._collect()
            due = [self.gateway.next_deadline(), self.relay.next_deadline()]
            due += [self._under_way[0][0]] if self._under_way else []
            next_due = min((time for time in due if time is not None), default=end)
            if next_due >= end:
                break
            self.now = max(self.now, next_due)
            while self._under_way and self._under_way[0][0] <= self.now:
                self._deliver(*heapq.heappop(self._under_way)[2:])
            self.gateway.handle_timer(self.now)
            self.relay.handle_timer(self.now)
        self.now = end

    def _deliver(self, to_relay, data, source, local) -> None:
        if to_relay:
            self.relay.receive_datagram(data, source, local, self.now)
        elif source.port == self.port:
            self.gateway.receive_datagram(data, Endpoint(local, 2268), self.now)

    def _collect(self) -> None:
        for datagram in self.gateway.datagrams_to_send():
            self._send(True, datagram.data, Endpoint(NAT, self.port), datagram.destination.address)
        for datagram in self.relay.datagrams_to_send():
            self._send(False, datagram.data, datagram.destination, datagram.source)
        self.gateway.events()
        for event in self.relay.events():
            match event:
                case TunnelOpened(tunnel):
                    assert tunnel not in self.followed
                    self.followed[tunnel] = {}
                case InterestChanged(tunnel, _, group, wanted):
                    self.followed[tunnel][group] = wanted
                case TunnelClosed(tunnel):
                    assert set(self.followed.pop(tunnel).values()) <= {NOTHING}
                    self.closed.append(event)

    def _send(self, *packet) -> None:
        copies = 0 if self.random.random() < self.loss else 1 + (self.random.random() < self.repetition)
        for _ in range(copies):
            heapq.heappush(self._under_way, (self.now + self.random.uniform(0.01, 0.3), next(self._order), *packet))

    def wanted_at_relay(self) -> dict:
        groups = self.followed.get(Endpoint(NAT, self.port), {})
        return {group: wanted for group, wanted in groups.items() if wanted != NOTHING}


def any_filter(chance: random.Random, group) -> Filter:
    pool = SOURCES6 if group.version == 6 else SOURCES
    sources = chance.sample(pool, chance.randint(0, len(pool)))
    if group == ASM and chance.random() < 0.5:
        return Filter.exclude(sources)
    return Filter.include(sources)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("gateway_address", [False, True])
def test_relay_forwards_what_the_gateway_wants_after_any_disorder(seed, gateway_address):
    network = Network(seed, gateway_address_in_query=gateway_address, secret_lifetime=300)
    network.loss, network.repetition = 0.3, 0.2
    wanted = {}
    for _ in range(40):
        group = network.random.choice([SSM, ASM, SSM6])
        wanted[group] = any_filter(network.random, group)
        network.gateway.set_membership(group, wanted[group], network.now)
        network.run(network.random.choice([0.0, 0.1, 2.0, 60.0]))
        if network.random.random() < 0.1:
            network.port += 1
    network.loss = 0.0
    network.run(SETTLING)
    assert network.wanted_at_relay() == {group: state for group, state in wanted.items() if state != NOTHING}
    assert len(network.relay.tunnels()) <= 1
    assert "inner_malformed" not in network.relay.counters.refused


def test_rebinding_is_noticed_by_the_address_in_queries_and_the_old_tunnel_torn_down():
    network = Network(1, gateway_address_in_query=True, query_interval=30)
    network.gateway.set_membership(SSM, Filter.include(SOURCES[:1]), 0)
    network.run(5)
    network.port += 1
    network.run(40)
    assert [view.tunnel.port for view in network.relay.tunnels()] == [network.port]
    assert [closed.reason.value for closed in network.closed] == ["teardown"]
    assert network.wanted_at_relay() == {SSM: Filter.include(SOURCES[:1])}


def test_relay_that_loses_everything_gets_it_back_within_a_query_interval():
    network = Network(2, query_interval=30)
    network.gateway.set_membership(SSM, Filter.include(SOURCES[:1]), 0)
    network.run(10)
    network.relay.stop(network.now)
    network.relay = Relay(replace(network.relay.config), network.random.randbytes)
    network.followed.clear()
    network.run(31)
    assert network.wanted_at_relay() == {SSM: Filter.include(SOURCES[:1])}
