"""What PIM's fields cannot say is refused on both sides, and Joins are packed as RFC 7761 wants them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from agent.protocol.channels import Family
from agent.protocol.wire import pim
from agent.protocol.wire.checksum import internet_checksum
from agent.protocol.wire.errors import BadChecksum, Malformed, Truncated, UnknownType
from agent.protocol.wire.pim import (
    Assert,
    Bootstrap,
    EncodedSource,
    Hello,
    JoinPrune,
    JoinPruneGroup,
    LanPruneDelay,
    Message,
    Register,
    pack_join_prunes,
)

ENDS = {
    Family.IPV4: (ip_address("192.0.2.1"), ip_address("224.0.0.13")),
    Family.IPV6: (ip_address("fe80::1"), ip_address("ff02::d")),
}
GROUPS = {Family.IPV4: ip_address("239.1.1.1"), Family.IPV6: ip_address("ff1e::5")}
SOURCES = {Family.IPV4: ip_address("203.0.113.1"), Family.IPV6: ip_address("2001:db8::1")}
both_families = pytest.mark.parametrize("family", list(Family))


def encoded(message: Message, family: Family = Family.IPV4) -> bytes:
    return pim.encode(message, *ENDS[family])


# --- encoding


@pytest.mark.parametrize(
    "message",
    [
        Hello(holdtime=0x10000),
        Hello(holdtime=-1),
        Hello(dr_priority=1 << 32),
        Hello(generation_id=1 << 32),
        Hello(lan_prune_delay=LanPruneDelay(0x8000, 2500)),
        Hello(lan_prune_delay=LanPruneDelay(-1, 2500)),
        Hello(lan_prune_delay=LanPruneDelay(500, 0x10000)),
        JoinPrune(SOURCES[Family.IPV4], 0x10000),
        JoinPrune(SOURCES[Family.IPV4], 210, (JoinPruneGroup(GROUPS[Family.IPV4], 32),) * 256),
        Assert(GROUPS[Family.IPV4], SOURCES[Family.IPV4], 0x8000_0000, 0),
        Assert(GROUPS[Family.IPV4], SOURCES[Family.IPV4], 0, 1 << 32),
        Bootstrap(SOURCES[Family.IPV4], 1, b""),
        Bootstrap(SOURCES[Family.IPV4], 1, bytes(10)),
    ],
)
def test_value_beyond_its_field_is_not_encoded(message: Message) -> None:
    with pytest.raises(ValueError, match=r"."):
        encoded(message)


def test_any_source_assert_always_has_the_rpt_bit() -> None:
    """RFC 7761 §4.9.6."""
    message = pim.decode(encoded(Assert(GROUPS[Family.IPV4], None, 10, 20)), *ENDS[Family.IPV4])
    assert message == Assert(GROUPS[Family.IPV4], None, 10, 20, rpt=True)


# --- decoding


@pytest.mark.parametrize("length", range(4))
def test_message_shorter_than_its_header_is_refused(length: int) -> None:
    with pytest.raises(Truncated):
        pim.decode(encoded(Hello())[:length], *ENDS[Family.IPV4])


def test_only_version_two_is_spoken() -> None:
    """RFC 7761 §4.9."""
    for version in set(range(16)) - {2}:
        with pytest.raises(Malformed):
            pim.decode(bytes((version << 4, 0, 0, 0)), *ENDS[Family.IPV4])


def test_types_beyond_sparse_mode_are_unknown() -> None:
    """RFC 8736 §6: graft, candidate RP, state refresh, DF election and what came later."""
    for kind in range(6, 16):
        with pytest.raises(UnknownType):
            pim.decode(bytes((0x20 | kind, 0, 0, 0)), *ENDS[Family.IPV4])


@both_families
def test_register_summed_over_its_header_or_over_everything_is_good(family: Family) -> None:
    """RFC 7761 §4.9.3: eight bytes; old implementations sum the packet inside as well."""
    good = Register(b"any packet, of even length", border=True)
    assert pim.decode(encoded(good, family), *ENDS[family]) == good
    changed = encoded(good, family)[:-1] + b"!"
    assert pim.decode(changed, *ENDS[family]) != good, "what is inside is not covered"
    with pytest.raises(BadChecksum):
        pim.decode(changed[:4] + b"\x40" + changed[5:], *ENDS[family])


def test_ipv6_checksum_covers_the_addresses() -> None:
    """RFC 7761 §4.9."""
    with pytest.raises(BadChecksum):
        pim.decode(encoded(Hello(105), Family.IPV6), ip_address("fe80::2"), ENDS[Family.IPV6][1])


@both_families
def test_another_familys_group_is_refused(family: Family) -> None:
    """RFC 7761 §4.9.1: one message, one family."""
    other = Family.IPV6 if family is Family.IPV4 else Family.IPV4
    upstream = ENDS[family][0]
    stranger = JoinPrune(upstream, 210, (JoinPruneGroup(GROUPS[other], GROUPS[other].max_prefixlen),))
    with pytest.raises(Malformed):
        pim.decode(encoded(stranger, family), *ENDS[family])
    source = JoinPruneGroup(GROUPS[family], GROUPS[family].max_prefixlen, (EncodedSource(SOURCES[other]),) * 3)
    with pytest.raises((Malformed, Truncated)):
        pim.decode(encoded(JoinPrune(upstream, 210, (source,)), family), *ENDS[family])


def test_of_a_list_without_end_the_first_addresses_are_read() -> None:
    """A Hello is remembered, so what it may bring is bounded."""
    addresses = tuple(SOURCES[Family.IPV4] + number for number in range(5000))
    hello = pim.decode(encoded(Hello(addresses=addresses)), *ENDS[Family.IPV4])
    assert hello == Hello(addresses=addresses[:256])


@pytest.mark.parametrize("missing", range(1, 5))
def test_join_prune_cut_before_its_counts_is_refused(missing: int) -> None:
    body = encoded(JoinPrune(SOURCES[Family.IPV4], 210))[:-missing]
    total = internet_checksum(body[:2] + b"\0\0" + body[4:]).to_bytes(2, "big")
    with pytest.raises(Truncated):
        pim.decode(body[:2] + total + body[4:], *ENDS[Family.IPV4])


def test_join_prune_to_a_multicast_neighbour_is_refused() -> None:
    with pytest.raises(Malformed):
        pim.decode(encoded(JoinPrune(ip_address("224.0.0.13"), 210)), *ENDS[Family.IPV4])


# --- packing


def listed(messages: list[JoinPrune]) -> list[JoinPruneGroup]:
    return [group for message in messages for group in message.groups]


@both_families
def test_many_channels_fill_packets_of_the_size(family: Family) -> None:
    source, group = SOURCES[family], GROUPS[family]
    joins = [(group + number // 50, EncodedSource(source + number)) for number in range(1000)]
    messages = pack_join_prunes(ENDS[family][0], 210, joins, [], 1500)
    header = 20 if family is Family.IPV4 else 40
    sizes = [header + len(encoded(message, family)) for message in messages]
    entry = 8 if family is Family.IPV4 else 20
    assert all(1500 - 2 * entry - 4 < size <= 1500 for size in sizes[:-1])
    assert [(one.group, source) for one in listed(messages) for source in one.joins] == joins


def test_a_group_per_channel_stops_at_the_count_of_groups() -> None:
    """RFC 7761 §4.9.5: one byte counts them."""
    joins = [(GROUPS[Family.IPV4] + number, EncodedSource(SOURCES[Family.IPV4])) for number in range(600)]
    messages = pack_join_prunes(ENDS[Family.IPV4][0], 210, joins, [], 65535)
    assert [len(message.groups) for message in messages] == [255, 255, 90]


def test_shared_tree_of_a_group_stays_in_one_message() -> None:
    """RFC 7761 §4.9.5.2."""
    rendezvous, first = ip_address("192.0.2.9"), SOURCES[Family.IPV4]
    others = [(ip_address("232.1.1.1"), EncodedSource(first + number)) for number in range(20)]
    shared = (GROUPS[Family.IPV4], EncodedSource(rendezvous, wildcard=True, rpt=True))
    pruned = [(GROUPS[Family.IPV4], EncodedSource(first + number, rpt=True)) for number in range(20)]
    messages = pack_join_prunes(ENDS[Family.IPV4][0], 210, [*others, shared], pruned, 300)
    (group,) = [one for one in listed(messages) if one.group == GROUPS[Family.IPV4]]
    assert group.joins == (shared[1],)
    assert group.prunes == tuple(source for _, source in pruned)
    assert len(messages) == 2


def test_shared_tree_too_long_for_a_message_keeps_its_lowest_sources() -> None:
    """RFC 7761 §4.9.5.2: the same ones each time."""
    shared = (GROUPS[Family.IPV4], EncodedSource(ip_address("192.0.2.9"), wildcard=True, rpt=True))
    first = SOURCES[Family.IPV4]
    pruned = [(GROUPS[Family.IPV4], EncodedSource(first + number, rpt=True)) for number in reversed(range(100))]
    plain = [(GROUPS[Family.IPV4], EncodedSource(first + 200 + number)) for number in range(3)]
    messages = pack_join_prunes(ENDS[Family.IPV4][0], 210, [shared, *plain], pruned, 300)
    groups = listed(messages)
    assert groups[0].joins == (shared[1],)
    assert [source.address for source in groups[0].prunes] == [
        first + number for number in range(len(groups[0].prunes))
    ]
    assert 20 < len(groups[0].prunes) < 40
    assert [source for group in groups[1:] for source in group.joins] == [source for _, source in plain]


def test_joins_and_prunes_of_one_group_share_its_list() -> None:
    group, first = GROUPS[Family.IPV4], SOURCES[Family.IPV4]
    joins, prunes = [(group, EncodedSource(first))], [(group, EncodedSource(first + 1))]
    (message,) = pack_join_prunes(ENDS[Family.IPV4][0], 210, joins, prunes, 1500)
    assert message.groups == (JoinPruneGroup(group, 32, (EncodedSource(first),), (EncodedSource(first + 1),)),)


def test_nothing_to_say_is_no_message() -> None:
    assert pack_join_prunes(ENDS[Family.IPV4][0], 210, [], [], 1500) == []


def test_size_without_room_for_one_join_is_an_error() -> None:
    joins = [(GROUPS[Family.IPV4], EncodedSource(SOURCES[Family.IPV4]))]
    assert len(pack_join_prunes(ENDS[Family.IPV4][0], 210, joins, [], 54)) == 1
    with pytest.raises(ValueError, match="53"):
        pack_join_prunes(ENDS[Family.IPV4][0], 210, joins, [], 53)
