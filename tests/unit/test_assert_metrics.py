"""What the links are told they can assert, as plans change and Asserts are lost."""

from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from agent.protocol.channels import NOTHING, Channel, Family, Filter
from agent.protocol.pim_events import AssertOutcome
from agent.protocol.upstream import NativeUpstream, TunnelUpstream
from agent.service.pim_asserts import ON_LINK_PREFERENCE, ROUTED_PREFERENCE, AssertMetrics
from agent.tree import InterestKind, Owner, Tree

SOURCE, GROUP = ip_address("198.51.100.7"), ip_address("232.1.1.1")
CHANNEL, ANY = Channel(SOURCE, GROUP), Channel(None, GROUP)
TUNNEL = TunnelUpstream(("relay",))
OURS = (200, 7)
PIM, IGMP = Owner(InterestKind.PIM, "lan0"), Owner(InterestKind.IGMP, "lan1")


@pytest.fixture
def setting():
    world = SimpleNamespace(upstream=TUNNEL, lost=set())
    world.tree = Tree(lambda _: world.upstream)
    metrics = AssertMetrics(world.tree, lambda _: world.upstream, lambda _: 20)
    metrics.configure(OURS)

    def changes():
        told = metrics.changes(GROUP, world.tree.plan(GROUP), lambda name, channel: (name, channel) in world.lost)
        return {(interface, channel): metric for interface, channel, metric in told}

    world.changes = changes
    world.metrics = metrics
    return world


def test_each_interface_a_channel_leaves_by_is_told_once(setting):
    setting.tree.set_interest(PIM, GROUP, Filter.include([SOURCE]))
    setting.tree.set_interest(IGMP, GROUP, Filter.include([SOURCE]))
    assert setting.changes() == {("lan0", CHANNEL): OURS, ("lan1", CHANNEL): OURS}
    assert setting.changes() == {}
    setting.tree.set_interest(IGMP, GROUP, NOTHING)
    assert setting.changes() == {("lan1", CHANNEL): None}


@pytest.mark.parametrize(
    ("upstream", "metric"),
    [
        (NativeUpstream("core0"), (ON_LINK_PREFERENCE, 0)),
        (NativeUpstream("core0", ip_address("10.1.0.2")), (ROUTED_PREFERENCE, 20)),
        (TUNNEL, OURS),
    ],
)
def test_the_upstream_decides_the_metric(setting, upstream, metric):
    setting.upstream = upstream
    setting.tree.set_interest(PIM, GROUP, Filter.include([SOURCE]))
    assert setting.changes() == {("lan0", CHANNEL): metric}


def test_any_source_interest_is_told_as_the_shared_tree(setting):
    setting.tree.set_interest(PIM, GROUP, Filter.exclude())
    assert setting.changes() == {("lan0", ANY): OURS}


def test_what_a_lost_assert_withholds_stays_told_until_nobody_wants_it(setting):
    setting.tree.set_interest(PIM, GROUP, Filter.include([SOURCE]))
    setting.changes()
    setting.lost.add(("lan0", CHANNEL))
    setting.tree.set_assert("lan0", CHANNEL, AssertOutcome.LOSER)
    assert setting.tree.plan(GROUP).routes == {}
    assert setting.changes() == {}
    assert list(setting.metrics.told("lan0", Family.IPV4)) == [(CHANNEL, OURS)]
    setting.tree.set_interest(PIM, GROUP, NOTHING)
    assert setting.changes() == {("lan0", CHANNEL): None}


def test_a_lost_channel_that_comes_in_there_by_now_is_no_longer_ours_to_assert(setting):
    setting.tree.set_interest(PIM, GROUP, Filter.include([SOURCE]))
    setting.changes()
    setting.lost.add(("lan0", CHANNEL))
    setting.upstream = NativeUpstream("lan0", ip_address("10.1.0.2"))
    assert setting.changes() == {("lan0", CHANNEL): None}
