"""Fast planes beside FRR: its multicast routes say where channels go, and the kernel forwards past them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lab.agents import PROGRAM
from lab.frr import FrrRouter, border_router, missing_for_frr
from lab.namespaces import wait_until
from lab.planes import dataplane, wait_for_planes
from lab.scenario import Counting, Scenario
from lab.topology import ASM_GROUP_IPV4, SOURCE, SSM_GROUP_IPV4

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_frr()), reason=f"FRR needs {', '.join(missing)}"),
]

NEIGHBOR = "169.254.226.10"
RATE = 500
QUICK_PIM = "\n[pim]\nhello_interval = 1.0\n"
RENDEZVOUS = 'rendezvous_address = "10.255.0.1"\nrendezvous_groups = "239.1.0.0/16"\n'
UNUSED_SECONDS = 30
"""For which FRR goes on believing in a source without packets, whatever its keepalive timer."""


class Border:
    """An agent in mode `frr` with FRR, which asks the hosts of two LANs by IGMP."""

    def __init__(self, scenario: Scenario, directory: Path, stack: ExitStack) -> None:
        self.scenario = scenario
        self.lab, self.namespace = scenario.lab, scenario.lab.topology.border
        configuration = scenario.border.place.configuration
        lines = self.lab.run(self.namespace, *PROGRAM, "frr-config", "--config", str(configuration)).stdout
        hosts = "".join(
            f"interface {name}\n ip igmp\n ip igmp query-max-response-time 10\n ip igmp query-interval 4\nexit\n"
            for name in scenario.lab.topology.downstream_interfaces
        )
        text = f"{border_router(scenario.lab.topology, lines)}\n{hosts}"
        self.frr = stack.enter_context(FrrRouter(self.lab, self.namespace, directory, text))
        self.wait_for_neighbor()

    def wait_for_neighbor(self) -> None:
        wait_until(
            lambda: NEIGHBOR in self.frr.json("show ip pim neighbor").get("amt0", {}), 15.0, "FRR has its neighbour"
        )

    def kernel_route(self) -> dict[str, Any]:
        """The kernel's route of the channel with its counters, {} without one."""
        shown = self.lab.run(self.namespace, "ip", "-s", "-j", "mroute", "show").stdout
        for route in json.loads(shown or "[]"):
            if route.get("dst") == SSM_GROUP_IPV4 and route.get("src") == str(SOURCE.ipv4):
                return dict(route)
        return {}

    def outgoing(self) -> set[str]:
        route = self.frr.json("show ip mroute").get(SSM_GROUP_IPV4, {}).get(str(SOURCE.ipv4), {})
        return set(route.get("oil", {})) - {"amt0", "pimreg"}


@pytest.fixture
def make_border(make_scenario: Callable[..., Scenario], tmp_path: Path) -> Iterator[Callable[[str], Border]]:
    with ExitStack() as stack:

        def make(engine: str) -> Border:
            sizes = {"downstreams": 2, "receivers": 2}
            sections = QUICK_PIM + RENDEZVOUS + dataplane(engine)
            scenario = make_scenario(sizes, gateway={"mode": "frr"}, sections=sections)
            return Border(scenario, tmp_path, stack)

        yield make


def sending(border: Border) -> Counting:
    """A stream at receiver 0 that FRR asks for."""
    scenario = border.scenario
    receiver = scenario.receive(SSM_GROUP_IPV4)
    scenario.send(SSM_GROUP_IPV4, "--rate", str(RATE))
    receiver.wait_for_more(20.0, RATE // 2)
    return receiver


@pytest.mark.parametrize("engine", ["auto", "tc"])
def test_joins_and_prunes_at_frr_are_followed_while_the_kernel_forwards(make_border, engine):
    border = make_border(engine)
    plane = {"xdp" if engine == "auto" else engine: 1}
    first = sending(border)
    wait_for_planes(border.scenario.border, **plane)
    assert border.outgoing() == {"down0"}
    second = border.scenario.receive(SSM_GROUP_IPV4, receiver=1)
    second.wait_for_more(20.0, RATE)
    assert border.outgoing() == {"down0", "down1"}
    wait_for_planes(border.scenario.border, **plane)
    second.finish()
    assert second.is_whole(), second.figures
    wait_until(lambda: border.outgoing() == {"down0"}, 15.0, "FRR prunes one of two interfaces")
    sent = _sent_by(border, "down1")
    first.wait_for_more(10.0, RATE)
    assert _sent_by(border, "down1") - sent < RATE // 2, "the pruned interface is quiet"
    wait_for_planes(border.scenario.border, **plane)
    # The kernel counts for FRR what came to the tunnel interface, and nothing does any more.
    counted = border.kernel_route()
    before = border.scenario.border.get("statistics")["forwarded_packets"]
    first.wait_for_more(10.0, RATE)
    assert border.scenario.border.get("statistics")["forwarded_packets"] - before >= RATE // 2
    routed = border.kernel_route()["packets"] - counted["packets"]
    assert routed <= 1, "but for what keeps the route"
    first.finish()
    assert first.figures["duplicates"] == 0
    wait_until(lambda: not border.scenario.border.channels(), 20.0, "the last leave ends the channel")


def test_frr_restarted_under_a_stream_gets_it_again(make_border):
    border = make_border("auto")
    receiver = sending(border)
    wait_for_planes(border.scenario.border, xdp=1)
    border.frr.restart("pimd")
    border.wait_for_neighbor()
    receiver.wait_for_more(30.0, RATE)
    wait_for_planes(border.scenario.border, 20.0, xdp=1)
    receiver.wait_for_more(10.0, RATE)
    assert border.outgoing() == {"down0"}


def test_frr_keeps_what_it_sees_no_packet_of(make_border):
    """Programs take the packets, and FRR forgets a source whose route is not used."""
    border = make_border("auto")
    scenario = border.scenario
    border.frr.configure("ip pim keep-alive-timer 5\nip pim rp keep-alive-timer 5\n")
    receivers = [scenario.receive(SSM_GROUP_IPV4), scenario.receive(ASM_GROUP_IPV4, any_source=True, receiver=1)]
    groups = (SSM_GROUP_IPV4, ASM_GROUP_IPV4)
    for group in groups:
        scenario.send(group, "--rate", str(RATE))
    for receiver in receivers:
        receiver.wait_for_more(20.0, RATE)
    wait_for_planes(scenario.border, xdp=2)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < UNUSED_SECONDS + 20:
        assert min(_age(border, group) for group in groups) >= int(passed)
        for receiver in receivers:
            receiver.wait_for_more(5.0, RATE // 2)
    wait_for_planes(scenario.border, xdp=2)
    for receiver in receivers:
        figures = receiver.finish()
        assert figures["duplicates"] == 0, figures
        assert figures["foreign"] == 0, "what keeps the routes does not leave by them"


def _age(border: Border, group: str) -> float:
    """Seconds FRR has known a source of a group, 0 when it knows none."""
    upstream = border.frr.json("show ip pim upstream").get(group, {}).get(str(SOURCE.ipv4), {})
    hours, minutes, seconds = (int(part) for part in upstream.get("upTime", "0:0:0").split(":"))
    return hours * 3600 + minutes * 60 + seconds


def _sent_by(border: Border, interface: str) -> int:
    shown = json.loads(border.lab.run(border.namespace, "ip", "-s", "-j", "link", "show", interface).stdout)
    return int(shown[0]["stats64"]["tx"]["packets"])
