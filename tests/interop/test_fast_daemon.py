"""The daemon with each engine: a stream arrives whole from its first to its last packet, and `status` says by whom."""

from __future__ import annotations

import pytest

from lab.planes import dataplane, engine, interface_plane, start_stream, wait_for_planes, why_not
from lab.topology import SSM_GROUP_IPV4, SSM_GROUP_IPV6

pytestmark = pytest.mark.root

RATE, SECONDS = 1000, 2.0
A_FEW = 20
"""Packets that others may overtake: when a process along the way is moved to another processor, what it sends goes into
that one's queue, and the kernel does not wait until the former one's is empty."""


@pytest.mark.parametrize("group", [SSM_GROUP_IPV4, SSM_GROUP_IPV6])
@pytest.mark.parametrize(
    ("configured", "forwards"),
    [("auto", "xdp"), ("xdp", "xdp"), ("xdp-mfc", "xdp-mfc"), ("tc", "tc"), ("userspace", "userspace")],
)
def test_a_stream_arrives_whole(make_scenario, configured, forwards, group):
    scenario = make_scenario({"downstreams": 2, "receivers": 2}, sections=dataplane(configured))
    stream = start_stream(scenario, group, RATE, SECONDS, receivers=2)
    wait_for_planes(scenario.border, **{forwards.replace("-", "_"): 1})
    assert engine(scenario.border)["name"] == forwards
    if forwards != "userspace":
        assert interface_plane(scenario.border, "up0", "uplink") == forwards
        assert {interface_plane(scenario.border, name, "downstream") for name in ("down0", "down1")} == {forwards}
    sent = stream.sent()
    for figures in stream.finish(sent):
        assert (figures["first_sequence"], figures["received"]) == (0, sent), figures
        assert (figures["lost"], figures["duplicates"]) == (0, 0), figures
        assert figures["reordered"] <= A_FEW, figures
    assert scenario.border.get("statistics")["forwarded_packets"] == sent


def test_auto_uses_tc_where_a_far_end_takes_no_redirected_frames_and_says_why(make_scenario):
    scenario = make_scenario({"takes_redirected": False}, sections=dataplane("auto"))
    stream = start_stream(scenario, SSM_GROUP_IPV4, RATE, SECONDS)
    wait_for_planes(scenario.border, tc=1)
    assert "GRO" in why_not(scenario.border, "down0", "xdp", "downstream")
    sent = stream.sent()
    (figures,) = stream.finish(sent)
    assert (figures["received"], figures["lost"]) == (sent, 0), figures
    assert figures["reordered"] <= A_FEW, figures


def test_a_far_end_that_changes_while_a_stream_flows_changes_the_plane(make_scenario):
    scenario = make_scenario(sections=dataplane("auto"))
    stream = start_stream(scenario, SSM_GROUP_IPV4, RATE)
    wait_for_planes(scenario.border, xdp=1)
    switch = scenario.lab.topology.switch
    scenario.lab.run(switch, "ethtool", "-K", "border0", "gro", "off")
    wait_for_planes(scenario.border, tc=1)
    scenario.lab.run(switch, "ethtool", "-K", "border0", "gro", "on")
    wait_for_planes(scenario.border, 20.0, xdp=1)
    (receiver,) = stream.receivers
    receiver.wait_for_more(5.0, RATE)
    sent = stream.stop()
    (figures,) = stream.finish(sent)
    # What XDP redirects to an end without GRO is gone; the watchdog looks every second.
    assert figures["duplicates"] == 0, figures
    assert figures["lost"] < 3 * RATE, figures
