"""One evenly paced stream for the relay's bench, and the floor under any relay that copies socket buffers."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pyroute2 import Ethtool

from agent.net.bpf import BpfMap, attach_tc
from lab.bench.fast_generator import CORE as SENDERS_CORE
from lab.bench.fast_generator import Sent
from lab.bench.fast_objects import load_lab
from lab.bench.relay import PAYLOAD
from lab.bench.relay_process import GROUP
from lab.bench.relay_topology import (
    NATIVE_AT_RELAY,
    NATIVE_AT_SOURCE,
    SOURCE_IPV4,
    UPLINK_AT_GATEWAY,
    UPLINK_AT_RELAY,
    RelayTopology,
    inside,
)

_PORT: Final = 5000


class PacedSender:
    """Sends by a socket and sleeps in between.

    The generator in the kernel waits for the next packet without letting go of its core, which is the sink's too.
    """

    def __init__(self, sender: socket.socket) -> None:
        self._sender = sender

    def send(self, rate: float, seconds: float, burst: int = 1) -> Sent:
        """Send evenly, one packet at a time."""
        assert burst == 1
        data, total = os.urandom(PAYLOAD), max(1, round(rate * seconds))
        begun = time.perf_counter()
        for number in range(total):
            wait = begun + number / rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            self._sender.sendto(data, (GROUP, _PORT))
        return Sent(total, time.perf_counter() - begun)


@contextmanager
def paced_sender(topology: RelayTopology) -> Iterator[PacedSender]:
    """The source, on the sender's core; this thread is there until the block ends."""
    receive_elsewhere(topology.source, NATIVE_AT_SOURCE)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SENDERS_CORE})
    try:
        with inside(topology.source):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 16)
            sender.bind((SOURCE_IPV4, 4000))
            yield PacedSender(sender)
    finally:
        os.sched_setaffinity(0, before)


def receive_elsewhere(namespace: str, interface: str) -> None:
    """Have the far end of a veth receive what this end sends in its own thread.

    As long as this end could leave segmentation of TCP to the far one, the kernel takes what is sent for no use to GRO
    there, and the far end's work is done on the sender's core.
    """
    with inside(namespace), Ethtool() as ethtool:
        features = ethtool.get_features(interface)
        for name, feature in features.features.items():
            if name.startswith("tx-tcp"):
                feature.enable = False
        ethtool.set_features(interface, features)


@contextmanager
def bare_copies(topology: RelayTopology, copies: int) -> Iterator[BpfMap]:
    """Copies of each native frame to the uplink and nothing else; what the sink counted."""
    loaded = load_lab("relay_floor", "floor_copies", "floor_sink")
    with loaded:
        with inside(topology.gateway):
            sink = attach_tc(loaded, "floor_sink", socket.if_nametoindex(UPLINK_AT_GATEWAY))
        with inside(topology.relay):
            uplink = socket.if_nametoindex(UPLINK_AT_RELAY)
            loaded.map("tasks").update(0, struct.pack("=II", uplink, copies))
            native = attach_tc(loaded, "floor_copies", socket.if_nametoindex(NATIVE_AT_RELAY))
        try:
            yield loaded.map("datagrams")
        finally:
            native.close()
            sink.close()
