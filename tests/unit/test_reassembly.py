"""Reassembly of fragments: order, loss, hostile input and bounds."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.reassembly import Reassembler
from agent.protocol.wire.ip import IPPacket, decode

PAYLOAD = bytes(range(256)) * 12


def packet(payload=PAYLOAD, identification=77, source="198.51.100.7", destination="232.1.1.1"):
    return IPPacket(ip_address(source), ip_address(destination), 17, payload, identification=identification)


def fragments(whole, size=1480):
    return [
        replace(
            whole,
            payload=whole.payload[start : start + size],
            fragment_offset=start,
            more_fragments=start + size < len(whole.payload),
        )
        for start in range(0, len(whole.payload), size)
    ]


def add_all(reassembler, parts, now=0.0):
    return [result for part in parts if (result := reassembler.add(part, now)) is not None]


def test_a_packet_that_is_no_fragment_comes_back_as_it_is():
    assert Reassembler().add(packet(), 0.0) == packet()


@given(st.permutations(range(8)), st.lists(st.integers(0, 7)))
def test_fragments_in_any_order_and_repeated_make_the_packet_once(order, repeated):
    parts = fragments(packet(PAYLOAD[:3000]), 376)
    reassembler = Reassembler()
    (whole,) = add_all(reassembler, [parts[index] for index in order])
    assert whole.payload == PAYLOAD[:3000]
    assert not whole.is_fragment
    assert (len(reassembler), reassembler.cost) == (0, 0)


def test_an_exact_duplicate_is_ignored():
    first, second, third = fragments(packet())
    assert [whole.payload for whole in add_all(Reassembler(), [first, first, third, third, second])] == [PAYLOAD]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_the_whole_packet_encodes_without_a_trace_of_fragmentation(family):
    addresses = {"source": "2001:db8::7", "destination": "ff3e::8000:1"} if family == "ipv6" else {}
    wired = [decode(part.encode()) for part in fragments(packet(**addresses))]
    (whole,) = add_all(Reassembler(), wired)
    assert decode(whole.encode()) == packet(identification=0, **addresses)


def test_fragments_of_different_packets_are_never_mixed():
    first, second = packet(b"a" * 3000, 1), packet(b"b" * 3000, 2)
    third = packet(b"c" * 3000, 1, source="198.51.100.8")
    interleaved = [part for parts in zip(*map(fragments, (first, second, third)), strict=True) for part in parts]
    assert [whole.payload for whole in add_all(Reassembler(), interleaved)] == [
        first.payload,
        second.payload,
        third.payload,
    ]


def test_overlapping_fragments_give_the_packet_up():
    first, second, third = fragments(packet())
    overlapping = replace(second, fragment_offset=second.fragment_offset - 8)
    reassembler = Reassembler()
    assert add_all(reassembler, [first, overlapping, third]) == []
    assert reassembler.abandoned == 1


@pytest.mark.parametrize(
    "change",
    [
        {"payload": b""},
        {"payload": b"x" * 1479},
        {"fragment_offset": 65528, "payload": b"x" * 16},
        {"fragment_offset": 4440},
    ],
    ids=["empty", "not a multiple of eight", "beyond 65535", "beyond the last"],
)
def test_an_impossible_fragment_gives_the_packet_up(change):
    first, second, third = fragments(packet(PAYLOAD[:3000]))
    reassembler = Reassembler()
    assert add_all(reassembler, [first, third, replace(second, **change)]) == []
    assert reassembler.abandoned == 1


def test_a_second_end_gives_the_packet_up():
    _, second, third = fragments(packet())
    reassembler = Reassembler()
    add_all(reassembler, [third, replace(second, more_fragments=False)])
    assert (reassembler.abandoned, len(reassembler)) == (1, 0)


def test_incomplete_packets_are_given_up_in_time():
    first, second, third = fragments(packet())
    reassembler = Reassembler(lifetime=5.0)
    assert add_all(reassembler, [first, second], now=10.0) == []
    reassembler.expire(14.9)
    assert len(reassembler) == 1
    assert reassembler.add(third, 15.0) is None
    assert reassembler.abandoned == 1


def test_memory_stays_bounded_and_the_oldest_go_first():
    reassembler = Reassembler(limit_bytes=100_000)
    newest = packet(identification=9_999)
    for identification in range(1_000):
        reassembler.add(fragments(packet(identification=identification))[0], 0.0)
        assert reassembler.cost <= 100_000
    assert len(add_all(reassembler, fragments(newest))) == 1
    assert reassembler.abandoned > 900


def test_tiny_fragments_cannot_be_kept_without_bound():
    whole = packet(bytes(60_000))
    reassembler = Reassembler()
    assert add_all(reassembler, fragments(whole, 8)) == []
    assert reassembler.cost < 128 * 1024
