"""A channel with another upstream is asked of both until packets of the new one are there."""

import asyncio
from ipaddress import ip_address

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from scripted.still_loop import StillLoop

from agent.dataplane.engine import DUPLICATE_WINDOW, EngineError, ignore
from agent.protocol.channels import NOTHING, Channel, Filter, merge_filters
from agent.protocol.upstream import NativeUpstream, TunnelUpstream
from agent.service.channel_moves import MOVE_TIME
from agent.service.gateway_channels import SLOW_SAMPLE, ChannelControl
from agent.tree import InterestKind, Owner, Tree

GROUP = ip_address("239.1.1.1")
ONE, TWO = ip_address("198.51.100.1"), ip_address("198.51.100.2")
NEIGHBOR, OTHER_NEIGHBOR = ip_address("192.0.2.1"), ip_address("192.0.2.2")
LAN = Owner(InterestKind.IGMP, "lan0")
UP, SIDE = NativeUpstream("up0", NEIGHBOR), NativeUpstream("side0", OTHER_NEIGHBOR)
CHANNEL = Channel(ONE, GROUP)
SHARED = Channel(None, GROUP)


class Engine:
    """What is set now: per channel (tunnels, interfaces, incoming), per group tunnels."""

    def __init__(self):
        self.set = {}
        self.groups = {}
        self.removals = 0
        self.refuses = False
        self.on_unknown_source = ignore

    def set_channel(self, channel, tunnels, interfaces, incoming=None):
        if self.refuses:
            raise EngineError("no room")
        assert incoming not in interfaces
        self.set[channel] = (set(tunnels), set(interfaces), incoming)

    def remove_channel(self, channel):
        self.removals += 1
        self.set.pop(channel, None)

    def set_group(self, group, tunnels):
        self.groups[group] = set(tunnels)

    def remove_group(self, group):
        self.groups.pop(group, None)

    def set_duplicate_window(self, seconds):
        self.window = seconds

    def traffic(self, channel):
        return None


class Tunnel:
    def __init__(self):
        self.wanted = {}

    def set_membership(self, group, wanted):
        self.wanted[group] = wanted


class Joiner:
    def __init__(self):
        self.joined = {}

    def join(self, channel, upstream):
        self.joined[channel] = upstream

    def prune(self, channel):
        del self.joined[channel]


class Setting:
    def __init__(self, first):
        self.loop = StillLoop()
        self.engine, self.joiner = Engine(), Joiner()
        self.tunnels = {name: Tunnel() for name in ("one", "two", "three")}
        self.upstream = first
        self.shared = None
        self.native = {}
        self.tree = Tree(lambda channel: self.upstream if channel.source else self.shared, self.native.get)
        self.control = ChannelControl(self.loop, self.tree, self.engine, self.tunnels, self.joiner)

    def want(self, wanted=None):
        self.tree.set_interest(LAN, GROUP, Filter.include([ONE]) if wanted is None else wanted)
        self.control.apply()

    def choose(self, upstream, shared=None):
        self.upstream, self.shared = upstream, shared
        self.tree.mark_all()
        self.control.apply()

    @property
    def fed(self):
        return self.engine.set.get(CHANNEL)

    def asked(self, group=GROUP):
        return {name for name, tunnel in self.tunnels.items() if not tunnel.wanted.get(group, NOTHING).wants_nothing}


def via(*names):
    return TunnelUpstream(names)


@pytest.fixture
async def make():
    made = []

    def setting(first):
        made.append(Setting(first))
        return made[-1]

    yield setting
    for each in made:
        each.control.close()


async def test_between_tunnels_both_bring_it_until_the_new_one_does(make):
    setting = make(via("one"))
    setting.want()
    setting.choose(via("two"))
    assert setting.fed == ({"one", "two"}, {"lan0"}, None)
    assert setting.asked() == {"one", "two"}
    setting.control.first_packet(CHANNEL, "two")
    await asyncio.sleep(0)
    assert setting.asked() == {"two"}
    assert setting.fed == ({"one", "two"}, {"lan0"}, None), "late copies are still recognised"
    setting.loop.advance(DUPLICATE_WINDOW)
    assert setting.fed == ({"two"}, {"lan0"}, None)
    assert setting.engine.removals == 0


