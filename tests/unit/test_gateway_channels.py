"""Changed groups are planned again, and tunnels and engine are told the differences only."""

import asyncio
from ipaddress import ip_address

import pytest
from scripted.still_loop import StillLoop

from agent.dataplane.engine import EngineError, Traffic
from agent.protocol.channels import NOTHING, Channel, Filter
from agent.protocol.upstream import TunnelUpstream
from agent.service.gateway_channels import (
    APPLIED_AT_ONCE,
    FAST_SAMPLE,
    FAST_SAMPLE_CHANNELS,
    SAMPLED_AT_ONCE,
    SLOW_SAMPLE,
    SWEEP_SAMPLES,
    ChannelControl,
)
from agent.tree import InterestKind, Owner, Tree

GROUP = ip_address("239.1.1.1")
ONE, TWO = ip_address("198.51.100.1"), ip_address("198.51.100.2")
LAN, OTHER = Owner(InterestKind.IGMP, "lan0"), Owner(InterestKind.IGMP, "lan1")


class Engine:
    """Remembers what it was told."""

    def __init__(self):
        self.calls = []
        self.counted = {}
        self.refuses = False
        self.on_unknown_source = lambda channel, name: self.calls.append(("unknown", channel, name))
        self.window = None

    def set_channel(self, channel, tunnels, interfaces, incoming=None):
        if self.refuses:
            raise EngineError("no room")
        self.calls.append(("set", channel, tunnels, interfaces, *([incoming] if incoming is not None else [])))

    def remove_channel(self, channel):
        self.calls.append(("remove", channel))

    def set_group(self, group, tunnels):
        self.calls.append(("group", group, tunnels))

    def remove_group(self, group):
        self.calls.append(("ungroup", group))

    def traffic(self, channel):
        return self.counted.get(channel)

    def drain(self):
        calls, self.calls = self.calls, []
        return calls


class Tunnel:
    """Remembers what is wanted of it."""

    def __init__(self):
        self.told = []

    def set_membership(self, group, wanted):
        self.told.append((group, wanted))


class Setting:
    def __init__(self, select=lambda _: "relay", loop=None):
        self.engine = Engine()
        self.tunnels = {"relay": Tunnel(), "backup": Tunnel()}
        self.select = select
        self.tree = Tree(self.choose)
        self.control = ChannelControl(loop or asyncio.get_running_loop(), self.tree, self.engine, self.tunnels)

    def choose(self, channel):
        chosen = self.select(channel)
        return TunnelUpstream((chosen,)) if isinstance(chosen, str) else chosen

    def want(self, owner, wanted, group=GROUP):
        self.tree.set_interest(owner, group, wanted)
        self.control.apply()
        return self.engine.drain()


@pytest.fixture
async def loop():
    return StillLoop()


@pytest.fixture
async def setting():
    made = Setting()
    yield made
    made.control.close()


def channel(source):
    return Channel(source, GROUP)


RELAY, LAN_ONLY, BOTH = frozenset({"relay"}), frozenset({"lan0"}), frozenset({"lan0", "lan1"})


async def test_a_listed_source_is_forwarded_and_asked_for(setting):
    assert setting.want(LAN, Filter.include([ONE])) == [("set", channel(ONE), RELAY, LAN_ONLY)]
    assert setting.tunnels["relay"].told == [(GROUP, Filter.include([ONE]))]


async def test_a_second_interface_changes_the_route_and_asks_nothing(setting):
    setting.want(LAN, Filter.include([ONE]))
    assert setting.want(OTHER, Filter.include([ONE])) == [("set", channel(ONE), RELAY, BOTH)]
    assert len(setting.tunnels["relay"].told) == 1


async def test_the_last_leave_removes_the_route_and_the_membership(setting):
    setting.want(LAN, Filter.include([ONE]))
    setting.want(OTHER, Filter.include([ONE]))
    setting.want(LAN, NOTHING)
    assert setting.want(OTHER, NOTHING) == [("remove", channel(ONE))]
    assert setting.tunnels["relay"].told[-1] == (GROUP, NOTHING)
    assert len(setting.control.ledger) == 0


async def test_any_source_interest_learns_sources_one_by_one(setting):
    assert setting.want(LAN, Filter.exclude()) == [("group", GROUP, RELAY)]
    setting.control.new_source(channel(ONE), "relay")
    assert setting.engine.drain() == [("set", channel(ONE), RELAY, LAN_ONLY)]
    assert setting.tunnels["relay"].told == [(GROUP, Filter.exclude())]


async def test_an_excluded_source_is_not_learned(setting):
    setting.want(LAN, Filter.exclude([ONE]))
    setting.control.new_source(channel(ONE), "relay")
    assert setting.engine.drain() == []


