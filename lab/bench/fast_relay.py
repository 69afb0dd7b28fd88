"""The relay's planes side by side: tunnel packets a second at a counting sink, and what one stream to many costs.

Everything of the relay runs on one core: receive processing of the native link (threaded NAPI), what follows from it,
and the process; the sender has the other. At full speed the sink's receive processing is on the relay's core, where the
kernel puts it. Beside the one stream it is on the sender's core, as a network card would be elsewhere; and what copying
socket buffers costs without a relay is measured too.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pyroute2 import Ethtool

from agent.net.bpf import BpfMap, attach_tc
from lab.bench.fast_flows import Link, Stream
from lab.bench.fast_generator import CORE as SENDERS_CORE
from lab.bench.fast_generator import Generator, generator
from lab.bench.fast_objects import load_lab
from lab.bench.fast_relay_stream import PacedSender, bare_copies, paced_sender, receive_elsewhere
from lab.bench.fast_rig import mac_address
from lab.bench.one_core import CORE, cpu_seconds, napi_threads, pin, receive_by_thread, softirq_thread, threads_of
from lab.bench.relay import EVERYDAY_RATE, PAYLOAD
from lab.bench.relay_topology import (
    NATIVE_AT_RELAY,
    NATIVE_AT_SOURCE,
    SOURCE_IPV4,
    UPLINK_AT_GATEWAY,
    UPLINK_AT_RELAY,
    RelayTopology,
    inside,
)

KERNEL: Final = "kernel"
USERSPACE_RELAY: Final = "userspace"
BARE_COPIES: Final = "bare copies in the kernel"
LOADS: Final = (
    *((100, True, plane) for plane in (USERSPACE_RELAY, KERNEL)),
    *((1000, False, plane) for plane in (USERSPACE_RELAY, KERNEL, BARE_COPIES)),
)
"""Tunnels, whether at full speed, and who multiplies."""

_READY_SECONDS: Final = 10.0
_STILL: Final = 0.05  # seconds without a packet at the sink: nothing is under way
_FIRST: Final = 400_000.0  # tunnel packets a second, of the search
_UP, _DOWN = 1.1, 0.85
_STEPS: Final = 16
_TRIES: Final = 3
_RUNS: Final = 4  # of the one stream; the least disturbed is told
_NANO: Final = 1e9


@dataclass(frozen=True, slots=True)
class RelayFigures:
    """One plane under one load.

    Attributes:
        plane: who multiplies.
        tunnels: that want the stream.
        is_flood: the highest rate without loss was searched for; else one stream of `relay.EVERYDAY_RATE` was sent.
        tunnel_packets_per_second: as the sink counted.
        nanoseconds: CPU time per tunnel packet, of the relay's core.
        cpu_share: of that core.
        loss: 0 to 1.
    """

    plane: str
    tunnels: int
    is_flood: bool
    tunnel_packets_per_second: float
    nanoseconds: float
    cpu_share: float
    loss: float

    @property
    def keeps_up(self) -> bool:
        """Whether nothing was lost, nor left for after the sender's end."""
        return self.loss <= 0 and self.cpu_share <= 1


def measure(plane: str, tunnels: int, *, is_flood: bool, seconds: float) -> RelayFigures:
    """One plane: as fast as it goes without loss in runs of `seconds`, or the everyday stream for so long.

    Raises:
        RuntimeError: the plane cannot be had here; the message says why.
    """
    with _rig(plane, tunnels, is_flood=is_flood) as running:
        if is_flood:
            return _search(running, seconds)
        runs = [running.run(EVERYDAY_RATE, seconds / _RUNS, burst=1) for _ in range(_RUNS)]
        return min(runs, key=lambda run: run.nanoseconds)


def _search(running: _Rig, seconds: float) -> RelayFigures:
    """The run of the highest rate without loss, or the one that lost least."""
    rate = _FIRST / running.tunnels
    best: RelayFigures | None = None
    found: list[RelayFigures] = []
    for _ in range(_STEPS):
        run = running.run(rate, seconds, burst=1)
        for _ in range(_TRIES - 1):
            if run.keeps_up:
                break
            run = running.run(rate, seconds, burst=1)
        found.append(run)
        if run.keeps_up:
            best, rate = run, rate * _UP
        elif best is not None:
            break
        else:
            rate *= _DOWN
    return best if best is not None else min(found, key=lambda each: each.loss)


class _Relay:
    """The client of the relay's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._line()

    def ask(self) -> dict[str, Any]:
        """Its counters."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the relay's process ended")
        return line


