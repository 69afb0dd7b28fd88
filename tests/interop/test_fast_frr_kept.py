"""What keeps a multicast route in use: the kernel counts it, and it leaves by no interface."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from agent.dataplane.fast import kept_routes
from agent.dataplane.fast.kept_routes import KeptRoutes, keeping_frame
from agent.net.mroute import MulticastRouter, MulticastRoutingUnsupportedError
from agent.net.tap import Tap
from agent.protocol.channels import Channel, Family
from lab.bench.engine_topology import EngineTopology, downstream, host_interface
from lab.bench.inner_packets import GROUP, SOURCE, checksum
from lab.bench.relay_topology import inside, run

pytestmark = [pytest.mark.root, pytest.mark.parametrize("family", list(Family))]


def test_a_keeping_packet_is_counted_and_does_not_leave(family: Family) -> None:
    version = int(family)
    source, group = ip_address(SOURCE[version]), ip_address(GROUP[version])
    with EngineTopology(f"isy-kept{os.getpid()}") as topology, inside(topology.gateway), Tap() as tap:
        try:
            router = MulticastRouter(family)
        except MulticastRoutingUnsupportedError as error:
            pytest.skip(str(error))
        router.set_route(source, group, tap.name, {downstream(0)})
        with inside(topology.host), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as wire:
            wire.bind((host_interface(0), 0))
            wire.settimeout(0.3)
            frame = keeping_frame(Channel(source, group))
            os.write(tap.fd, frame)
            with inside(topology.gateway):
                shown = run("ip", f"-{version}", "-s", "mroute", "show", "table", "all")
            assert "1 packets" in shown
            os.write(tap.fd, _with_two_hops(frame, version))
            while (seen := wire.recv(1 << 16))[:6] != frame[10:16]:
                continue
            assert seen[14:][8 if version == 4 else 7] == 1, "the one with hops left is the first to leave"
        router.close()


def test_only_channels_with_packets_are_kept(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_routes, "INTERVAL", 0.05)
    base = int(ip_address(GROUP[int(family)]))
    channels = [Channel(ip_address(SOURCE[int(family)]), ip_address(base + number)) for number in range(500)]
    counted = dict.fromkeys(channels, 0)
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    reading.setblocking(False)
    loop = asyncio.new_event_loop()
    written: list[bytes] = []

    def read() -> None:
        written.append(reading.recv(2048))

    loop.add_reader(reading, read)
    writing.setblocking(False)
    kept = KeptRoutes(loop, writing.fileno(), lambda: dict(counted))

    def run_until(condition: Callable[[], bool]) -> None:
        async def poll() -> None:
            async with asyncio.timeout(5):
                while not condition():
                    await asyncio.sleep(0.01)

        loop.run_until_complete(poll())

    counted[channels[3]] += 7
    run_until(lambda: bool(written))
    assert written == [keeping_frame(channels[3])]
    kept.close()
    loop.run_until_complete(asyncio.sleep(0.12))
    assert len(written) == 1
    loop.remove_reader(reading)
    loop.close()
    for each in (reading, writing):
        each.close()


def _with_two_hops(frame: bytes, version: int) -> bytes:
    packet = bytearray(frame[24:])
    packet[8 if version == 4 else 7] = 2
    if version == 4:
        packet[10:12] = bytes(2)
        packet[10:12] = checksum(bytes(packet[:20])).to_bytes(2, "big")
    return frame[:24] + bytes(packet)
