"""PIM links on a real kernel: two of our own border routers on one veth pair, both families."""

import asyncio
from ipaddress import ip_address, ip_network
from types import SimpleNamespace

import pytest

from agent.net.interfaces import InterfaceMonitor
from agent.net.pim_socket import PimSocket
from agent.protocol.channels import NOTHING, Channel, Family, Filter
from agent.protocol.pim_config import PimConfig
from agent.protocol.upstream import NativeUpstream, TunnelUpstream
from agent.protocol.wire import pim
from agent.protocol.wire.ip import IPPacket
from agent.service.pim_service import PimCallbacks, PimService
from agent.tree import GroupPlan, InterestKind, Owner, Tree
from lab.own_namespace import ip, missing_for_own_namespace, run_in_own_namespace, until, wait_for_carrier

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_own_namespace()), reason=missing or "never"),
]

QUICK = PimConfig(
    hello_interval=1.0,
    triggered_hello_delay=0.1,
    join_prune_interval=2.0,
    override_interval=0.2,
    propagation_delay=0.1,
    rendezvous_groups=(),
)
GROUPS = {Family.IPV4: ip_address("232.1.1.1"), Family.IPV6: ip_address("ff3e::8000:1")}
SOURCES = {Family.IPV4: ip_address("198.51.100.7"), Family.IPV6: ip_address("2001:db8::7")}
LEFT = {Family.IPV4: ip_address("10.1.0.1"), Family.IPV6: ip_address("fe80::1")}
RIGHT = {Family.IPV4: ip_address("10.1.0.2"), Family.IPV6: ip_address("fe80::2")}
TUNNEL = TunnelUpstream(("relay",))


class Wishes:
    """A tree without limits."""

    def __init__(self, tree):
        self.tree = tree
        self.neighbors = {}

    def wish(self, owner, group, wanted, neighbor=lambda _: None):
        self.tree.set_interest(owner, group, wanted)
        for source in wanted.sources:
            self.neighbors[source] = neighbor(Channel(source, group))

    def withdraw(self, owner):
        for group in list(self.tree.groups()):
            self.tree.set_interest(owner, group, NOTHING)


class Border:
    """One side: a PIM service with a tree that gets everything out of a tunnel."""

    def __init__(self, interface, families=tuple(Family), config=QUICK, rendezvous=()):
        loop = asyncio.get_running_loop()
        self.interface = interface
        self.tree = Tree(lambda _: TUNNEL)
        self.wishes = Wishes(self.tree)
        self.met = []
        self.neighbor_changes = 0
        self.monitor = InterfaceMonitor(loop, self.changed)
        callbacks = PimCallbacks(
            get_interface=self.monitor.get,
            select=lambda _: TUNNEL,
            route_metric=lambda _: 0,
            towards=lambda _: [(interface, None)],
            neighbors_changed=self.neighbors_changed,
            source_met=self.met.append,
            tree_changed=lambda: None,
        )
        self.service = PimService(loop, self.tree, self.wishes, callbacks)
        self.service.configure(config, [(interface, family) for family in families], rendezvous)

    def changed(self, change):
        for name in {change.interface.name, change.previous.name if change.previous else change.interface.name}:
            self.service.follow(name)

    def neighbors_changed(self, _):
        self.neighbor_changes += 1

    def machine(self, family=Family.IPV4):
        return self.service.links[self.interface, family].machine

    def neighbors(self, family=Family.IPV4):
        return [neighbor.address for neighbor in self.machine(family).neighbors()]

    def wanted(self, family=Family.IPV4, group=None):
        return self.tree.interest(Owner(InterestKind.PIM, self.interface), group or GROUPS[family])

    def close(self):
        self.monitor.close()
        self.service.close()


def make_pair():
    ip(
        "link add name left type veth peer name right",
        "addr add 10.1.0.1/24 dev left",
        "addr add 10.1.0.2/24 dev right",
        "addr add 10.1.0.22/24 dev right",
        "addr add fe80::1/64 dev left nodad",
        "addr add fe80::2/64 dev right nodad",
        "link set dev left up",
        "link set dev right up",
    )
    wait_for_carrier("left", "right")


def between(scenario, **options):
    async def run():
        make_pair()
        left, right = Border("left", **options), Border("right", **options)
        pair = SimpleNamespace(left=left, right=right)
        try:
            await until(lambda: all(left.neighbors(f) and right.neighbors(f) for f in options.get("families", Family)))
            await scenario(pair)
        finally:
            for border in (left, right):
                border.close()

    run_in_own_namespace(run)


@pytest.mark.parametrize("family", Family)
def test_a_join_becomes_an_interest_and_a_prune_ends_it(family):
    async def scenario(pair):
        channel = Channel(SOURCES[family], GROUPS[family])
        pair.right.service.join(channel, NativeUpstream("right", LEFT[family]))
        await until(lambda: pair.left.wanted(family) == Filter.include([channel.source]))
        assert pair.left.wishes.neighbors[channel.source] == RIGHT[family]
        assert pair.left.service.joined_by("left", channel) == RIGHT[family]
        pair.right.service.prune(channel)
        await until(lambda: pair.left.wanted(family) == NOTHING)

    between(scenario)


