"""Two borders in router mode on one LAN with FRR's routers and a host: one copy of each packet, whoever dies.

    border  ---+-- LAN 0 --+-- router  -- LAN 201 -- receiver
    border2 ---+           +-- router2 -- LAN 202 -- receiver2
                           +-- receiver3

Each router's unicast route to the source leads to another border.
"""

import time

import pytest
from scripted.border_scene import (
    GATEWAY_SECTIONS,
    SOURCE,
    ask,
    border_scene,
    channel_row,
    measured,
    pim_neighbors,
    wrong_of,
)

from lab import topology
from lab.agents import Agent, AgentPlace, gateway_configuration
from lab.frr import FrrRouter, PimTimers, domain_router, missing_for_frr, pim_interface
from lab.namespaces import missing_for_namespaces, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_namespaces() + missing_for_frr()), reason=", ".join(missing)),
]

GROUP, OTHER_GROUP = topology.NUMBERED_GROUP_IPV4, topology.SSM_GROUP_IPV4
FIRST, SECOND, HOST = 0, 1, 2
BORDER, SECOND_BORDER = "10.20.0.1", "10.20.0.2"
PRIORITY = "dr_priority = 10\n"  # above FRR's 1: hosts of the LAN are the borders'
PREFIX = topology.EXTERNAL_PREFIXES[0]
HELLO_HOLDTIME = 3.5


class Pair:
    """Both borders and both routers."""

    def __init__(self, scene, second, routers):
        self.scene = scene
        self.first, self.second = scene.scenario.border, second
        self.routers = routers

    def forwarders(self, group=GROUP):
        return [name for name, agent in (("first", self.first), ("second", self.second)) if forwards(agent, group)]

    def outcomes(self, group=GROUP):
        rows = [channel_row(agent, group) for agent in (self.first, self.second)]
        return [[item["state"] for item in row["asserts"]] if row else None for row in rows]

    def joined_at(self, router, group=GROUP):
        upstream = self.routers[router].json("show ip pim upstream").get(group, {}).get(SOURCE, {})
        return upstream.get("rpfAddress")


def forwards(agent, group):
    row = channel_row(agent, group)
    return row is not None and "down0" in row["outgoing_interfaces"]


def rewire(lab):
    """Put router2 beside router, and each receiver where the picture has it."""
    names = lab.topology
    ports = {"up2": 0, "receiver0": 201, "receiver1": 202, "receiver2": 0}
    for port, lan in ports.items():
        lab.run(names.switch, "ip", "link", "set", port, "master", f"lan{lan}")
    places = [
        (names.routers()[1], "up0", 0, 253),
        (names.receiver(0), "eth0", 201, 10),
        (names.receiver(2), "eth0", 0, 12),
    ]
    for namespace, interface, lan, host in places:
        lab.run(namespace, "ip", "-4", "address", "flush", "dev", interface)
        lab.run(namespace, "ip", "address", "add", f"10.20.{lan}.{host}/24", "dev", interface)
        lab.run(namespace, "ip", "route", "replace", "default", "via", f"10.20.{lan}.1")


@pytest.fixture(scope="module")
def pair(_nothing_abandoned, tmp_path_factory):
    directory = tmp_path_factory.mktemp("pair")
    sizes = {"routed": 2, "borders": 2, "receivers": 3}
    with border_scene(directory, sizes, sections=PRIORITY, frr=False) as scene:
        lab, names = scene.lab, scene.names
        rewire(lab)
        place = AgentPlace(names.second_border, directory, "border2")
        relays = [str(topology.RELAY.ipv4), str(topology.RELAY.ipv6)]
        second = Agent(lab, place, gateway_configuration(["down0"], relays, sections=GATEWAY_SECTIONS + PRIORITY))
        routers = []
        try:
            second.start()
            above = [topology.border_downstream(0), topology.SECOND_BORDER_DOWNSTREAM]
            for index, upstream in enumerate(above, start=1):
                text = domain_router(names, index, upstream=upstream)
                text += pim_interface(topology.ROUTER_DOWNSTREAM, PimTimers(), igmp=True)
                routers.append(FrrRouter(lab, names.routers()[index - 1], directory, text))
                routers[-1].start()
            made = Pair(scene, second, routers)
            wait_until(lambda: all(len(pim_neighbors(agent)) == 3 for agent in (made.first, made.second)), 20, "met")
            scene.scenario.send(GROUP, "--rate", "200")
            scene.scenario.send(OTHER_GROUP, "--rate", "200")
            yield made
        finally:
            scene.quiet()
            for router in routers:
                router.close()
            second.close()


@pytest.fixture
def both(pair):
    """A receiver behind each router, after the Assert that two forwarders cause."""
    scene = pair.scene
    receivers = [scene.receive(GROUP, receiver=FIRST), scene.receive(GROUP, receiver=SECOND)]
    for receiver in receivers:
        receiver.wait_for_more(20, packets=50)
    wait_until(lambda: pair.forwarders() == ["second"], 20, "one forwards")
    yield receivers
    scene.quiet()


