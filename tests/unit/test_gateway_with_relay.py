"""Gateway and relay machines joined by a path with delay, loss, a NAT and faults: what one wants the other has."""

from __future__ import annotations

import heapq
import itertools
import random
from ipaddress import ip_address

import pytest

from agent.protocol.channels import Endpoint, Family, Filter
from agent.protocol.gateway import Gateway
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.gateway_events import GatewayAddressChanged, RelayLimit
from agent.protocol.gateway_state import State
from agent.protocol.relay import Relay, RelayConfig
from agent.protocol.relay_events import InterestChanged, TunnelClosed
from agent.protocol.wire import amt

DELAY = 0.02
LOCAL = ip_address("203.0.113.5")
QUERY_INTERVAL = 20.0


class Path:
    """One gateway, relays at several addresses, and the network between, on one clock."""

    def __init__(self, seed: int, relays: dict[str, RelayConfig], **gateway) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.loss = 0.0
        self.port = 4000
        self.anycast = next(iter(relays))
        self.configs = relays
        self.relays = {ip_address(address): self._relay(config) for address, config in relays.items()}
        self.interest: dict[tuple, Filter] = {}
        self.gateway = Gateway(GatewayConfig(**{"address": amt.ANYCAST_IPV4, **gateway}), self.random.randbytes)
        self.gateway_events = []
        self._order = itertools.count()
        self._flying: list[tuple] = []

    def _relay(self, config):
        return Relay(config, self.random.randbytes)

    def restart(self, address: str) -> None:
        """A new relay at the same address: no tunnel, another secret."""
        self.relays[ip_address(address)] = self._relay(self.configs[address])
        self.interest = {key: wanted for key, wanted in self.interest.items() if key[0] != ip_address(address)}

    def unplug(self, address: str) -> None:
        del self.relays[ip_address(address)]
        self.interest = {key: wanted for key, wanted in self.interest.items() if key[0] != ip_address(address)}

    def wanted_at(self, address: str) -> dict:
        """Groups and filters the relay holds for our present address and port."""
        tunnel = (ip_address(address), Endpoint(LOCAL, self.port))
        return {key[2]: wanted for key, wanted in self.interest.items() if key[:2] == tunnel}

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        self._exchange()
        while True:
            machines = [self.gateway, *self.relays.values()]
            times = [deadline for machine in machines if (deadline := machine.next_deadline()) is not None]
            times += [self._flying[0][0]] if self._flying else []
            if not times or min(times) > end:
                self.now = end
                return
            self.now = max(self.now, min(times))
            while self._flying and self._flying[0][0] <= self.now:
                self._deliver(*heapq.heappop(self._flying)[2:])
            for machine in machines:
                deadline = machine.next_deadline()
                if deadline is not None and deadline <= self.now:
                    machine.handle_timer(self.now)
            self._exchange()

    def seconds_until(self, reached, limit: float) -> float:
        begin = self.now
        while not reached():
            assert self.now - begin < limit, f"not within {limit} s"
            self.run(0.01)
        return self.now - begin

    def _exchange(self) -> None:
        for datagram in self.gateway.datagrams_to_send():
            self._fly(datagram.data, Endpoint(LOCAL, self.port), datagram.destination)
        for address, relay in self.relays.items():
            for datagram in relay.datagrams_to_send():
                origin = ip_address(self.anycast) if datagram.source is None else datagram.source
                self._fly(datagram.data, Endpoint(origin, amt.PORT), datagram.destination)
            for event in relay.events():
                self._note(address, event)
        self.gateway_events += self.gateway.events()

    def _note(self, address, event) -> None:
        if isinstance(event, InterestChanged):
            self.interest.pop((address, event.tunnel, event.group), None)
            if not event.filter.wants_nothing:
                self.interest[address, event.tunnel, event.group] = event.filter
        elif isinstance(event, TunnelClosed):
            for key in [key for key in self.interest if key[:2] == (address, event.tunnel)]:
                del self.interest[key]

    def _fly(self, data, source, destination) -> None:
        if self.random.random() >= self.loss:
            heapq.heappush(self._flying, (self.now + DELAY, next(self._order), data, source, destination))

    def _deliver(self, data, source, destination) -> None:
        if destination.address == LOCAL:
            if destination.port == self.port:  # an old NAT mapping leads nowhere
                self.gateway.receive_datagram(data, source, self.now)
            return
        address = destination.address
        relay = self.relays.get(ip_address(self.anycast) if address == amt.ANYCAST_IPV4 else address)
        if relay is not None:
            relay.receive_datagram(data, source, address, self.now)


