"""The packets of the in-kernel generator, as they come out of the link: headers, checksums, sequences, rate."""

from __future__ import annotations

import os
import socket
import struct
import time

import pytest

from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import UPLINK_AT_GATEWAY, EngineTopology
from lab.bench.fast_flows import MARK, PAYLOAD, Link, Stream, flow
from lab.bench.fast_generator import generator
from lab.bench.fast_objects import missing_for_objects
from lab.bench.fast_rig import mac_address
from lab.bench.inner_packets import checksum
from lab.bench.relay_topology import inside

PORT = 40_000
STREAMS = {
    "native IPv4": Stream(channels=3, outer=0),
    "native IPv6": Stream(channels=3, outer=0, version=6),
    "tunnelled IPv4": Stream(channels=3),
    "tunnelled IPv6": Stream(channels=3, version=6, outer=6),
    "IPv6 in IPv4, short": Stream(channels=3, version=6, outer=4, size=200),
    "IPv4 in IPv6, odd": Stream(channels=3, version=4, outer=6, size=201),
    "no inner sums": Stream(channels=3, inner_sums=False),
    "no outer sums": Stream(channels=3, outer_sums=False),
    "no sums": Stream(channels=3, inner_sums=False, outer_sums=False),
}


def datagram_of(packet, *, summed):
    """UDP header and payload of an IP packet, lengths and checksums verified."""
    if packet[0] >> 4 == 4:
        assert checksum(packet[:20]) == 0
        assert struct.unpack(">H", packet[2:4])[0] == len(packet)
        addresses, datagram = packet[12:20], packet[20:]
    else:
        assert struct.unpack(">H", packet[4:6])[0] == len(packet) - 40
        addresses, datagram = packet[8:40], packet[40:]
    *_, length, check = struct.unpack(">4H", datagram[:8])
    assert length == len(datagram)
    if summed:
        assert check
        assert checksum(addresses + struct.pack(">HH", 17, length) + datagram) == 0
    else:
        assert check == 0
    return datagram


def payload_of(frame, stream):
    """(flow, sequence, time) of a frame, everything in it verified."""
    packet = frame[14:]
    assert frame[12:14] == (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd")
    if stream.outer:
        outer = datagram_of(packet, summed=stream.outer_sums)
        assert struct.unpack(">HH", outer[:4]) == (2268, PORT)
        assert outer[8:10] == b"\x06\x00"
        packet = outer[10:]
    assert packet[0] >> 4 == stream.version
    inner = datagram_of(packet, summed=stream.inner_sums)
    assert len(inner) == 8 + stream.size
    mark, number, sequence, made = PAYLOAD.unpack(inner[8 : 8 + PAYLOAD.size])
    assert mark == MARK
    assert inner[8 + PAYLOAD.size :] == bytes(stream.size - PAYLOAD.size)
    return number, sequence, made


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_frames_are_well_formed_before_anything_is_written_into_them(stream):
    made = flow(stream, Link(b"\2" * 6, b"\4" * 6, PORT), 1)
    assert made.payload + PAYLOAD.size <= 144
    marked = made.frame[: made.payload] + PAYLOAD.pack(MARK, 0, 0, 0) + made.frame[made.payload + PAYLOAD.size :]
    unsummed = Stream(*(getattr(stream, name) for name in ("channels", "size", "version", "outer")), False, False)
    blank = bytearray(marked)
    for place in (made.inner_check, made.outer_check):
        if place:
            blank[place : place + 2] = b"\0\0"
    assert payload_of(bytes(blank), unsummed) == (0, 0, 0)


@pytest.mark.root
@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS.keys())
def test_what_comes_out_of_the_link_is_whole_numbered_and_summed(stream):
    if missing := missing_for_engine() or ", ".join(missing_for_objects()):
        pytest.skip(missing)
    with EngineTopology(f"isxg{os.getpid()}") as topology:
        with inside(topology.gateway):
            capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            capture.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
            capture.bind((UPLINK_AT_GATEWAY, 0))
        link = Link(b"\2" * 6, mac_address(topology.gateway, UPLINK_AT_GATEWAY), PORT)
        with capture, generator(topology.relay, stream, link) as sending:
            sent = sending.send(3000.0, 0.1, burst=4)
            assert sent.packets == 300
            capture.settimeout(5)
            found = []
            while len(found) < 300:
                frame = capture.recv(4000)
                if frame[6:12] == link.sender:
                    found.append(payload_of(frame, stream))
    assert [(number, sequence) for number, sequence, _ in found] == [(n % 3, n // 3) for n in range(300)]
    assert [made for _, _, made in found] == sorted(made for _, _, made in found)
    assert found[-1][2] < time.monotonic_ns()
    assert found[-1][2] - found[0][2] > 0.09e9  # the rate is kept, which only being faster would break
