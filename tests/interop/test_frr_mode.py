"""Beside FRR: its pimd routes multicast on the border and behind it, the agent is the neighbour its Joins go to.

There is no static multicast state anywhere: every channel is there because pimd asked the agent for it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab import topology
from lab.agents import PROGRAM
from lab.frr import FrrRouter, border_router, domain_router, missing_for_frr
from lab.namespaces import wait_until
from lab.scenario import Counting, Scenario
from lab.topology import ASM_GROUP_IPV4, BORDER_UPLINK, HOST_INTERFACE, SOURCE, SSM_GROUP_IPV4

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_frr()), reason=f"FRR needs {', '.join(missing)}"),
]

NEIGHBOR = "169.254.226.10"
FRR_ON_TUNNEL = "169.254.226.9"
RENDEZVOUS_POINT = "10.255.0.1"
QUICK_PIM = f"""
[pim]
hello_interval = 1.0
rendezvous_address = "{RENDEZVOUS_POINT}"
rendezvous_groups = "239.1.0.0/16"
"""
CHANNEL = (str(SOURCE.ipv4), SSM_GROUP_IPV4)


class Domain:
    """A border with agent and FRR, and FRR routers behind it.

    Attributes:
        scenario: relay, agent, streams and receivers.
        border: FRR on the border.
        routers: FRR on the domain's routers, from the border on.
    """

    def __init__(self, scenario: Scenario, directory: Path, stack: ExitStack) -> None:
        self.scenario = scenario
        self.lab = scenario.lab
        self.names = scenario.lab.topology
        configuration = scenario.border.place.configuration
        lines = self.lab.run(self.names.border, *PROGRAM, "frr-config", "--config", str(configuration)).stdout
        text = border_router(self.names, lines)
        self.border = stack.enter_context(FrrRouter(self.lab, self.names.border, directory, text))
        # pimd resolves a rendezvous point by no default route.
        above = topology.border_downstream(0).ipv4
        rendezvous = f"ip route {RENDEZVOUS_POINT}/32 {above}\nip pim rp {RENDEZVOUS_POINT} 239.1.0.0/16\n"
        self.routers = [
            stack.enter_context(FrrRouter(self.lab, name, directory, domain_router(self.names, index) + rendezvous))
            for index, name in enumerate(self.names.routers(), start=1)
        ]

    def has_neighbor(self) -> bool:
        return NEIGHBOR in self.border.json("show ip pim neighbor").get("amt0", {})

    def wait_for_neighbor(self) -> None:
        wait_until(self.has_neighbor, 10, "pimd has the agent as its neighbour")

    def joined(self) -> dict[str, Any]:
        """The border's upstream state of the channel, {} without one."""
        upstream: dict[str, Any] = self.border.json("show ip pim upstream")
        return dict(upstream.get(SSM_GROUP_IPV4, {}).get(str(SOURCE.ipv4), {}))

    def route(self) -> dict[str, Any]:
        """The border's multicast route of the channel, {} without one."""
        routes: dict[str, Any] = self.border.json("show ip mroute")
        return dict(routes.get(SSM_GROUP_IPV4, {}).get(str(SOURCE.ipv4), {}))

    def way_to_source(self) -> str:
        """The border's interface for unicast to the source, "" when it is unreachable."""
        done = self.lab.run(self.names.border, "ip", "-j", "route", "get", str(SOURCE.ipv4), check=False)
        return str(json.loads(done.stdout)[0].get("dev", "")) if done.stdout.strip() else ""

    def ping(self, target: object) -> bool:
        return self.lab.run(self.names.border, "ping", "-c1", "-W2", str(target), check=False).returncode == 0


@pytest.fixture
def make_domain(make_scenario: Callable[..., Scenario], tmp_path: Path) -> Iterator[Callable[..., Domain]]:
    with ExitStack() as stack:

        def make(routed: int = 1) -> Domain:
            scenario = make_scenario({"routed": routed, "receivers": 1}, gateway={"mode": "frr"}, sections=QUICK_PIM)
            domain = Domain(scenario, tmp_path, stack)
            domain.wait_for_neighbor()
            return domain

        yield make


