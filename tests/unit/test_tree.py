"""The table of interests, and what it asks of tunnels and engine."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.protocol.channels import NOTHING, Channel, Family, Filter, FilterMode
from agent.protocol.pim_events import AssertOutcome
from agent.protocol.upstream import NativeUpstream, TunnelUpstream
from agent.tree import LEARNED_SOURCES_PER_GROUP, GroupPlan, InterestKind, Owner, Route, Tree, tunnels_of

GROUP = ip_address("239.1.2.3")
SSM = ip_address("232.1.2.3")
SOURCES = [ip_address(f"203.0.113.{number}") for number in range(1, 5)]
ONE, TWO, THREE, FOUR = SOURCES
LAN, DMZ = Owner(InterestKind.IGMP, "lan0"), Owner(InterestKind.IGMP, "dmz0")
OPERATOR = Owner(InterestKind.STATIC, "lan0")


def via(*tunnels):
    return TunnelUpstream(tunnels)


def everything_by(tunnel):
    return lambda _channel: via(tunnel)


def halves(channel):
    """Sources 1 and 2 through `west`, the others and (*,G) through `east`."""
    west = channel.source is not None and channel.source in ip_network("203.0.113.0/24") and channel.source <= TWO
    return via("west" if west else "east")


def interfaces(*names):
    return frozenset(names)


def test_source_interest_makes_a_route_and_a_subscription():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    assert tree.plan(SSM) == GroupPlan(
        {"t": Filter.include([ONE])}, routes={Channel(ONE, SSM): Route(via("t"), interfaces("lan0"))}
    )


def test_interfaces_share_one_subscription():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    tree.set_interest(DMZ, SSM, Filter.include([ONE, TWO]))
    plan = tree.plan(SSM)
    assert plan.subscriptions == {"t": Filter.include([ONE, TWO])}
    assert plan.routes == {
        Channel(ONE, SSM): Route(via("t"), interfaces("lan0", "dmz0")),
        Channel(TWO, SSM): Route(via("t"), interfaces("dmz0")),
    }


def test_channel_ends_with_its_last_interest():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    tree.set_interest(OPERATOR, SSM, Filter.include([ONE]))
    tree.set_interest(LAN, SSM, NOTHING)
    assert set(tree.plan(SSM).routes) == {Channel(ONE, SSM)}
    tree.set_interest(OPERATOR, SSM, NOTHING)
    assert tree.plan(SSM) == GroupPlan()
    assert list(tree.groups()) == []


def test_sources_travel_through_the_tunnels_chosen_for_them():
    tree = Tree(halves)
    tree.set_interest(LAN, SSM, Filter.include([ONE, THREE]))
    plan = tree.plan(SSM)
    assert plan.subscriptions == {"west": Filter.include([ONE]), "east": Filter.include([THREE])}
    assert {channel.source: route.upstream for channel, route in plan.routes.items()} == {
        ONE: via("west"),
        THREE: via("east"),
    }


def test_source_nobody_serves_is_named():
    tree = Tree(lambda channel: via("t") if channel.source == ONE else None)
    tree.set_interest(LAN, SSM, Filter.include([ONE, TWO]))
    plan = tree.plan(SSM)
    assert plan.subscriptions == {"t": Filter.include([ONE])}
    assert plan.unserved == {Channel(TWO, SSM)}
    assert set(plan.routes) == {Channel(ONE, SSM)}


def test_any_source_interest_learns_its_sources():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, GROUP, Filter.exclude([TWO]))
    plan = tree.plan(GROUP)
    assert plan.subscriptions == {"t": Filter.exclude([TWO])}
    assert plan.any_source == via("t")
    assert plan.routes == {}
    assert tree.learn(Channel(ONE, GROUP))
    assert tree.plan(GROUP).routes == {Channel(ONE, GROUP): Route(via("t"), interfaces("lan0"))}
    assert list(tree.learned()) == [Channel(ONE, GROUP)]
    tree.forget(Channel(ONE, GROUP))
    assert tree.plan(GROUP).routes == {}
    assert list(tree.learned()) == []


def test_source_nobody_wants_is_not_learned():
    tree = Tree(everything_by("t"))
    assert not tree.learn(Channel(ONE, GROUP))
    tree.set_interest(LAN, GROUP, Filter.exclude([ONE]))
    assert not tree.learn(Channel(ONE, GROUP))
    assert list(tree.learned()) == []


def test_learned_sources_end_with_the_interest():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, GROUP, Filter.exclude())
    tree.learn(Channel(ONE, GROUP))
    tree.set_interest(LAN, GROUP, NOTHING)
    assert list(tree.learned()) == []
    assert tree.plan(GROUP) == GroupPlan()


def test_learned_sources_are_bounded():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, GROUP, Filter.exclude())
    first = int(ip_address("10.0.0.1"))
    taken = [tree.learn(Channel(ip_address(first + number), GROUP)) for number in range(LEARNED_SOURCES_PER_GROUP + 9)]
    assert sum(taken) == LEARNED_SOURCES_PER_GROUP
    assert len(list(tree.learned())) == LEARNED_SOURCES_PER_GROUP


def test_any_source_tunnel_leaves_out_what_comes_through_others():
    tree = Tree(halves)
    tree.set_interest(LAN, GROUP, Filter.exclude())
    tree.set_interest(DMZ, GROUP, Filter.include([ONE]))
    plan = tree.plan(GROUP)
    assert plan.subscriptions["west"] == Filter.include([ONE])
    assert plan.subscriptions["east"] == Filter.exclude([ONE])
    assert plan.any_source == via("east")
    assert plan.routes[Channel(ONE, GROUP)] == Route(via("west"), interfaces("lan0", "dmz0"))


def test_interest_is_told_by_owner():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    tree.set_interest(DMZ, SSM, Filter.include([TWO]))
    assert tree.interest(LAN, SSM) == Filter.include([ONE])
    assert tree.interest(OPERATOR, SSM) == NOTHING
    assert tree.owners(SSM) == {LAN: Filter.include([ONE]), DMZ: Filter.include([TWO])}
    assert tree.membership(SSM) == Filter.include([ONE, TWO])
    assert tree.outgoing(Channel(TWO, SSM)) == interfaces("dmz0")


def test_changed_names_each_group_once_and_drains():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    tree.set_interest(LAN, SSM, Filter.include([ONE, TWO]))
    assert tree.changed() == [SSM]
    assert tree.changed() == []
    tree.set_interest(LAN, SSM, Filter.include([ONE, TWO]))
    assert tree.changed() == []
    tree.mark_all()
    assert tree.changed() == [SSM]


def test_withdrawn_group_is_named_so_that_it_can_be_ended():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    tree.changed()
    tree.set_interest(LAN, SSM, NOTHING)
    assert tree.changed() == [SSM]


def test_new_selection_takes_effect_with_the_next_plan():
    chosen = {"tunnel": "first"}
    tree = Tree(lambda _channel: via(chosen["tunnel"]))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    tree.plan(SSM)
    chosen["tunnel"] = "second"
    tree.mark_all()
    assert tree.plan(SSM).subscriptions == {"second": Filter.include([ONE])}


@pytest.mark.parametrize("group", ["224.0.0.251", "ff02::fb", "192.0.2.1"])
def test_group_that_may_not_cross_a_router_is_refused(group):
    with pytest.raises(ValueError, match=r"."):
        Tree(everything_by("t")).set_interest(LAN, ip_address(group), Filter.exclude())


INTERFACES = ["lan0", "dmz0", "wan0"]
KINDS = [InterestKind.IGMP, InterestKind.PIM, InterestKind.STATIC]
OWNERS = [Owner(kind, interface) for kind in KINDS for interface in INTERFACES]
FILTERS = st.builds(Filter, st.sampled_from(FilterMode), st.frozensets(st.sampled_from(SOURCES)))
NEIGHBOR = ip_address("192.0.2.9")
NATIVE = [NativeUpstream(name, neighbor) for name in ("lan0", "up0") for neighbor in (None, NEIGHBOR)]
TUNNELS = [via("west"), via("east"), via("east", "west")]


@st.composite
def situations(draw):
    """Everything a plan depends on."""
    return {
        "wanted": draw(st.dictionaries(st.sampled_from(OWNERS), FILTERS)),
        "others": draw(st.frozensets(st.sampled_from(INTERFACES))),
        "asserts": draw(
            st.dictionaries(
                st.tuples(st.sampled_from(INTERFACES), st.sampled_from([None, *SOURCES])),
                st.sampled_from(AssertOutcome),
            )
        ),
        "choice": draw(
            st.fixed_dictionaries(
                {source: st.sampled_from([None, *TUNNELS, *NATIVE]) for source in [None, *SOURCES]},
            )
        ),
        "native": draw(st.dictionaries(st.sampled_from(SOURCES), st.sampled_from(NATIVE))),
        "learned": draw(st.frozensets(st.sampled_from(SOURCES))),
    }


class Model:
    """The same, source by source and interface by interface, as RFC 7761 §4.1.6 words it."""

    def __init__(self, situation, learned):
        self.situation = situation
        self.learned = learned

    def outcome(self, interface, source):
        return self.situation["asserts"].get((interface, source), AssertOutcome.NO_INFO)

    def is_any_source(self, owner, wanted):
        """Whether an owner's EXCLUDE is one still, and not only what we won of it."""
        if wanted.mode is not FilterMode.EXCLUDE:
            return False
        shared = self.outcome(owner.interface, None)
        if shared is AssertOutcome.LOSER:
            return False
        return not self.is_of_others(owner) or shared is AssertOutcome.WINNER

    def is_of_others(self, owner):
        return owner.kind is InterestKind.IGMP and owner.interface in self.situation["others"]

    def counts(self, owner, wanted, source):
        outcome = self.outcome(owner.interface, source)
        if not wanted.admits(source) or outcome is AssertOutcome.LOSER:
            return False
        if outcome is AssertOutcome.WINNER:
            return True
        if wanted.mode is FilterMode.INCLUDE:
            return not self.is_of_others(owner)
        return self.is_any_source(owner, wanted)

    def wanting(self, source):
        wanted = self.situation["wanted"].items()
        if source is None:
            return {owner.interface for owner, state in wanted if self.is_any_source(owner, state)}
        return {owner.interface for owner, state in wanted if self.counts(owner, state, source)}

    def is_listed(self, source):
        wanted = self.situation["wanted"].items()
        return any(self.counts(*item, source) and not self.is_any_source(*item) for item in wanted)

    def is_met_by_any(self, source):
        wanted = self.situation["wanted"].items()
        return any(self.counts(*item, source) and self.is_any_source(*item) for item in wanted)

    def any_source(self):
        upstream = self.situation["choice"][None]
        if not self.wanting(None) - self.comes_in_on(upstream):
            return None
        return upstream

    @staticmethod
    def comes_in_on(upstream):
        return {upstream.interface} if isinstance(upstream, NativeUpstream) else set()

    def upstream(self, source):
        """Where a source comes from, and whether it is asked for by itself."""
        if self.is_listed(source):
            return self.situation["choice"][source], True
        if source not in self.learned:
            return None, False
        native, shared = self.situation["native"].get(source), self.any_source()
        if native is not None and (native.neighbor is None or not isinstance(shared, NativeUpstream)):
            return native, True
        return shared, False


