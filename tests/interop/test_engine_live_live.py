"""One channel from two tunnels: every packet leaves once, whatever is merged, lost or late on the way."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from forwarding.planes import EVERY_WAY, USERSPACE_ONLY

from agent.dataplane.engine import Refusal
from agent.dataplane.fast.layout import Plane
from lab.bench.engine_border import Border
from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import EngineTopology
from lab.bench.inner_packets import SOURCE, datagram_ipv4, datagram_ipv6, one_hop_on
from lab.bench.relay_topology import inside

pytestmark = pytest.mark.root

DONT_FRAGMENT = 0x4000
BOTH = ("relay", "second")


@pytest.fixture(scope="module")
def topology() -> Iterator[EngineTopology]:
    if missing := missing_for_engine():
        pytest.skip(missing)
    with EngineTopology(f"isx-live{os.getpid()}", redirectable=True) as made:
        yield made


class Bench:
    """A border with two tunnels and the wire behind it."""

    def __init__(self, topology: EngineTopology, stack: ExitStack, **settings) -> None:
        stack.enter_context(inside(topology.gateway))
        self.border = stack.enter_context(Border(topology, on_unsupported=pytest.skip, **settings))
        self.border.add_tunnel("second", 2269)
        self.relays = [self.border.relay(), self.border.relay(2269, receiving=1)]
        self.wire = self.border.wire()

    def received(self, count: int) -> list[bytes]:
        self.border.run_until(lambda: len(self.wire.collect()) >= count)
        return self.wire.packets

    def counted(self) -> dict[str, int]:
        return {name: traffic.packets for name, traffic in self.border.engine.tunnel_traffic().items()}


@pytest.fixture
def make_bench(topology: EngineTopology, plane: Plane | None) -> Iterator:
    with ExitStack() as stack:
        yield lambda **settings: Bench(topology, stack, plane=plane, **settings)


def rtp(number: int, size: int = 1316) -> bytes:
    """A synthetic RTP packet of one stream."""
    return struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, 90 * number, 0xC0FFEE) + bytes(size)


def packet(version: int, payload: bytes, number: int) -> bytes:
    if version == 4:
        return datagram_ipv4(payload, identification=number & 0xFFFF, flags=DONT_FRAGMENT)
    return datagram_ipv6(payload)


@EVERY_WAY
@pytest.mark.parametrize("version", [4, 6])
def test_trains_of_two_relays_leave_as_one_stream(make_bench, version: int, segmentation: bool) -> None:
    bench = make_bench(segmentation=segmentation)
    channel = bench.border.forward(version, tunnels=BOTH)
    sent = [packet(version, rtp(65_500 + number), number) for number in range(80)]
    one, other = bench.relays
    one.send_train(sent[:30])
    other.send_train(sent[:40])
    bench.received(40)
    other.send_train(sent[40:80])
    one.send_train(sent[40:75])
    assert sorted(bench.received(80)) == sorted(map(one_hop_on, sent))
    bench.border.run_until(lambda: bench.border.refused(Refusal.DUPLICATE) == 65)
    assert bench.border.engine.feed_traffic(channel) == {"relay": 65, "second": 80}
    assert bench.counted() == {"relay": 65, "second": 80}
    counters = bench.border.engine.counters()
    assert (counters.forwarded.packets, counters.channels[channel].packets) == (80, 80)


@USERSPACE_ONLY
def test_the_loss_of_one_tunnel_costs_no_packet(make_bench) -> None:
    bench = make_bench()
    bench.border.forward(4, tunnels=BOTH)
    one, other = bench.relays
    sent = [packet(4, rtp(number, 200), number) for number in range(90)]
    for index, each in enumerate(sent):
        if index < 60:
            one.send(each)
        if not 20 <= index < 40:
            other.send(each)
    assert Counter(bench.received(90)) == Counter(map(one_hop_on, sent))


@USERSPACE_ONLY
@pytest.mark.parametrize("version", [4, 6])
def test_equal_packets_of_one_tunnel_are_so_many_packets(make_bench, version: int) -> None:
    bench = make_bench()
    bench.border.forward(version, tunnels=BOTH)
    one, other = bench.relays
    same = packet(version, b"\x47" * 188, 0)
    one.send(*[same] * 5)
    bench.received(5)
    other.send(*[same] * 6)
    bench.border.run_until(lambda: bench.border.refused(Refusal.DUPLICATE) == 5)
    assert [each[20:] for each in bench.received(6)] == [same[20:]] * 6


@USERSPACE_ONLY
def test_fragments_are_told_apart_by_their_offset(make_bench) -> None:
    bench = make_bench()
    bench.border.forward(4, tunnels=BOTH)
    whole = datagram_ipv4(bytes(800), identification=5)
    pieces = [
        datagram_ipv4(bytes(392), identification=5, flags=0x2000 | offset, source=SOURCE[4]) for offset in (0, 50, 100)
    ]
    for relay in bench.relays:
        relay.send(whole, *pieces)
    bench.border.run_until(lambda: bench.border.refused(Refusal.DUPLICATE) == 4)
    assert sorted(bench.wire.collect()) == sorted(map(one_hop_on, (whole, *pieces)))


def test_a_channel_of_one_tunnel_again_takes_everything_of_it(make_bench) -> None:
    bench = make_bench()
    channel = bench.border.forward(4, tunnels=BOTH)
    one, other = bench.relays
    same = packet(4, rtp(1), 1)
    other.send(same)
    bench.received(1)
    bench.border.forward(4, tunnels=("relay",))
    one.send(same)
    bench.received(2)
    other.send(same)
    bench.border.run_until(lambda: bench.border.refused(Refusal.NOT_SUBSCRIBED) == 1)
    assert bench.border.engine.feed_traffic(channel) == {"relay": 1}


def test_an_engine_without_routers_writes_into_the_tap_and_says_so(topology) -> None:
    with ExitStack() as stack:
        stack.enter_context(inside(topology.gateway))
        border = stack.enter_context(Border(topology, routes=False))
        border.forward(4)
        assert "another daemon" in border.engine.details["routing"]
        border.relay().send(packet(4, b"x", 1))
        border.run_until(lambda: border.engine.counters().forwarded.packets == 1)
        assert border.engine.counters().refused == {}
