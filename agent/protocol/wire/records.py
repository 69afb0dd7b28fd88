"""Group records as IGMPv3 (RFC 3376 §4.2.4) and MLDv2 (RFC 3810 §5.2.4) lay them out: the same but for address size."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from agent.protocol.channels import Address, Family
from agent.protocol.wire.errors import Truncated
from agent.protocol.wire.groups import GroupRecord, RecordType


def decode_addresses(data: bytes, offset: int, count: int, family: Family) -> tuple[Address, ...]:
    """`count` packed addresses from `offset`.

    Raises:
        Truncated: fewer bytes than `count` addresses.
    """
    size = 4 if family is Family.IPV4 else 16
    end = offset + count * size
    if end > len(data):
        raise Truncated(f"{count} addresses need {end - offset} bytes, {len(data) - offset} are there", data)
    parse: type[IPv4Address | IPv6Address] = IPv4Address if family is Family.IPV4 else IPv6Address
    return tuple(parse(data[position : position + size]) for position in range(offset, end, size))


def decode_records(data: bytes, offset: int, count: int, family: Family) -> tuple[GroupRecord, ...]:
    """`count` group records from `offset`; records of unknown type are skipped (RFC 3376 §4.2.12).

    Raises:
        Truncated: a record reaches beyond the data.
    """
    size = 4 if family is Family.IPV4 else 16
    records = []
    for _ in range(count):
        if offset + 4 + size > len(data):
            raise Truncated("group record", data)
        kind, auxiliary, sources = struct.unpack_from("!BBH", data, offset)
        (group,) = decode_addresses(data, offset + 4, 1, family)
        listed = decode_addresses(data, offset + 4 + size, sources, family)
        offset += 4 + size + sources * size + auxiliary * 4
        if offset > len(data):
            raise Truncated("auxiliary data of a group record", data)
        if kind in RecordType.__members__.values():
            records.append(GroupRecord(RecordType(kind), group, listed))
    return tuple(records)


def encode_records(records: Iterable[GroupRecord]) -> bytes:
    """Records without auxiliary data."""
    return b"".join(
        struct.pack("!BBH", record.type, 0, len(record.sources))
        + record.group.packed
        + b"".join(source.packed for source in record.sources)
        for record in records
    )
