"""A gateway and a relay over a network that loses, repeats, reorders and spoils: in the end they agree.

After any such time, once the network is well again the relay forwards what the gateway wants, within the time that the
gateway documents for the worst fault.
"""

from __future__ import annotations

import random
from ipaddress import ip_address

from fuzzing.strategies import FAMILIES, filters, group
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.protocol.channels import NOTHING, Address, Endpoint, Family, Filter
from agent.protocol.gateway import Gateway
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.relay import Relay
from agent.protocol.relay_config import RelayConfig

ANYCAST = {Family.IPV4: ip_address("192.52.193.1"), Family.IPV6: ip_address("2001:3::1")}
LOCAL = {Family.IPV4: ip_address("198.51.100.1"), Family.IPV6: ip_address("2001:db8:1::1")}
HOME = {Family.IPV4: ip_address("192.0.2.10"), Family.IPV6: ip_address("2001:db8:2::10")}
QUERY_INTERVAL = 30
LIMIT_RETRY = 60
HEALED = 120 + 2 * QUERY_INTERVAL + LIMIT_RETRY + 30
"""The longest wait reached by back-off, two query intervals and a retry after L."""
FORGOTTEN = 2 * QUERY_INTERVAL + 10 + 1
"""Group Membership Interval: what the gateway left without being heard is over by then."""


class FaultyNetwork(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.port = 40000
        self.wanted: dict[Address, Filter] = {}
        self.air: list[tuple[bool, bytes, Endpoint, Address]] = []
        """Datagrams under way: whether to the relay, the bytes, the gateway's endpoint, the relay's address."""

    @initialize(outer=FAMILIES, gateway_address=st.booleans(), seed=st.integers(0, 3))
    def begin(self, outer: Family, seed: int, *, gateway_address: bool) -> None:
        self.outer = outer
        self.chance = random.Random(seed)
        self.gateway_address = gateway_address
        self.relay = self.new_relay()
        config = GatewayConfig(ANYCAST[outer], limit_retry=LIMIT_RETRY)
        self.gateway = Gateway(config, self.chance.randbytes)
        self.gateway.start(self.now)

    def new_relay(self) -> Relay:
        config = RelayConfig(
            addresses=(LOCAL[self.outer],),
            query_interval=QUERY_INTERVAL,
            gateway_address_in_query=self.gateway_address,
        )
        return Relay(config, self.chance.randbytes)

    @property
    def here(self) -> Endpoint:
        return Endpoint(HOME[self.outer], self.port)

    def collect(self) -> None:
        """Take what both sides send into the air."""
        for datagram in self.gateway.datagrams_to_send():
            self.air.append((True, datagram.data, self.here, datagram.destination.address))
        for datagram in self.relay.datagrams_to_send():
            assert datagram.source is not None
            self.air.append((False, datagram.data, datagram.destination, datagram.source))

    def carry(self, flight: tuple[bool, bytes, Endpoint, Address]) -> None:
        to_relay, data, endpoint, address = flight
        if to_relay:
            self.relay.receive_datagram(
                data, endpoint, LOCAL[self.outer] if address != ANYCAST[self.outer] else address, self.now
            )
        elif endpoint == self.here:
            self.gateway.receive_datagram(data, Endpoint(address, 2268), self.now)
        self.collect()

    def deliver_all(self) -> None:
        self.collect()
        for _ in range(10000):
            if not self.air:
                return
            self.carry(self.air.pop(0))
        raise AssertionError("gateway and relay talk without end")

    def tick(self, seconds: float, *, perfect: bool) -> None:
        end = self.now + seconds
        for _ in range(10000):
            deadlines = [at for at in (self.gateway.next_deadline(), self.relay.next_deadline()) if at is not None]
            if not deadlines or min(deadlines) > end:
                break
            self.now = max(self.now, min(deadlines))
            self.gateway.handle_timer(self.now)
            self.relay.handle_timer(self.now)
            self.collect()
            if perfect:
                self.deliver_all()
        else:
            raise AssertionError("timers without end")
        self.now = end

    # --- rules

    @rule(data=st.data(), family=FAMILIES, number=st.integers(1, 3), any_source=st.booleans())
    def want(self, data: st.DataObject, family: Family, number: int, *, any_source: bool) -> None:
        address = group(family, number, any_source=any_source)
        state = data.draw(st.one_of(filters(family, any_source=any_source), st.just(NOTHING)))
        self.gateway.set_membership(address, state, self.now)
        if state.wants_nothing:
            self.wanted.pop(address, None)
        else:
            self.wanted[address] = state
        self.collect()

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 10.0, 31.0, 200.0]), perfect=st.booleans())
    def wait(self, seconds: float, *, perfect: bool) -> None:
        self.tick(seconds, perfect=perfect)

    @rule()
    def deliver_everything(self) -> None:
        self.deliver_all()

    @rule(place=st.integers(0, 20))
    def deliver_out_of_order(self, place: int) -> None:
        if self.air:
            self.carry(self.air.pop(place % len(self.air)))

    @rule(place=st.integers(0, 20))
    def repeat(self, place: int) -> None:
        if self.air:
            self.air.append(self.air[place % len(self.air)])

    @rule()
    def lose_everything(self) -> None:
        self.air.clear()

    @rule(place=st.integers(0, 20), bit=st.integers(0, 400))
    def spoil(self, place: int, bit: int) -> None:
        if self.air:
            to_relay, data, endpoint, address = self.air.pop(place % len(self.air))
            changed = bytearray(data)
            changed[bit // 8 % len(changed)] ^= 1 << bit % 8
            self.carry((to_relay, bytes(changed), endpoint, address))

    @rule()
    def translate_to_another_port(self) -> None:
        """A NAT forgets us."""
        self.port += 1

    @rule()
    def restart_the_relay(self) -> None:
        self.relay = self.new_relay()

    @rule()
    def rotate_the_secret(self) -> None:
        self.relay.rotate_secret(self.now)

    @rule(enabled=st.booleans())
    def drain(self, *, enabled: bool) -> None:
        self.relay.drain(enabled, self.now)

    @rule(call=st.sampled_from(["receive_error", "relay_silent", "refresh"]))
    def hint(self, call: str) -> None:
        getattr(self.gateway, call)(self.now)
        self.collect()

    @invariant()
    def air_is_not_flooded(self) -> None:
        assert len(self.air) < 3000

    def teardown(self) -> None:
        if not hasattr(self, "relay"):
            return
        self.relay.drain(enabled=False, now=self.now)
        self.air.clear()
        self.collect()
        self.deliver_all()
        self.tick(HEALED, perfect=True)
        self.tick(FORGOTTEN, perfect=True)
        views = {view.tunnel: view.groups for view in self.relay.tunnels()}
        assert views.get(self.here, {}) == self.wanted
        assert set(views) <= {self.here}


TestFaultyNetwork = FaultyNetwork.TestCase
