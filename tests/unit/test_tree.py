"""The table of interests, and what it asks of tunnels and engine."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.protocol.channels import NOTHING, Channel, Filter, FilterMode
from agent.tree import LEARNED_SOURCES_PER_GROUP, GroupPlan, InterestKind, Owner, Route, Tree

GROUP = ip_address("239.1.2.3")
SSM = ip_address("232.1.2.3")
SOURCES = [ip_address(f"203.0.113.{number}") for number in range(1, 5)]
ONE, TWO, THREE, FOUR = SOURCES
LAN, DMZ = Owner(InterestKind.IGMP, "lan0"), Owner(InterestKind.IGMP, "dmz0")
OPERATOR = Owner(InterestKind.STATIC, "lan0")


def everything_by(tunnel):
    return lambda _channel: tunnel


def halves(channel):
    """Sources 1 and 2 through `west`, the others and (*,G) through `east`."""
    west = channel.source is not None and channel.source in ip_network("203.0.113.0/24") and channel.source <= TWO
    return "west" if west else "east"


def interfaces(*names):
    return frozenset(names)


def test_source_interest_makes_a_route_and_a_subscription():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    assert tree.plan(SSM) == GroupPlan(
        {"t": Filter.include([ONE])}, {Channel(ONE, SSM): Route("t", interfaces("lan0"))}
    )


def test_interfaces_share_one_subscription():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    tree.set_interest(DMZ, SSM, Filter.include([ONE, TWO]))
    plan = tree.plan(SSM)
    assert plan.subscriptions == {"t": Filter.include([ONE, TWO])}
    assert plan.routes == {
        Channel(ONE, SSM): Route("t", interfaces("lan0", "dmz0")),
        Channel(TWO, SSM): Route("t", interfaces("dmz0")),
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
    assert {channel.source: route.tunnel for channel, route in plan.routes.items()} == {ONE: "west", THREE: "east"}


def test_source_nobody_serves_is_named():
    tree = Tree(lambda channel: "t" if channel.source == ONE else None)
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
    assert plan.any_source == "t"
    assert plan.routes == {}
    assert tree.learn(Channel(ONE, GROUP))
    assert tree.plan(GROUP).routes == {Channel(ONE, GROUP): Route("t", interfaces("lan0"))}
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
    assert plan.any_source == "east"
    assert plan.routes[Channel(ONE, GROUP)] == Route("west", interfaces("lan0", "dmz0"))


def test_interest_is_told_by_owner():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    tree.set_interest(DMZ, SSM, Filter.include([TWO]))
    assert tree.interest(LAN, SSM) == Filter.include([ONE])
    assert tree.interest(OPERATOR, SSM) == NOTHING
    assert tree.owners(SSM) == {LAN: Filter.include([ONE]), DMZ: Filter.include([TWO])}
    assert tree.membership(SSM) == Filter.include([ONE, TWO])
    assert tree.outgoing(Channel(TWO, SSM)) == interfaces("dmz0")


def test_interface_can_be_withdrawn_with_all_its_owners():
    tree = Tree(everything_by("t"))
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    tree.set_interest(OPERATOR, GROUP, Filter.exclude())
    tree.set_interest(DMZ, SSM, Filter.include([ONE]))
    tree.changed()
    tree.withdraw_interface("lan0")
    assert set(tree.changed()) == {SSM, GROUP}
    assert list(tree.groups()) == [SSM]
    assert tree.outgoing(Channel(ONE, SSM)) == interfaces("dmz0")


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
    tree = Tree(lambda _channel: chosen["tunnel"])
    tree.set_interest(LAN, SSM, Filter.include([ONE]))
    tree.plan(SSM)
    chosen["tunnel"] = "second"
    tree.mark_all()
    assert tree.plan(SSM).subscriptions == {"second": Filter.include([ONE])}


@pytest.mark.parametrize("group", ["224.0.0.251", "ff02::fb", "192.0.2.1"])
def test_group_that_may_not_cross_a_router_is_refused(group):
    with pytest.raises(ValueError, match=r"."):
        Tree(everything_by("t")).set_interest(LAN, ip_address(group), Filter.exclude())


OWNERS = [LAN, DMZ, OPERATOR, Owner(InterestKind.API, "wan0")]
FILTERS = st.builds(Filter, st.sampled_from(FilterMode), st.frozensets(st.sampled_from(SOURCES)))


@settings(deadline=None, derandomize=True, database=None, max_examples=300)
@given(
    wanted=st.dictionaries(st.sampled_from(OWNERS), FILTERS),
    choice=st.dictionaries(st.sampled_from([None, *SOURCES]), st.sampled_from(["west", "east", None])),
    learned=st.frozensets(st.sampled_from(SOURCES)),
)
def test_plan_carries_every_source_once_to_whom_it_is_wanted(wanted, choice, learned):
    tree = Tree(lambda channel: choice.get(channel.source, "west"))
    for owner, state in wanted.items():
        tree.set_interest(owner, GROUP, state)
    for source in learned:
        tree.learn(Channel(source, GROUP))
    plan = tree.plan(GROUP)
    listed = {source for state in wanted.values() if state.mode is FilterMode.INCLUDE for source in state.sources}
    for source in SOURCES:
        channel = Channel(source, GROUP)
        wanting = {owner.interface for owner, state in wanted.items() if state.admits(source)}
        assert tree.outgoing(channel) == wanting
        carriers = [tunnel for tunnel, state in plan.subscriptions.items() if state.admits(source)]
        assert len(carriers) <= 1, "two tunnels would deliver it twice"
        assert bool(wanting) or not carriers, "nobody wants it"
        if channel in plan.routes:
            route = plan.routes[channel]
            assert carriers == [route.tunnel]
            assert route.interfaces == wanting
        if source in listed and choice.get(source, "west") is not None:
            assert channel in plan.routes
    assert all(not state.wants_nothing for state in plan.subscriptions.values())
    assert all(route.interfaces for route in plan.routes.values())
