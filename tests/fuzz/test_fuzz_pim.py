"""PIM on every input: a message or a WireError, what is encoded decodes to itself, and what is packed is all said."""

from __future__ import annotations

from collections import Counter

import pytest
from fuzzing.strategies import (
    FAMILIES,
    VECTORS,
    any_address,
    encoded_sources,
    group,
    ones_complement,
    pim_messages,
    source,
    spoilt,
)
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.channels import Address, Family
from agent.protocol.wire import ip, pim
from agent.protocol.wire.errors import WireError

ENDS = {family: (source(family, 1), source(family, 2)) for family in Family}
PAYLOADS = [
    (ip.decode(vector.data).payload, Family(vector.data[0] >> 4))
    for vector in VECTORS.values()
    if vector.decoder == "pim"
]
LARGEST = 65515
"""Bytes of the largest payload of an IPv4 packet."""


def summed(message: bytes, family: Family) -> bytes:
    """A PIM message with its checksum made right, so that spoilt fields get through."""
    if len(message) < 4:
        return message
    blank = message[:2] + b"\0\0" + message[4:]
    covered = blank[:8] if blank[0] & 15 == 1 else blank
    here, there = ENDS[family]
    pseudo = b"" if family is Family.IPV4 else here.packed + there.packed + len(covered).to_bytes(4, "big") + b"\0\0\0g"
    return blank[:2] + (0xFFFF ^ ones_complement(pseudo + covered)).to_bytes(2, "big") + blank[4:]


def outcome(message: bytes, family: Family) -> pim.Message | None:
    """What is decoded, None for a refusal; anything else that is raised fails the test."""
    try:
        return pim.decode(message, *ENDS[family])
    except WireError as error:
        refusal = error
    assert refusal.reason
    assert isinstance(refusal.packet, bytes)
    return None


@given(message=st.binary(max_size=200), family=FAMILIES)
def test_random_bytes(message: bytes, family: Family) -> None:
    outcome(message, family)
    for kind in range(6):
        outcome(summed(bytes((0x20 | kind, 0, 0, 0)) + message, family), family)


@given(drawn=st.sampled_from(PAYLOADS), data=st.data())
def test_spoilt_messages_that_decode_encode_again(drawn: tuple[bytes, Family], data: st.DataObject) -> None:
    payload, family = drawn
    changed = data.draw(spoilt(payload))
    outcome(changed, family)
    message = outcome(summed(changed, family), family)
    if message is not None:
        assert pim.decode(pim.encode(message, *ENDS[family]), *ENDS[family]) == message


@given(family=FAMILIES, data=st.data())
def test_messages_decode_to_themselves(family: Family, data: st.DataObject) -> None:
    message = data.draw(pim_messages(family))
    encoded = pim.encode(message, *ENDS[family])
    assert pim.decode(encoded, *ENDS[family]) == message
    assert summed(encoded, family) == encoded


@given(family=FAMILIES, data=st.data())
def test_spoilt_valid_messages(family: Family, data: st.DataObject) -> None:
    encoded = pim.encode(data.draw(pim_messages(family)), *ENDS[family])
    changed = data.draw(spoilt(encoded))
    outcome(changed, family)
    outcome(summed(changed, family), family)


JOIN_HEAD = bytes.fromhex("23 00 00 00 01 00 c0 00 02 01")
GROUP_HEAD = bytes.fromhex("01 00 00 20 e8 01 02 03")
SOURCE = bytes.fromhex("01 00 04 20 cb 00 71 05")


@pytest.mark.parametrize(
    ("name", "start", "repeated"),
    [
        ("options without a value", b"\x20\0\0\0", b"\xff\0\0\0"),
        ("known options", b"\x20\0\0\0", b"\0\x14\0\x04abcd"),
        ("address lists", b"\x20\0\0\0", b"\0\x18\0\x06\x01\0\xc0\0\x02\x01"),
        ("one address list", b"\x20\0\0\0\0\x18\xff\xd6", b"\x01\0\xc0\0\x02\x01"),
        ("empty groups", JOIN_HEAD + b"\0\xff\0\xd2", GROUP_HEAD + b"\0\0\0\0"),
        ("joins of one group", JOIN_HEAD + b"\0\x01\0\xd2" + GROUP_HEAD + b"\x1f\xec\0\0", SOURCE),
        ("joins that are not there", JOIN_HEAD + b"\0\x01\0\xd2" + GROUP_HEAD + b"\xff\xff\0\0", SOURCE),
        ("a register", b"\x21\0\0\0\0\0\0\0", b"data"),
        ("a bootstrap", b"\x24\0\0\0\x12\x34\x1e\x40\x01\0\xc0\0\x02\x01", b"data"),
    ],
)
def test_largest_packets_are_read_or_refused(name: str, start: bytes, repeated: bytes) -> None:
    """Time grows with the bytes: a message of this size is as long as many small ones, and no longer."""
    message = (start + repeated * (LARGEST // len(repeated)))[:LARGEST]
    outcome(summed(message, Family.IPV4), Family.IPV4)


def entries(family: Family) -> st.SearchStrategy[list[tuple[Address, pim.EncodedSource]]]:
    """Entries of a few groups, none twice."""
    groups = st.integers(1, 4).map(lambda number: group(family, number, any_source=True))
    return st.lists(st.tuples(groups, encoded_sources(family)), max_size=60, unique=True)


@given(family=FAMILIES, data=st.data(), size=st.integers(200, 1500))
def test_packed_joins_and_prunes_are_all_said_once_and_fit(family: Family, data: st.DataObject, size: int) -> None:
    joins, prunes = data.draw(entries(family)), data.draw(entries(family))
    here = ENDS[family][0]
    messages = pim.pack_join_prunes(here, 210, joins, prunes, size)
    header = 20 if family is Family.IPV4 else 40
    said: Counter[tuple[bool, Address, pim.EncodedSource]] = Counter()
    shared: Counter[Address] = Counter()
    for message in messages:
        assert header + len(pim.encode(message, *ENDS[family])) <= size
        assert (message.upstream, message.holdtime) == (here, 210)
        for listed in message.groups:
            said.update((True, listed.group, entry) for entry in listed.joins)
            said.update((False, listed.group, entry) for entry in listed.prunes)
            shared[listed.group] += any(entry.rpt for entry in (*listed.joins, *listed.prunes))
    wanted = Counter([(True, *entry) for entry in joins] + [(False, *entry) for entry in prunes])
    assert said <= wanted
    assert all(entry.rpt for _, _, entry in wanted - said), "only the shared tree is shortened"
    assert all(count <= 1 for count in shared.values()), "RFC 7761 §4.9.5.2: one message for a group's shared tree"
    if size == 1500:
        assert said == wanted


@given(family=FAMILIES, address=st.data(), size=st.integers(0, 120))
def test_packing_refuses_sizes_without_room(family: Family, address: st.DataObject, size: int) -> None:
    wished = [(group(family, 1), pim.EncodedSource(address.draw(any_address(family))))]
    try:
        messages = pim.pack_join_prunes(ENDS[family][0], 210, wished, [], size)
    except ValueError:
        assert size < 120
        return
    assert len(messages) == 1