def stream(domain: Domain, group: str = SSM_GROUP_IPV4, **options: Any) -> Counting:
    """A stream and a receiver of it that has begun to receive."""
    domain.scenario.send(group, "--rate", "500")
    receiver = domain.scenario.receive(group, **options)
    receiver.wait_for_more(20)
    return receiver


def test_joins_and_prunes_of_two_routers_in_a_row_become_subscriptions(make_domain):
    domain = make_domain(routed=2)
    receiver = stream(domain)

    joins = domain.border.json("show ip pim join")
    assert SSM_GROUP_IPV4 in joins["down0"]
    joined = domain.joined()
    assert (joined["inboundInterface"], joined["joinState"]) == ("amt0", "Joined")
    wait_until(lambda: "down0" in domain.route().get("oil", {}), 5, "the border's route leads to the domain")
    route = domain.route()
    assert (route["iif"], set(route["oil"])) == ("amt0", {"down0"})
    for router in domain.routers:
        assert router.json("show ip mroute")[SSM_GROUP_IPV4][str(SOURCE.ipv4)]["iif"] == topology.ROUTER_UPSTREAM

    (channel,) = domain.scenario.border.channels()
    assert (channel["source"], channel["group"]) == CHANNEL
    (interest,) = channel["interests"]
    assert (interest["kind"], interest["interface"]) == ("pim", "amt0")
    assert channel["outgoing_interfaces"] == ["amt0"]
    assert not domain.scenario.border.get("joins")["items"]

    receiver.wait_for_more(10, 1000)
    assert receiver.is_whole(), receiver.figures
    counters = domain.scenario.border.get("statistics")["control"]["frr"]
    assert (counters.get("dropped_unicast", 0), counters["route_errors"]) == (0, 0)
    receiver.finish()
    wait_until(lambda: not domain.scenario.border.channels(), 20, "the prune ends the channel")
    assert domain.joined().get("joinState") != "Joined"


def test_unicast_to_the_source_takes_the_uplink_while_its_multicast_comes_through_the_tunnel(make_domain):
    domain = make_domain()
    receiver = stream(domain)
    assert domain.joined()["inboundInterface"] == "amt0"
    assert domain.way_to_source() == BORDER_UPLINK
    assert domain.ping(SOURCE.ipv4)
    assert domain.ping(SOURCE.ipv6)
    assert domain.lab.run(domain.names.receiver(), "ping", "-c1", "-W2", str(SOURCE.ipv4)).returncode == 0

    border = domain.names.border
    domain.lab.run(border, "ip", "route", "delete", "default")
    wait_until(lambda: not domain.way_to_source(), 5, "without a default route the source is unreachable")
    domain.lab.run(border, "ip", "route", "add", "default", "via", str(topology.INTERNET_BORDER_SIDE.ipv4))
    wait_until(lambda: domain.way_to_source() == BORDER_UPLINK, 5, "the new default route is followed")
    assert domain.ping(SOURCE.ipv4)
    receiver.wait_for_more(20)
    assert domain.joined()["joinState"] == "Joined"


@pytest.mark.parametrize("daemon", ["pimd", "zebra"])
def test_the_stream_goes_on_after_frr_was_restarted(make_domain, daemon):
    domain = make_domain()
    receiver = stream(domain)
    if daemon == "pimd":
        domain.border.restart("pimd")
    else:
        domain.border.close()
        wait_until(lambda: not domain.scenario.border.channels(), 20, "a goodbye ends the channel")
        domain.border.start()
    domain.wait_for_neighbor()
    receiver.wait_for_more(30)
    assert domain.route()["iif"] == "amt0"
    assert domain.way_to_source() == BORDER_UPLINK


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_stream_goes_on_after_the_agent_was_restarted(make_domain, end):
    domain = make_domain()
    receiver = stream(domain)
    getattr(domain.scenario.border, end)()
    wait_until(lambda: not domain.has_neighbor(), 10, "pimd has lost the agent")
    assert domain.way_to_source() == BORDER_UPLINK
    assert domain.ping(SOURCE.ipv4)
    domain.scenario.border.start()
    domain.wait_for_neighbor()
    receiver.wait_for_more(30)
    assert domain.way_to_source() == BORDER_UPLINK
    domain.scenario.border.stop()
    rules = domain.lab.run(domain.names.border, "ip", "rule").stdout
    assert "suppress" not in rules
    assert "226" not in rules