async def test_a_silent_source_does_not_keep_two_upstreams(make):
    setting = make(via("one"))
    setting.want()
    setting.choose(via("two"))
    setting.loop.advance(MOVE_TIME)
    await asyncio.sleep(0)
    assert setting.fed == ({"two"}, {"lan0"}, None)
    assert setting.asked() == {"two"}


async def test_a_channel_becomes_native_when_its_packets_come_in_there(make):
    setting = make(via("one"))
    setting.want()
    setting.choose(UP)
    assert setting.joiner.joined == {CHANNEL: UP}
    assert setting.fed == ({"one"}, {"lan0"}, None)
    setting.control.wrong_interface(CHANNEL, "side0")
    assert setting.asked() == {"one"}
    setting.control.wrong_interface(CHANNEL, "up0")
    assert setting.fed == (set(), {"lan0"}, "up0"), "at once"
    await asyncio.sleep(0)
    assert setting.asked() == set()
    assert setting.engine.removals == 0


async def test_a_channel_leaves_its_native_upstream_with_the_tunnels_first_packet(make):
    setting = make(UP)
    setting.want()
    setting.choose(via("one"))
    assert setting.fed == ({"one"}, {"lan0"}, "up0")
    assert setting.joiner.joined == {CHANNEL: UP}
    setting.control.first_packet(CHANNEL, "one")
    assert setting.fed == ({"one"}, {"lan0"}, None)
    await asyncio.sleep(0)
    assert setting.joiner.joined == {}


async def test_from_one_native_link_to_another_the_old_one_forwards_until_the_new_one_does(make):
    setting = make(UP)
    setting.want()
    setting.choose(SIDE)
    assert setting.joiner.joined == {CHANNEL: SIDE}
    assert setting.fed == (set(), {"lan0"}, "up0")
    setting.control.wrong_interface(CHANNEL, "side0")
    assert setting.fed == (set(), {"lan0"}, "side0")


async def test_another_neighbour_on_the_same_link_is_only_asked(make):
    setting = make(UP)
    setting.want()
    setting.choose(NativeUpstream("up0", OTHER_NEIGHBOR))
    assert setting.joiner.joined == {CHANNEL: NativeUpstream("up0", OTHER_NEIGHBOR)}
    assert setting.fed == (set(), {"lan0"}, "up0")


async def test_the_interface_a_channel_still_comes_in_on_is_not_one_it_goes_out_of(make):
    setting = make(UP)
    setting.tree.set_interest(Owner(InterestKind.PIM, "up0"), GROUP, Filter.include([ONE]))
    setting.want()
    setting.choose(via("one"))
    assert setting.fed == ({"one"}, {"lan0"}, "up0")
    setting.control.first_packet(CHANNEL, "one")
    assert setting.fed == ({"one"}, {"lan0", "up0"}, None)


async def test_a_dead_tunnel_is_left_at_once(make):
    setting = make(via("one"))
    setting.want()
    setting.control.upstream_failed("one")
    setting.choose(UP)
    assert setting.fed == (set(), {"lan0"}, "up0")
    assert setting.asked() == set()
    setting.control.upstream_recovered("one")
    setting.choose(via("one"))
    setting.loop.advance(MOVE_TIME)
    setting.choose(UP)
    assert setting.fed == ({"one"}, {"lan0"}, None)
    setting.control.upstream_failed("one")
    assert setting.fed == (set(), {"lan0"}, "up0")


async def test_a_tunnel_that_closes_ends_the_moves_away_from_it(make):
    setting = make(via("one"))
    setting.want()
    setting.choose(via("two"))
    setting.control.forget_tunnel("one")
    assert setting.fed == ({"two"}, {"lan0"}, None)


async def test_a_channel_that_ends_while_it_moves_gives_both_up(make):
    for old, new in ((via("one"), UP), (UP, via("one")), (via("one"), via("two"))):
        setting = make(old)
        setting.want()
        setting.choose(new)
        setting.want(NOTHING)
        assert setting.fed is None
        assert setting.asked() == set()
        assert setting.joiner.joined == {}
        setting.loop.advance(MOVE_TIME)
        assert setting.fed is None


async def test_a_change_of_mind_goes_back_as_if_nothing_had_been(make):
    setting = make(via("one"))
    setting.want()
    setting.choose(UP)
    setting.choose(via("one"))
    assert setting.fed == ({"one"}, {"lan0"}, None)
    assert setting.asked() == {"one"}
    assert setting.joiner.joined == {}


