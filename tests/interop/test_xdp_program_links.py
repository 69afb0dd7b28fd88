"""The program at work: frames of a relay on one link, octets on the downstream ones."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from agent.dataplane.fast.layout import devmap_value, index_key, port_value
from agent.net.bpf import MapKind, attach_xdp, create_map, object_path
from lab.bench.engine_topology import (
    UPLINK_AT_GATEWAY,
    UPLINK_AT_RELAY,
    EngineTopology,
    downstream,
    host_interface,
    set_offload,
)
from lab.bench.gateway_program import GatewayProgram, Outer
from lab.bench.gateway_program_checks import link_header
from lab.bench.inner_packets import datagram, one_hop_on
from lab.bench.relay_topology import inside

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root"),
    pytest.mark.skipif(not object_path("gateway").exists(), reason="gateway.bpf.o is missing: `make bpf`"),
]

DEADLINE = 10.0
SET_GRO = 0x2C  # ETHTOOL_SGRO
SET = 3
QUEUED = 192  # packets that may wait for a processor


class Link:
    """A relay, the gateway with the program on its uplink, and hosts on two interfaces that take redirected frames."""

    def __init__(self, topology: EngineTopology) -> None:
        self._topology = topology
        with inside(topology.host):
            for index in range(2):
                set_offload(host_interface(index), SET_GRO, enabled=True)
            self._wires = [_listen(host_interface(index)) for index in range(2)]
        with inside(topology.relay):
            self._relay = _listen(UPLINK_AT_RELAY)
        with inside(topology.gateway):
            self.indexes = [socket.if_nametoindex(downstream(index)) for index in range(2)]
            self.addresses = [_address(downstream(index)) for index in range(2)]
            self.program = GatewayProgram()
            self._set_up()
            self._attached = attach_xdp(
                self.program.object.program("gateway_xdp"), socket.if_nametoindex(UPLINK_AT_GATEWAY)
            )

    def _set_up(self) -> None:
        egress = self.program.object.program("gateway_egress")
        self._set = create_map(MapKind.DEVMAP, "outgoing", 4, 8, 32)
        for place, (index, address) in enumerate(zip(self.indexes, self.addresses, strict=True)):
            value = devmap_value(index, egress)
            self.program.map("single_ports").update(index_key(index), value)
            self.program.map("ports").update(index_key(index), port_value(address))
            self._set.update(index_key(place), value)
        self.program.map("sets").update(index_key(SET), index_key(self._set.fd))

    def send(self, frame: bytes) -> None:
        """Put a frame on the uplink's link."""
        self._relay.send(frame)

    def receive(self, index: int, count: int) -> list[bytes]:
        """The next frames of the standard channels on a host's interface."""
        found: list[bytes] = []
        end = time.monotonic() + DEADLINE
        while len(found) < count and time.monotonic() < end:
            try:
                frame = self._wires[index].recv(70000)
            except TimeoutError:
                continue
            if b"isthmus-frame" in frame:
                found.append(frame)
        return found

    def close(self) -> None:
        """Detach."""
        self._attached.close()
        self._set.close()
        self.program.__exit__(None, None, None)
        for opened in (*self._wires, self._relay):
            opened.close()


def _listen(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    opened.bind((interface, 0))
    opened.settimeout(0.2)
    return opened


def _address(interface: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as opened:
        opened.bind((interface, 0))
        address: bytes = opened.getsockname()[4]
        return address


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    with EngineTopology(f"isxp{os.getpid()}", downstreams=2) as topology:
        opened = Link(topology)
        try:
            yield opened
        finally:
            opened.close()


@pytest.mark.parametrize("cores", [0, 1], ids=["here", "handed_over"])
@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("size", [13, 1316])
def test_frames_leave_by_one_interface(link: Link, outer: int, inner: int, size: int, cores: int) -> None:
    _hand_over(link, cores)
    link.program.set_channel(inner, tunnel=outer, single=link.indexes[0])
    packets = [datagram(inner, b"isthmus-frame" + bytes((number,)) * (size - 13)) for number in range(3)]
    for packet in packets:
        link.send(Outer(outer, padding=bytes(3)).around(packet))
    wanted = [link_header(packet, link.addresses[0]) + one_hop_on(packet) for packet in packets]
    assert link.receive(0, len(packets)) == wanted


@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("outer", [4, 6])
def test_frames_leave_by_every_interface_of_a_set(link: Link, outer: int, inner: int) -> None:
    _hand_over(link, 0)
    link.program.forget_counts()
    link.program.set_channel(inner, tunnel=outer, single=0, set=SET)
    packets = [datagram(inner, b"isthmus-frame" + bytes((number,)) * 500) for number in range(5)]
    for packet in packets:
        link.send(Outer(outer).around(packet))
    for index, address in enumerate(link.addresses):
        wanted = [link_header(packet, address) + one_hop_on(packet) for packet in packets]
        assert link.receive(index, len(packets)) == wanted
    octets = sum(map(len, packets))
    assert link.program.counts() == {f"channel {inner}": (5, octets), f"tunnel {outer}": (5, octets)}


def _hand_over(link: Link, cores: int) -> None:
    if cores:
        program = link.program.object.program("gateway_cpu")
        link.program.map("receive_cpus").update(
            index_key(0), (192).to_bytes(4, "little") + program.to_bytes(4, "little")
        )
    link.program.set_receive_cores(cores)