def test_an_any_source_group_comes_by_the_rendezvous_point_that_is_the_agent(make_domain):
    domain = make_domain()
    receiver = stream(domain, ASM_GROUP_IPV4, any_source=True)
    upstream = domain.border.json("show ip pim upstream")[ASM_GROUP_IPV4]
    assert upstream["*"]["inboundInterface"] == "amt0"
    receiver.wait_for_more(20, 500)
    receiver.finish()
    wait_until(lambda: not domain.scenario.border.channels(), 30, "the prune ends the channel")


def test_a_proxy_that_reports_on_the_tunnel_interface_is_served_too(make_domain):
    domain = make_domain()
    # What a proxy does upstream is what any host does: its kernel reports the membership there.
    proxy = domain.lab.start(
        domain.names.border,
        *("python3", "-c", _MEMBERSHIP, str(SOURCE.ipv4), SSM_GROUP_IPV4, "amt0"),
        stdin=subprocess.PIPE,
    )
    wait_until(domain.scenario.border.channels, 10, "the report became a subscription")
    (interest,) = domain.scenario.border.channels()[0]["interests"]
    assert (interest["kind"], interest["interface"]) == ("igmp", "amt0")
    proxy.kill()
    wait_until(lambda: not domain.scenario.border.channels(), 20, "its leave ends the channel")


_MEMBERSHIP = """
import socket, struct, sys
source, group, interface = sys.argv[1:]
def address(text): return struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(text)).ljust(128, b"\\0")
member = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
index = struct.pack("=I4x", socket.if_nametoindex(interface))
member.setsockopt(socket.IPPROTO_IP, 46, index + address(group) + address(source))
sys.stdin.read()
"""


def findings(domain: Domain, directory: Path) -> dict[str, dict[str, str]]:
    """What the doctor says, with the vtysh of the border's FRR."""
    tool = directory / "bin" / "vtysh"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f'#!/bin/sh\nexec {" ".join(domain.border.vtysh_command)} "$@"\n')
    tool.chmod(0o755)
    where = ("env", f"PATH={tool.parent}:/usr/sbin:/usr/bin:/sbin:/bin")
    command = (*where, *PROGRAM, "doctor", "--json", "--config", str(domain.scenario.border.place.configuration))
    done = domain.lab.run(domain.names.border, *command, check=False)
    return {finding["name"]: finding for finding in json.loads(done.stdout)}


def test_the_doctor_compares_frr_with_what_it_should_be_told(make_domain, tmp_path):
    domain = make_domain()
    found = findings(domain, tmp_path)
    for name in ("frr-config", "frr-neighbor", "frr-rules-ipv4", "frr-rules-ipv6", "multicast-routing-ipv4"):
        assert found[name]["verdict"] == "ok", found[name]
    assert found["frr-config-ipv6"]["verdict"] == "warn"

    domain.border.configure(f"no ip route 0.0.0.0/1 {NEIGHBOR} amt0\ninterface amt0\n no ip pim\nexit\n")
    domain.lab.run(domain.names.border, "ip", "rule", "add", "priority", "100", "lookup", "main")
    found = findings(domain, tmp_path)
    assert found["frr-config"]["verdict"] == "fail"
    assert f"ip route 0.0.0.0/1 {NEIGHBOR} amt0" in found["frr-config"]["seen"]
    assert "interface amt0: ip pim" in found["frr-config"]["seen"]
    assert found["frr-neighbor"]["verdict"] == "warn"
    assert found["frr-rules-ipv4"]["verdict"] == "warn"
    assert HOST_INTERFACE not in found["frr-rules-ipv4"]["seen"]
