"""The end of a fast engine, by itself or by force: nothing of it stays in the kernel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.dataplane.fast.layout import Plane
from lab.bench.engine_border import Border
from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import UPLINK_AT_GATEWAY, EngineTopology
from lab.bench.inner_packets import datagram_ipv4, one_hop_on
from lab.bench.relay_topology import inside, run
from tests.forwarding.surface import KINDS, listable, still_there

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("bpftool") is None, reason="needs bpftool"),
]

PATIENCE = 10.0


@pytest.fixture
def topology() -> Iterator[EngineTopology]:
    if missing := missing_for_engine():
        pytest.skip(missing)
    with EngineTopology(f"isx-end{os.getpid()}", downstreams=2, redirectable=True) as made, inside(made.gateway):
        yield made


def assert_all_kinds(held: set[tuple[str, int]]) -> None:
    assert {kind for kind, _ in held} >= set(KINDS), held


def all_go(held: set[tuple[str, int]]) -> None:
    deadline = time.monotonic() + PATIENCE
    while left := still_there(held):
        assert time.monotonic() < deadline, f"the kernel still has {left}"
        time.sleep(0.05)


def test_a_closed_engine_leaves_nothing(topology: EngineTopology, plane: Plane | None) -> None:
    before = listable(os.getpid())
    with Border(topology, on_unsupported=pytest.skip, plane=plane) as border:
        relay, wire = border.relay(), border.wire()
        border.forward(4, "down0", "down1")
        packet = datagram_ipv4(b"x" * 100)
        relay.send(packet)
        border.run_until(lambda: wire.collect() == [one_hop_on(packet)])
        held = listable(os.getpid()) - before
        if plane is not None:
            assert_all_kinds(held)
            assert still_there(held) == held
    assert listable(os.getpid()) == before
    all_go(held)
    assert "isthmus" not in run("tc", "filter", "show", "dev", UPLINK_AT_GATEWAY, "ingress")


CHILD = """
import asyncio, sys
from agent.dataplane.fast.layout import Plane
from lab.bench.engine_border import Border
from lab.bench.engine_topology import EngineTopology

with Border(EngineTopology(sys.argv[1], downstreams=2), plane=Plane[sys.argv[2]]) as border:
    border.forward(4, "down0", "down1")
    print("ready", flush=True)
    border.loop.run_forever()
"""


@pytest.mark.parametrize("plane", ["xdp", "xdp-mfc", "tc"], indirect=True)
def test_a_killed_process_leaves_nothing(topology: EngineTopology, plane: Plane) -> None:
    command = [sys.executable, "-c", CHILD, topology.prefix, plane.name]
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        held = listable(process.pid)
        assert_all_kinds(held)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    all_go(held)
    shown = run("ip", "-details", "link", "show", "dev", UPLINK_AT_GATEWAY)
    assert "xdp" not in shown
    # A filter before Linux 6.6 stays, and does nothing: whoever comes next forwards as if it were not there.
    with Border(topology, on_unsupported=pytest.skip, plane=plane) as border:
        relay, wire = border.relay(), border.wire()
        border.forward(4)
        packet = datagram_ipv4(b"y" * 100)
        relay.send(packet)
        border.run_until(lambda: wire.collect() == [one_hop_on(packet)])
