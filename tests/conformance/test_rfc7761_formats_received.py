"""Packet formats we receive (RFC 7761 §4.9), as bytes: what is ignored, what is refused and counted, never raised."""

from __future__ import annotations

import struct

import pytest
from scripted.pim_peer import (
    LOWER,
    OURS,
    beside_neighbors,
    both_families,
    greet,
    group,
    router,
    secondary,
    sent,
    shared,
    source,
    wanted,
)

from agent.protocol.channels import Address, Channel, Family, Filter
from agent.protocol.pim import PimInterface
from agent.protocol.pim_packet import ALL_PIM_ROUTERS
from agent.protocol.wire.checksum import internet_checksum, ones_complement_sum, pseudo_header
from agent.protocol.wire.ip import IPPacket
from agent.protocol.wire.pim import HOLDTIME_FOREVER, LanPruneDelay

HELLO, REGISTER, JOIN_PRUNE, ASSERT = 0, 1, 3, 5
S, W, R = 0x04, 0x02, 0x01


def packet(
    body: bytes,
    family: Family,
    *,
    kind: int = JOIN_PRUNE,
    version: int = 2,
    reserved: int = 0,
    sender: Address | None = None,
    to: Address | None = None,
    ttl: int = 1,
    wrong: int = 0,
    pseudo: bool = True,
) -> bytes:
    """A PIM packet put together by hand; its checksum is off by `wrong`."""
    sender, to = sender or router(LOWER, family), to or ALL_PIM_ROUTERS[family]
    data = bytes([version << 4 | kind, reserved, 0, 0]) + body
    if family is Family.IPV6 and pseudo:
        checksum = ones_complement_sum(pseudo_header(sender, to, 103, len(data)) + data) ^ 0xFFFF
    else:
        checksum = internet_checksum(data)
    data = data[:2] + ((checksum + wrong) & 0xFFFF).to_bytes(2, "big") + data[4:]
    return IPPacket(sender, to, 103, data, ttl=ttl).encode()


def number(family: Family) -> int:
    return 1 if family is Family.IPV4 else 2


def unicast(address: Address) -> bytes:
    return bytes([number(Family.of(address)), 0]) + address.packed


def encoded_group(address: Address, flags: int = 0, mask: int | None = None) -> bytes:
    length = address.max_prefixlen if mask is None else mask
    return bytes([number(Family.of(address)), 0, flags, length]) + address.packed


def encoded_source(address: Address, flags: int = S, mask: int | None = None) -> bytes:
    return encoded_group(address, flags, mask)


def a_join(
    family: Family,
    *,
    reserved: int = 0,
    group_flags: int = 0,
    flags: int = S,
    group_mask: int | None = None,
    mask: int | None = None,
) -> bytes:
    body = unicast(router(OURS, family)) + struct.pack("!BBH", reserved, 1, 210)
    body += encoded_group(group(1, family), group_flags, group_mask) + struct.pack("!HH", 1, 0)
    return body + encoded_source(source(1, family), flags, mask)


def taken(family: Family) -> dict:
    return {group(1, family): Filter.include([source(1, family)])}