@settings(deadline=None, derandomize=True, database=None, max_examples=500)
@given(situation=situations())
def test_plan_equals_what_the_rules_say_of_each_source_and_interface(situation):
    tree = Tree(lambda channel: situation["choice"][channel.source], situation["native"].get)
    for owner, state in situation["wanted"].items():
        tree.set_interest(owner, GROUP, state)
    model = Model(situation, {source for source in situation["learned"] if tree.learn(Channel(source, GROUP))})
    for interface in situation["others"]:
        tree.set_designated(interface, Family.IPV4, designated=False)
    for (interface, source), outcome in situation["asserts"].items():
        tree.set_assert(interface, Channel(source, GROUP), outcome)
    plan = tree.plan(GROUP)
    shared = model.any_source()
    assert plan.any_source == shared
    joins = {}
    if isinstance(shared, NativeUpstream) and shared.neighbor is not None:
        joins[Channel(None, GROUP)] = shared
    for source in SOURCES:
        channel = Channel(source, GROUP)
        assert tree.outgoing(channel) == model.wanting(source)
        upstream, is_own = model.upstream(source)
        interfaces = model.wanting(source) - model.comes_in_on(upstream)
        expected = Route(upstream, frozenset(interfaces)) if upstream is not None and interfaces else None
        assert plan.routes.get(channel) == expected
        if expected is not None and is_own and isinstance(upstream, NativeUpstream) and upstream.neighbor is not None:
            joins[channel] = upstream
        if is_own and upstream is not None:
            carriers = set(tunnels_of(upstream))
        else:
            carriers = set(tunnels_of(shared)) if model.is_met_by_any(source) else set()
        assert {tunnel for tunnel, state in plan.subscriptions.items() if state.admits(source)} == carriers
        assert (channel in plan.unserved) is (model.is_listed(source) and upstream is None)
    assert plan.native == joins
    assert (Channel(None, GROUP) in plan.unserved) is (bool(model.wanting(None)) and situation["choice"][None] is None)
    assert all(not state.wants_nothing for state in plan.subscriptions.values())


