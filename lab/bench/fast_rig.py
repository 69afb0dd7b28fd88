"""One engine between generator and sink, and what runs of it cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from pyroute2 import Ethtool, NetNS

from lab.bench.engine_topology import (
    UPLINK_AT_GATEWAY,
    UPLINK_AT_RELAY,
    EngineTopology,
    downstream,
    host_interface,
)
from lab.bench.fast_flows import Link, Stream
from lab.bench.fast_generator import Generator, Sent, generator
from lab.bench.fast_sink import Sink, Tally, sink
from lab.bench.fast_subject import NATIVE, NATIVE_MERGING, Subject, subject
from lab.bench.one_core import cpu_seconds, napi_threads, pin, receive_by_thread, softirq_thread, threads_of
from lab.bench.relay_topology import inside, ip_lines

BURST: Final = 32
"""Packets that leave together when a rate is kept."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured.

    Attributes:
        engine: one of `fast_subject.ENGINES`.
        channels: packet by packet in turn.
        interfaces: downstream, each gets every packet.
        size: octets of UDP payload.
        version: IP version of the multicast packets and, tunnelled, of the tunnel.
    """

    engine: str
    channels: int = 8
    interfaces: int = 1
    size: int = 1316
    version: int = 4

    @property
    def is_native(self) -> bool:
        """The kernel forwards native multicast, there is no tunnel."""
        return self.engine in (NATIVE, NATIVE_MERGING)

    @property
    def stream(self) -> Stream:
        """What is sent.

        Multicast routing drops a train that may not be fragmented: native packets come without that flag, which is all
        the same to them otherwise.
        """
        outer = 0 if self.is_native else self.version
        return Stream(self.channels, self.size, self.version, outer, keep_whole=not self.is_native)

    def of(self, engine: str) -> Case:
        """The same for another engine."""
        return replace(self, engine=engine)


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        sent: by the generator.
        arrived: at all interfaces together.
        cpu: seconds of the measured core.
        interfaces: every packet should arrive at.
    """

    sent: Sent
    arrived: Tally
    cpu: float
    interfaces: int

    @property
    def forwarded(self) -> float:
        """Packets forwarded, each to all its interfaces."""
        return self.arrived.packets / self.interfaces

    @property
    def is_lossless(self) -> bool:
        """Whether everything sent arrived."""
        return self.arrived.packets == self.sent.packets * self.interfaces

    @property
    def loss(self) -> float:
        """Share of what was sent that did not arrive, 0 to 1."""
        return (self.sent.packets - self.forwarded) / self.sent.packets if self.sent.packets else 0.0

    @property
    def seconds(self) -> float:
        """From the first packet on: what waits in a queue at the end of sending still costs the core its time."""
        return max(self.sent.seconds, self.cpu)

    @property
    def rate(self) -> float:
        """Packets forwarded per second."""
        return self.forwarded / self.seconds

    @property
    def busy(self) -> float:
        """Share of its time the measured core worked, 0 to 1."""
        return self.cpu / self.seconds

    @property
    def nanoseconds(self) -> float:
        """CPU time per packet forwarded."""
        return self.cpu / self.forwarded * 1e9 if self.forwarded else float("inf")


@dataclass(frozen=True, slots=True)
class Rig:
    """Everything of one case, running."""

    case: Case
    topology: EngineTopology
    subject: Subject
    generator: Generator
    sink: Sink
    threads: tuple[int, ...]

    def run(self, rate: float, seconds: float, burst: int = BURST) -> Run:
        """Send at a rate and wait until everything has arrived."""
        threads = (*self.threads, *threads_of(self.subject.process_id))
        before, cpu = self.sink.settled(), cpu_seconds(threads)
        sent = self.generator.send(rate, seconds, burst)
        arrived = self.sink.settled() - before
        return Run(sent, arrived, cpu_seconds(threads) - cpu, self.case.interfaces)


@contextmanager
def rig(case: Case, prefix: str, *, checks: bool = False) -> Iterator[Rig]:
    """Build it all.

    Raises:
        RuntimeError: the engine cannot be had, or not in its plane; the message says why.
    """
    with ExitStack() as stack:
        older = napi_threads(UPLINK_AT_GATEWAY)
        topology = stack.enter_context(EngineTopology(prefix, downstreams=case.interfaces, offloads=True))
        _keep_route_entries(topology, case.interfaces)
        receive_by_thread(topology.gateway, UPLINK_AT_GATEWAY)
        if case.engine == NATIVE_MERGING:
            _forward_trains(topology.gateway, UPLINK_AT_GATEWAY)
        hosts = [host_interface(index) for index in range(case.interfaces)]
        sinking = stack.enter_context(
            sink(topology.host, hosts, case.channels, frames=case.engine == "xdp", checks=checks)
        )
        subjected = stack.enter_context(subject(topology, case.engine, case.stream, case.interfaces))
        threads = napi_threads(UPLINK_AT_GATEWAY) - older
        pin(threads)
        link = Link(
            mac_address(topology.relay, UPLINK_AT_RELAY),
            mac_address(topology.gateway, UPLINK_AT_GATEWAY),
            subjected.port,
        )
        sending = stack.enter_context(generator(topology.relay, case.stream, link))
        counted = (*sorted(threads), *softirq_thread())
        yield Rig(case, topology, subjected, sending, sinking, counted)


def _keep_route_entries(topology: EngineTopology, interfaces: int) -> None:
    """Let IPv4 multicast routing use one route entry of an interface over and over: its best case.

    Where no route names the interface for multicast, the kernel makes two entries for each packet, one on its way in
    and one on its way out; so only the first. Each is freed by RCU.
    """
    names = (downstream(number) for number in range(interfaces))
    ip_lines(topology.gateway, *(f"route add 224.0.0.0/4 dev {name} metric {n}" for n, name in enumerate(names, 1)))


def _forward_trains(namespace: str, interface: str) -> None:
    with inside(namespace), Ethtool() as ethtool:
        features = ethtool.get_features(interface)
        features.features["rx-udp-gro-forwarding"].enable = True
        ethtool.set_features(interface, features)


def mac_address(namespace: str, interface: str) -> bytes:
    """MAC address of an interface."""
    with NetNS(namespace) as route:
        (link,) = route.get_links(ifname=interface)
        return bytes.fromhex(str(link.get("address")).replace(":", ""))