FIRST, SECOND = "192.0.2.1", "192.0.2.2"


def config(address=FIRST, **fields):
    defaults = {"query_interval": QUERY_INTERVAL, "gateway_address_in_query": True, "channels_per_tunnel": 20_000}
    return RelayConfig((ip_address(address),), **{**defaults, **fields})


@pytest.fixture
def path():
    path = Path(1, {FIRST: config(), SECOND: config(SECOND)})
    path.gateway.start(path.now)
    return path


GROUPS = [ip_address(f"232.1.1.{last}") for last in range(1, 9)]
GROUPS_6 = [ip_address(f"ff3e::8000:{last}") for last in range(1, 5)]
SOURCES = {4: [ip_address(f"198.51.100.{last}") for last in range(1, 5)], 6: [ip_address("2001:db8::1")]}


def join(path, group, *sources):
    wanted = Filter.include(sources or SOURCES[group.version][:1])
    path.gateway.set_membership(group, wanted, path.now)


def agreed(path, address=FIRST):
    return path.wanted_at(address) == path.gateway.memberships


def test_a_cold_join_takes_two_and_a_half_round_trips_and_a_warm_one_half(path):
    join(path, GROUPS[0])
    assert path.seconds_until(lambda: agreed(path), 1) == pytest.approx(5 * DELAY, abs=0.011)
    join(path, GROUPS[1])
    assert path.seconds_until(lambda: agreed(path), 1) == pytest.approx(DELAY, abs=0.011)
    path.gateway.set_membership(GROUPS[1], Filter.include(), path.now)
    assert path.seconds_until(lambda: agreed(path), 1) == pytest.approx(DELAY, abs=0.011)


def test_both_families_stay_for_hours_without_a_change(path):
    join(path, GROUPS[0])
    join(path, GROUPS_6[0])
    path.run(1)
    for _ in range(60):
        path.run(60)
        assert agreed(path)
    assert {Family.of(group) for group in path.wanted_at(FIRST)} == set(Family)


def test_a_restarted_relay_has_everything_again_within_the_query_interval(path):
    for group in GROUPS + GROUPS_6:
        join(path, group)
    path.run(5)
    path.restart(FIRST)
    assert path.seconds_until(lambda: agreed(path), 60) <= QUERY_INTERVAL + 1


def test_a_restarted_relay_has_everything_again_in_a_round_trip_after_silence_is_told(path):
    join(path, GROUPS[0])
    path.run(5)
    path.restart(FIRST)
    path.gateway.relay_silent(path.now)
    assert path.seconds_until(lambda: agreed(path), 60) < 0.1


def test_a_rotated_key_loses_nothing(path):
    join(path, GROUPS[0])
    path.run(5)
    path.relays[ip_address(FIRST)].rotate_secret(path.now)
    join(path, GROUPS[1])
    assert path.seconds_until(lambda: agreed(path), 60) < 0.1
    for _ in range(10):
        path.relays[ip_address(FIRST)].rotate_secret(path.now)
        path.run(QUERY_INTERVAL)
        assert agreed(path)


def test_a_new_nat_mapping_is_followed_within_the_query_interval_and_the_old_tunnel_ends(path):
    join(path, GROUPS[0])
    join(path, GROUPS_6[0])
    path.run(5)
    path.port = 4001
    assert path.seconds_until(lambda: agreed(path), 60) <= QUERY_INTERVAL + 1
    path.run(1)
    assert {key[1].port for key in path.interest} == {4001}
    changes = [event for event in path.gateway_events if isinstance(event, GatewayAddressChanged)]
    assert [event.new.port for event in changes] == [4000, 4001]