def test_a_native_source_is_joined_and_never_goes_back_where_it_came_from():
    tree = Tree(lambda _channel: NativeUpstream("dmz0", NEIGHBOR))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    tree.set_interest(DMZ, SSM, Filter.include([ONE, TWO]))
    plan = tree.plan(SSM)
    upstream = NativeUpstream("dmz0", NEIGHBOR)
    assert plan.routes == {Channel(ONE, SSM): Route(upstream, interfaces("lan0"))}
    assert plan.native == {Channel(ONE, SSM): upstream}
    assert plan.subscriptions == {}
    assert plan.unserved == frozenset()


def test_hosts_of_another_designated_router_are_its_own_until_it_is_us():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    tree.changed()
    tree.set_designated("lan0", Family.IPV6, designated=False)
    tree.set_designated("dmz0", Family.IPV4, designated=False)
    assert tree.plan(SSM).routes.keys() == {Channel(ONE, SSM)}
    tree.set_designated("lan0", Family.IPV4, designated=False)
    assert tree.changed() == [SSM]
    assert tree.plan(SSM) == GroupPlan()
    tree.set_interest(Owner(InterestKind.PIM, "lan0"), SSM, Filter.include([ONE]))
    assert tree.plan(SSM).routes.keys() == {Channel(ONE, SSM)}
    tree.set_interest(Owner(InterestKind.PIM, "lan0"), SSM, NOTHING)
    tree.set_designated("lan0", Family.IPV4, designated=True)
    assert tree.changed() == [SSM]
    assert tree.plan(SSM).routes.keys() == {Channel(ONE, SSM)}