def option(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value


def receive(data: bytes, family: Family) -> PimInterface:
    """A machine beside LOWER after one packet."""
    machine = beside_neighbors(LOWER, family=family)
    machine.receive_packet(data, 1.0)
    return machine


# --- Reserved fields are ignored on receipt


@both_families
@pytest.mark.parametrize("reserved", [0x01, 0x80, 0xFF])
def test_reserved_bits_of_the_header_are_ignored(family, reserved) -> None:
    assert wanted(receive(packet(a_join(family), family, reserved=reserved), family)) == taken(family)


@both_families
@pytest.mark.parametrize(
    "strange",
    [
        {"reserved": 0xFF},
        {"group_flags": 0x7E},  # reserved bits of the group
        {"group_flags": 0x80},  # B: bidirectional
        {"group_flags": 0x01},  # Z: admin scope
        {"flags": 0xF8 | S},  # reserved bits of the source
        {"flags": 0},  # without S, which is for version 1 of PIM
    ],
)
def test_reserved_and_meaningless_bits_of_a_join_are_ignored(family, strange) -> None:
    assert wanted(receive(packet(a_join(family, **strange), family), family)) == taken(family)


@both_families
def test_reserved_bits_of_a_register_are_ignored(family) -> None:
    machine = beside_neighbors(LOWER, family=family)
    inside = IPPacket(source(1, family), shared(1, family), 17, bytes(20)).encode()
    head = packet(b"\x3f\xff\xff\xff", family, kind=REGISTER, sender=secondary(7, family), to=router(OURS, family))
    size = len(head) - 8
    # The checksum covers the first eight bytes (§4.9.3); the pseudo-header's length is that of these eight.
    outer = IPPacket(secondary(7, family), router(OURS, family), 103, head[size:] + inside, ttl=60)
    machine.receive_packet(outer.encode(), 1.0)
    assert len(sent(machine)) == 1
    assert machine.refused.total() == 0


# --- Hello options (§4.9.2)


@both_families
def test_unknown_options_are_skipped_wherever_they_stand(family) -> None:
    body = option(65001, b"12345") + option(1, b"\x00\x50") + option(17, b"") + option(20, b"\0\0\0\x07")
    machine = beside_neighbors(family=family)
    machine.receive_packet(packet(body + option(21, b"\1\2\3\4"), family, kind=HELLO), 1.0)
    (view,) = machine.neighbors()
    assert (view.holdtime, view.generation_id) == (80, 7)


@both_families
def test_a_hello_without_options_is_one(family) -> None:
    machine = beside_neighbors(family=family)
    machine.receive_packet(packet(b"", family, kind=HELLO), 1.0)
    (view,) = machine.neighbors()
    assert (view.holdtime, view.dr_priority, view.generation_id) == (105, None, None)


@both_families
def test_the_t_bit_is_not_part_of_the_propagation_delay(family) -> None:
    machine = beside_neighbors(family=family)
    body = option(1, struct.pack("!H", HOLDTIME_FOREVER)) + option(2, struct.pack("!HH", 0x8000 | 700, 3000))
    machine.receive_packet(packet(body, family, kind=HELLO), 1.0)
    assert machine.neighbors()[0].lan_prune_delay == LanPruneDelay(700, 3000, tracking=True)


@both_families
@pytest.mark.parametrize(
    "body",
    [
        struct.pack("!HH", 1, 2),  # an option that ends before its value
        struct.pack("!HHH", 1, 200, 105),
        b"\x00\x01\x00",
        option(1, b"\x00"),  # a known option of another length
        option(20, b"\x00\x00"),
    ],
)
def test_a_hello_that_does_not_add_up_makes_no_neighbour(family, body) -> None:
    machine = beside_neighbors(family=family)
    machine.receive_packet(packet(body, family, kind=HELLO), 1.0)
    assert machine.neighbors() == []
    assert machine.refused.total() == 1


# --- What is refused


@both_families
@pytest.mark.parametrize(
    "wrong",
    [
        {"wrong": 1},
        {"version": 1},
        {"version": 3},
        {"kind": 15},
        {"kind": 6},  # Graft: dense mode
        {"ttl": 2},
        {"ttl": 64},
    ],
)
def test_packets_that_break_a_rule_of_the_header_are_dropped(family, wrong) -> None:
    machine = receive(packet(a_join(family), family, **wrong), family)
    assert machine.channels() == []
    assert machine.refused.total() == 1


@both_families
def test_join_prunes_and_hellos_by_unicast_are_dropped(family) -> None:
    machine = receive(packet(a_join(family), family, to=router(OURS, family)), family)
    machine.receive_packet(packet(b"", family, kind=HELLO, sender=router(9, family), to=router(OURS, family)), 1.0)
    assert machine.channels() == []
    assert len(machine.neighbors()) == 1


def test_ipv6_needs_the_pseudo_header_in_the_checksum() -> None:
    machine = receive(packet(a_join(Family.IPV6), Family.IPV6, pseudo=False), Family.IPV6)
    assert machine.channels() == []


def test_ipv6_needs_a_link_local_source() -> None:
    machine = beside_neighbors(family=Family.IPV6)
    machine.receive_packet(packet(b"", Family.IPV6, kind=HELLO, sender=secondary(1, Family.IPV6)), 1.0)
    assert machine.neighbors() == []
    assert machine.refused.total() == 1


@both_families
def test_our_own_packets_are_not_heard(family) -> None:
    machine = beside_neighbors(family=family)
    machine.receive_packet(packet(b"", family, kind=HELLO, sender=router(OURS, family)), 1.0)
    assert machine.neighbors() == []


@both_families
def test_a_source_with_another_mask_than_a_hosts_is_ignored(family) -> None:
    """§4.9.1."""
    machine = receive(packet(a_join(family, mask=24), family), family)
    assert machine.channels() == []


@both_families
def test_a_group_range_is_not_taken_for_a_group(family) -> None:
    machine = receive(packet(a_join(family, group_mask=16), family), family)
    assert machine.channels() == []


@both_families
def test_addresses_of_another_family_or_encoding_are_refused(family) -> None:
    good = a_join(family)
    other_family = bytes([3 - good[0]]) + good[1:]
    other_encoding = good[:1] + b"\x01" + good[2:]
    for body in (other_family, other_encoding):
        machine = receive(packet(body, family), family)
        assert machine.channels() == []
        assert machine.refused.total() == 1


@both_families
def test_every_truncation_is_refused_without_harm(family) -> None:
    good = a_join(family)
    for length in range(len(good)):
        machine = receive(packet(good[:length], family), family)
        assert machine.channels() == []
        assert machine.refused.total() == 1


@both_families
@pytest.mark.parametrize("groups", [2, 255])
def test_counts_beyond_the_message_are_refused(family, groups) -> None:
    good = bytearray(a_join(family))
    good[len(unicast(router(OURS, family))) + 1] = groups
    machine = receive(packet(bytes(good), family), family)
    assert machine.channels() == []
    assert machine.refused.total() == 1


# --- Join/Prune lists (§4.9.5)


@both_families
def test_several_groups_and_lists_in_one_message_all_count(family) -> None:
    body = unicast(router(OURS, family)) + struct.pack("!BBH", 0, 3, 210)
    body += encoded_group(group(1, family)) + struct.pack("!HH", 2, 0)
    body += encoded_source(source(1, family)) + encoded_source(source(2, family))
    body += encoded_group(group(2, family)) + struct.pack("!HH", 0, 0)
    body += encoded_group(shared(1, family)) + struct.pack("!HH", 1, 1)
    body += encoded_source(router(OURS, family), S | W | R) + encoded_source(source(3, family), S | R)
    machine = receive(packet(body, family), family)
    machine.handle_timer(1.0)
    assert wanted(machine) == {
        group(1, family): Filter.include([source(1, family), source(2, family)]),
        shared(1, family): Filter.exclude([source(3, family)]),
    }


@both_families
def test_an_assert_from_bytes_is_understood(family) -> None:
    """§4.9.6: the R bit is no part of the preference."""
    machine = beside_neighbors(LOWER, family=family)
    greet(machine, LOWER, holdtime=HOLDTIME_FOREVER)
    channel = Channel(None, shared(1, family))
    machine.set_forwarding(channel, (100, 10), 1.0)
    zero = type(source(1, family))(0)
    body = encoded_group(channel.group) + unicast(zero) + struct.pack("!II", 0x8000_0000 | 100, 9)
    machine.receive_packet(packet(body, family, kind=ASSERT), 2.0)
    assert machine.lost_assert(channel)
