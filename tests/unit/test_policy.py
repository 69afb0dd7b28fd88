"""Rules, rates and limits on new channels."""

from ipaddress import ip_address, ip_network

import pytest

from agent.protocol.channels import Channel
from agent.protocol.policy import Asker, Policy, PolicyConfig, Refusal, Rule

HOSTS = Asker("eth1")
ROUTER = Asker("eth1", ip_address("10.20.0.2"))
OTHER = Asker("eth1", ip_address("10.20.0.3"))


def channel(number: int = 1, source: str = "198.51.100.7") -> Channel:
    return Channel(ip_address(source), ip_address("232.1.0.0") + number)


def test_the_first_rule_that_matches_decides():
    allow = Rule(allow=True, sources=(ip_network("198.51.100.0/25"),))
    deny = Rule(allow=False, sources=(ip_network("198.51.100.0/24"),))
    policy = Policy(PolicyConfig((allow, deny)))
    assert policy.take(channel(source="198.51.100.7"), HOSTS, 0.0) is None
    assert policy.take(channel(source="198.51.100.200"), HOSTS, 0.0) is Refusal.DENIED
    assert policy.take(channel(source="203.0.113.1"), HOSTS, 0.0) is None


def test_what_no_rule_matches_goes_by_the_default():
    policy = Policy(PolicyConfig((Rule(allow=True, groups=(ip_network("232.1.0.0/16"),)),), allow_by_default=False))
    assert policy.take(channel(), HOSTS, 0.0) is None
    assert policy.take(Channel(None, ip_address("239.1.1.1")), HOSTS, 0.0) is Refusal.DENIED


def test_a_rule_on_neighbours_does_not_concern_hosts():
    policy = Policy(PolicyConfig((Rule(allow=False, neighbors=(ip_network("10.20.0.2/32"),)),)))
    assert policy.take(channel(), ROUTER, 0.0) is Refusal.DENIED
    assert policy.take(channel(), OTHER, 0.0) is None
    assert policy.take(channel(), HOSTS, 0.0) is None


def test_a_rule_on_an_interface_and_on_sources_needs_both():
    policy = Policy(PolicyConfig((Rule(allow=False, interfaces=("eth2",), sources=(ip_network("198.51.100.0/24"),)),)))
    assert policy.take(channel(), HOSTS, 0.0) is None
    assert policy.take(channel(), Asker("eth2"), 0.0) is Refusal.DENIED
    assert policy.take(Channel(None, ip_address("239.1.1.1")), Asker("eth2"), 0.0) is None


def test_new_channels_come_at_a_rate_after_the_burst():
    policy = Policy(PolicyConfig(joins_per_second=2.0, join_burst=3))
    assert [policy.take(channel(number), ROUTER, 10.0) for number in range(4)] == [None] * 3 + [Refusal.JOIN_RATE]
    assert policy.take(channel(3), OTHER, 10.0) is None
    assert policy.take(channel(3), ROUTER, 10.4) is Refusal.JOIN_RATE
    assert policy.take(channel(3), ROUTER, 10.5) is None


def test_a_refused_wish_costs_nothing_of_the_rate():
    policy = Policy(PolicyConfig((Rule(allow=False, sources=(ip_network("203.0.113.0/24"),)),), True, 1.0, 1))
    assert policy.take(channel(source="203.0.113.1"), ROUTER, 0.0) is Refusal.DENIED
    assert policy.take(channel(), ROUTER, 0.0) is None


def test_the_memory_of_rates_is_bounded():
    policy = Policy(PolicyConfig(joins_per_second=1000.0, join_burst=1))
    for number in range(5000):
        assert policy.take(channel(), Asker("eth1", ip_address("10.0.0.0") + number), float(number)) is None
    assert len(policy._tokens) <= 1025


def test_a_neighbour_has_so_many_channels_and_gets_room_back():
    policy = Policy(PolicyConfig(channels_per_neighbor=2))
    assert [policy.take(channel(number), ROUTER, 0.0) for number in range(3)] == [None, None, Refusal.NEIGHBOR_LIMIT]
    assert [policy.take(channel(number), HOSTS, 0.0) for number in range(3)] == [None] * 3
    policy.release(channel(0), ROUTER)
    assert policy.take(channel(2), ROUTER, 0.0) is None


def test_the_agents_own_limit_is_told_apart():
    assert Policy(PolicyConfig(), room=lambda _: False).take(channel(), HOSTS, 0.0) is Refusal.CHANNEL_LIMIT


def test_a_channel_that_somebody_has_takes_no_more_room():
    policy = Policy(PolicyConfig(), room=lambda _: policy.count < 1)
    assert policy.take(channel(1), HOSTS, 0.0) is None
    assert policy.take(channel(1), ROUTER, 0.0) is None
    assert policy.take(channel(2), HOSTS, 0.0) is Refusal.CHANNEL_LIMIT
    policy.release(channel(1), HOSTS)
    assert policy.take(channel(2), HOSTS, 0.0) is Refusal.CHANNEL_LIMIT
    policy.release(channel(1), ROUTER)
    assert policy.take(channel(2), HOSTS, 0.0) is None


def test_measured_bandwidth_stops_new_channels_but_not_those_carried():
    policy = Policy(PolicyConfig(bandwidth=10e6))
    assert policy.take(channel(1), HOSTS, 0.0) is None
    policy.measured = 10e6
    assert policy.take(channel(2), HOSTS, 0.0) is Refusal.BANDWIDTH
    assert policy.take(channel(1), ROUTER, 0.0) is None
    policy.measured = 9e6
    assert policy.take(channel(2), HOSTS, 0.0) is None


def test_announced_bandwidth_is_reserved_before_a_packet_came():
    announced = {channel(1): 6e6, channel(2): 6e6, channel(3): 3e6}
    policy = Policy(PolicyConfig(bandwidth=10e6), expected=lambda one: announced[one])
    assert policy.take(channel(1), HOSTS, 0.0) is None
    assert policy.committed == 6e6
    assert policy.take(channel(2), HOSTS, 0.0) is Refusal.BANDWIDTH
    assert policy.take(channel(3), HOSTS, 0.0) is None
    policy.take(channel(1), ROUTER, 0.0)
    policy.release(channel(1), HOSTS)
    assert policy.committed == 9e6
    policy.release(channel(1), ROUTER)
    assert policy.committed == 3e6


def test_a_channel_waits_while_its_bandwidth_is_asked_for():
    answers: list[float | None] = [None, 1e6, 1e6]
    policy = Policy(PolicyConfig(bandwidth=10e6), expected=lambda _: answers.pop(0))
    assert policy.take(channel(), HOSTS, 0.0) is Refusal.METADATA_PENDING
    assert policy.take(channel(), HOSTS, 0.0) is None


@pytest.mark.parametrize("denied", [True, False])
def test_adopting_ignores_limits_but_not_rules(denied):
    rules = (Rule(allow=False, groups=(ip_network("232.0.0.0/8"),)),) if denied else ()
    policy = Policy(PolicyConfig(rules, channels_per_neighbor=1, joins_per_second=1, join_burst=1))
    assert [policy.adopt(channel(number), ROUTER) for number in range(3)] == [not denied] * 3