def test_a_goodbye_ends_what_was_joined_at_once():
    async def scenario(pair):
        channel = Channel(SOURCES[Family.IPV4], GROUPS[Family.IPV4])
        pair.right.service.join(channel, NativeUpstream("right", LEFT[Family.IPV4]))
        await until(lambda: not pair.left.wanted().wants_nothing)
        pair.right.service.close()
        await until(lambda: pair.left.wanted().wants_nothing and not pair.left.neighbors())
        await until(lambda: pair.left.neighbor_changes >= 2)

    between(scenario)


def test_a_link_that_is_made_anew_finds_its_neighbours_and_its_joins_again():
    async def scenario(pair):
        channel = Channel(SOURCES[Family.IPV4], GROUPS[Family.IPV4])
        pair.right.service.join(channel, NativeUpstream("right", LEFT[Family.IPV4]))
        await until(lambda: not pair.left.wanted().wants_nothing)
        ip("link delete dev left")
        await until(lambda: pair.left.wanted().wants_nothing and not pair.right.neighbors())
        make_pair()
        await until(lambda: pair.left.wanted() == Filter.include([channel.source]), seconds=10)

    between(scenario)


def test_an_address_that_changes_is_followed():
    async def scenario(pair):
        ip("addr add 10.2.0.1/24 dev left", "addr del 10.1.0.1/24 dev left")
        await until(lambda: pair.right.neighbors() == [ip_address("10.2.0.1")])

    between(scenario, families=(Family.IPV4,))


def test_a_link_that_is_renamed_away_is_left():
    async def scenario(pair):
        ip("link set dev left name other")
        await until(lambda: pair.left.machine().address is None)
        await until(lambda: pair.right.neighbors() == [], seconds=8)

    between(scenario, families=(Family.IPV4,))


def test_secondary_addresses_are_the_neighbours_own():
    async def scenario(pair):
        find = pair.left.service.find_neighbor
        await until(lambda: find("left", ip_address("10.1.0.22")) == RIGHT[Family.IPV4])
        assert find("left", RIGHT[Family.IPV4]) == RIGHT[Family.IPV4]
        assert find("left", ip_address("10.1.0.23")) is None
        assert find("elsewhere", RIGHT[Family.IPV4]) is None

    between(scenario)


def test_only_the_designated_router_serves_hosts():
    async def scenario(pair):
        group = GROUPS[Family.IPV4]
        for border in (pair.left, pair.right):
            border.tree.set_interest(
                Owner(InterestKind.IGMP, border.interface), group, Filter.include([SOURCES[Family.IPV4]])
            )
        await until(lambda: pair.right.machine().is_designated and not pair.left.machine().is_designated)
        channel = Channel(SOURCES[Family.IPV4], group)
        await until(
            lambda: pair.right.tree.outgoing(channel) == {"right"} and pair.left.tree.outgoing(channel) == set()
        )
        pair.right.service.close()
        await until(lambda: pair.left.tree.outgoing(channel) == {"left"})

    between(scenario, families=(Family.IPV4,))


def test_of_two_that_forward_one_stops_and_takes_over_when_the_other_leaves():
    async def scenario(pair):
        channel = Channel(SOURCES[Family.IPV4], GROUPS[Family.IPV4])
        borders = (pair.left, pair.right)
        for border in borders:
            border.tree.set_interest(
                Owner(InterestKind.STATIC, border.interface), channel.group, Filter.include([channel.source])
            )
            border.service.group_applied(channel.group, border.tree.plan(channel.group))
        pair.left.service.wrong_interface(channel, "left")
        await until(lambda: pair.left.service.lost("left", channel))
        await until(lambda: pair.left.tree.outgoing(channel) == set())
        pair.left.service.group_applied(channel.group, pair.left.tree.plan(channel.group))
        assert pair.left.service.lost("left", channel)  # planned anew without it, the loser remembers
        assert pair.right.tree.outgoing(channel) == {"right"}
        pair.right.service.close()
        await until(lambda: pair.left.tree.outgoing(channel) == {"left"})

    between(scenario, families=(Family.IPV4,))


def test_a_register_is_stopped_and_tells_of_the_source():
    async def run():
        make_pair()
        point = ip_address("10.1.0.1")
        config = PimConfig(rendezvous_groups=(ip_network("239.1.0.0/16"),))
        left = Border("left", families=(Family.IPV4,), config=config, rendezvous=(point,))
        try:
            await exchange_register(left, point)
        finally:
            left.close()

    run_in_own_namespace(run)


async def exchange_register(left, point):
    sender, source, group = ip_address("10.1.0.22"), ip_address("10.9.0.1"), ip_address("239.1.2.3")
    answers = []
    designated = PimSocket(
        asyncio.get_running_loop(),
        sender,
        lambda message, who, ours: answers.append(pim.decode(message, who, ours)),
    )
    inner = IPPacket(source, group, 17, b"\0\0\0\0\0\x08\0\0").encode()
    try:
        designated.send(pim.encode(pim.Register(inner), sender, point), point)
        await until(lambda: answers)
        assert answers == [pim.RegisterStop(group, source)]
        assert left.met == [Channel(source, group)]
        left.met.clear()
        left.service.group_applied(group, GroupPlan(any_source=TUNNEL))  # interest that comes later meets it too
        await until(lambda: left.met == [Channel(source, group)])
    finally:
        designated.close()
