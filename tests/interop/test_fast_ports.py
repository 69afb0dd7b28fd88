"""Which interfaces a fast plane may send to: found out by redirecting frames to them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from agent.dataplane.fast.interfaces import KernelPorts
from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.watchdog import Watchdog
from agent.net.bpf import BpfUnavailableError, live_frames, load
from lab.bench.engine_topology import EngineTopology, downstream, host_interface
from lab.bench.relay_topology import inside, ip_lines, run

pytestmark = pytest.mark.root


class Ports:
    """The gateway's interfaces, followed."""

    def __init__(self, topology: EngineTopology, stack: ExitStack) -> None:
        self.topology = topology
        self.loop = asyncio.new_event_loop()
        stack.callback(self.loop.close)
        stack.enter_context(inside(topology.gateway))
        try:
            program = stack.enter_context(load("probe")).program("probe_interface")
        except BpfUnavailableError as error:
            pytest.skip(str(error))

        def send(frame: bytes, count: int) -> None:
            live_frames(program, frame, count, count)

        self.ports = KernelPorts(self.loop, send)
        stack.callback(self.ports.close)
        self.changes: list[str] = []
        self.ports.on_changed = self.changes.append

    def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        async def wait() -> None:
            deadline = time.monotonic() + seconds
            while not condition():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

        self.loop.run_until_complete(wait())

    def may(self, name: str, plane: Plane = Plane.XDP) -> bool:
        port = self.ports.get(name)
        return port is not None and plane in port.planes

    def reason(self, name: str) -> str:
        port = self.ports.get(name)
        return "" if port is None else port.reasons.get(Plane.XDP, "")


def set_gro(topology: EngineTopology, index: int, state: str) -> None:
    with inside(topology.host):
        run("ethtool", "-K", host_interface(index), "gro", state)


@pytest.fixture
def ports() -> Iterator[Ports]:
    with ExitStack() as stack:
        topology = stack.enter_context(EngineTopology(f"isy-ports{os.getpid()}", downstreams=2, offloads=True))
        yield Ports(topology, stack)


def test_a_veth_is_a_target_once_its_far_end_took_frames(ports: Ports) -> None:
    set_gro(ports.topology, 0, "on")
    ports.ports.want(frozenset({downstream(0), downstream(1)}))
    assert not ports.may(downstream(0))
    ports.until(lambda: ports.may(downstream(0)))
    ports.until(lambda: "GRO" in ports.reason(downstream(1)))
    assert ports.may(downstream(1), Plane.TC)
    set_gro(ports.topology, 1, "on")
    ports.until(lambda: ports.may(downstream(1)))
    assert set(ports.changes) == {downstream(0), downstream(1)}


def test_a_far_end_that_takes_frames_no_longer_is_noticed(ports: Ports) -> None:
    set_gro(ports.topology, 0, "on")
    watchdog = Watchdog(ports.loop, ports.ports)
    ports.ports.want(frozenset({downstream(0)}))
    ports.until(lambda: ports.may(downstream(0)))
    set_gro(ports.topology, 0, "off")
    ports.until(lambda: not ports.may(downstream(0)))
    set_gro(ports.topology, 0, "on")
    ports.until(lambda: ports.may(downstream(0)), 20)
    watchdog.close()


def test_packets_that_never_leave_take_an_interface_off_xdp(ports: Ports) -> None:
    set_gro(ports.topology, 0, "on")
    redirected = {downstream(0): 0}

    def count() -> dict[str, int]:
        redirected[downstream(0)] += 1000
        return redirected

    watchdog = Watchdog(ports.loop, ports.ports, count)
    ports.ports.want(frozenset({downstream(0)}))
    ports.until(lambda: ports.may(downstream(0)))
    ports.until(lambda: "of 1000 packets" in ports.reason(downstream(0)))
    watchdog.close()


def test_an_interface_made_again_is_tried_out_again(ports: Ports) -> None:
    set_gro(ports.topology, 0, "on")
    ports.ports.want(frozenset({downstream(0)}))
    ports.until(lambda: ports.may(downstream(0)))
    first = ports.ports.get(downstream(0))
    ports.topology.disconnect_downstream(0)
    ports.until(lambda: ports.ports.get(downstream(0)) is None)
    ports.topology.connect_downstream(0)
    set_gro(ports.topology, 0, "on")
    ports.until(lambda: ports.may(downstream(0)))
    again = ports.ports.get(downstream(0))
    assert first is not None
    assert again is not None
    assert first.index != again.index


def test_mtu_and_address_are_followed(ports: Ports) -> None:
    ports.ports.want(frozenset({downstream(0)}))
    ip_lines(ports.topology.gateway, f"link set {downstream(0)} mtu 1280")
    ip_lines(ports.topology.gateway, f"link set {downstream(0)} address 02:00:00:00:00:07")

    def follows() -> bool:
        port = ports.ports.get(downstream(0))
        return port is not None and (port.mtu, port.address) == (1280, bytes.fromhex("020000000007"))

    ports.until(follows)


def test_a_bridge_is_no_target_and_says_why(ports: Ports) -> None:
    ip_lines(ports.topology.gateway, "link add bridge0 type bridge", f"link set {downstream(0)} master bridge0")
    ip_lines(ports.topology.gateway, "link set bridge0 up")
    ports.ports.want(frozenset({"bridge0"}))
    ports.until(lambda: ports.may("bridge0", Plane.TC))
    assert ports.reason("bridge0") == "a bridge is no target of native XDP"
