"""Batches over the loopback, control data, socket addresses."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest

from agent.net.receive_batch import (
    MOST_MESSAGES,
    SLOT_SIZE,
    BatchReceiver,
    dropped_by_socket,
    endpoint_of,
    messages_at_once,
    parse_control,
    prepare_socket,
    socket_address,
)
from agent.protocol.channels import Endpoint


def control(level: int, kind: int, data: bytes) -> bytes:
    return (struct.pack("@Lii", 16 + len(data), level, kind) + data).ljust(16 + (len(data) + 7) // 8 * 8, b"\0")


def test_control_data_gives_segment_and_traffic_class() -> None:
    gro, tos = control(17, 104, struct.pack("=i", 1346)), control(0, 1, b"\x03")
    assert parse_control(gro + tos) == (1346, 3)
    assert parse_control(tos + gro) == (1346, 3)
    assert parse_control(control(41, 67, struct.pack("=i", 0xB9))) == (0, 0xB9)
    assert parse_control(control(0, 8, bytes(12)) + tos) == (0, 3)
    assert parse_control(b"") == (0, 0)
    assert parse_control(bytes(100)) == (0, 0)


@pytest.mark.parametrize(
    ("text", "family", "shown"),
    [
        ("192.0.2.1", socket.AF_INET, "192.0.2.1"),
        ("2001:db8::1", socket.AF_INET6, "2001:db8::1"),
        ("192.0.2.1", socket.AF_INET6, "192.0.2.1"),
    ],
)
def test_socket_addresses_go_both_ways(text: str, family: int, shown: str) -> None:
    name = socket_address(ip_address(text), 2268, family)
    assert len(name) == 32
    assert endpoint_of(name) == Endpoint(ip_address(shown), 2268)


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"])
def pair(request):
    family, address = request.param
    with socket.socket(family, socket.SOCK_DGRAM) as receiving, socket.socket(family, socket.SOCK_DGRAM) as sending:
        receiving.bind((address, 0))
        sending.bind((address, 0))
        sending.connect(receiving.getsockname()[:2])
        prepare_socket(receiving, 1 << 20)
        yield receiving, sending


def test_lone_datagrams_come_as_they_were_sent(pair) -> None:
    receiving, sending = pair
    receiver = BatchReceiver()
    assert receiver.receive(receiving.fileno(), 64) == []
    sizes = [1, 1400, 0, 9000, 60000]
    for size in sizes:
        sending.send(bytes((size & 255,)) * size)
    messages = receiver.receive(receiving.fileno(), 64)
    assert [message[1] for message in messages] == sizes
    assert [message[0] for message in messages] == [n * SLOT_SIZE for n in range(5)]
    address, port = sending.getsockname()[:2]
    sender = socket_address(ip_address(address), port, receiving.family)
    assert {message[4] for message in messages} == {sender}
    assert bytes(receiver.memory[3 * SLOT_SIZE :][:9000]) == bytes((9000 & 255,)) * 9000
    assert receiver.receive(receiving.fileno(), 64) == []


def test_trains_come_with_the_size_of_their_datagrams(pair) -> None:
    receiving, sending = pair
    receiver = BatchReceiver()
    sending.sendmsg([b"a" * 100, b"b" * 100, b"c" * 7], [(17, 103, struct.pack("=H", 100))])
    sending.send(b"alone")
    assert [message[1:3] for message in receiver.receive(receiving.fileno(), 64)] == [(207, 100), (5, 5)]


def test_traffic_classes_are_told_apart(pair) -> None:
    receiving, sending = pair
    receiver = BatchReceiver()
    level, option = (0, 1) if receiving.family == socket.AF_INET else (41, 67)
    for mark in (0, 3, 0, 0xB9):
        sending.setsockopt(level, option, mark)
        sending.send(b"x")
    assert [message[3] for message in receiver.receive(receiving.fileno(), 64)] == [0, 3, 0, 0xB9]


def test_one_call_fetches_no_more_than_asked_and_leaves_the_rest(pair) -> None:
    receiving, sending = pair
    receiver = BatchReceiver()
    for _ in range(70):
        sending.send(b"x")
    assert [len(receiver.receive(receiving.fileno(), most)) for most in (3, MOST_MESSAGES, 64)] == [3, 64, 3]


def test_families_share_a_receiver() -> None:
    receiver = BatchReceiver()
    for family, address in [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")] * 2:
        with socket.socket(family, socket.SOCK_DGRAM) as receiving, socket.socket(family, socket.SOCK_DGRAM) as sending:
            receiving.bind((address, 0))
            prepare_socket(receiving, 1 << 16)
            sending.bind((address, 0))
            sending.sendto(b"x", receiving.getsockname())
            receiver.forget_sockets()
            messages = receiver.receive(receiving.fileno(), 64)
            assert messages[0][4] == socket_address(ip_address(address), sending.getsockname()[1], family)


def test_an_overflow_is_counted(pair) -> None:
    receiving, sending = pair
    assert dropped_by_socket(receiving) == 0
    receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(50):
        sending.send(bytes(1000))
    assert dropped_by_socket(receiving) > 30


@pytest.mark.parametrize(("length", "expected"), [(1, 64), (1346, 64), (9000, 29), (64608, 4), (65535, 4)])
def test_fewer_messages_are_fetched_at_once_the_larger_they_are(length: int, expected: int) -> None:
    assert messages_at_once([(0, length, length, 0, b"")] * 3) == expected
