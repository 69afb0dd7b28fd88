"""FRR 10's pim6d over IPv6: as what routes multicast beside the agent, and as the router behind it.

Debian 12 has no pim6d; lab/frr_installation.py says how to have one. PIMv6 is spoken between link-local addresses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from lab import topology
from lab.agents import PROGRAM
from lab.frr import FrrRouter, border_router, domain_router, missing_for_frr
from lab.namespaces import Lab, wait_until
from lab.scenario import Scenario
from lab.topology import BORDER_UPLINK, SOURCE, SSM_GROUP_IPV6

DAEMONS = ("zebra", "staticd", "pim6d")
BOTH = ("zebra", "staticd", "pimd", "pim6d")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_frr(*BOTH)), reason=f"FRR needs {', '.join(missing)}"),
]

QUICK_PIM = """
[pim]
hello_interval = 1.0
join_prune_interval = 5.0
"""
NEIGHBOR = "fe80::226:a"
GROUP, ORIGIN = SSM_GROUP_IPV6, str(SOURCE.ipv6)
AS_RENDEZVOUS = """rendezvous_address = "2001:db8:d::1"
rendezvous_groups = ["ff15::/16"]
"""


def link_local(lab: Lab, namespace: str, interface: str) -> str:
    """The address PIM is spoken from there."""
    (link,) = json.loads(lab.run(namespace, "ip", "-j", "-6", "address", "show", "dev", interface).stdout)
    return next(str(entry["local"]) for entry in link["addr_info"] if entry["scope"] == "link")


def upstream(router: FrrRouter) -> dict[str, Any]:
    """A router's upstream state of the channel, {} without one."""
    found: dict[str, Any] = router.json("show ipv6 pim upstream")
    return dict(found.get(GROUP, {}).get(ORIGIN, {}))


def route(router: FrrRouter) -> dict[str, Any]:
    """A router's multicast route of the channel, {} without one."""
    found: dict[str, Any] = router.json("show ipv6 mroute")
    return dict(found.get(GROUP, {}).get(ORIGIN, {}))


def neighbors(scenario: Scenario) -> list[dict[str, Any]]:
    return [row for row in scenario.border.get("neighbors")["items"] if row["kind"] == "pim"]


@pytest.fixture
def routers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_pim6d_beside_the_agent_joins_and_prunes_at_it_and_unicast_keeps_to_the_uplink(
    make_scenario: Callable[..., Scenario], routers: ExitStack, tmp_path: Path
) -> None:
    scenario = make_scenario({"routed": 1}, gateway={"mode": "frr"}, sections=QUICK_PIM)
    lab, names = scenario.lab, scenario.lab.topology
    configuration = str(scenario.border.place.configuration)
    lines = lab.run(names.border, *PROGRAM, "frr-config", "--ipv6", "--config", configuration).stdout
    border = routers.enter_context(
        FrrRouter(lab, names.border, tmp_path, border_router(names, lines, family=6), daemons=BOTH)
    )
    below = routers.enter_context(
        FrrRouter(lab, names.router, tmp_path, domain_router(names, 1, family=6), daemons=DAEMONS)
    )
    wait_until(lambda: NEIGHBOR in border.json("show ipv6 pim neighbor").get("amt0", {}), 10, "the agent is seen")

    scenario.send(GROUP, "--rate", "200")
    receiver = scenario.receive(GROUP)
    receiver.wait_for_more(20)
    joined = upstream(border)
    assert (joined["inboundInterface"], joined["joinState"]) == ("amt0", "Joined")
    wait_until(lambda: "down0" in route(border).get("oil", {}), 5, "the border's route leads to the domain")
    assert (route(border)["iif"], route(below)["iif"]) == ("amt0", topology.ROUTER_UPSTREAM)
    (channel,) = scenario.border.channels()
    assert (channel["source"], channel["group"]) == (ORIGIN, GROUP)
    (interest,) = channel["interests"]
    assert (interest["kind"], interest["interface"]) == ("pim", "amt0")

    way = json.loads(lab.run(names.border, "ip", "-j", "route", "get", ORIGIN).stdout)
    assert way[0]["dev"] == BORDER_UPLINK
    receiver.wait_for_more(10, 400)
    assert receiver.is_whole(), receiver.figures
    receiver.finish()
    wait_until(lambda: not scenario.border.channels(), 20, "the prune ends the channel")