def test_routers_that_joined_different_borders_make_one_of_them_stop(pair, both):
    assert pair.outcomes() == [["loser"], ["winner"]]
    assert channel_row(pair.first, GROUP)["reason"] == "assert_lost"
    (settled,) = channel_row(pair.first, GROUP)["asserts"]
    assert (settled["interface"], settled["winner"]) == ("down0", SECOND_BORDER)
    before = [wrong_of(receiver) for receiver in both]
    for receiver in both:
        receiver.wait_for_more(10, packets=300)
    assert [wrong_of(receiver) for receiver in both] == before
    measured("packets doubled before the Assert", max(wrong[1] for wrong in before))


def test_the_loser_takes_over_when_the_winner_dies(pair, both):
    pair.second.kill()
    began = time.monotonic()
    try:
        wait_until(lambda: forwards(pair.first, GROUP), HELLO_HOLDTIME + 2, "the other took over")
        both[FIRST].wait_for_more(3, packets=20)
        measured("from the death of the winner to the stream, s", time.monotonic() - began)
    finally:
        pair.second.start()
    wait_until(lambda: len(pim_neighbors(pair.first)) == 3, 20, "it is back")
    for receiver in both:
        receiver.wait_for_more(15, packets=50)


def test_a_host_of_the_lan_is_served_by_the_designated_router_alone(pair):
    wait_until(lambda: designated(pair.second) == designated(pair.first) == SECOND_BORDER, 10, "one is elected")
    host = pair.scene.receive(OTHER_GROUP, receiver=HOST)
    host.wait_for_more(10, packets=100)
    assert pair.forwarders(OTHER_GROUP) == ["second"]
    assert channel_row(pair.first, OTHER_GROUP)["reason"] == "not_designated"
    assert host.figures["duplicates"] == 0


def designated(agent):
    pim = next(row for row in agent.get("interfaces")["items"] if row["name"] == "down0")["pim"]
    return next(item["designated_router"] for item in pim if item["family"] == 4)


def test_a_host_and_a_router_behind_the_other_border_get_one_copy(pair):
    scene = pair.scene
    scene.quiet()
    host = scene.receive(GROUP, receiver=HOST)
    host.wait_for_more(10)
    behind = scene.receive(GROUP, receiver=FIRST)
    behind.wait_for_more(10)
    wait_until(lambda: pair.forwarders() == ["second"], 10, "one forwards")
    before = [wrong_of(receiver) for receiver in (host, behind)]
    for receiver in (host, behind):
        receiver.wait_for_more(10, packets=200)
    assert [wrong_of(receiver) for receiver in (host, behind)] == before


def test_a_border_that_drains_hands_its_hosts_to_the_other_and_takes_them_back(pair):
    scene = pair.scene
    scene.quiet()
    host = scene.receive(OTHER_GROUP, receiver=HOST)
    host.wait_for_more(10)
    assert pair.forwarders(OTHER_GROUP) == ["second"]
    ask(pair.second, "PUT", "drain", {"enabled": True})
    began = time.monotonic()
    wait_until(lambda: pair.forwarders(OTHER_GROUP) == ["first"], 5, "the other forwards")
    host.wait_for_more(5)
    measured("from the drain to the stream, s", time.monotonic() - began)
    assert designated(pair.first) == BORDER
    assert len(pim_neighbors(pair.first)) == 2
    ask(pair.second, "PUT", "drain", {"enabled": False})
    wait_until(lambda: pair.forwarders(OTHER_GROUP) == ["second"], 10, "it is back")
    host.wait_for_more(10, packets=50)
    measured("longest gap of the host, s", host.figures["longest_gap_seconds"])


def test_a_border_that_drains_leaves_its_routers_to_the_other(pair):
    """A router whose route leads to the drained one only has no stream meanwhile; unicast routing is to move first."""
    scene = pair.scene
    scene.quiet()
    behind = scene.receive(OTHER_GROUP, receiver=SECOND)
    behind.wait_for_more(10)
    ask(pair.second, "PUT", "drain", {"enabled": True})
    try:
        pair.routers[1].configure(f"no ip route {PREFIX} {SECOND_BORDER}\nip route {PREFIX} {BORDER}\n")
        wait_until(lambda: pair.forwarders(OTHER_GROUP) == ["first"], 5, "the other forwards")
        behind.wait_for_more(5)
    finally:
        ask(pair.second, "PUT", "drain", {"enabled": False})
    pair.routers[1].configure(f"no ip route {PREFIX} {BORDER}\nip route {PREFIX} {SECOND_BORDER}\n")
    wait_until(lambda: forwards(pair.second, OTHER_GROUP), 15, "it is back")
    behind.wait_for_more(10, packets=50)
    measured("longest gap behind a router, s", behind.figures["longest_gap_seconds"])