def test_without_the_g_flag_a_new_nat_mapping_is_followed_too():
    path = Path(2, {FIRST: config(gateway_address_in_query=False)})
    path.gateway.start(path.now)
    join(path, GROUPS[0])
    path.run(5)
    path.port = 4001
    assert path.seconds_until(lambda: agreed(path), 60) <= QUERY_INTERVAL + 1


def test_when_the_relay_goes_discovery_finds_the_next_in_the_promised_time(path):
    join(path, GROUPS[0])
    path.run(5)
    path.unplug(FIRST)
    path.anycast = SECOND
    taken = path.seconds_until(lambda: agreed(path, SECOND), 120)
    assert taken <= QUERY_INTERVAL + 15 * 1.1 + 1


def test_a_relay_that_was_gone_is_found_again(path):
    join(path, GROUPS[0])
    path.run(5)
    path.unplug(FIRST)
    path.run(600)
    path.restart(FIRST)
    assert path.seconds_until(lambda: agreed(path), 200) <= 120 * 1.1 + 1


def test_the_uplink_that_comes_back_is_used_at_once(path):
    join(path, GROUPS[0])
    path.run(5)
    path.loss = 1.0
    path.run(1000)
    path.loss = 0.0
    path.gateway.refresh(path.now)
    assert path.seconds_until(lambda: agreed(path), 10) < 0.2


def test_a_full_relay_is_left_alone_until_it_has_room():
    path = Path(3, {FIRST: config(tunnel_limit=0)}, limit_retry=30.0)
    path.gateway.start(path.now)
    join(path, GROUPS[0])
    path.run(10)
    assert path.gateway.state is State.LIMITED
    assert [event for event in path.gateway_events if isinstance(event, RelayLimit)]
    path.relays[ip_address(FIRST)].configure(config(tunnel_limit=10))
    path.run(30)
    assert agreed(path)


def test_stop_leaves_nothing_behind(path):
    for group in GROUPS + GROUPS_6:
        join(path, group)
    path.run(5)
    path.gateway.stop(path.now)
    path.run(0.1)
    assert path.interest == {}
    assert path.relays[ip_address(FIRST)].tunnels() == []


def test_ten_thousand_groups_are_there_in_a_second_and_stay():
    path = Path(4, {FIRST: config()})
    path.gateway.start(path.now)
    for offset in range(1, 10_001):
        join(path, ip_address("232.0.0.0") + offset)
    assert path.seconds_until(lambda: agreed(path), 5) < 1.0
    path.run(3 * QUERY_INTERVAL)
    assert agreed(path)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_lost_and_whatever_changes_both_ends_agree_in_the_end(seed):
    path = Path(seed, {FIRST: config(), SECOND: config(SECOND)})
    rng = path.random
    path.gateway.start(path.now)
    for _ in range(120):
        path.loss = rng.choice([0.0, 0.1, 0.4])
        group = rng.choice([*GROUPS, *GROUPS_6, ip_address("239.1.1.1")])
        some = rng.sample(SOURCES[group.version], rng.randrange(len(SOURCES[group.version]) + 1))
        exclude = group == ip_address("239.1.1.1") and rng.random() < 0.5
        path.gateway.set_membership(group, Filter.exclude(some) if exclude else Filter.include(some), path.now)
        match rng.randrange(30):
            case 0:
                path.port += 1
            case 1:
                path.restart(FIRST)
            case 2:
                path.relays[ip_address(FIRST)].rotate_secret(path.now)
        path.run(rng.choice([0.0, 0.05, 1.0, 10.0]))
    path.loss = 0.0
    path.seconds_until(lambda: agreed(path), 200)
    path.run(100)
    assert agreed(path)
