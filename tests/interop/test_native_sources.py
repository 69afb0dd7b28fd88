"""Native first: what FRR's domain sends itself is joined at FRR, not at a relay, and moves with routes and routers."""

import json
import subprocess
import sys

import pytest

from lab import topology
from lab.frr import FrrRouter, domain_router, missing_for_frr
from lab.namespaces import missing_for_namespaces, stop, wait_until
from lab.scenario import Counting

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_namespaces() + missing_for_frr()), reason=", ".join(missing)),
]

GROUP = topology.NUMBERED_GROUP_IPV4
ROUTER = str(topology.router_upstream(1).ipv4)
QUICK_PIM = "[pim]\nhello_interval = 1.0\njoin_prune_interval = 5.0\n"


class Domain:
    """A source behind FRR, which is behind the border's first LAN, and a receiver on its second."""

    def __init__(self, scenario, router):
        self.scenario = scenario
        self.router = router
        self.lab = scenario.lab
        self.names = scenario.lab.topology
        self.source = str(self.names.receiver_address(0).ipv4)
        self.started = []

    def run(self, namespace, *command, **options):
        process = self.lab.start(namespace, sys.executable, "-m", "lab", *command, **options)
        self.started.append(process)
        return process

    def send(self):
        options = ("--interface", topology.HOST_INTERFACE, "--rate", "200")
        self.run(self.names.receiver(0), "send", GROUP, *options)

    def receive(self):
        command = ("receive", self.source, GROUP, "--interface", topology.HOST_INTERFACE, "--every", "0.1")
        return Counting("native", self.run(self.names.receiver(1), *command, stdout=subprocess.PIPE))

    def row(self):
        rows = self.scenario.border.channels()
        return next((row for row in rows if (row["source"], row["group"]) == (self.source, GROUP)), None)

    def upstream(self):
        row = self.row()
        return (row["upstream"], row["incoming_interface"], row["upstream_neighbor"]) if row else None

    def joined_at_frr(self):
        entry = self.router.json("show ip mroute").get(GROUP, {}).get(self.source, {})
        return topology.ROUTER_UPSTREAM in entry.get("oil", {})

    def routes(self, *command):
        self.lab.run(self.names.border, "ip", "route", *command)


def assert_nothing_lost_from_now_on(receiver):
    """At the beginning each router's kernel holds three packets until it is given a route, and drops the next."""
    wrong = ("lost", "duplicates", "reordered")
    before = [receiver.figures[name] for name in wrong]
    receiver.wait_for_more(10, packets=200)
    assert [receiver.figures[name] for name in wrong] == before


@pytest.fixture
def domain(make_scenario, tmp_path):
    scenario = make_scenario(sizes={"routed": 1, "downstreams": 2, "receivers": 2}, sections=QUICK_PIM)
    names = scenario.lab.topology
    with FrrRouter(scenario.lab, names.routers()[0], tmp_path, domain_router(names, 1)) as router:
        made = Domain(scenario, router)
        wait_until(lambda: scenario.border.get("neighbors")["items"], 20, "FRR is a neighbour")
        try:
            yield made
        finally:
            for process in made.started:
                stop(process)


NATIVE = ("native", "down0", ROUTER)
TUNNEL = ("tunnel", "amt0", None)


def test_a_source_of_the_domain_is_joined_at_its_router_and_never_at_a_relay(domain):
    domain.send()
    receiver = domain.receive()
    wait_until(lambda: domain.upstream() == NATIVE, 10, "native")
    wait_until(domain.joined_at_frr, 10, "FRR forwards to us")
    receiver.wait_for_more(20, packets=50)
    row = domain.row()
    assert (row["outgoing_interfaces"], row["tunnels"], row["reason"]) == (["down1"], [], None)
    assert [item["kind"] for item in row["interests"]] == ["igmp"]
    relay_channels = domain.scenario.relay.channels()
    assert domain.source not in {item["source"] for item in relay_channels}
    assert_nothing_lost_from_now_on(receiver)
    receiver.finish()
    wait_until(lambda: domain.row() is None and not domain.joined_at_frr(), 20, "left at FRR")


def test_a_source_moves_to_a_tunnel_and_back_with_the_route_to_it(domain):
    domain.send()
    receiver = domain.receive()
    wait_until(lambda: domain.upstream() == NATIVE, 10, "native")
    receiver.wait_for_more(20)
    domain.routes("replace", f"{domain.source}/32", "via", str(topology.INTERNET_BORDER_SIDE.ipv4))
    wait_until(lambda: domain.upstream() == TUNNEL, 10, "through the tunnel")
    wait_until(lambda: not domain.joined_at_frr(), 20, "pruned at FRR")
    domain.routes("del", f"{domain.source}/32")
    wait_until(lambda: domain.upstream() == NATIVE, 10, "native again")
    receiver.wait_for_more(20)


def test_a_source_whose_router_speaks_no_pim_any_more_is_looked_for_at_the_relays(domain):
    domain.send()
    receiver = domain.receive()
    wait_until(lambda: domain.upstream() == NATIVE, 10, "native")
    receiver.wait_for_more(20)
    domain.router.kill("pimd")
    wait_until(lambda: domain.upstream() == TUNNEL, 15, "through the tunnel once the neighbour expired")
    domain.router.restart("pimd")
    wait_until(lambda: domain.upstream() == NATIVE, 20, "native again")
    # pimd 8.4 may not forward yet: a Join that comes before its other interface is configured finds no RPF for good.
    wait_until(lambda: domain.source in domain.router.vtysh("show ip pim join"), 10, "joined at FRR again")


def test_a_source_on_a_link_of_ours_needs_nobody_to_be_asked(domain):
    """The receiver is behind FRR this time, the source on the border's second LAN."""
    source = str(domain.names.receiver_address(1).ipv4)
    domain.router.configure(f"ip route 10.20.1.0/24 {topology.border_downstream(0).ipv4}\n")
    domain.run(domain.names.receiver(1), "send", GROUP, "--interface", topology.HOST_INTERFACE, "--rate", "200")
    command = ("receive", source, GROUP, "--interface", topology.HOST_INTERFACE, "--every", "0.1")
    receiver = Counting("on link", domain.run(domain.names.receiver(0), *command, stdout=subprocess.PIPE))
    receiver.wait_for_more(20, packets=100)
    (row,) = (row for row in domain.scenario.border.channels() if row["source"] == source)
    assert (row["upstream"], row["incoming_interface"], row["upstream_neighbor"]) == ("native", "down1", None)
    assert row["outgoing_interfaces"] == ["down0"]
    assert [(item["kind"], item["neighbor"]) for item in row["interests"]] == [("pim", ROUTER)], json.dumps(row)
    assert_nothing_lost_from_now_on(receiver)
