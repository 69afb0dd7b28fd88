"""The relay under anything from anybody: it never raises, answers only who asked, and keeps to its limits."""

from __future__ import annotations

import random
from ipaddress import ip_address

from fuzzing.strategies import AMT_MESSAGES, FAMILIES, VECTORS, group, group_messages, source, spoilt
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from agent.protocol.channels import Address, Datagram, Endpoint, Family, Filter
from agent.protocol.relay import Relay
from agent.protocol.relay_config import RelayConfig
from agent.protocol.relay_events import InterestChanged, TunnelClosed, TunnelOpened
from agent.protocol.wire import amt
from agent.protocol.wire.group_packet import encode
from agent.protocol.wire.groups import GroupRecord, RecordType, Report

LOCAL = {Family.IPV4: ip_address("198.51.100.1"), Family.IPV6: ip_address("2001:db8:1::1")}
LIMIT, CHANNELS = 3, 5
LONGEST_ANSWER = 12 + 76 + 18
NONCE = 3
STEPS = st.sampled_from([0.0, 0.5, 1.0, 10.0, 125.0, 260.0, 4000.0])
ENDPOINTS = st.builds(
    lambda family, host, port: Endpoint(
        ip_address(f"192.0.2.{host}" if family is Family.IPV4 else f"2001:db8:2::{host:x}"), 40000 + port
    ),
    FAMILIES,
    st.integers(1, 2),
    st.integers(0, 1),
)