async def test_withdrawn_any_source_interest_takes_learned_sources_along(setting):
    setting.want(LAN, Filter.exclude())
    setting.control.new_source(channel(ONE), "relay")
    setting.engine.drain()
    assert sorted(setting.want(LAN, NOTHING), key=str) == [("remove", channel(ONE)), ("ungroup", GROUP)]


async def test_a_channel_no_relay_serves_is_shown_as_such(setting):
    setting.select = lambda _: None
    assert setting.want(LAN, Filter.include([ONE])) == []
    assert setting.control.unserved == {channel(ONE)}
    setting.want(LAN, NOTHING)
    assert setting.control.unserved == set()


async def test_a_channel_the_engine_refuses_is_remembered_with_the_reason(setting):
    setting.engine.refuses = True
    setting.want(LAN, Filter.include([ONE]))
    assert setting.control.refused == {channel(ONE): "no room"}
    setting.engine.refuses = False
    setting.want(LAN, NOTHING)
    assert setting.control.refused == {}


async def test_pausing_leaves_everything_and_resuming_asks_again(setting):
    setting.want(LAN, Filter.include([ONE]))
    setting.control.set_paused(True)
    assert setting.engine.drain() == [("remove", channel(ONE))]
    assert setting.tunnels["relay"].told[-1] == (GROUP, NOTHING)
    setting.control.set_paused(False)
    assert setting.engine.drain() == [("set", channel(ONE), RELAY, LAN_ONLY)]
    assert setting.tunnels["relay"].told[-1] == (GROUP, Filter.include([ONE]))


async def test_a_replaced_tunnel_is_asked_again(setting):
    setting.want(LAN, Filter.include([ONE]))
    setting.control.forget_tunnel("relay")
    setting.tunnels["relay"] = Tunnel()
    setting.tree.mark_all()
    setting.control.apply()
    assert setting.tunnels["relay"].told == [(GROUP, Filter.include([ONE]))]


async def test_every_channel_of_thousands_is_looked_at_within_a_sweep(loop):
    setting = Setting(loop=loop)
    groups = [ip_address("232.0.0.0") + number for number in range(1, 4001)]
    for group in groups:
        setting.tree.set_interest(LAN, group, Filter.include([ONE]))
    setting.control.apply()
    async with asyncio.timeout(30):
        while len(setting.control.ledger) < len(groups):
            await asyncio.sleep(0)
    shares = [setting.control._next_share() for _ in range(SWEEP_SAMPLES)]
    assert {channel for share in shares for channel in share} == set(setting.control.ledger.channels())
    assert max(map(len, shares)) <= 4000 / SWEEP_SAMPLES
    assert setting.control._next_share() == shares[0]


async def test_join_latency_is_the_time_to_the_first_packet(loop):
    setting = Setting(loop=loop)
    setting.want(LAN, Filter.include([ONE]))
    loop.advance(FAST_SAMPLE)
    assert setting.control.ledger.get(channel(ONE)).join_latency is None
    setting.engine.counted[channel(ONE)] = Traffic(1, 1344)
    loop.advance(FAST_SAMPLE)
    assert setting.control.ledger.get(channel(ONE)).join_latency == pytest.approx(2 * FAST_SAMPLE)


async def test_many_changes_of_one_turn_are_applied_once(setting):
    for source in (ONE, TWO):
        setting.tree.set_interest(LAN, GROUP, Filter.include([source]))
        setting.control.changed()
    await asyncio.sleep(0)
    assert setting.engine.drain() == [("set", channel(TWO), RELAY, LAN_ONLY)]


async def test_a_channel_the_engine_refused_is_offered_again(loop):
    setting = Setting(loop=loop)
    setting.engine.refuses = True
    setting.want(LAN, Filter.include([ONE]))
    setting.engine.refuses = False
    loop.advance(SLOW_SAMPLE)
    assert setting.control.refused == {}
    assert setting.engine.drain() == [("set", channel(ONE), RELAY, LAN_ONLY)]


async def test_sampling_goes_on_after_a_failure(loop):
    setting = Setting(loop=loop)
    calls = []

    def fail() -> None:
        calls.append(None)
        raise RuntimeError("a fault nobody thought of")

    setting.control.on_sample = fail
    for _ in range(2):
        with pytest.raises(RuntimeError):
            loop.advance(SLOW_SAMPLE)
    assert len(calls) == 2


