"""The kernel's fan-out and the process it belongs to: what it needs, and what is left when it is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agent.net.bpf import BpfUnavailableError, load
from agent.net.bpf.clsact import has_filter
from agent.net.bpf.support import tcx
from agent.protocol.channels import Family, Filter
from lab.bench.relay_topology import NATIVE_AT_RELAY, inside
from tests.interop.test_relay_fanout import (
    GROUP4,
    SOURCE4,
    Gateway,
    Rig,
    forwarded,
    gets,
    rig,  # noqa: F401 - the fixture
    udp_packet,
    until,
)

pytestmark = pytest.mark.root
needs_bpf = pytest.mark.usefixtures("bpf")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bpf() -> None:
    try:
        load("relay").close()
    except BpfUnavailableError as error:
        pytest.skip(str(error))


RELAY = textwrap.dedent("""
    import asyncio, functools, socket, sys
    from ipaddress import ip_address
    from agent.dataplane import fanout_kernel
    from agent.dataplane.relay import RelayDataPlane
    from agent.net.bpf import attach_tc
    from agent.protocol.channels import Endpoint, Family, Filter
    if sys.argv[1] == "clsact":
        fanout_kernel.attach_tc = functools.partial(attach_tc, clsact=True)
    async def run():
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(("0.0.0.0", 2268))
        opened.setblocking(False)
        plane = RelayDataPlane(asyncio.get_running_loop(), {Family.IPV4: opened}, [sys.argv[2]], kernel=True)
        gateway = Endpoint(ip_address(sys.argv[3]), int(sys.argv[4]))
        plane.set_interest(gateway, None, ip_address(sys.argv[5]), Filter.exclude())
        print("ready", flush=True)
        while plane.details["kernel"].endswith(": 0"):
            await asyncio.sleep(0.01)
        print(plane.details["kernel"], flush=True)
        await asyncio.sleep(60)
    asyncio.run(run())
""")


async def run_and_kill(rig: Rig, kind: str, gateway: Gateway) -> str:  # noqa: F811
    """Another process serves the gateway by the kernel and is killed; returns how it did."""
    address = (str(gateway.endpoint.address), str(gateway.endpoint.port))
    command = [sys.executable, "-c", RELAY, kind, NATIVE_AT_RELAY, *address, str(GROUP4)]
    with inside(rig.topology.relay):
        child = subprocess.Popen(  # noqa: ASYNC220 - it begins at once
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    assert child.stdout is not None
    try:
        os.set_blocking(child.stdout.fileno(), False)
        told = b""

        def is_served() -> bool:
            nonlocal told
            assert child.poll() is None, child.stderr.read() if child.stderr else ""
            told += child.stdout.read() or b"" if child.stdout else b""
            rig.frames(udp_packet(b"first", SOURCE4, GROUP4))
            return b"channels in it: 1" in told

        await until(is_served, 60.0)
        await until(lambda: len(gateway.poll()) > 0)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=10)
    return told.decode()


@needs_bpf
@pytest.mark.parametrize("kind", ["tcx", "clsact"])
async def test_a_killed_relay_leaves_nothing_that_acts_and_the_next_one_starts_clean(rig: Rig, kind: str) -> None:  # noqa: F811
    if kind == "tcx" and not tcx():
        pytest.skip("this kernel has no tcx")
    gateway = rig.gateway()
    rig.sockets[Family.IPV4].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    assert f"in the kernel ({kind})" in await run_and_kill(rig, kind, gateway)
    assert has_filter(socket.if_nametoindex(NATIVE_AT_RELAY)) is (kind == "clsact")

    def is_silent() -> bool:
        gateway.poll()
        gateway.received.clear()
        rig.frames(udp_packet(b"after", SOURCE4, GROUP4))
        return not gateway.poll()

    await until(is_silent)
    plane = rig.plane(kernel=True)
    plane.set_interest(gateway.endpoint, None, GROUP4, Filter.include([SOURCE4]))
    packets = [udp_packet(bytes([number]) * 100, SOURCE4, GROUP4) for number in range(20)]
    gateway.poll()
    gateway.received.clear()
    for packet in packets:
        rig.frames(packet)
        await until(lambda packet=packet: gateway.poll()[-1:] == [forwarded(packet)])
    await gets(gateway, [forwarded(packet) for packet in packets])
    assert plane.details["kernel"].endswith("channels in it: 1")


async def test_the_sockets_serve_where_programs_do_not_run_and_it_is_told_why(rig: Rig, monkeypatch) -> None:  # noqa: F811
    try:
        load("relay").close()
    except BpfUnavailableError as error:
        reason = str(error)
    else:
        reason = "the kernel refuses relay.bpf.o"

        def refuse(*_arguments: object) -> None:
            raise BpfUnavailableError(reason)

        monkeypatch.setattr("agent.dataplane.fanout_kernel.load", refuse)
    plane, gateway = rig.plane(kernel=True), rig.gateway()
    plane.set_interest(gateway.endpoint, None, GROUP4, Filter.include([SOURCE4]))
    packets = [udp_packet(bytes([number]) * 100, SOURCE4, GROUP4) for number in range(5)]
    rig.frames(*packets)
    await gets(gateway, [forwarded(packet) for packet in packets])
    assert plane.details["kernel"] == f"no: {reason}"
