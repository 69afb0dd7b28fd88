"""Another engine at run time: a stream of counted packets loses none, has none twice, and next to none out of order."""

from __future__ import annotations

import pytest

from lab.planes import choose, dataplane, start_stream, wait_for_planes
from lab.topology import SSM_GROUP_IPV4, SSM_GROUP_IPV6

pytestmark = pytest.mark.root

RATE = 2000
ROUNDS = ("tc", "xdp-mfc", "userspace", "auto", "userspace", "tc", "xdp", "userspace", "xdp-mfc", "xdp")
FROM_USERSPACE = 4
"""Times a channel leaves userspace above: what the kernel has on its way to the socket then comes late."""

LATE = 8
"""Packets that may come late each time: what arrives in the moment between the last look at the socket and the map."""


@pytest.mark.parametrize("group", [SSM_GROUP_IPV4, SSM_GROUP_IPV6])
def test_engines_follow_one_another_under_a_stream(make_scenario, group):
    scenario = make_scenario({"downstreams": 2, "receivers": 2}, sections=dataplane("xdp"))
    stream = start_stream(scenario, group, RATE, receivers=2)
    wait_for_planes(scenario.border, xdp=1)
    for chosen in ROUNDS:
        choose(scenario.border, chosen)
        plane = "xdp" if chosen == "auto" else chosen
        wait_for_planes(scenario.border, **{plane.replace("-", "_"): 1})
        for receiver in stream.receivers:
            receiver.wait_for_more(5.0, RATE // 2)
    sent = stream.stop()
    for figures in stream.finish(sent):
        assert (figures["first_sequence"], figures["received"]) == (0, figures["last_sequence"] + 1), figures
        assert figures["last_sequence"] >= sent - 1, figures
        assert (figures["lost"], figures["duplicates"]) == (0, 0), figures
        assert figures["reordered"] <= LATE * FROM_USERSPACE, figures