async def test_a_second_change_keeps_what_still_forwards(make):
    setting = make(via("one"))
    setting.want()
    setting.choose(UP)
    setting.choose(via("three"))
    assert setting.fed == ({"one", "three"}, {"lan0"}, None)
    assert setting.asked() == {"one", "three"}
    assert setting.joiner.joined == {}


async def test_live_live_takes_a_second_tunnel_along_and_drops_it_without_waiting(make):
    setting = make(via("one"))
    setting.want()
    setting.choose(via("one", "two"))
    assert setting.fed == ({"one", "two"}, {"lan0"}, None)
    setting.choose(via("two"))
    assert setting.asked() == {"two"}
    setting.loop.advance(DUPLICATE_WINDOW)
    assert setting.fed == ({"two"}, {"lan0"}, None)


async def test_any_source_interest_moves_with_the_first_of_its_sources(make):
    setting = make(None)
    setting.shared = via("one")
    setting.want(Filter.exclude())
    setting.control.new_source(CHANNEL, "one")
    setting.control.new_source(Channel(TWO, GROUP), "one")
    setting.choose(None, via("two"))
    assert setting.engine.groups == {GROUP: {"one", "two"}}
    assert setting.tunnels["one"].wanted[GROUP] == setting.tunnels["two"].wanted[GROUP] == Filter.exclude()
    setting.control.first_packet(CHANNEL, "two")
    await asyncio.sleep(0)
    assert setting.tunnels["one"].wanted[GROUP] == Filter.include([TWO]), "the other source has not been seen yet"
    setting.loop.advance(MOVE_TIME)
    await asyncio.sleep(0)
    assert setting.asked() == {"two"}
    assert setting.engine.groups == {GROUP: {"two"}}


async def test_a_native_source_that_was_heard_before_it_was_wanted_is_told_again(make):
    setting = make(None)
    told = []
    setting.engine.on_unknown_source = lambda *what: told.append(what)
    setting.native[ONE] = NativeUpstream("dmz0")
    setting.control.unknown_source(CHANNEL, "dmz0")
    setting.want(Filter.exclude())
    await asyncio.sleep(0)
    assert told == [(CHANNEL, "dmz0")]
    setting.control.unknown_source(CHANNEL, "dmz0")
    assert setting.fed == (set(), {"lan0"}, "dmz0")
    setting.want(NOTHING)
    setting.control.unknown_source(CHANNEL, "dmz0")
    setting.loop.advance(60)
    setting.want(Filter.exclude())
    await asyncio.sleep(0)
    assert len(told) == 1, "that was long ago"


async def test_each_channel_that_is_not_carried_says_why(make):
    setting = make(None)
    setting.want()
    assert setting.control.reason(CHANNEL) == "no_relay"
    setting.control.explain_unserved = lambda channel: f"nothing found for {channel.source}"
    assert setting.control.reason(CHANNEL) == "nothing found for 198.51.100.1"
    setting.choose(via("one"))
    assert setting.control.reason(CHANNEL) is None
    setting.want(NOTHING)
    setting.engine.refuses = True
    setting.want()
    assert setting.control.reason(CHANNEL) == "engine: no room"
    setting.engine.refuses = False
    setting.loop.advance(SLOW_SAMPLE)
    assert setting.control.reason(CHANNEL) is None


async def test_the_duplicate_window_counts_for_moves_too(make):
    setting = make(via("one"))
    setting.control.set_duplicate_window(2.0)
    assert setting.engine.window == 2.0
    setting.want()
    setting.choose(via("two"))
    setting.control.first_packet(CHANNEL, "two")
    setting.loop.advance(1.0)
    assert setting.fed == ({"one", "two"}, {"lan0"}, None)
    setting.loop.advance(1.0)
    assert setting.fed == ({"two"}, {"lan0"}, None)


UPSTREAMS = [None, via("one"), via("two"), via("one", "two"), UP, SIDE, NativeUpstream("lan1"), NativeUpstream("up0")]
WISHES = [NOTHING, Filter.include([ONE]), Filter.include([ONE, TWO]), Filter.exclude(), Filter.exclude([ONE])]


