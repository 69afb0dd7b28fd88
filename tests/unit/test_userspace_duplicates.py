"""Copies of one channel's packets are recognised, and nothing else is taken for one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.dataplane.engine import Refusal
from agent.dataplane.userspace_duplicates import REMEMBERED, CopyFilter
from agent.dataplane.userspace_flow import flow_of
from agent.dataplane.userspace_trains import TrainSorter
from lab.bench.inner_packets import datagram_ipv4, datagram_ipv6

DONT_FRAGMENT = 0x4000


def rtp(number, ssrc=7, timestamp=0, marker=0):
    return struct.pack(">BBHII", 0x80, marker << 7 | 33, number & 0xFFFF, timestamp, ssrc) + b"media"


class Feeder:
    """Feeds packets of tunnels into a filter."""

    def __init__(self, window=0.5):
        self.copies = CopyFilter(window)

    def passes(self, packet, tunnel, now=0.0):
        message = b"\x06\x00" + packet
        memory = memoryview(message)
        sorter = TrainSorter(memory)
        sorter.add(0, len(message), len(message))
        (train,) = sorter.trains
        flow = flow_of(packet, 0, lambda _address: False)
        assert not isinstance(flow, Refusal)
        return bool(self.copies.first_copies(memory, flow, train, tunnel, now))


@pytest.fixture
def feeder():
    return Feeder()


@pytest.mark.parametrize("make", [datagram_ipv4, datagram_ipv6])
def test_the_first_copy_passes_and_the_other_tunnels_copy_does_not(feeder, make):
    for number in range(100):
        first, second = ("a", "b") if number % 3 else ("b", "a")
        packet = make(rtp(65_530 + number, timestamp=number))
        assert feeder.passes(packet, first)
        assert not feeder.passes(packet, second)


def test_streams_with_the_same_sequence_numbers_are_different(feeder):
    assert feeder.passes(datagram_ipv4(rtp(1, ssrc=1)), "a")
    assert feeder.passes(datagram_ipv4(rtp(1, ssrc=2)), "b")
    assert feeder.passes(datagram_ipv4(rtp(1, ssrc=1), ports=(1, 2)), "b")
    assert feeder.passes(datagram_ipv4(rtp(1, ssrc=1, timestamp=65536)), "b")


def test_control_packets_beside_a_stream_are_told_apart_by_their_content(feeder):
    report = struct.pack(">BBHII", 0x80, 200, 6, 7, 1)
    assert feeder.passes(datagram_ipv4(report + b"one"), "a")
    assert feeder.passes(datagram_ipv4(report + b"two"), "b")
    assert not feeder.passes(datagram_ipv4(report + b"two"), "a")


def test_payloads_that_only_look_like_a_stream_are_not_lost(feeder):
    """Twelve equal octets, version 2: of one tunnel all pass, as many as it brings."""
    packets = [datagram_ipv4(b"\x80" + bytes(11) + bytes([n])) for n in range(20)]
    assert all(feeder.passes(packet, "a") for packet in packets)
    assert not any(feeder.passes(packet, "b") for packet in packets)


def test_the_identification_tells_equal_payloads_apart_where_it_means_something(feeder):
    assert feeder.passes(datagram_ipv4(b"null", identification=1), "a")
    assert feeder.passes(datagram_ipv4(b"null", identification=2), "b")
    assert feeder.passes(datagram_ipv4(b"atomic", identification=1, flags=DONT_FRAGMENT), "a")
    assert not feeder.passes(datagram_ipv4(b"atomic", identification=2, flags=DONT_FRAGMENT), "b")


def test_a_changed_ttl_or_ecn_mark_makes_no_other_packet(feeder):
    assert feeder.passes(datagram_ipv4(b"x", ttl=9), "a")
    assert not feeder.passes(datagram_ipv4(b"x", ttl=7, tos=2), "b")
    assert feeder.passes(datagram_ipv6(b"x", hop_limit=9), "a")
    assert not feeder.passes(datagram_ipv6(b"x", hop_limit=7), "b")


def test_copies_are_recognised_for_the_window_and_forgotten_after_twice_that():
    for delay, is_copy in ((0.0, True), (0.5, True), (1.01, False)):
        feeder = Feeder(window=0.5)
        assert feeder.passes(datagram_ipv4(rtp(1)), "a", now=10)
        for tick in range(1, 20):
            feeder.passes(datagram_ipv4(rtp(100 + tick)), "a", now=10 + delay * tick / 20)
        assert feeder.passes(datagram_ipv4(rtp(1)), "b", now=10 + delay) is not is_copy


def test_memory_is_bounded():
    feeder = Feeder(window=10)
    flow_packet = datagram_ipv4(rtp(0))
    for number in range(3 * REMEMBERED):
        key = struct.pack(">I", number)
        feeder.copies._turn(0.0)
        assert feeder.copies._is_first(key, 16)
    assert feeder.passes(flow_packet, "a")
    assert len(feeder.copies._young) + len(feeder.copies._old) <= 2 * REMEMBERED


def test_tunnels_that_come_and_go_for_ever_take_no_memory(feeder):
    for number in range(100):
        assert feeder.passes(datagram_ipv4(rtp(number)), f"tunnel{number}")
    assert max(feeder.copies._young.values()) < 1 << 16 * 10


@settings(deadline=None, derandomize=True, database=None, max_examples=200)
@given(
    st.lists(st.integers(0, 5), max_size=40),
    st.data(),
)
def test_any_interleaving_forwards_what_the_better_tunnel_brought(contents, data):
    """Two tunnels lose and delay what they like: each content passes as often as the tunnel that brought it most."""
    feeder = Feeder()
    feeds = {}
    for name in ("a", "b"):
        feeds[name] = [content for content in contents if data.draw(st.integers(0, 3))]
    order = data.draw(st.permutations([name for name, feed in feeds.items() for _ in feed]))
    passed = []
    left = {name: iter(feed) for name, feed in feeds.items()}
    for name in order:
        content = next(left[name])
        if feeder.passes(datagram_ipv6(bytes([content])), name):
            passed.append(content)
    for content in range(6):
        assert passed.count(content) == max(feed.count(content) for feed in feeds.values())
