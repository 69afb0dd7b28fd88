"""The agent is killed while its programs forward: they are gone with it, and the next life begins with its own."""

from __future__ import annotations

import shutil
import time

import pytest

from lab.namespaces import Lab, wait_until
from lab.planes import dataplane, programs_of, start_stream, wait_for_planes, xdp_program
from lab.scenario import Counting
from lab.topology import BORDER_UPLINK, SSM_GROUP_IPV4

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("bpftool") is None, reason="needs the program bpftool"),
]

RATE = 1000
JOINING = "rx-udp-gro-forwarding"


def is_loaded(lab: Lab, namespace: str, program: int) -> bool:
    return lab.run(namespace, "bpftool", "prog", "show", "id", str(program), check=False).returncode == 0


def joins(lab: Lab, namespace: str) -> bool:
    lines = lab.run(namespace, "ethtool", "-k", BORDER_UPLINK).stdout.splitlines()
    return any(line.startswith(f"{JOINING}: on") for line in lines)


def filters(lab: Lab, namespace: str) -> str:
    return lab.run(namespace, "tc", "filter", "show", "dev", BORDER_UPLINK, "ingress", check=False).stdout


def is_silent(receiver: Counting) -> bool:
    before = receiver.received
    time.sleep(0.5)  # five lines of the receiver's
    return receiver.received == before


@pytest.mark.parametrize("chosen", ["xdp", "xdp-mfc", "tc"])
def test_nothing_stays_of_a_killed_agent_and_the_next_one_carries_the_stream_whole(make_scenario, chosen):
    scenario = make_scenario(sections=dataplane(chosen))
    lab, border, namespace = scenario.lab, scenario.border, scenario.lab.topology.border
    stream = start_stream(scenario, SSM_GROUP_IPV4, RATE)
    forwarded = {chosen.replace("-", "_"): 1}
    wait_for_planes(border, **forwarded)
    (receiver,) = stream.receivers
    receiver.wait_for_more(10.0, RATE)
    assert joins(lab, namespace) is (chosen == "xdp-mfc")
    programs = programs_of(border.process_id)
    attached = xdp_program(lab, namespace)
    assert programs
    assert attached in (programs if chosen != "tc" else {None})

    border.kill()
    # The kernel frees what nobody holds a moment later.
    wait_until(lambda: not any(is_loaded(lab, namespace, program) for program in programs), 5.0, "programs are gone")
    assert xdp_program(lab, namespace) is None
    assert not filters(lab, namespace)
    wait_until(lambda: is_silent(receiver), 5.0, "nobody forwards: programs, routes and socket went with the agent")

    border.start()
    wait_for_planes(border, **forwarded)
    again = programs_of(border.process_id)
    assert not programs & again
    assert xdp_program(lab, namespace) in (again if chosen != "tc" else {None})
    assert not filters(lab, namespace)
    receiver.wait_for_more(20.0, RATE)
    late = scenario.receive(SSM_GROUP_IPV4)
    late.wait_for_more(10.0, RATE)
    sent = stream.stop()
    (figures,) = stream.finish(sent)
    assert figures["duplicates"] == 0, figures
    assert figures["last_sequence"] >= sent - 1, figures
    assert late.finish()["lost"] == 0, "whole since the restart"

    border.stop()
    assert xdp_program(lab, namespace) is None
    assert not joins(lab, namespace), "the uplink is as it was found, before the kill"


def test_joining_that_a_killed_agent_left_on_is_put_right_by_another_engine(make_scenario):
    scenario = make_scenario(sections=dataplane("xdp-mfc"))
    lab, border, namespace = scenario.lab, scenario.border, scenario.lab.topology.border
    stream = start_stream(scenario, SSM_GROUP_IPV4, RATE)
    wait_for_planes(border, xdp_mfc=1)
    border.kill()
    assert joins(lab, namespace)
    path = border.place.configuration
    path.write_text(path.read_text().replace('"xdp-mfc"', '"tc"'))
    border.start()
    wait_for_planes(border, tc=1)
    assert not joins(lab, namespace)
    stream.receivers[0].wait_for_more(20.0, RATE)
    border.stop()
    assert not joins(lab, namespace)