class AnySequence(RuleBasedStateMachine):
    """Whatever happens: what is forwarded was asked for, and once all is quiet exactly the plan is left."""

    @initialize()
    def begin(self):
        self.runner = asyncio.Runner()
        self.runner.run(self._make())

    async def _make(self):
        self.setting = Setting(via("one"))
        self.wished = {}

    def act(self, call):
        async def acting():
            self.setting.loop._loop = asyncio.get_running_loop()
            call()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        self.runner.run(acting())

    @rule(wanted=st.sampled_from(WISHES), interface=st.sampled_from(["lan0", "lan1", "up0"]))
    def wish(self, wanted, interface):
        self.wished[interface] = wanted
        owner = Owner(InterestKind.PIM, interface)
        self.act(lambda: (self.setting.tree.set_interest(owner, GROUP, wanted), self.setting.control.apply()))

    @rule(upstream=st.sampled_from(UPSTREAMS), shared=st.sampled_from(UPSTREAMS))
    def choose(self, upstream, shared):
        self.act(lambda: self.setting.choose(upstream, shared))

    @rule(source=st.sampled_from([ONE, TWO]), tunnel=st.sampled_from(["one", "two"]))
    def packet_in_tunnel(self, source, tunnel):
        channel = Channel(source, GROUP)
        known = self.setting.engine.set.get(channel)
        if known is not None and tunnel in known[0]:
            self.act(lambda: self.setting.control.first_packet(channel, tunnel))
        elif tunnel in self.setting.engine.groups.get(GROUP, ()):
            self.act(lambda: self.setting.control.new_source(channel, tunnel))

    @rule(source=st.sampled_from([ONE, TWO]), interface=st.sampled_from(["up0", "side0", "lan1"]))
    def packet_on_interface(self, source, interface):
        channel = Channel(source, GROUP)
        if channel in self.setting.engine.set:
            self.act(lambda: self.setting.control.wrong_interface(channel, interface))
        else:
            self.act(lambda: self.setting.control.unknown_source(channel, interface))

    @rule(tunnel=st.sampled_from(["one", "two"]), is_lost=st.booleans())
    def tunnel_changes(self, tunnel, is_lost):
        control = self.setting.control
        self.act(lambda: control.upstream_failed(tunnel) if is_lost else control.upstream_recovered(tunnel))

    @rule(seconds=st.sampled_from([0.1, DUPLICATE_WINDOW, MOVE_TIME]))
    def wait(self, seconds):
        self.act(lambda: self.setting.loop.advance(seconds))

    @rule(is_paused=st.booleans())
    def pause(self, is_paused):
        self.act(lambda: self.setting.control.set_paused(is_paused))

    @invariant()
    def forwards_exactly_the_planned_channels(self):
        if not hasattr(self, "setting"):
            return
        plan = self.setting.control.plan(GROUP)
        assert self.setting.engine.set.keys() == plan.routes.keys()
        for channel, route in plan.routes.items():
            _, interfaces, incoming = self.setting.engine.set[channel]
            assert interfaces == route.interfaces - {incoming}
        for name, wanted in plan.subscriptions.items():
            told = self.setting.tunnels[name].wanted.get(GROUP, NOTHING)
            assert merge_filters((told, wanted)) == told, "asked for at least what is planned"
        assert plan.native.items() <= self.setting.joiner.joined.items()

    def teardown(self):
        if not hasattr(self, "setting"):
            return
        for _ in range(3):  # whatever moves comes to rest
            self.act(lambda: self.setting.loop.advance(MOVE_TIME))
        plan = self.setting.control.plan(GROUP)
        asked = {
            name: tunnel.wanted[GROUP]
            for name, tunnel in self.setting.tunnels.items()
            if not tunnel.wanted.get(GROUP, NOTHING).wants_nothing
        }
        assert asked == plan.subscriptions
        assert self.setting.joiner.joined == plan.native
        for channel, route in plan.routes.items():
            is_native = isinstance(route.upstream, NativeUpstream)
            incoming = route.upstream.interface if is_native else None
            tunnels = set() if is_native else set(route.upstream.names)
            assert self.setting.engine.set[channel] == (tunnels, set(route.interfaces), incoming)
        names = set(plan.any_source.names) if isinstance(plan.any_source, TunnelUpstream) else set()
        assert self.setting.engine.groups.get(GROUP, set()) == names
        self.act(self.setting.control.close)
        self.runner.close()


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(
    deadline=None, derandomize=True, database=None, max_examples=60, stateful_step_count=25
)
