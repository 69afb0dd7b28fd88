"""The gateway under anything from anybody: it never raises, and speaks only to its relay and only in its turn."""

from __future__ import annotations

import random
from ipaddress import ip_address

from fuzzing.strategies import AMT_MESSAGES, FAMILIES, VECTORS, filters, group, spoilt
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from agent.protocol.channels import NOTHING, Address, Endpoint, Family, Filter
from agent.protocol.gateway import Gateway
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.gateway_state import State
from agent.protocol.wire import amt
from agent.protocol.wire.group_packet import decode as decode_group
from agent.protocol.wire.group_packet import encode as encode_group
from agent.protocol.wire.groups import Query, Report

DISCOVERY = {
    Family.IPV4: Endpoint(ip_address("192.52.193.1"), 2268),
    Family.IPV6: Endpoint(ip_address("2001:3::1"), 2268),
}
RELAYS = {
    Family.IPV4: [ip_address("198.51.100.1"), ip_address("198.51.100.2")],
    Family.IPV6: [ip_address("2001:db8:1::1"), ip_address("2001:db8:1::2")],
}
QUERIERS = {Family.IPV4: ip_address("198.51.100.1"), Family.IPV6: ip_address("fe80::1")}
OUTER_HEADERS = {Family.IPV4: 28, Family.IPV6: 48}
STEPS = st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0, 125.0, 400.0])
BURST = 80
"""More datagrams than this must never leave at once: two families, two bursts of Updates, leaves and a Teardown."""


def requests_of(messages: list[amt.Message]) -> list[amt.Request]:
    return [message for message in messages if isinstance(message, amt.Request)]


