"""Router mode above Debian's pimd 2.3, another router than FRR: (S,G) of SSM hosts, (*,G) with us as the RP.

It looks at its timers once in 5 s: a holdtime of ours below that would have it forget us between two Hellos.
"""

from contextlib import ExitStack

import pytest
from scripted.border_scene import border_scene, channel_row, measured, pim_neighbors

from lab import topology
from lab.namespaces import missing_for_namespaces, wait_until
from lab.pimd import PimdRouter, missing_for_pimd

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_namespaces() + missing_for_pimd()), reason=", ".join(missing)),
]

GROUP, SHARED = topology.NUMBERED_GROUP_IPV4, topology.ASM_GROUP_IPV4
RENDEZVOUS = str(topology.border_downstream(0).ipv4)
PIM = f"""
[pim]
hello_interval = 5.0
rendezvous_address = "{RENDEZVOUS}"
rendezvous_groups = ["239.1.0.0/16"]
"""
CONFIGURATION = f"igmp-query-interval 4\nrp-address {RENDEZVOUS} 239.1.0.0/16\n"
NEIGHBOR = str(topology.router_upstream(1).ipv4)


@pytest.fixture(scope="module")
def streams(_nothing_abandoned, tmp_path_factory):
    """A receiver of one source and one of every source, both behind pimd."""
    directory = tmp_path_factory.mktemp("pimd")
    with border_scene(directory, {"routed": 1}, pim=PIM, frr=False) as scene, ExitStack() as stack:
        stack.enter_context(PimdRouter(scene.lab, scene.names.router, directory, CONFIGURATION))
        wait_until(lambda: pim_neighbors(scene.scenario.border), 40, "pimd is a neighbour")
        for group in (GROUP, SHARED):
            scene.scenario.send(group, "--rate", "200")
        yield scene, scene.receive(GROUP), scene.receive(SHARED, any_source=True)


@pytest.mark.parametrize("index", [0, 1], ids=["source", "any source"])
def test_what_pimd_joins_comes_through_the_tunnel(streams, index):
    scene, receiver = streams[0], streams[1 + index]
    receiver.wait_for_more(30, packets=400)
    measured("time to first packet, s", receiver.figures["join_seconds"])
    row = channel_row(scene.scenario.border, SHARED, None) if index else channel_row(scene.scenario.border, GROUP)
    assert [(item["kind"], item["neighbor"]) for item in row["interests"]] == [("pim", NEIGHBOR)]
    assert (row["upstream"], row["outgoing_interfaces"], row["reason"]) == ("tunnel", ["down0"], None)
    assert receiver.is_whole()


def test_what_pimd_prunes_is_left(streams):
    scene, source, shared = streams
    source.finish()
    scene.wait_for_leave(GROUP, 20)
    assert shared.is_whole()
