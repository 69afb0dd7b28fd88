"""Links that change, or cannot carry every plane: the stream goes on or comes back, and `status` says why."""

from __future__ import annotations

import socket

import pytest

from agent.net.bpf import attach_xdp, load
from lab.bench.relay_topology import inside
from lab.namespaces import wait_until
from lab.planes import dataplane, start_stream, wait_for_planes, why_not, xdp_program
from lab.scenario import Scenario
from lab.topology import BORDER_UPLINK, SSM_GROUP_IPV4, SSM_GROUP_IPV6

pytestmark = pytest.mark.root

RATE = 500


def check_flow(scenario: Scenario, group: str = SSM_GROUP_IPV4, **planes: int) -> None:
    """A stream of two seconds that arrives whole, by these planes."""
    stream = start_stream(scenario, group, RATE, 2.0)
    wait_for_planes(scenario.border, **planes)
    sent = stream.sent()
    (figures,) = stream.finish(sent)
    assert (figures["received"], figures["lost"], figures["duplicates"]) == (sent, 0, 0), figures


def test_an_mtu_too_large_for_xdp_leaves_the_uplink_to_tc(make_scenario):
    scenario = make_scenario({"uplink_mtu": 9000}, sections=dataplane("auto"))
    check_flow(scenario, tc=1)
    assert "MTU of 9000 is too large" in why_not(scenario.border, BORDER_UPLINK, "xdp")


def test_another_s_xdp_program_on_the_uplink_stays_and_tc_is_used(make_scenario):
    scenario = make_scenario(sections=dataplane("auto"))
    scenario.border.stop()
    namespace = scenario.lab.topology.border
    with load("gateway") as foreign:
        with inside(namespace):
            link = attach_xdp(foreign.program("gateway_xdp"), socket.if_nametoindex(BORDER_UPLINK))
        theirs = xdp_program(scenario.lab, namespace)
        scenario.border.start()
        check_flow(scenario, tc=1)
        assert "another XDP program" in why_not(scenario.border, BORDER_UPLINK, "xdp")
        assert xdp_program(scenario.lab, namespace) == theirs
        link.close()


@pytest.mark.parametrize("engine", ["xdp", "xdp-mfc", "tc"])
def test_an_uplink_made_again_under_the_same_name_is_used_again(make_scenario, engine):
    scenario = make_scenario(sections=dataplane(engine))
    stream = start_stream(scenario, SSM_GROUP_IPV4, RATE)
    planes = {engine.replace("-", "_"): 1}
    wait_for_planes(scenario.border, **planes)
    (receiver,) = stream.receivers
    receiver.wait_for_more(10.0)
    scenario.lab.recreate_link(scenario.lab.topology.border, BORDER_UPLINK)
    receiver.wait_for_more(30.0, RATE)
    wait_for_planes(scenario.border, 20.0, **planes)
    assert (xdp_program(scenario.lab, scenario.lab.topology.border) is not None) is (engine != "tc")
    receiver.wait_for_more(10.0, RATE)
    assert receiver.figures["duplicates"] == 0


def test_an_uplink_that_goes_down_and_up_is_used_again(make_scenario):
    scenario = make_scenario(sections=dataplane("auto"))
    stream = start_stream(scenario, SSM_GROUP_IPV4, RATE)
    wait_for_planes(scenario.border, xdp=1)
    (receiver,) = stream.receivers
    receiver.wait_for_more(10.0)
    for up in (False, True):
        scenario.lab.set_link(scenario.lab.topology.border, BORDER_UPLINK, up=up)
    receiver.wait_for_more(30.0, RATE)
    wait_for_planes(scenario.border, xdp=1)


def test_a_downstream_made_again_is_tried_out_and_used_again(make_scenario):
    scenario = make_scenario(sections=dataplane("auto"))
    stream = start_stream(scenario, SSM_GROUP_IPV4, RATE)
    wait_for_planes(scenario.border, xdp=1)
    (receiver,) = stream.receivers
    receiver.wait_for_more(10.0)
    scenario.lab.recreate_link(scenario.lab.topology.border, "down0")
    receiver.wait_for_more(30.0, RATE)
    wait_for_planes(scenario.border, 20.0, xdp=1)


@pytest.mark.parametrize("group", [SSM_GROUP_IPV4, SSM_GROUP_IPV6])
def test_packets_larger_than_a_downstream_are_left_to_userspace(make_scenario, group):
    scenario = make_scenario(sections=dataplane("auto"))
    scenario.lab.run(scenario.lab.topology.border, "ip", "link", "set", "down0", "mtu", "1280")
    start_stream(scenario, group, RATE, 5.0)
    wait_for_planes(scenario.border, xdp=1)

    def left() -> int:
        return int(scenario.border.get("status")["engine"]["exceptions"].get("too_big", 0))

    # Of IPv6 the first one is enough for the source to be told, who then sends no more of that size (RFC 4443 §3.2).
    least = 20 if group == SSM_GROUP_IPV4 else 1
    wait_until(lambda: left() >= least, 10.0, "packets too big for the interface go to the socket")
