"""From the receipt of a report to the first packet out, at the border's downstream interface, by the kernel's clock.

Cold: the agent has just started and knows no relay: discovery, request and update come first. Warm: the tunnel is up.
"""

from __future__ import annotations

import math
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from agent.protocol.channels import Address, Channel
from agent.protocol.wire import group_packet
from agent.protocol.wire.errors import WireError
from agent.protocol.wire.groups import Report
from lab import topology
from lab.bench.relay_topology import inside
from lab.measure import join, leave, multicast_receiver
from lab.namespaces import Lab, LabError, wait_until
from lab.scenario import Scenario
from lab.topology import Topology
from lab.traffic import Stream, multicast_sender

WARM_JOINS: Final = 200
COLD_JOINS: Final = 50
_RATE: Final = 2000.0  # packets a second: half a millisecond at most goes to waiting for the source
_PAYLOAD: Final = bytes(100)
_ETH_P_ALL: Final = 0x0003
_SO_TIMESTAMPNS: Final = 35
_PATIENCE: Final = 10.0
_LISTENERS: Final = "\n[igmp]\nfast_leave = true\n\n[mld]\nfast_leave = true\n"


@dataclass(frozen=True, slots=True)
class JoinLatency:
    """Latencies of many joins.

    Attributes:
        kind: "cold" or "warm".
        seconds: sorted.
    """

    kind: str
    seconds: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """The latency that `share` of the joins do not exceed, in seconds (nearest rank)."""
        return self.seconds[max(math.ceil(share * len(self.seconds)) - 1, 0)]


class Watch:
    """A packet socket on the border's downstream interface that times one report and the first packet after it."""

    def __init__(self, namespace: str, interface: str) -> None:
        with inside(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            self._socket.bind((interface, _ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.settimeout(0.2)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def latency(self, group: Address) -> float:
        """Seconds from the first report that names `group` to the first packet sent to it.

        Raises:
            LabError: no packet came.
        """
        reported: float | None = None
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                packet, ancillary, _, (_, _, direction, _, _) = self._socket.recvmsg(2048, 64)
            except TimeoutError:
                continue
            at = _stamp(ancillary)
            if direction != socket.PACKET_OUTGOING:
                if reported is None and _names(packet, group):
                    reported = at
            elif reported is not None and _destination(packet) == group.packed:
                return at - reported
        raise LabError(f"no packet to {group} within {_PATIENCE:g} s of the join")


def _stamp(ancillary: list[tuple[int, int, bytes]]) -> float:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("=qq", data[:16])
            return float(seconds + nanoseconds / 1e9)
    raise LabError("the kernel gave no time stamp")


def _names(packet: bytes, group: Address) -> bool:
    try:
        message = group_packet.decode(packet).message
    except WireError:
        return False
    return isinstance(message, Report) and any(record.group == group for record in message.records)


def _destination(packet: bytes) -> bytes:
    return packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]


@contextmanager
def stream(namespace: str, group: Address) -> Iterator[None]:
    """An even stream to `group` while the block runs."""
    ended = threading.Event()
    with inside(namespace):
        sender = multicast_sender(Stream(group, topology.PAYLOAD_PORT, topology.HOST_INTERFACE))

    def send() -> None:
        while not ended.wait(1 / _RATE):
            sender.send(_PAYLOAD)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sender.close()


def _timed_join(scenario: Scenario, watch: Watch, group: Address) -> float:
    names = scenario.lab.topology
    channel = Channel(topology.SOURCE.of(group.version), group)
    with (
        stream(names.source, group),
        inside(names.receiver()),
        multicast_receiver(group, topology.PAYLOAD_PORT) as receiver,
    ):
        join(receiver, channel, topology.HOST_INTERFACE)
        try:
            return watch.latency(group)
        finally:
            leave(receiver, channel, topology.HOST_INTERFACE)


def warm(scenario: Scenario, watch: Watch, joins: int) -> JoinLatency:
    """Joins through a tunnel that is up."""
    first = ip_address(topology.SSM_GROUP_IPV4)
    _timed_join(scenario, watch, first)
    kept = scenario.receive(topology.NUMBERED_GROUP_IPV4)
    try:
        wait_until(scenario.border.tunnels, _PATIENCE, "the tunnel is up")
        return JoinLatency("warm", tuple(sorted(_timed_join(scenario, watch, first + 256 + i) for i in range(joins))))
    finally:
        kept.finish()


def cold(scenario: Scenario, watch: Watch, joins: int) -> JoinLatency:
    """Joins right after the agent's start."""
    first = ip_address(topology.SSM_GROUP_IPV4) + 4096
    latencies: list[float] = []
    for number in range(joins):
        scenario.border.stop()
        scenario.border.start()
        latencies.append(_timed_join(scenario, watch, first + number))
    return JoinLatency("cold", tuple(sorted(latencies)))


def measure(prefix: str = "islb", warm_joins: int = WARM_JOINS, cold_joins: int = COLD_JOINS) -> list[JoinLatency]:
    """Both kinds."""
    with tempfile.TemporaryDirectory(prefix="isl-bench-") as directory, Lab(Topology(prefix=prefix)) as lab:
        watch = Watch(lab.topology.border, topology.downstream(0))
        try:
            with Scenario(lab, Path(directory), sections=_LISTENERS) as scenario:
                return [warm(scenario, watch, warm_joins), cold(scenario, watch, cold_joins)]
        finally:
            watch.close()
