"""Packet formats we send (RFC 7761 §4.9), byte by byte: reserved fields zero, TTL 1, destination, checksum."""

from __future__ import annotations

import struct

import pytest
from scripted.pim_peer import (
    FOREVER,
    GENERATION,
    HIGHER,
    LOWER,
    OURS,
    beside_neighbors,
    both_families,
    group,
    hear,
    interface,
    join,
    prune,
    router,
    run,
    secondary,
    shared,
    source,
)

from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim import PimInterface
from agent.protocol.pim_packet import encode_packet
from agent.protocol.wire.ip import IPPacket, decode
from agent.protocol.wire.pim import Register

ALL_ROUTERS = {Family.IPV4: bytes([224, 0, 0, 13]), Family.IPV6: bytes.fromhex("ff02" + "00" * 13 + "0d")}
S, W, R = 0x04, 0x02, 0x01


def number(family: Family) -> int:
    """Address Family number of IANA: 1 for IPv4, 2 for IPv6."""
    return 1 if family is Family.IPV4 else 2


def unicast(address: Address) -> bytes:
    """Encoded-Unicast address (§4.9.1)."""
    return bytes([number(Family.of(address)), 0]) + address.packed


def encoded_group(address: Address) -> bytes:
    return bytes([number(Family.of(address)), 0, 0, address.max_prefixlen]) + address.packed


def encoded_source(address: Address, flags: int) -> bytes:
    return bytes([number(Family.of(address)), 0, flags, address.max_prefixlen]) + address.packed