class HostileRelays(RuleBasedStateMachine):
    heard = Bundle("heard")
    """Datagrams that were given to the gateway, with their sender."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.outer = Family.IPV4
        self.wanted: dict[Address, Filter] = {}
        self.ever: set[Address] = set()
        self.relays: set[Endpoint] = set()
        self.asked: list[amt.Message] = []
        self.count: dict[str, int] = {}
        self.advertised = False
        self.gateway = self.make(Family.IPV4)

    def make(self, outer: Family) -> Gateway:
        self.config = GatewayConfig(DISCOVERY[outer].address)
        return Gateway(self.config, random.Random(7450).randbytes)

    @initialize(outer=FAMILIES)
    def choose(self, outer: Family) -> None:
        self.outer = outer
        self.gateway = self.make(outer)
        self.gateway.start(self.now)

    def take(self) -> list[amt.Message]:
        """Drain and check everything that leaves."""
        if self.gateway.relay is not None:
            self.relays.add(self.gateway.relay)
        messages = []
        for datagram in self.gateway.datagrams_to_send():
            message = amt.decode(datagram.data)
            name = message.type.name.lower()
            self.count[name] = self.count.get(name, 0) + 1
            assert len(datagram.data) + OUTER_HEADERS[self.outer] <= self.config.mtu
            if isinstance(message, amt.RelayDiscovery):
                assert datagram.destination == DISCOVERY[self.outer]
            else:
                assert isinstance(message, amt.Request | amt.MembershipUpdate | amt.Teardown)
                assert datagram.destination in self.relays
            if isinstance(message, amt.RelayDiscovery | amt.Request):
                assert message.nonce != 0
                self.asked.append(message)
            if isinstance(message, amt.MembershipUpdate):
                self.check_update(message)
            messages.append(message)
        assert len(messages) <= BURST
        return messages

    def check_update(self, message: amt.MembershipUpdate) -> None:
        packet = decode_group(message.packet)
        assert (packet.ttl, packet.router_alert) == (1, True)
        assert isinstance(packet.message, Report)
        assert packet.message.records
        assert {record.group for record in packet.message.records} <= self.ever

    def deliver(self, data: bytes, sender: Endpoint) -> tuple[bytes, Endpoint]:
        before = self.dropped()
        self.gateway.receive_datagram(data, sender, self.now)
        refused = self.dropped() > before
        messages = self.take()
        assert not (refused and messages), "what is dropped must not make anything leave"
        return data, sender

    def dropped(self) -> int:
        return sum(number for name, number in self.gateway.counters.items() if name.startswith("dropped_"))

    # --- what the owner does

    @rule(data=st.data(), family=FAMILIES, number=st.integers(1, 5), any_source=st.booleans())
    def want(self, data: st.DataObject, family: Family, number: int, *, any_source: bool) -> None:
        address = group(family, number, any_source=any_source)
        state = data.draw(st.one_of(filters(family, any_source=any_source), st.just(NOTHING)))
        self.ever.add(address)
        self.gateway.set_membership(address, state, self.now)
        if state.wants_nothing:
            self.wanted.pop(address, None)
        else:
            self.wanted[address] = state
        self.take()

    @rule(count=st.integers(1, 400), family=FAMILIES)
    def want_many_sources(self, count: int, family: Family) -> None:
        address = group(family, 6)
        base = ip_address("203.0.112.0" if family is Family.IPV4 else "2001:db8::1000")
        state = Filter.include(ip_address(int(base) + offset) for offset in range(1, count + 1))
        self.ever.add(address)
        self.wanted[address] = state
        self.gateway.set_membership(address, state, self.now)
        self.take()

    @rule(call=st.sampled_from(["refresh", "receive_error", "relay_silent", "start"]))
    def nudge(self, call: str) -> None:
        getattr(self.gateway, call)(self.now)
        self.take()

    @rule()
    def restart(self) -> None:
        self.gateway.stop(self.now)
        self.take()
        assert self.gateway.next_deadline() is None
        self.gateway.start(self.now)
        self.take()

    @rule(step=STEPS)
    def wait(self, step: float) -> None:
        end = self.now + step
        for _ in range(2000):
            deadline = self.gateway.next_deadline()
            if deadline is None or deadline > end:
                break
            self.now = max(self.now, deadline)
            self.gateway.handle_timer(self.now)
            messages = self.take()
            assert sum(isinstance(message, amt.RelayDiscovery) for message in messages) <= 1
            requests = [(message.nonce, message.mld or message.kernel_mld) for message in requests_of(messages)]
            assert len(set(requests)) == len(requests), "one a family and nonce"
            assert len(requests) <= 3, "a retransmission and a new cycle may fall together"
        else:
            raise AssertionError("timers without end")
        self.now = end

    # --- what relays and others do

    @rule(target=heard, other=st.booleans(), wrong=st.sampled_from(["", "", "", "nonce", "sender"]))
    def advertise(self, wrong: str, *, other: bool) -> tuple[bytes, Endpoint]:
        nonces = [message.nonce for message in self.asked if isinstance(message, amt.RelayDiscovery)]
        nonce = (nonces[-1] if nonces else 1) ^ (wrong == "nonce")
        sender = DISCOVERY[self.outer]
        if wrong == "sender":
            sender = Endpoint(RELAYS[self.outer][0], 2268)
        before = self.gateway.relay
        message = amt.RelayAdvertisement(nonce, RELAYS[self.outer][other])
        result = self.deliver(message.encode(), sender)
        if wrong:
            assert self.gateway.relay == before
        return result

    @rule(
        target=heard,
        inner=FAMILIES,
        limit=st.booleans(),
        told=st.none() | st.integers(1, 2),
        interval=st.sampled_from([0, 1, 10, 125, 31744]),
        wrong=st.sampled_from(["", "", "", "", "nonce", "sender", "port"]),
        mac=st.binary(min_size=6, max_size=6),
    )
    def query(
        self, inner: Family, told: int | None, interval: int, wrong: str, mac: bytes, *, limit: bool
    ) -> tuple[bytes, Endpoint]:
        nonces = [message.nonce for message in self.asked if isinstance(message, amt.Request)]
        nonce = (nonces[-1] if nonces else 1) ^ (wrong == "nonce")
        relay = self.gateway.relay or Endpoint(RELAYS[self.outer][0], 2268)
        sender = {
            "sender": Endpoint(ip_address(int(relay.address) + 7), relay.port),
            "port": Endpoint(relay.address, relay.port + 1),
        }.get(wrong, relay)
        packet = encode_group(Query(interval=interval), QUERIERS[inner])
        reported = None if told is None else (ip_address(f"203.0.113.{told}"), 50000 + told)
        before = self.gateway.gateway_address
        message = amt.MembershipQuery(mac, nonce, packet, limit, reported)
        result = self.deliver(message.encode(), sender)
        if wrong:
            assert self.gateway.gateway_address == before
        return result

    @rule(datagram=heard)
    def replay(self, datagram: tuple[bytes, Endpoint]) -> None:
        self.deliver(*datagram)

    @rule(datagram=heard, data=st.data())
    def spoil(self, datagram: tuple[bytes, Endpoint], data: st.DataObject) -> None:
        self.deliver(data.draw(spoilt(datagram[0])), datagram[1])

    @rule(data=st.binary(max_size=80), relay=st.booleans())
    def noise(self, data: bytes, *, relay: bool) -> None:
        sender = self.gateway.relay if relay and self.gateway.relay else DISCOVERY[self.outer]
        self.deliver(data, sender)

    @rule(message=AMT_MESSAGES, relay=st.booleans())
    def any_message(self, message: amt.Message, *, relay: bool) -> None:
        sender = self.gateway.relay if relay and self.gateway.relay else DISCOVERY[self.outer]
        self.deliver(message.encode(), sender)

    @rule(name=st.sampled_from(sorted(VECTORS)))
    def any_vector(self, name: str) -> None:
        self.deliver(VECTORS[name].data, self.gateway.relay or DISCOVERY[self.outer])

    # --- what always holds

    @invariant()
    def membership_is_what_was_wanted(self) -> None:
        assert self.gateway.memberships == self.wanted

    @invariant()
    def counters_add_up(self) -> None:
        for name, count in self.count.items():
            assert self.gateway.counters[f"sent_{name}"] == count

    @invariant()
    def nothing_is_left_undrained(self) -> None:
        self.gateway.events()
        assert self.gateway.events() == []
        assert self.gateway.datagrams_to_send() == []

    @invariant()
    def a_waiting_gateway_has_a_deadline(self) -> None:
        if self.gateway.state in {State.DISCOVERING, State.REQUESTING, State.ESTABLISHED}:
            assert self.gateway.next_deadline() is not None

    def teardown(self) -> None:
        self.gateway.stop(self.now)
        self.take()
        assert self.gateway.next_deadline() is None


TestHostileRelays = HostileRelays.TestCase
