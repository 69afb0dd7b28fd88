"""What the daemon tells of its planes: status, channels, metrics and command line, with one engine after another."""

from __future__ import annotations

import subprocess

import pytest

from lab.agents import PROGRAM
from lab.namespaces import wait_until
from lab.planes import choose, dataplane, engine, start_stream, wait_for_planes
from lab.topology import SSM_GROUP_IPV4

pytestmark = pytest.mark.root

RATE = 200


def said(agent, command):
    """Output of one of the agent's commands."""
    done = subprocess.run(
        [*PROGRAM, command, "--socket", str(agent.place.socket)], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


def metrics(agent):
    done = subprocess.run(
        ["curl", "-sf", "--unix-socket", str(agent.place.socket), "http://agent/metrics"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.splitlines()


def test_what_is_told_follows_the_engine(make_scenario):
    scenario = make_scenario(sections=dataplane("xdp"))
    agent = scenario.border
    start_stream(scenario, SSM_GROUP_IPV4, RATE)
    for name in ("xdp", "tc", "userspace"):
        if name != "xdp":
            choose(agent, name)
        wait_until(lambda name=name: engine(agent)["configured"] == name, 10.0, f"{name} is configured")
        wait_until(
            lambda name=name: [row["plane"] for row in agent.get("channels")["items"]] == [name],
            10.0,
            f"it is on {name}",
        )
        (row,) = agent.get("channels")["items"]
        assert row["plane_reason"] is None, row
        told = engine(agent)
        assert told["name"] == name
        planes = {(item["name"], item["role"]): item["plane"] for item in told["interfaces"]}
        expected = {} if name == "userspace" else {("up0", "uplink"): name, ("down0", "downstream"): name}
        assert planes == expected
        assert f'isthmus_plane_channels{{plane="{name}"}} 1.0' in metrics(agent)
        assert name in said(agent, "channels")
        assert said(agent, "status").count(f"downstream, {name}") == (name != "userspace")


def test_where_xdp_cannot_send_each_place_says_why(make_scenario):
    scenario = make_scenario({"takes_redirected": False}, sections=dataplane("auto"))
    agent = scenario.border
    start_stream(scenario, SSM_GROUP_IPV4, RATE)
    wait_for_planes(agent, tc=1)
    (row,) = agent.get("channels")["items"]
    assert "GRO" in row["plane_reason"]
    (down,) = [item for item in engine(agent)["interfaces"] if item["role"] == "downstream"]
    assert (down["plane"], down["probe"]) == ("tc", "failed")
    assert 'isthmus_interface_plane_usable{interface="down0",plane="xdp",role="downstream"} 0.0' in metrics(agent)
    assert "not faster: xdp: down0: " in said(agent, "channels")
    assert "down0" in said(agent, "status")
