"""What a killed or stopped agent leaves in the kernel: nothing, by `bpftool` and `ip`, and a new one starts."""

from __future__ import annotations

import shutil

import pytest
from forwarding.surface import attached, kernel_objects, still_there

from lab.namespaces import wait_until
from lab.planes import dataplane, start_stream, wait_for_planes, xdp_program
from lab.topology import SSM_GROUP_IPV4

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("bpftool") is None, reason="needs the program bpftool"),
]

RATE = 500


def check_nothing_is_left(scenario, namespace, objects):
    # The kernel frees what nobody holds a moment later.
    wait_until(lambda: not still_there(objects), 10.0, "programs, maps and links are gone")
    assert attached(scenario.lab, namespace) == []
    for interface in ("up0", "down0", "native0"):
        shown = scenario.lab.run(namespace, "tc", "filter", "show", "dev", interface, "ingress", check=False)
        assert shown.stdout.strip() == ""


@pytest.mark.parametrize(
    ("engine", "further"), [("xdp", ""), ("xdp", "receive_cores = 2\n"), ("xdp-mfc", ""), ("tc", "")]
)
def test_nothing_is_left_of_a_gateway(make_scenario, engine, further):
    scenario = make_scenario(sections=dataplane(engine) + further)
    border, namespace = scenario.border, scenario.lab.topology.border
    stream = start_stream(scenario, SSM_GROUP_IPV4, RATE)
    (receiver,) = stream.receivers
    for end in (border.kill, border.stop):
        wait_for_planes(border, **{engine.replace("-", "_"): 1})
        receiver.wait_for_more(20.0, RATE)
        objects = kernel_objects(border.process_id)
        assert {kind for kind, _ in objects} == {"prog", "map", "link"}
        assert attached(scenario.lab, namespace) or engine == "tc", "Debian 12's bpftool does not list tcx"
        end()
        check_nothing_is_left(scenario, namespace, objects)
        assert xdp_program(scenario.lab, namespace) is None
        if end == border.kill:
            border.start()


def test_nothing_is_left_of_a_relay(make_scenario):
    scenario = make_scenario()
    relay, namespace = scenario.relay, scenario.lab.topology.relay
    stream = start_stream(scenario, SSM_GROUP_IPV4, RATE)
    (receiver,) = stream.receivers
    for end in (relay.kill, relay.stop):
        receiver.wait_for_more(30.0, RATE)
        objects = kernel_objects(relay.process_id)
        assert {kind for kind, _ in objects} >= {"prog", "map"}
        end()
        check_nothing_is_left(scenario, namespace, objects)
        if end == relay.kill:
            relay.start()
