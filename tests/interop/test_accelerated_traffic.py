"""Streams through the fast engine while planes change and channels come and go: what the receivers' wire shows."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import accumulate
from typing import Self

import pytest

from agent.dataplane.fast.layout import Plane
from agent.protocol.channels import Channel
from lab.bench.engine_border import Border, Relay, Wire
from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import EngineTopology
from lab.bench.inner_packets import SOURCE, datagram_ipv4
from lab.bench.relay_topology import inside

pytestmark = [pytest.mark.root, pytest.mark.parametrize("plane", ["xdp"], indirect=True)]

RATE = 5000
"""Packets a second."""

ALL_CHANGES: tuple[tuple[Plane, ...], ...] = (
    *((Plane.TC,), (Plane.XDP,), (Plane.XDP_MFC,), (Plane.XDP,), (), (Plane.XDP,)),
    *((Plane.TC,), (Plane.XDP_MFC,), (Plane.TC,), (), (Plane.XDP_MFC,), (), (Plane.TC,), (Plane.XDP,)),
)
"""From xdp through each change from one plane to another."""

MOST_LATE = 64
"""Packets that may overtake one: what the kernel has in hand when a channel leaves userspace."""


class Stream:
    """Numbered packets of some groups in turn, sent by a thread at an even rate."""

    def __init__(self, relay: Relay, groups: list[str]) -> None:
        self.sent: Counter[str] = Counter()
        self._relay, self._groups = relay, groups
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        begun, number = time.monotonic(), 0
        while not self._ends.is_set():
            for _ in range(int((time.monotonic() - begun) * RATE) - number):
                group = self._groups[number % len(self._groups)]
                payload = struct.pack(">I", number).ljust(200, b"\x47")
                self._relay.send(datagram_ipv4(payload, group=group, identification=number & 0xFFFF))
                self.sent[group] += 1
                number += 1
            time.sleep(0.0005)


@pytest.fixture
def border(plane: Plane | None) -> Iterator[Border]:
    if missing := missing_for_engine():
        pytest.skip(missing)
    with EngineTopology(f"isx-fast{os.getpid()}", redirectable=True) as topology, ExitStack() as stack:
        stack.enter_context(inside(topology.gateway))
        yield stack.enter_context(Border(topology, on_unsupported=pytest.skip, plane=plane))


def numbers(wire: Wire) -> list[int]:
    """Of the packets in the order they came in."""
    return [int.from_bytes(packet[28:32], "big") for packet in wire.collect()]


def run_for(border: Border, wire: Wire, seconds: float) -> None:
    until = time.monotonic() + seconds
    border.run_until(lambda: wire.collect() is not None and time.monotonic() >= until, seconds + 5)


def test_no_packet_is_lost_or_doubled_when_the_plane_changes(border: Border) -> None:
    relay, wire = border.relay(), border.wire()
    channel = border.forward(4)
    assert border.fast is not None
    with Stream(relay, ["232.1.1.1"]) as stream:
        for planes in ALL_CHANGES:
            border.fast.choose(planes)
            wanted = planes[0] if planes else Plane.USERSPACE
            border.run_until(lambda wanted=wanted: border.plane_of(channel) is wanted)
            run_for(border, wire, 0.15)
    sent = stream.sent.total()
    border.run_until(lambda: len(wire.collect()) >= sent)
    seen = numbers(wire)
    wrong = {number: times for number, times in Counter(seen).items() if times != 1}
    assert (len(seen), wrong) == (sent, {})
    furthest = list(accumulate(seen, max))
    late = max(most - number for most, number in zip(furthest, seen, strict=True))
    assert late <= MOST_LATE, f"a packet came {late} places late"
    border.run_until(lambda: border.engine.counters().forwarded.packets == sent)


def test_counters_add_up_while_channels_join_and_leave(border: Border) -> None:
    """100 a second, and every packet is either on the wire and counted as forwarded, or counted as refused."""
    relay, wire = border.relay(), border.wire()
    border.forward(4)
    groups = [f"232.9.9.{number}" for number in range(1, 21)]
    channels = [Channel.parse(SOURCE[4], group) for group in groups]
    chance, joined = random.Random(5), set()

    async def join_and_leave() -> None:
        for _ in range(200):
            channel = chance.choice(channels)
            if channel in joined:
                border.engine.remove_channel(channel)
            else:
                border.engine.set_channel(channel, frozenset({"relay"}), frozenset({"down0"}))
            joined.symmetric_difference_update({channel})
            wire.collect()
            await asyncio.sleep(0.01)

    with Stream(relay, groups) as stream:
        border.loop.run_until_complete(join_and_leave())

    def adds_up() -> bool:
        counters = border.engine.counters()
        through = counters.forwarded.packets
        return len(wire.collect()) == through and through + sum(counters.refused.values()) == stream.sent.total()

    border.run_until(adds_up)
    counters = border.engine.counters()
    assert counters.tunnels["relay"] == counters.forwarded
    assert counters.forwarded.bytes == counters.forwarded.packets * 228
    for channel in channels:
        border.engine.remove_channel(channel)
    border.run_until(lambda: border.fast is not None and border.fast._all_slots[0].in_use == 1)
    assert border.engine.counters().forwarded == counters.forwarded