def test_a_lost_assert_withholds_a_channel_for_everybody_until_it_is_over():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, SSM, Filter.include([ONE, TWO]))
    tree.set_interest(OPERATOR, SSM, Filter.include([ONE]))
    tree.changed()
    tree.set_assert("lan0", Channel(ONE, SSM), AssertOutcome.LOSER)
    assert tree.changed() == [SSM]
    assert tree.plan(SSM).subscriptions == {"t": Filter.include([TWO])}
    tree.set_assert("lan0", Channel(ONE, SSM), AssertOutcome.LOSER)
    assert tree.changed() == []
    tree.set_assert("lan0", Channel(ONE, SSM), AssertOutcome.NO_INFO)
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    assert tree.plan(SSM).routes.keys() == {Channel(ONE, SSM)}


def test_a_source_heard_on_an_interface_is_learned_only_where_it_is_native():
    native = {ONE: NativeUpstream("dmz0"), THREE: NativeUpstream("lan0")}
    tree = Tree(everything_by("t"), native.get)
    tree.set_interest(LAN, GROUP, Filter.exclude())
    assert tree.learn(Channel(ONE, GROUP), "dmz0")
    assert not tree.learn(Channel(TWO, GROUP), "dmz0"), "a stray"
    assert not tree.learn(Channel(THREE, GROUP), "lan0"), "nobody else wants it"
    plan = tree.plan(GROUP)
    assert plan.routes == {Channel(ONE, GROUP): Route(native[ONE], interfaces("lan0"))}
    assert plan.native == {}
    assert plan.subscriptions == {"t": Filter.exclude([ONE])}


def test_two_tunnels_of_a_live_channel_are_asked_for_the_same():
    tree = Tree(lambda _channel: via("west", "east"))
    tree.set_interest(LAN, GROUP, Filter.exclude([ONE]))
    tree.set_interest(DMZ, GROUP, Filter.include([ONE]))
    plan = tree.plan(GROUP)
    assert plan.subscriptions == {"west": Filter.exclude(), "east": Filter.exclude()}
    assert [plan.through(name) for name in ("west", "east", "north")] == [2, 2, 0]
