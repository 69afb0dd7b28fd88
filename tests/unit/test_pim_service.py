"""What the PIM service does between links: Bootstrap messages, joins of native upstreams, neighbours' news."""

import asyncio
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from agent.protocol.channels import Channel, Family, Filter
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_events import AssertChanged, AssertOutcome, BootstrapReceived, DesignatedRouterChanged
from agent.protocol.pim_packet import ALL_PIM_ROUTERS
from agent.protocol.upstream import NativeUpstream, TunnelUpstream
from agent.protocol.wire import pim
from agent.protocol.wire.pim_addresses import encode_unicast
from agent.service.pim_service import REST, PimCallbacks, PimService
from agent.tree import InterestKind, Owner, Tree

ROUTER, OTHER, BSR = ip_address("10.1.0.2"), ip_address("10.1.0.3"), ip_address("10.9.0.1")
CHANNEL = Channel(ip_address("10.9.1.1"), ip_address("232.1.1.1"))
TUNNEL = TunnelUpstream(("relay",))


class Machine:
    """Remembers what it was told; every address is a neighbour's own."""

    def __init__(self):
        self.calls = []

    def find_neighbor(self, address):
        return address

    def joined_by(self, _):
        return ROUTER

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments[:-1]))


class Link:
    """A link without a kernel."""

    now = 0.0

    def __init__(self, _loop, interface, family, *_):
        self.interface, self.family = interface, family
        self.owner = Owner(InterestKind.PIM, interface)
        self.machine = Machine()
        self.sent = []
        self.configs = []
        self.closed = False

    def configure(self, config):
        self.configs.append(config)

    def follow(self, _):
        return False

    def flush(self):
        pass

    def send(self, message):
        self.sent.append(message)
        return True

    def close(self):
        self.closed = True


@pytest.fixture
async def world(monkeypatch):
    monkeypatch.setattr("agent.service.pim_service.PimLink", Link)
    world = SimpleNamespace(towards=[("lan0", ROUTER)], told=[], tree=Tree(lambda _: TUNNEL), changed=0)

    callbacks = PimCallbacks(
        get_interface=lambda _: None,
        select=lambda _: TUNNEL,
        route_metric=lambda _: 0,
        towards=lambda _: world.towards,
        neighbors_changed=world.told.append,
        source_met=lambda _: None,
        tree_changed=lambda: None,
    )
    world.service = PimService(asyncio.get_running_loop(), world.tree, None, callbacks)
    world.keys = [(name, Family.IPV4) for name in ("lan0", "lan1")]
    world.service.configure(PimConfig(), world.keys, ())
    yield world
    world.service.close()


def link(world, name):
    return world.service.links[name, Family.IPV4]


def bootstrap(sender):
    body = bytes((0, 1, 30, 64)) + encode_unicast(BSR)
    message = pim.Bootstrap(BSR, 64, body)
    return message, BootstrapReceived(BSR, sender, pim.encode(message, sender, ALL_PIM_ROUTERS[Family.IPV4]))


async def test_a_bootstrap_message_from_where_its_router_is_goes_out_of_the_other_links(world):
    message, event = bootstrap(ROUTER)
    world.service._bootstrap_received(link(world, "lan0"), event)
    assert (link(world, "lan0").sent, link(world, "lan1").sent) == ([], [message])
    assert world.service.counts == {"bootstrap_forwarded": 1}


@pytest.mark.parametrize(("arrives_on", "sender"), [("lan1", ROUTER), ("lan0", OTHER)])
async def test_a_bootstrap_message_from_elsewhere_goes_nowhere(world, arrives_on, sender):
    _, event = bootstrap(sender)
    world.service._bootstrap_received(link(world, arrives_on), event)
    assert [each.sent for each in world.service.links.values()] == [[], []]
    assert world.service.counts == {"bootstrap_wrong_way": 1}


async def test_a_channel_is_joined_at_one_neighbour_at_a_time(world):
    first, second = link(world, "lan0").machine, link(world, "lan1").machine
    world.service.join(CHANNEL, NativeUpstream("lan0", ROUTER))
    world.service.join(CHANNEL, NativeUpstream("lan1", OTHER))
    world.service.prune(CHANNEL)
    world.service.prune(CHANNEL)
    assert [call for call in first.calls if "upstream" in call[0]] == [
        ("join_upstream", CHANNEL, ROUTER),
        ("prune_upstream", CHANNEL),
    ]
    assert [call for call in second.calls if "upstream" in call[0]] == [
        ("join_upstream", CHANNEL, OTHER),
        ("prune_upstream", CHANNEL),
    ]


async def test_a_source_on_a_link_of_ours_is_asked_of_nobody(world):
    world.service.join(CHANNEL, NativeUpstream("lan0"))
    assert not any("upstream" in call[0] for call in link(world, "lan0").machine.calls)


async def test_other_timers_reach_every_link_and_close_none(world):
    before = dict(world.service.links)
    world.service.configure(PimConfig(), world.keys, ())
    world.service.configure(PimConfig(hello_interval=5.0), world.keys, ())
    assert world.service.links == before
    assert not any(each.closed for each in before.values())
    assert [each.configs for each in before.values()] == [[PimConfig(hello_interval=5.0)]] * 2


async def test_a_link_that_is_new_is_told_what_is_joined(world):
    world.service.join(CHANNEL, NativeUpstream("lan2", ROUTER))
    world.service.configure(PimConfig(), [*world.keys, ("lan2", Family.IPV4)], ())
    assert ("join_upstream", CHANNEL, ROUTER) in link(world, "lan2").machine.calls


async def test_neighbours_that_change_together_are_told_once(world):
    for each in (link(world, "lan0"), link(world, "lan1"), link(world, "lan0")):
        world.service._neighbors_changed(each)
    assert world.told == []
    await asyncio.sleep(0)
    assert world.told == ["lan0", "lan1"]


async def test_a_neighbour_that_comes_and_goes_all_the_time_is_told_so_often(world, monkeypatch):
    loop, timers = asyncio.get_running_loop(), []
    began = loop.time()
    world.service._neighbors_changed(link(world, "lan0"))
    await asyncio.sleep(0)
    monkeypatch.setattr(loop, "call_at", lambda when, call: timers.append((when, call)))
    for _ in range(100):
        world.service._neighbors_changed(link(world, "lan0"))
        await asyncio.sleep(0)
    assert world.told == ["lan0"]
    [(when, tell)] = timers
    assert when >= began + REST
    tell()
    assert world.told == ["lan0"] * 2


async def test_a_link_that_is_closed_leaves_no_election_and_no_assert_behind(world):
    owner = Owner(InterestKind.IGMP, "lan0")
    world.tree.set_interest(owner, CHANNEL.group, Filter.include([CHANNEL.source]))
    here = link(world, "lan0")
    world.service._designated_changed(here, DesignatedRouterChanged(ROUTER, is_ours=False))
    assert world.tree.outgoing(CHANNEL) == set()
    world.service._designated_changed(here, DesignatedRouterChanged(None, is_ours=False))
    assert world.tree.outgoing(CHANNEL) == {"lan0"}  # without an address nobody else was elected
    world.service._assert_changed(here, AssertChanged(CHANNEL, AssertOutcome.LOSER, ROUTER))
    assert world.tree.outgoing(CHANNEL) == set()
    assert world.service.lost("lan0", CHANNEL)
    world.service.configure(PimConfig(), [("lan1", Family.IPV4)], ())
    assert world.tree.outgoing(CHANNEL) == {"lan0"}
    assert world.service.asserts == {}