@dataclass(frozen=True, slots=True)
class _Rig:
    """One plane between generator and sink, running."""

    plane: str
    tunnels: int
    relay: _Relay | None
    generator: Generator | PacedSender
    arrived: BpfMap
    threads: tuple[int, ...]

    def run(self, rate: float, seconds: float, burst: int) -> RelayFigures:
        """Send at a rate of native packets and wait until nothing arrives any more."""
        threads = (*self.threads, *(threads_of(self.relay.process.pid) if self.relay else ()))
        before, cpu = self._settled(), cpu_seconds(threads)
        sent = self.generator.send(rate, seconds, burst)
        received = self._settled() - before
        used = cpu_seconds(threads) - cpu
        wanted = sent.packets * self.tunnels
        return RelayFigures(
            *(self.plane, self.tunnels, rate != EVERYDAY_RATE, received / sent.seconds),
            *(used / max(1, received) * _NANO, used / sent.seconds, 1 - received / wanted),
        )

    def _settled(self, seconds: float = 5.0) -> int:
        deadline = time.monotonic() + seconds
        (total,) = self.arrived.sums(0)
        while time.monotonic() < deadline:
            time.sleep(_STILL)
            before, (total,) = total, self.arrived.sums(0)
            if before == total:
                break
        return total


@contextmanager
def _rig(plane: str, tunnels: int, *, is_flood: bool) -> Iterator[_Rig]:
    with ExitStack() as stack:
        topology = stack.enter_context(RelayTopology(f"isf{os.getpid()}"))
        _cut_before_the_wire(topology)
        receiving = _receive_by_thread(topology.relay, NATIVE_AT_RELAY)
        pin(receiving)
        for thread in _receive_by_thread(topology.gateway, UPLINK_AT_GATEWAY):
            os.sched_setaffinity(thread, {SENDERS_CORE})
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(1))
        relay = None
        if plane == BARE_COPIES:
            arrived = stack.enter_context(bare_copies(topology, tunnels))
        else:
            arrived = stack.enter_context(_sink(topology))
            relay = stack.enter_context(_relay(topology, plane, tunnels))
        if is_flood:
            sending: Generator | PacedSender = stack.enter_context(_generator(topology))
        else:
            receive_elsewhere(topology.relay, UPLINK_AT_RELAY)
            sending = stack.enter_context(paced_sender(topology))
        threads = (*sorted(receiving), *softirq_thread())
        running = _Rig(plane, tunnels, relay, sending, arrived, threads)
        _warm(running)
        yield running


@contextmanager
def _sink(topology: RelayTopology) -> Iterator[BpfMap]:
    with load_lab("sink", "sink_tunnel") as loaded, ExitStack() as stack:
        with inside(topology.gateway):
            index = socket.if_nametoindex(UPLINK_AT_GATEWAY)
            stack.enter_context(attach_tc(loaded, "sink_tunnel", index))
        yield loaded.map("datagrams")


def _generator(topology: RelayTopology) -> AbstractContextManager[Generator]:
    source = mac_address(topology.source, NATIVE_AT_SOURCE)
    link = Link(source, mac_address(topology.relay, NATIVE_AT_RELAY))
    stream = Stream(1, PAYLOAD, outer=0, neighbour=SOURCE_IPV4)
    return generator(topology.source, stream, link, NATIVE_AT_SOURCE)


def _warm(running: _Rig) -> None:
    """Send until packets come out of the plane that is meant."""
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        run = running.run(100.0, 0.2, burst=1)
        told = str(running.relay.ask()["kernel"]) if running.relay else ""
        if run.tunnel_packets_per_second and (running.plane != KERNEL or told.endswith("channels in it: 1")):
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the relay's {running.plane} plane does not send: kernel {told}")


def _cut_before_the_wire(topology: RelayTopology) -> None:
    """Trains are cut before they leave, so that the sink counts packets and the relay pays for it."""
    with inside(topology.relay), Ethtool() as ethtool:
        features = ethtool.get_features(UPLINK_AT_RELAY)
        features.features["tx-udp-segmentation"].enable = False
        ethtool.set_features(UPLINK_AT_RELAY, features)


def _receive_by_thread(namespace: str, interface: str) -> set[int]:
    """Have an interface receive by a thread; a veth has such processing once GRO is on."""
    with inside(namespace), Ethtool() as ethtool:
        features = ethtool.get_features(interface)
        features.features["rx-gro"].enable = True
        ethtool.set_features(interface, features)
    before = napi_threads(interface)
    if not receive_by_thread(namespace, interface):
        raise RuntimeError("this kernel does not receive by threads")
    deadline = time.monotonic() + 2
    while not (found := napi_threads(interface) - before):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{interface} does not receive by a thread")
        time.sleep(0.01)
    return found


@contextmanager
def _relay(topology: RelayTopology, plane: str, tunnels: int) -> Iterator[_Relay]:
    command = [sys.executable, "-m", "lab.bench.relay_process", str(tunnels), plane]
    with inside(topology.relay):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        os.sched_setaffinity(process.pid, {CORE})
        os.setpriority(os.PRIO_PROCESS, process.pid, -15)
        yield _Relay(process)
    finally:
        process.kill()
        process.communicate()
