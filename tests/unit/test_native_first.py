"""Which upstream a channel gets, and what is planned again when routes or neighbours change."""

from ipaddress import ip_address

import pytest

from agent.net.rpf import Hop, UnicastRoute
from agent.protocol.channels import Channel
from agent.protocol.upstream import NativeUpstream, TunnelUpstream
from agent.service.native import NativeFirst

SOURCE, OTHER = ip_address("10.9.1.1"), ip_address("198.51.100.7")
GROUP, GROUP_TWO = ip_address("232.1.1.1"), ip_address("232.1.1.2")
ROUTER, SECONDARY, HIGHER = ip_address("10.1.0.2"), ip_address("10.1.0.22"), ip_address("10.1.0.3")
TUNNEL = TunnelUpstream(("relay",))


class World:
    """Routes and neighbours as told."""

    def __init__(self):
        self.routes = {}
        self.neighbors = {}
        self.forgotten = []
        self.marked = []
        self.native = NativeFirst(self, self, lambda _: TUNNEL, lambda *told: self.marked.append(told))
        self.native.configure(["lan0"], ["core0"])

    def towards(self, address):
        return self.routes.get(address)

    def forget(self, address):
        self.forgotten.append(address)

    def find_neighbor(self, interface, address):
        return self.neighbors.get((interface, address))

    def route(self, *hops, prefix_length=16, source=SOURCE):
        self.routes[source] = UnicastRoute(prefix_length, 20, tuple(Hop(*hop) for hop in hops))

    def select(self, source=SOURCE, group=GROUP):
        return self.native.select(Channel(source, group))


@pytest.fixture
def world():
    return World()


def test_without_a_route_the_relays_are_asked(world):
    assert world.select() == TUNNEL


def test_a_source_on_a_downstream_link_is_native_without_anybody_to_ask(world):
    world.route(("lan0", None), prefix_length=24)
    assert world.select() == NativeUpstream("lan0")


@pytest.mark.parametrize("interface", ["lan0", "core0"])
def test_a_source_behind_a_pim_neighbour_is_asked_of_it(world, interface):
    world.route((interface, ROUTER))
    assert world.select() == TUNNEL  # a router that speaks no PIM
    world.neighbors[interface, ROUTER] = ROUTER
    world.native.reconsider()
    assert world.select() == NativeUpstream(interface, ROUTER)


def test_a_next_hop_that_is_a_secondary_address_is_found(world):
    world.neighbors["core0", SECONDARY] = ROUTER
    world.route(("core0", SECONDARY))
    assert world.select() == NativeUpstream("core0", ROUTER)


def test_an_uplink_is_never_native(world):
    world.neighbors["wan0", ROUTER] = ROUTER
    world.route(("wan0", ROUTER))
    assert world.select() == TUNNEL
    world.route(("wan0", None), prefix_length=24)
    world.native.reconsider([SOURCE])
    assert world.select() == TUNNEL


@pytest.mark.parametrize(("interface", "expected"), [("lan0", TUNNEL), ("core0", NativeUpstream("core0", ROUTER))])
def test_a_default_route_counts_on_native_interfaces_only(world, interface, expected):
    world.neighbors[interface, ROUTER] = ROUTER
    world.route((interface, ROUTER), prefix_length=0)
    assert world.select() == expected


def test_of_equal_paths_those_to_neighbours_count_and_the_highest_wins(world):
    world.route(("wan0", ip_address("10.3.0.9")), ("core0", ROUTER), ("core0", HIGHER))
    world.neighbors["core0", ROUTER] = ROUTER
    assert world.select() == NativeUpstream("core0", ROUTER)
    world.neighbors["core0", HIGHER] = HIGHER
    world.native.reconsider()
    assert world.select() == NativeUpstream("core0", HIGHER)


def test_any_source_is_asked_of_the_relays(world):
    world.route(("lan0", None))
    assert world.select(None) == TUNNEL


def test_only_channels_of_sources_that_moved_are_marked(world):
    world.select()
    world.select(group=GROUP_TWO)
    world.select(OTHER)
    world.route(("lan0", None))
    world.native.reconsider([SOURCE, OTHER])
    assert world.marked == [({GROUP, GROUP_TWO}, {SOURCE})]
    world.native.reconsider()
    assert len(world.marked) == 1
    del world.routes[SOURCE]
    world.native.reconsider([SOURCE])
    assert world.marked[1:] == [({GROUP, GROUP_TWO}, {SOURCE})]


def test_a_learned_source_is_followed_without_a_channel_of_its_own(world):
    assert world.native.native(SOURCE) is None
    world.native.forget_unused(lambda _: False, [SOURCE])
    world.route(("lan0", None))
    world.native.reconsider()
    assert world.marked == [(set(), {SOURCE})]
    assert world.native.native(SOURCE) == NativeUpstream("lan0")


def test_sources_nobody_wants_any_more_are_forgotten(world):
    world.select()
    world.select(OTHER)
    world.native.forget_unused(lambda channel: channel.source == OTHER)
    assert world.forgotten == [SOURCE]
    world.route(("lan0", None))
    world.native.reconsider()
    assert world.marked == []


def test_neighbours_of_a_link_concern_the_sources_whose_routes_lead_there(world):
    looked_at = []
    world.route(("core0", ROUTER))
    world.route(("eth9", ROUTER), source=OTHER)
    world.select()
    world.select(OTHER)
    world.neighbors["core0", ROUTER] = ROUTER
    towards = world.towards
    world.towards = lambda address: looked_at.append(address) or towards(address)
    world.native.neighbors_changed("lan0")
    assert (looked_at, world.marked) == ([], [])
    world.native.neighbors_changed("core0")
    assert looked_at == [SOURCE]
    assert world.marked == [(frozenset({GROUP}), frozenset({SOURCE}))]
    world.native.forget_unused(lambda _: False)
    world.native.neighbors_changed("core0")
    assert looked_at == [SOURCE]
