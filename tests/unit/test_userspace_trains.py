"""Sorting datagrams into trains, and cutting trains where the kernel would not reproduce them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.dataplane.userspace_flow import Flow, flow_of
from agent.dataplane.userspace_output import TapOutput
from agent.dataplane.userspace_sources import SourceAnnouncer
from agent.dataplane.userspace_trains import Train, TrainSorter
from agent.protocol.channels import Family
from lab.bench.inner_packets import datagram_ipv4, datagram_ipv6, ipv4, ipv6


def nobody(_: object) -> bool:
    return False


def data(*packets: bytes) -> list[bytes]:
    return [b"\x06\x00" + packet for packet in packets]


def sort(*messages: list[bytes]) -> tuple[list[Train], bytes]:
    """Sort messages, each a list of datagrams of which only the last may be shorter."""
    memory = bytearray()
    places = []
    for datagrams in messages:
        places.append((len(memory), sum(map(len, datagrams)), len(datagrams[0])))
        memory += b"".join(datagrams)
    sorter = TrainSorter(memoryview(memory))
    for place in places:
        sorter.add(*place)
    return sorter.trains, bytes(memory)


def contents(trains: list[Train], memory: bytes) -> list[list[bytes]]:
    return [[memory[member[0] : member[0] + train.size] for member in train.members] for train in trains]


A = [datagram_ipv4(bytes((n,)) * 100, group="232.1.1.1", identification=n) for n in range(9)]
B = [datagram_ipv4(bytes((n,)) * 100, group="232.1.1.2", identification=n) for n in range(9)]
SIX = [datagram_ipv6(bytes((n,)) * 100) for n in range(9)]


def test_interleaved_channels_become_a_train_each() -> None:
    trains, memory = sort(data(A[0], B[0], A[1], B[1], A[2]), data(A[3], B[2]))
    assert contents(trains, memory) == [data(*A[:4]), data(*B[:3])]
    assert [train.family for train in trains] == [Family.IPV4] * 2
    assert not any(train.single for train in trains)


def test_lone_datagrams_join_in_and_mark_the_train() -> None:
    trains, memory = sort(data(A[0]), data(A[1]), data(SIX[0]), data(SIX[1]))
    assert contents(trains, memory) == [data(*A[:2]), data(*SIX[:2])]
    assert all(train.single for train in trains)


def test_a_shorter_last_datagram_is_sorted_by_itself() -> None:
    short = datagram_ipv4(b"short", group="232.1.1.1")
    trains, memory = sort(data(A[0], A[1], short))
    assert contents(trains, memory) == [data(*A[:2]), data(short)]


def test_a_change_of_size_keeps_the_order_of_the_flow() -> None:
    small = datagram_ipv4(b"small", group="232.1.1.1")
    trains, memory = sort(data(A[0]), data(B[0]), data(small), data(A[1]), data(B[1]))
    assert contents(trains, memory) == [data(A[0]), data(B[0], B[1]), data(small), data(A[1])]


def test_a_fragment_parts_everything_before_it_from_everything_after() -> None:
    fragment = ipv4(b"f" * 108, flags=0x2000, group="232.1.1.1")
    trains, memory = sort(data(A[0], B[0], fragment, A[1], B[1]))
    assert contents(trains, memory) == [data(A[0]), data(B[0]), data(fragment), data(A[1]), data(B[1])]
    extended = ipv6(b"\x11\0\x01\x04\0\0\0\0" + b"f" * 100, next_header=0)
    trains, memory = sort(data(SIX[0], extended, SIX[1]))
    assert contents(trains, memory) == [data(SIX[0]), data(extended), data(SIX[1])]


def test_control_messages_are_trains_of_their_own_kind() -> None:
    trains, memory = sort([b"\x04" + bytes(80)], data(A[0]), [b"\x02\0\0"])
    assert [train.kind for train in trains] == [4, 6, 2]
    assert trains[2].family is None
    assert contents(trains, memory)[2] == [b"\x02\0\0"]


@settings(max_examples=200)
@given(st.lists(st.lists(st.binary(min_size=1, max_size=70), min_size=1, max_size=5), min_size=1, max_size=6))
def test_every_datagram_comes_out_once_whatever_it_is(messages: list[list[bytes]]) -> None:
    equal = []
    for datagrams in messages:
        size = len(datagrams[0])
        equal.append([each.ljust(size, b"\0")[:size] for each in datagrams[:-1]] + [datagrams[-1][:size]])
    equal = [[each for each in datagrams if each] for datagrams in equal]
    trains, memory = sort(*equal)
    out = sorted(each for train in contents(trains, memory) for each in train)
    assert out == sorted(each for datagrams in equal for each in datagrams)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([40, 40, 40, 60]), st.booleans()), max_size=40))
def test_the_order_within_a_flow_is_kept(packets: list[tuple[int, int, bool]]) -> None:
    sent = [
        datagram_ipv4(bytes((n,)) * size, group=f"232.1.1.{flow}", identification=n, tos=4 * marked)
        for n, (flow, size, marked) in enumerate(packets)
    ]
    if not sent:
        return
    trains, memory = sort(*[data(packet) for packet in sent])
    out = [each[2:] for train in contents(trains, memory) for each in train]
    for flow in range(3):
        group = bytes((232, 1, 1, flow))
        assert [each for each in out if each[16:20] == group] == [each for each in sent if each[16:20] == group]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for end in ends:
        os.close(end)


def written(pipe: tuple[int, int], packets: list[bytes], **settings) -> tuple[list[int], int]:
    """Sizes of the trains written (payload parts), one write after the other, and the packets taken."""
    trains, memory = sort(*[data(packet) for packet in packets])
    taken, counts = 0, []
    for train in trains:
        judged = flow_of(memory[train.members[0][0] + 2 :][: train.size - 2], 0, nobody)
        assert isinstance(judged, Flow)
        output = TapOutput(pipe[1], memoryview(memory), **{"segmentation": True, "dont_fragment": True, **settings})
        output._emit = lambda _, count: counts.append(count) or count
        taken += output.write(judged, train)
    return counts, taken


def numbered(numbers: list[int], **fields) -> list[bytes]:
    return [datagram_ipv4(bytes((n & 255,)) * 60, identification=n, **fields) for n in numbers]


def test_a_train_is_written_at_once(pipe) -> None:
    assert written(pipe, numbered([5, 6, 7, 8])) == ([4], 4)
    assert written(pipe, SIX) == ([9], 9)


def test_trains_are_cut_where_numbers_jump_unless_they_mean_nothing(pipe) -> None:
    assert written(pipe, numbered([5, 6, 9, 0xFFFF, 0, 1])) == ([2, 1, 1, 2], 6)
    assert written(pipe, numbered([5, 6, 9, 9, 1], flags=0x4000)) == ([5], 5)


def test_without_a_way_to_keep_the_flag_its_bearers_go_one_by_one(pipe) -> None:
    assert written(pipe, numbered([5, 6, 7], flags=0x4000), dont_fragment=False) == ([1, 1, 1], 3)
    assert written(pipe, numbered([5, 6, 7]), dont_fragment=False) == ([3], 3)


def test_without_segmentation_everything_goes_one_by_one(pipe) -> None:
    assert written(pipe, numbered([5, 6, 7]), segmentation=False) == ([1, 1, 1], 3)


def test_packets_without_checksum_are_left_alone(pipe) -> None:
    packets = numbered([1, 2, 3]) + numbered([4, 5], summed=False) + numbered([6, 7])
    assert written(pipe, packets) == ([3, 1, 1, 2], 7)


def test_a_train_with_a_damaged_packet_goes_one_by_one(pipe) -> None:
    packets = numbered([1, 2, 3])
    packets[1] = packets[1][:-1] + b"\0"
    assert written(pipe, packets) == ([1, 1, 1], 3)


def test_a_train_fits_the_length_field_of_the_packet(pipe) -> None:
    packets = [datagram_ipv4(bytes(9000), identification=n) for n in range(20)]
    counts, taken = written(pipe, packets)
    assert (counts, taken) == ([7, 7, 6], 20)


def test_what_the_kernel_does_not_take_is_counted() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    trains, memory = sort(data(A[0], A[1]))
    judged = flow_of(A[0], 0, nobody)
    assert isinstance(judged, Flow)
    output = TapOutput(writing, memoryview(memory), segmentation=False, dont_fragment=False)
    assert output.write(judged, trains[0]) == 0
    assert output.errors == 2
    os.close(writing)


def test_new_sources_are_announced_once_a_second_and_two_hundred_times_at_most() -> None:
    announcer = SourceAnnouncer()
    assert announcer.admit(b"a", "t", 100.0)
    assert not announcer.admit(b"a", "t", 100.9)
    assert announcer.admit(b"a", "u", 100.9)
    assert announcer.admit(b"a", "t", 101.1)
    spray = [announcer.admit(n.to_bytes(8, "big"), "t", 102.0) for n in range(5000)]
    assert sum(spray) == 400
    assert sum(announcer.admit(n.to_bytes(8, "big"), "t", 103.0) for n in range(10_000, 15_000)) == 200
    for second in range(104, 200):
        for n in range(250):
            announcer.admit((second * 1000 + n).to_bytes(8, "big"), "t", float(second))
    assert len(announcer._announced) == 4096