async def test_a_group_that_cannot_be_applied_costs_the_others_nothing(setting):
    other = ip_address("239.1.1.2")
    real = setting.engine.set_channel

    def fail_once(*arguments):
        setting.engine.set_channel = real
        raise RuntimeError("a fault nobody thought of")

    setting.engine.set_channel = fail_once
    setting.tree.set_interest(LAN, GROUP, Filter.include([ONE]))
    setting.tree.set_interest(LAN, other, Filter.include([ONE]))
    setting.control.apply()
    assert setting.engine.drain() == [("set", Channel(ONE, other), RELAY, LAN_ONLY)]


async def test_after_a_burst_of_joins_few_channels_are_looked_at_in_one_go(loop):
    setting = Setting(loop=loop)
    looked_at = []
    setting.engine.traffic = looked_at.append
    sources = [ip_address(0x0A000000 + number) for number in range(1, 5001)]
    setting.want(LAN, Filter.include(sources))
    for turn in range(1, 5000 // FAST_SAMPLE_CHANNELS + 1):
        loop.advance(FAST_SAMPLE)
        assert len(looked_at) == len(set(looked_at)) == turn * FAST_SAMPLE_CHANNELS
    looked_at.clear()
    seen = set()
    for _ in range(SWEEP_SAMPLES):
        loop.advance(SLOW_SAMPLE)
        for _ in range(5000 // SWEEP_SAMPLES // SAMPLED_AT_ONCE):
            assert SAMPLED_AT_ONCE <= len(looked_at) <= SAMPLED_AT_ONCE + FAST_SAMPLE_CHANNELS
            seen.update(looked_at)
            looked_at.clear()
            await asyncio.sleep(0)
    assert len(seen) == 5000


async def test_room_counts_what_was_promised_and_not_yet_applied(setting):
    assert setting.control.has_room([channel(ONE)], 1)
    assert not setting.control.has_room([channel(TWO)], 1)
    setting.want(LAN, Filter.include([ONE]))
    assert setting.control.has_room([channel(ONE)], 1)  # carried already
    assert not setting.control.has_room([channel(TWO)], 1)
    setting.want(LAN, NOTHING)
    assert setting.control.has_room([channel(TWO)], 1)


async def test_a_closed_control_applies_nothing_more(setting):
    setting.tree.set_interest(LAN, GROUP, Filter.include([ONE]))
    setting.control.changed()
    setting.control.close()
    await asyncio.sleep(0)
    assert setting.engine.drain() == []


async def test_any_source_interest_counts_as_a_channel_of_its_tunnel(setting):
    setting.want(LAN, Filter.exclude())
    assert setting.control.subscriptions("relay") == 1
    setting.control.new_source(channel(ONE), "relay")
    assert [setting.control.subscriptions(name) for name in ("relay", "backup")] == [2, 0]


async def test_what_an_interface_was_sent_never_goes_back(setting):
    def sample(*counts):
        for count in counts:
            setting.engine.counted[channel(ONE)] = Traffic(count, 100 * count)
            setting.control._sample_all()

    setting.want(LAN, Filter.include([ONE]))
    sample(3, 5)
    setting.engine.counted[channel(ONE)] = Traffic(6, 600)
    setting.want(OTHER, Filter.include([ONE]))  # what came before went to the first interface only
    sample(8)
    assert setting.control.sent == {"lan0": Traffic(8, 800), "lan1": Traffic(2, 200)}
    sample(1)  # the engine counts anew
    assert setting.control.sent["lan1"] == Traffic(3, 300)
    setting.engine.counted[channel(ONE)] = Traffic(4, 400)
    setting.want(LAN, NOTHING)
    setting.want(OTHER, NOTHING)  # the last packets are counted before the channel goes
    assert setting.control.sent == {"lan0": Traffic(12, 1200), "lan1": Traffic(6, 600)}


async def test_thousands_of_changes_are_applied_a_part_at_a_time(setting):
    groups = [ip_address(0xEF010000 + number) for number in range(1000)]
    for group in groups:
        setting.tree.set_interest(LAN, group, Filter.include([ONE]))
    setting.control.changed()
    applied = []
    async with asyncio.timeout(30):
        while len(applied) < len(groups):
            await asyncio.sleep(0)
            calls = setting.engine.drain()
            assert len(calls) <= APPLIED_AT_ONCE
            applied += [call[1].group for call in calls]
    assert applied == groups
    assert setting.control.has_room([channel(ONE)], 1001)
    assert len(setting.control.ledger) == 1000


async def test_a_new_source_passes_before_thousands_of_other_changes(setting):
    setting.want(LAN, Filter.exclude())
    for number in range(1000):
        setting.tree.set_interest(LAN, ip_address(0xEF020000 + number), Filter.include([ONE]))
    setting.control.new_source(channel(ONE), "relay")
    assert setting.engine.drain() == [("set", channel(ONE), RELAY, LAN_ONLY)]
