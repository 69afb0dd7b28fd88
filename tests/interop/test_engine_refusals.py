"""What every engine does not forward, and what it hands to the protocol machine instead."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address, ip_network

import pytest
from forwarding.planes import EACH_OUTER_ONCE, USERSPACE_ONLY

from agent.dataplane.engine import Refusal
from agent.dataplane.fast.layout import Plane
from agent.protocol.channels import Channel, Endpoint
from lab.bench.engine_border import AMT_PORT, Border
from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import RELAY_IPV4, RELAY_IPV6, EngineTopology
from lab.bench.inner_packets import datagram, datagram_ipv4, datagram_ipv6, ipv4, one_hop_on
from lab.bench.relay_topology import inside, run

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def topology() -> Iterator[EngineTopology]:
    if missing := missing_for_engine():
        pytest.skip(missing)
    with EngineTopology(f"isx-refuse{os.getpid()}", redirectable=True) as made:
        yield made


@pytest.fixture
def make_border(topology: EngineTopology, plane: Plane | None) -> Iterator:
    with ExitStack() as stack:
        stack.enter_context(inside(topology.gateway))
        yield lambda **settings: stack.enter_context(
            Border(topology, on_unsupported=pytest.skip, plane=plane, **settings)
        )


def with_field(packet: bytes, at: int, value: bytes) -> bytes:
    """An IPv4 packet with some octets of its header replaced and the header checksum put right."""
    body = bytearray(packet)
    body[at : at + len(value)] = value
    body[10:12] = b"\0\0"
    total = sum(struct.unpack(">10H", body[:20]))
    body[10:12] = struct.pack(">H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    return bytes(body)


GOOD = datagram_ipv4(b"x" * 300)
GOOD6 = datagram_ipv6(b"x" * 300)
BAD = {
    "empty": (b"", Refusal.BAD_INNER_HEADER),
    "one octet": (b"\x45", Refusal.BAD_INNER_HEADER),
    "no such version": (b"\x55" + GOOD[1:], Refusal.BAD_INNER_HEADER),
    "short header": (with_field(GOOD, 0, b"\x44"), Refusal.BAD_INNER_HEADER),
    "header beyond the packet": (b"\x4f" + GOOD[1:28], Refusal.BAD_INNER_HEADER),
    "longer than its total length": (GOOD + b"\0", Refusal.BAD_INNER_HEADER),
    "shorter than its total length": (GOOD[:-1], Refusal.BAD_INNER_HEADER),
    "header checksum": (GOOD[:10] + b"\x12\x34" + GOOD[12:], Refusal.BAD_INNER_HEADER),
    "unicast destination": (datagram_ipv4(b"x", group="192.0.2.7"), Refusal.BAD_INNER_HEADER),
    "multicast source": (datagram_ipv4(b"x", source="232.7.7.7"), Refusal.BAD_INNER_HEADER),
    "unspecified source": (datagram_ipv4(b"x", source="0.0.0.0"), Refusal.BAD_INNER_HEADER),
    "loopback source": (datagram_ipv4(b"x", source="127.0.0.1"), Refusal.BAD_INNER_HEADER),
    "broadcast source": (datagram_ipv4(b"x", source="255.255.255.255"), Refusal.BAD_INNER_HEADER),
    "link-local source": (datagram_ipv4(b"x", source="169.254.1.1"), Refusal.BAD_INNER_HEADER),
    "link-local group": (datagram_ipv4(b"x", group="224.0.0.5"), Refusal.LINK_LOCAL_GROUP),
    "own source": (datagram_ipv4(b"x", source="10.82.0.9"), Refusal.SPOOFED_LOCAL_SOURCE),
    "last hop": (datagram_ipv4(b"x", ttl=1), Refusal.TTL_EXPIRED),
    "no hop": (datagram_ipv4(b"x", ttl=0), Refusal.TTL_EXPIRED),
    "another source": (datagram_ipv4(b"x", source="198.51.100.11"), Refusal.NOT_SUBSCRIBED),
    "another group": (datagram_ipv4(b"x", group="232.1.1.9"), Refusal.NOT_SUBSCRIBED),
    "IPv6 cut short": (GOOD6[:39], Refusal.BAD_INNER_HEADER),
    "IPv6 length": (GOOD6 + b"\0", Refusal.BAD_INNER_HEADER),
    "IPv6 jumbogram": (GOOD6[:4] + b"\0\0" + GOOD6[6:], Refusal.BAD_INNER_HEADER),
    "IPv6 unicast destination": (datagram_ipv6(b"x", group="2001:db8::7"), Refusal.BAD_INNER_HEADER),
    "IPv6 multicast source": (datagram_ipv6(b"x", source="ff3e::7"), Refusal.BAD_INNER_HEADER),
    "IPv6 link-local source": (datagram_ipv6(b"x", source="fe80::7"), Refusal.BAD_INNER_HEADER),
    "IPv6 link-local group": (datagram_ipv6(b"x", group="ff02::5"), Refusal.LINK_LOCAL_GROUP),
    "IPv6 interface-local group": (datagram_ipv6(b"x", group="ff01::5"), Refusal.LINK_LOCAL_GROUP),
    "IPv6 own source": (datagram_ipv6(b"x", source="fd82::9"), Refusal.SPOOFED_LOCAL_SOURCE),
    "IPv6 last hop": (datagram_ipv6(b"x", hop_limit=1), Refusal.TTL_EXPIRED),
    "IPv6 another source": (datagram_ipv6(b"x", source="2001:db8:51::11"), Refusal.NOT_SUBSCRIBED),
}


@pytest.mark.parametrize(("version", "good"), [(4, GOOD), (6, GOOD6)], ids=["4", "6"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a train"])
def test_each_refused_packet_is_counted_by_its_reason_and_the_others_pass(
    make_border, alone, version, good, plane
) -> None:
    border = make_border(local_networks=(ip_network("10.82.0.0/16"), ip_network("fd82::/16")))
    relay, wire = border.relay(), border.wire()
    border.forward(version)
    expected: dict[Refusal, int] = {}
    bad = [row for name, row in BAD.items() if name.startswith("IPv6") == (version == 6)]
    for packet, named in bad:
        reason = named
        if plane is not None and reason is Refusal.SPOOFED_LOCAL_SOURCE:
            reason = Refusal.NOT_SUBSCRIBED  # programs know the sources that are ours only of channels that are set
        if alone:
            relay.send(packet)
        else:
            relay.send_train([packet] * 3)
        expected[reason] = expected.get(reason, 0) + (1 if alone else 3)
    relay.send(good)
    border.run_until(lambda: wire.collect() == [one_hop_on(good)])
    border.run_until(lambda: border.engine.counters().refused == expected)
    assert border.control == []


@pytest.mark.parametrize("plane", ["userspace", "xdp", "tc"], indirect=True)
def test_damaged_packets_inside_a_train_are_left_out(make_border, topology) -> None:
    border = make_border()
    relay, wire = border.relay(), border.wire()
    border.forward(4)
    packets = [datagram_ipv4(bytes([n]) * 100, identification=n) for n in range(10)]
    broken = [packet[:10] + b"\xde\xad" + packet[12:] if n in (3, 4) else packet for n, packet in enumerate(packets)]
    relay.send_train(broken)
    kept = [one_hop_on(packet) for n, packet in enumerate(packets) if n not in (3, 4)]
    border.run_until(lambda: wire.collect() == kept)
    border.run_until(lambda: border.engine.counters().refused == {Refusal.BAD_INNER_HEADER: 2})


@pytest.mark.parametrize("version", [4, 6])
def test_both_families_in_one_train_are_told_apart(make_border, topology, version) -> None:
    border = make_border()
    relay, wire = border.relay(), border.wire()
    border.forward(4)
    border.forward(6)
    pair = [datagram_ipv4(b"a" * 120), datagram_ipv6(b"b" * 100)]
    assert len(pair[0]) == len(pair[1])
    pairs = [[datagram_ipv4(b"a" * 120, identification=7 + number), pair[1]] for number in range(4)]
    sent = [packet for each in pairs for packet in (each if version == 4 else each[::-1])]
    relay.send_train(sent)
    border.run_until(lambda: len(wire.collect()) >= 8)
    assert sorted(wire.packets) == sorted(one_hop_on(packet) for packet in sent)


@EACH_OUTER_ONCE
def test_data_from_another_port_is_refused_unless_allowed(make_border, topology, outer) -> None:
    border = make_border(outer=outer)
    other, wire = border.relay(port=2269), border.wire()
    border.forward(4)
    other.send(GOOD)
    other.send_train([GOOD] * 4)
    border.run_until(lambda: border.refused(Refusal.WRONG_RELAY) == 5)
    assert wire.collect() == []


@EACH_OUTER_ONCE
def test_data_from_another_port_passes_when_allowed(make_border, topology, outer) -> None:
    border = make_border(outer=outer, strict_port=False)
    other, wire = border.relay(port=2269), border.wire()
    border.forward(4)
    other.send(GOOD)
    border.run_until(lambda: wire.collect() == [one_hop_on(GOOD)])


@EACH_OUTER_ONCE
def test_data_from_another_address_is_refused_in_any_case(make_border, topology, outer) -> None:
    border = make_border(outer=outer, strict_port=False)
    border.forward(4)
    with inside(topology.relay):
        address, size = ("10.81.0.3", 24) if outer == 4 else ("fd81::3", 64)
        run("ip", "address", "replace", f"{address}/{size}", "dev", "uplink0", *(["nodad"] if outer == 6 else []))
        stranger = socket.socket(socket.AF_INET if outer == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        stranger.bind((address, AMT_PORT))
    stranger.sendto(b"\x06\x00" + GOOD, border.sockets[0].getsockname()[:2])
    border.run_until(lambda: border.refused(Refusal.WRONG_RELAY) == 1)
    stranger.close()


@EACH_OUTER_ONCE
def test_everything_but_data_goes_to_the_protocol_machine(make_border, topology, outer) -> None:
    border = make_border(outer=outer)
    relay, other = border.relay(), border.relay(port=2270)
    messages = [bytes((kind,)) + b"\0\0\0nonce" for kind in (0, 1, 2, 3, 4, 5, 7, 15)] + [b"\x02"]
    relay.send_raw(*messages)
    relay.send_raw(b"\x16\0" + GOOD, b"\x23", b"\x12advertisement", b"", b"\x06")
    border.run_until(lambda: border.refused(Refusal.BAD_AMT_HEADER) == 5)
    other.send_raw(b"\x04from another port")
    border.run_until(lambda: len(border.control) == len(messages) + 1)
    address = ip_address(RELAY_IPV4 if outer == 4 else RELAY_IPV6)
    expected = [(message, Endpoint(address, AMT_PORT)) for message in messages]
    assert border.control == [*expected, (b"\x04from another port", Endpoint(address, 2270))]


def test_a_channel_is_forwarded_from_its_own_tunnels_only(make_border, topology) -> None:
    border = make_border()
    border.add_tunnel("second")
    first, second, wire = border.relay(), border.relay(port=2271, receiving=1), border.wire()
    border.engine.remove_tunnel("second")
    border.sockets.pop().close()
    border.add_tunnel("second", relay_port=2271)
    second.target = border.sockets[1].getsockname()
    border.forward(4, tunnels=["second"])
    first.send(GOOD)
    border.run_until(lambda: border.refused(Refusal.NOT_SUBSCRIBED) == 1)
    second.send(GOOD)
    border.run_until(lambda: wire.collect() == [one_hop_on(GOOD)])
    border.forward(4, tunnels=["relay", "second"])
    first.send(GOOD)
    border.run_until(lambda: wire.collect() == [one_hop_on(GOOD)] * 2)


def test_a_removed_channel_is_refused(make_border, topology) -> None:
    border = make_border()
    relay, wire = border.relay(), border.wire()
    channel = border.forward(4)
    relay.send(GOOD)
    border.run_until(lambda: len(wire.collect()) == 1)
    border.engine.remove_channel(channel)
    border.engine.remove_channel(channel)
    relay.send(GOOD)
    border.run_until(lambda: border.refused(Refusal.NOT_SUBSCRIBED) == 1)
    assert channel not in border.engine.counters().channels


def test_a_new_source_of_a_group_is_announced_and_its_first_packet_passes(make_border, topology) -> None:
    def accept(border: Border, channel: Channel, tunnel: str) -> None:
        border.engine.set_channel(channel, frozenset({tunnel}), frozenset({"down0"}))

    border = make_border(on_new_source=accept)
    relay, wire = border.relay(), border.wire()
    border.engine.set_group(ip_address("239.1.1.1"), frozenset({"relay"}))
    packets = [datagram_ipv4(bytes([n]) * 99, group="239.1.1.1", identification=n) for n in range(3)]
    relay.send(*packets)
    border.run_until(lambda: wire.collect() == [one_hop_on(packet) for packet in packets])
    assert border.new_sources == [(Channel.parse("198.51.100.10", "239.1.1.1"), "relay")]


@pytest.mark.parametrize("plane", ["userspace", "xdp", "tc"], indirect=True)
def test_a_spray_of_forged_sources_stays_bounded(make_border) -> None:
    border = make_border()
    relay = border.relay()
    border.engine.set_group(ip_address("239.1.1.1"), frozenset({"relay"}))
    for number in range(2000):
        relay.send(datagram_ipv4(b"x", source=str(ip_address(0xC6336400 + 256 + number)), group="239.1.1.1"))
        if number % 100 == 99:
            border.run_until(lambda wanted=number + 1: border.refused(Refusal.SOURCE_PENDING) == wanted)
    assert 400 <= len(border.new_sources) < 1500
    border.engine.remove_group(ip_address("239.1.1.1"))
    relay.send(datagram(4, b"x"))
    border.run_until(lambda: border.refused(Refusal.NOT_SUBSCRIBED) == 1)


def test_any_octets_are_taken_and_the_stream_goes_on(make_border, topology) -> None:
    border = make_border()
    relay, wire = border.relay(), border.wire()
    border.forward(4)
    chance = random.Random(7)
    for _ in range(40):
        for _ in range(25):
            message = bytearray(b"\x06\x00" + chance.choice((GOOD, GOOD6)))
            for _ in range(chance.randrange(1, 6)):
                message[chance.randrange(len(message))] = chance.randrange(256)
            relay.send_raw(bytes(message[: chance.randrange(len(message) + 1)]))
        border.loop.run_until_complete(_breathe())
    wire.collect()
    marker = datagram_ipv4(b"the end")
    relay.send(marker)
    border.run_until(lambda: one_hop_on(marker) in wire.collect())


async def _breathe() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@USERSPACE_ONLY
def test_packets_the_kernel_had_no_room_for_are_counted(make_border) -> None:
    border = make_border()
    border.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    relay = border.relay()
    relay.send(*[ipv4(b"x" * 1000)] * 50)
    assert border.refused(Refusal.RECEIVE_OVERFLOW) > 30
    border.engine.remove_tunnel("relay")
    assert border.refused(Refusal.RECEIVE_OVERFLOW) > 30


@USERSPACE_ONLY
def test_an_error_of_the_path_is_told_once(make_border, topology) -> None:
    """ICMP port unreachable reaches the tunnel as an error; reading goes on."""
    border = make_border()
    border.sockets[0].setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
    border.sockets[0].sendto(b"\x01", (RELAY_IPV4, 9))
    border.run_until(lambda: border.errors)
    assert {hint.error for hint in border.errors} == {errno.ECONNREFUSED}
    count = len(border.errors)
    relay, wire = border.relay(), border.wire()
    border.forward(4)
    relay.send(GOOD)
    border.run_until(lambda: wire.collect() == [one_hop_on(GOOD)])
    assert len(border.errors) == count