def option(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value


def folded(data: bytes) -> int:
    """One's complement sum of 16-bit words; 0xffff over data whose checksum is right."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data)) if len(data) % 2 == 0 else folded(data + b"\0")
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum_is_right(packet: IPPacket) -> bool:
    """Over the message alone on IPv4, and the pseudo-header of RFC 8200 §8.1 too on IPv6 (§4.9)."""
    covered = packet.payload
    if packet.source.version == 6:
        covered += packet.source.packed + packet.destination.packed + struct.pack("!II", len(packet.payload), 103)
    return folded(covered) == 0xFFFF


def raw(machine: PimInterface, kind: int, until: float) -> list[IPPacket]:
    """Packets of one type sent by then."""
    packets = [decode(packet) for packet in machine.packets_to_send()]
    while (deadline := machine.next_deadline()) is not None and deadline <= until:
        machine.handle_timer(deadline)
        packets += [decode(packet) for packet in machine.packets_to_send()]
    return [packet for packet in packets if packet.payload[0] & 0x0F == kind]


def a_hello(family: Family) -> IPPacket:
    machine = interface(family, dr_priority=0x01020304)
    machine.set_address(router(OURS, family), [secondary(1, family), secondary(2, family)], 0)
    return raw(machine, 0, 1.0)[0]


def a_join(family: Family) -> IPPacket:
    machine = beside_neighbors(LOWER, family=family)
    machine.join_upstream(Channel(source(1, family), group(1, family)), router(LOWER, family), 1.0)
    return raw(machine, 3, 1.0)[0]


def an_echo(family: Family) -> IPPacket:
    """A Prune(*,G)."""
    machine = beside_neighbors(LOWER, HIGHER, family=family)
    hear(machine, join(Channel(None, shared(1, family))), now=1.0)
    hear(machine, prune(Channel(None, shared(1, family))), now=2.0)
    return raw(machine, 3, 10.0)[0]


def an_assert(family: Family, *, shared_tree: bool = False) -> IPPacket:
    machine = beside_neighbors(LOWER, family=family)
    channel = Channel(None if shared_tree else source(1, family), shared(1, family))
    hear(machine, join(channel, holdtime=FOREVER), now=1.0)
    machine.set_forwarding(channel, (0x0102, 0x03040506), 1.0)
    machine.data_received(Channel(source(1, family), shared(1, family)), 2.0)
    return raw(machine, 5, 2.0)[0]


def a_register_stop(family: Family) -> IPPacket:
    machine = beside_neighbors(LOWER, family=family)
    inside = IPPacket(source(1, family), shared(1, family), 17, bytes(20)).encode()
    machine.receive_packet(encode_packet(Register(inside), secondary(7, family), router(OURS, family)), 1.0)
    return raw(machine, 2, 1.0)[0]


MULTICAST = {"Hello": a_hello, "Join": a_join, "PruneEcho": an_echo, "Assert": an_assert}
EVERY = {**MULTICAST, "Register-Stop": a_register_stop}


@both_families
@pytest.mark.parametrize("kind", EVERY)
def test_header_has_version_2_zeros_where_reserved_and_a_right_checksum(family, kind) -> None:
    packet = EVERY[kind](family)
    assert packet.protocol == 103
    assert packet.payload[0] >> 4 == 2
    assert packet.payload[1] == 0
    assert checksum_is_right(packet)


@both_families
@pytest.mark.parametrize("kind", MULTICAST)
def test_multicast_messages_go_to_all_pim_routers_with_ttl_1_from_the_primary_address(family, kind) -> None:
    packet = MULTICAST[kind](family)
    assert packet.destination.packed == ALL_ROUTERS[family]
    assert packet.ttl == 1
    assert packet.source == router(OURS, family)


@both_families
def test_hello_options_are_typed_and_measured(family) -> None:
    """§4.9.2: Holdtime 1, LAN Prune Delay 2 with T clear, DR Priority 19, Generation ID 20, Address List 24."""
    body = a_hello(family).payload[4:]
    expected = {
        option(1, struct.pack("!H", 105)),
        option(2, struct.pack("!HH", 500, 2500)),
        option(19, struct.pack("!I", 0x01020304)),
        option(20, struct.pack("!I", GENERATION)),
        option(24, unicast(secondary(1, family)) + unicast(secondary(2, family))),
    }
    told = set()
    while body:
        length = 4 + struct.unpack_from("!H", body, 2)[0]
        told.add(body[:length])
        body = body[length:]
    assert told == expected


@both_families
def test_join_prune_layout_of_a_join(family) -> None:
    """§4.9.5: upstream neighbour, reserved, groups, holdtime; S set, W and R clear for (S,G)."""
    expected = unicast(router(LOWER, family)) + struct.pack("!BBH", 0, 1, 210)
    expected += encoded_group(group(1, family)) + struct.pack("!HH", 1, 0) + encoded_source(source(1, family), S)
    assert a_join(family).payload[4:] == expected


@both_families
def test_join_prune_layout_of_a_prune_of_the_shared_tree(family) -> None:
    """The source of (*,G) is the RP, with W and R set; a PruneEcho names ourselves as upstream neighbour."""
    packet = an_echo(family)
    ours = router(OURS, family)
    holdtime = struct.unpack_from("!H", packet.payload, 4 + len(unicast(ours)) + 2)[0]
    expected = unicast(ours) + struct.pack("!BBH", 0, 1, holdtime)
    expected += encoded_group(shared(1, family)) + struct.pack("!HH", 0, 1) + encoded_source(ours, S | W | R)
    assert packet.payload[4:] == expected
    assert holdtime > 3  # larger than J/P_Override_Interval(I)


@both_families
def test_assert_layout(family) -> None:
    """§4.9.6."""
    expected = encoded_group(shared(1, family)) + unicast(source(1, family)) + struct.pack("!II", 0x0102, 0x03040506)
    assert an_assert(family).payload[4:] == expected


@both_families
def test_assert_of_the_shared_tree_has_the_rpt_bit(family) -> None:
    body = an_assert(family, shared_tree=True).payload[4:]
    assert body[-8:] == struct.pack("!II", 0x8000_0102, 0x03040506)
    zero = type(source(1, family))(0)
    heads = [encoded_group(shared(1, family)) + unicast(each) for each in (zero, source(1, family))]
    assert body[:-8] in heads


@both_families
def test_register_stop_layout(family) -> None:
    """§4.9.4."""
    packet = a_register_stop(family)
    assert packet.payload[4:] == encoded_group(shared(1, family)) + unicast(source(1, family))
    assert (packet.source, packet.destination) == (router(OURS, family), secondary(7, family))


@both_families
def test_several_channels_share_messages(family) -> None:
    """§4.9.5: groups and sources of one neighbour in one message, as far as it goes."""
    machine = beside_neighbors(LOWER, family=family)
    for count in (1, 2, 3):
        machine.join_upstream(Channel(source(count, family), group(1, family)), router(LOWER, family), 1.0)
        machine.join_upstream(Channel(source(count, family), group(2, family)), router(LOWER, family), 1.0)
    (packet,) = raw(machine, 3, 1.0)
    sources = [encoded_source(source(count, family), S) for count in (1, 2, 3)]
    body = packet.payload[4 + len(unicast(router(LOWER, family))) :]
    assert body[1] == 2
    assert all(body.count(entry) == 2 for entry in sources)


def test_nothing_is_sent_without_an_address_or_before_the_start() -> None:
    assert run(interface(started=False), 100.0) == []
