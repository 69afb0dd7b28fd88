"""Options of a PIM Hello (RFC 7761 §4.9.2)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

from agent.protocol.channels import Address, Family
from agent.protocol.wire.errors import Malformed, Truncated, WireError
from agent.protocol.wire.pim_addresses import decode_unicast, encode_unicast
from agent.protocol.wire.pim_messages import Hello, LanPruneDelay

OPTION_HOLDTIME: Final = 1
OPTION_LAN_PRUNE_DELAY: Final = 2
OPTION_DR_PRIORITY: Final = 19
OPTION_GENERATION_ID: Final = 20
OPTION_ADDRESS_LIST: Final = 24
OPTION_ADDRESS_LIST_OLD: Final = 65001
"""Private number of the Address List in implementations older than its assignment; still sent by some."""

MOST_ADDRESSES: Final = 256
"""Addresses of one Hello that are read: a list may fill 64 kB, and is remembered for every neighbour."""


def decode_hello(data: bytes, offset: int, family: Family) -> Hello:
    """Options from `offset` to the end; unknown ones are skipped, of repeated ones the last counts.

    Address Lists add up, and addresses of another family than the message's are skipped: FRR sends a list of each
    family in every Hello. Of very long lists the first `MOST_ADDRESSES` are read.

    Raises:
        Truncated: an option reaches beyond the data.
        Malformed: a known option of another length than its layout.
    """
    hello = Hello()
    addresses: list[Address] = []
    for kind, value in _options(data, offset):
        if kind == OPTION_ADDRESS_LIST:
            addresses += _decode_addresses(value, family)
        elif kind == OPTION_ADDRESS_LIST_OLD:
            with suppress(WireError):  # of private use: what is no address list is another's option
                addresses += _decode_addresses(value, family)
        elif kind in _READERS:
            hello = _READERS[kind](hello, value)
    return replace(hello, addresses=tuple(addresses[:MOST_ADDRESSES]))


def encode_hello(hello: Hello) -> bytes:
    """Options that are not None, in the order of their numbers.

    Raises:
        ValueError: a value beyond its field.
    """
    options = []
    try:
        if hello.holdtime is not None:
            options.append((OPTION_HOLDTIME, struct.pack("!H", hello.holdtime)))
        if hello.lan_prune_delay is not None:
            options.append((OPTION_LAN_PRUNE_DELAY, _encode_lan_prune_delay(hello.lan_prune_delay)))
        if hello.dr_priority is not None:
            options.append((OPTION_DR_PRIORITY, struct.pack("!I", hello.dr_priority)))
        if hello.generation_id is not None:
            options.append((OPTION_GENERATION_ID, struct.pack("!I", hello.generation_id)))
    except struct.error as error:
        raise ValueError(f"PIM Hello: {error}") from None
    if hello.addresses:
        options.append((OPTION_ADDRESS_LIST, b"".join(encode_unicast(address) for address in hello.addresses)))
    return b"".join(struct.pack("!HH", kind, len(value)) + value for kind, value in options)


def _options(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset < len(data):
        if offset + 4 > len(data):
            raise Truncated("PIM Hello option", data)
        kind, length = struct.unpack_from("!HH", data, offset)
        offset += 4
        if offset + length > len(data):
            raise Truncated(f"PIM Hello option {kind} of {length} bytes, {len(data) - offset} are there", data)
        yield kind, data[offset : offset + length]
        offset += length


def _decode_addresses(value: bytes, family: Family) -> list[Address]:
    addresses: list[Address] = []
    offset = 0
    while offset < len(value):
        address, offset = decode_unicast(value, offset)
        if address.version == family:
            addresses.append(address)
    return addresses


def _number(value: bytes, size: int, name: str) -> int:
    if len(value) != size:
        raise Malformed(f"PIM Hello option {name} of {len(value)} bytes", value)
    return int.from_bytes(value, "big")


def _lan_prune_delay(hello: Hello, value: bytes) -> Hello:
    number = _number(value, 4, "LAN prune delay")
    delay = LanPruneDelay((number >> 16) & 0x7FFF, number & 0xFFFF, tracking=bool(number >> 31))
    return replace(hello, lan_prune_delay=delay)


_READERS: Final[dict[int, Callable[[Hello, bytes], Hello]]] = {
    OPTION_HOLDTIME: lambda hello, value: replace(hello, holdtime=_number(value, 2, "holdtime")),
    OPTION_LAN_PRUNE_DELAY: _lan_prune_delay,
    OPTION_DR_PRIORITY: lambda hello, value: replace(hello, dr_priority=_number(value, 4, "DR priority")),
    OPTION_GENERATION_ID: lambda hello, value: replace(hello, generation_id=_number(value, 4, "generation ID")),
}


def _encode_lan_prune_delay(delay: LanPruneDelay) -> bytes:
    if not 0 <= delay.propagation_delay <= 0x7FFF:
        raise ValueError(f"propagation delay of {delay.propagation_delay} ms")
    return struct.pack("!HH", delay.tracking << 15 | delay.propagation_delay, delay.override_interval)