class Domain:
    """A border in mode `router` and a router behind it that runs pim6d."""

    def __init__(self, scenario: Scenario, router: FrrRouter) -> None:
        self.scenario, self.router = scenario, router
        names = scenario.lab.topology
        self.ours = link_local(scenario.lab, names.border, "down0")
        self.theirs = link_local(scenario.lab, names.router, topology.ROUTER_UPSTREAM)
        wait_until(lambda: self.neighbors() and self.sees_us(), 20, "both are neighbours")

    def neighbors(self) -> list[dict[str, Any]]:
        return neighbors(self.scenario)

    def sees_us(self) -> bool:
        return self.ours in self.router.json("show ipv6 pim neighbor").get(topology.ROUTER_UPSTREAM, {})

    def channels(self) -> list[dict[str, Any]]:
        return self.scenario.border.channels()


@pytest.fixture
def make_domain(make_scenario: Callable[..., Scenario], routers: ExitStack, tmp_path: Path) -> Callable[..., Domain]:
    def make(lines: str = "", sections: str = "") -> Domain:
        scenario = make_scenario({"routed": 1}, sections=QUICK_PIM + sections)
        names = scenario.lab.topology
        text = domain_router(names, 1, family=6) + lines
        return Domain(
            scenario, routers.enter_context(FrrRouter(scenario.lab, names.router, tmp_path, text, daemons=DAEMONS))
        )

    return make


def test_joins_and_prunes_of_pim6d_become_subscriptions_and_end_them(make_domain) -> None:
    domain = make_domain()
    scenario = domain.scenario
    scenario.send(GROUP, "--rate", "200")
    receiver = scenario.receive(GROUP)
    receiver.wait_for_more(20, 200)
    (channel,) = domain.channels()
    (interest,) = channel["interests"]
    assert (interest["kind"], interest["interface"], interest["neighbor"]) == ("pim", "down0", domain.theirs)
    assert (channel["incoming_interface"], channel["outgoing_interfaces"]) == ("amt0", ["down0"])
    joined = upstream(domain.router)
    assert (joined["inboundInterface"], joined["joinState"]) == (topology.ROUTER_UPSTREAM, "Joined")
    assert set(route(domain.router)["oil"]) == {topology.ROUTER_DOWNSTREAM}
    assert receiver.is_whole(), receiver.figures
    receiver.finish()
    wait_until(lambda: not domain.channels(), 20, "the prune ends the channel")
    pim = next(row for row in scenario.border.get("interfaces")["items"] if row["name"] == "down0")["pim"]
    assert next(row for row in pim if row["family"] == 6)["refused"] == {}


def test_a_route_by_a_link_local_address_leads_to_us_too(make_domain) -> None:
    domain = make_domain()
    external = topology.EXTERNAL_PREFIXES[1]
    domain.router.configure(
        f"no ipv6 route {external} {topology.border_downstream(0).ipv6}\n"
        f"ipv6 route {external} {domain.ours} {topology.ROUTER_UPSTREAM}\n"
    )
    domain.scenario.send(GROUP, "--rate", "200")
    domain.scenario.receive(GROUP).wait_for_more(20)
    assert upstream(domain.router)["joinState"] == "Joined"


def test_both_elect_the_same_designated_router_and_a_restart_is_noticed(make_domain) -> None:
    domain = make_domain()
    scenario, router = domain.scenario, domain.router
    higher = str(max(ip_address(domain.ours), ip_address(domain.theirs)))

    def elected() -> tuple[object, object]:
        pim = next(row for row in scenario.border.get("interfaces")["items"] if row["name"] == "down0")["pim"]
        ours = next(row for row in pim if row["family"] == 6)["designated_router"]
        return ours, router.json("show ipv6 pim interface")[topology.ROUTER_UPSTREAM]["pimDesignatedRouter"]

    wait_until(lambda: elected() == (higher, higher), 10, "one designated router")
    scenario.send(GROUP, "--rate", "200")
    receiver = scenario.receive(GROUP)
    receiver.wait_for_more(20)
    before = domain.neighbors()[0]["generation_id"]
    router.kill("pim6d")
    router.restart("pim6d")
    wait_until(lambda: [row["generation_id"] for row in domain.neighbors()] not in ([], [before]), 20, "a new GenID")
    receiver.wait_for_more(30)
    scenario.border.kill()
    scenario.border.start()
    receiver.wait_for_more(30)
    assert domain.neighbors()[0]["address"] == domain.theirs


def test_an_any_source_group_comes_through_us_as_its_rendezvous_point(make_domain) -> None:
    domain = make_domain("ipv6 pim rp 2001:db8:d::1 ff15::/16\n", AS_RENDEZVOUS)
    domain.scenario.send(topology.ASM_GROUP_IPV6, "--rate", "200")
    receiver = domain.scenario.receive(topology.ASM_GROUP_IPV6, any_source=True)
    receiver.wait_for_more(20, 200)
    receiver.finish()
    wait_until(lambda: not domain.channels(), 30, "both are left")