class HostileGateways(RuleBasedStateMachine):
    seen = Bundle("seen")
    """Datagrams as sent to the relay, with their sender."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.relay = self.make(gateway_address=False)
        self.macs: dict[tuple[Endpoint, int], bytes] = {}
        """MACs the relay gave out, by whom they were given to and for which nonce."""
        self.told: dict[Endpoint, dict[Address, Filter]] = {}
        self.sent = 0
        self.received = 0

    @staticmethod
    def make(*, gateway_address: bool) -> Relay:
        config = RelayConfig(
            addresses=tuple(LOCAL.values()),
            tunnel_limit=LIMIT,
            channels_per_tunnel=CHANNELS,
            gateway_address_in_query=gateway_address,
            secret_lifetime=3600,
            requests_per_second=100000,
            request_burst=100000,
        )
        return Relay(config, random.Random(7450).randbytes)

    @initialize(gateway_address=st.booleans())
    def choose(self, *, gateway_address: bool) -> None:
        self.relay = self.make(gateway_address=gateway_address)

    def deliver(self, data: bytes, sender: Endpoint) -> list[Datagram]:
        """Give a datagram to the relay; at most one answer may come back, to the sender, from where it was sent to."""
        local = LOCAL[Family.of(sender.address)]
        refused = sum(self.relay.counters.refused.values())
        self.relay.receive_datagram(data, sender, local, self.now)
        answers = self.relay.datagrams_to_send()
        self.received += 1
        self.sent += len(answers)
        assert len(answers) <= 1
        for answer in answers:
            assert (answer.destination, answer.source) == (sender, local)
            assert len(answer.data) <= LONGEST_ANSWER
            message = amt.decode(answer.data)
            assert isinstance(message, amt.RelayAdvertisement | amt.MembershipQuery)
            if isinstance(message, amt.MembershipQuery):
                self.macs[sender, message.nonce] = message.response_mac
        if answers:
            assert sum(self.relay.counters.refused.values()) == refused
        return answers

    def follow(self, allowed: Endpoint | None) -> None:
        """Events keep the books, and only `allowed` may have opened a tunnel."""
        for event in self.relay.events():
            if isinstance(event, TunnelOpened):
                assert event.tunnel == allowed
                assert event.tunnel not in self.told
                self.told[event.tunnel] = {}
            elif isinstance(event, InterestChanged):
                self.told[event.tunnel][event.group] = event.filter
            else:
                assert isinstance(event, TunnelClosed)
                left = self.told.pop(event.tunnel)
                assert all(state.wants_nothing for state in left.values())

    @rule(target=seen, sender=ENDPOINTS, nonce=st.integers(0, 3), mld=st.booleans(), kernel_mld=st.booleans())
    def request(self, sender: Endpoint, nonce: int, *, mld: bool, kernel_mld: bool) -> tuple[bytes, Endpoint]:
        data = amt.Request(nonce, mld, kernel_mld).encode()
        full = sender not in self.told and len(self.told) >= LIMIT
        (answer,) = self.deliver(data, sender)
        message = amt.decode(answer.data)
        assert isinstance(message, amt.MembershipQuery)
        assert message.limit == (full or (self.relay.draining_since is not None and sender not in self.told))
        self.follow(None)
        return data, sender

    @rule(target=seen, sender=ENDPOINTS, nonce=st.integers(0, 3))
    def discover(self, sender: Endpoint, nonce: int) -> tuple[bytes, Endpoint]:
        data = amt.RelayDiscovery(nonce).encode()
        assert len(self.deliver(data, sender)) == 1
        self.follow(None)
        return data, sender

    @rule(target=seen, data=st.data(), sender=ENDPOINTS, nonce=st.integers(0, 3), family=FAMILIES)
    def update(self, data: st.DataObject, sender: Endpoint, nonce: int, family: Family) -> tuple[bytes, Endpoint]:
        """An Update of the sender's own MAC if it has one, else with a guess."""
        groups = st.builds(
            lambda number, any_source: group(family, number, any_source=any_source), st.integers(1, 6), st.booleans()
        )
        sources = st.lists(st.integers(1, 5).map(lambda number: source(family, number)), max_size=4).map(tuple)
        record = st.builds(GroupRecord, st.sampled_from(RecordType), groups, sources)
        usual = st.lists(record, min_size=1, max_size=8).map(lambda records: Report(tuple(records)))
        message = data.draw(st.one_of(usual, usual, group_messages(family)))
        inner = encode(message, source(Family.IPV4, 9) if family is Family.IPV4 else ip_address("fe80::9"))
        if data.draw(st.integers(0, 9)) == 0:
            inner = data.draw(spoilt(inner))
        mac = self.macs.get((sender, nonce), b"guess!")
        encoded = amt.MembershipUpdate(mac, nonce, inner).encode()
        assert self.deliver(encoded, sender) == []
        self.follow(sender if (sender, nonce) in self.macs else None)
        return encoded, sender

    @rule(target=seen, sender=ENDPOINTS, number=st.integers(1, 6), family=FAMILIES)
    def join(self, sender: Endpoint, number: int, family: Family) -> tuple[bytes, Endpoint]:
        """What a gateway does: ask, then report with the MAC that came back."""
        self.request(sender, NONCE, mld=False, kernel_mld=False)
        record = GroupRecord(RecordType.ALLOW_NEW_SOURCES, group(family, number), (source(family, number),))
        host = source(Family.IPV4, 9) if family is Family.IPV4 else ip_address("fe80::9")
        data = amt.MembershipUpdate(self.macs[sender, NONCE], NONCE, encode(Report((record,)), host)).encode()
        assert self.deliver(data, sender) == []
        self.follow(sender)
        return data, sender

    @rule(victim=ENDPOINTS, sender=ENDPOINTS, nonce=st.integers(0, 3), own=st.booleans())
    def tear_down(self, victim: Endpoint, sender: Endpoint, nonce: int, *, own: bool) -> None:
        """With the victim's MAC, or with the sender's, which is good for the sender's tunnel only."""
        mac = self.macs.get((sender if own else victim, nonce), b"guess!")
        open_before = set(self.told)
        data = amt.Teardown(mac, nonce, (victim.address, victim.port)).encode()
        assert self.deliver(data, sender) == []
        self.follow(None)
        closed = open_before - set(self.told)
        assert closed <= {victim}
        if closed:
            assert mac == self.macs[victim, nonce]

    @rule(datagram=seen, sender=ENDPOINTS)
    def replay_from_elsewhere(self, datagram: tuple[bytes, Endpoint], sender: Endpoint) -> None:
        data, original = datagram
        self.deliver(data, sender)
        self.follow(sender if sender == original else None)

    @rule(datagram=seen)
    def replay_from_another_port(self, datagram: tuple[bytes, Endpoint]) -> None:
        data, original = datagram
        self.deliver(data, Endpoint(original.address, original.port ^ 1))
        self.follow(None)

    @rule(datagram=seen)
    def replay(self, datagram: tuple[bytes, Endpoint]) -> None:
        self.deliver(*datagram)
        self.follow(datagram[1])

    @rule(datagram=seen, data=st.data())
    def spoil(self, datagram: tuple[bytes, Endpoint], data: st.DataObject) -> None:
        self.deliver(data.draw(spoilt(datagram[0])), datagram[1])
        self.follow(datagram[1])

    @rule(data=st.binary(max_size=80), sender=ENDPOINTS)
    def noise(self, data: bytes, sender: Endpoint) -> None:
        self.deliver(data, sender)
        self.follow(None)

    @rule(message=AMT_MESSAGES, sender=ENDPOINTS)
    def any_message(self, message: amt.Message, sender: Endpoint) -> None:
        self.deliver(message.encode(), sender)
        self.follow(None)

    @rule(name=st.sampled_from(sorted(VECTORS)), sender=ENDPOINTS)
    def any_vector(self, name: str, sender: Endpoint) -> None:
        self.deliver(VECTORS[name].data, sender)
        self.follow(None)

    @rule(step=STEPS)
    def wait(self, step: float) -> None:
        self.now += step
        self.relay.handle_timer(self.now)
        assert self.relay.datagrams_to_send() == [], "a relay speaks when spoken to"
        after = self.relay.next_deadline()
        assert after is None or after > self.now
        self.follow(None)

    @rule()
    def rotate(self) -> None:
        self.relay.rotate_secret(self.now)

    @rule(enabled=st.booleans())
    def drain(self, *, enabled: bool) -> None:
        self.relay.drain(enabled, self.now)
        self.follow(None)

    @invariant()
    def limits_hold(self) -> None:
        views = self.relay.tunnels()
        assert len(views) <= LIMIT
        for view in views:
            assert sum(max(1, len(state.sources)) for state in view.groups.values()) <= CHANNELS

    @invariant()
    def events_told_everything(self) -> None:
        told = {
            tunnel: {address: state for address, state in groups.items() if not state.wants_nothing}
            for tunnel, groups in self.told.items()
        }
        assert told == {view.tunnel: view.groups for view in self.relay.tunnels()}

    @invariant()
    def counters_add_up(self) -> None:
        counters = self.relay.counters
        assert sum(counters.sent.values()) == self.sent
        assert sum(counters.received.values()) <= self.received

    def teardown(self) -> None:
        self.wait(100000)
        assert self.relay.tunnels() == []


TestHostileGateways = HostileGateways.TestCase
