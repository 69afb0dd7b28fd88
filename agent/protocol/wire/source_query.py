"""The end of a source-specific query: IGMPv3 (RFC 3376 §4.1.5-10) and MLDv2 (RFC 3810 §5.1.7-12) but for address size.

flags (S, QRV) 1 byte, QQIC 1 byte, number of sources 2 bytes, sources
"""

from __future__ import annotations

import struct

from agent.protocol.channels import Address, Family
from agent.protocol.wire.errors import Malformed, Truncated
from agent.protocol.wire.groups import Query, decode_exponent, encode_exponent
from agent.protocol.wire.records import decode_addresses

_SUPPRESS = 0x08
_ROBUSTNESS = 0x07


def decode_source_query(
    data: bytes, offset: int, family: Family, group: Address | None, max_response_time: float
) -> Query:
    """The query whose last part begins at `offset`.

    Raises:
        Truncated: fewer bytes than the layout or the number of sources needs.
        Malformed: a general query with sources.
    """
    if offset + 4 > len(data):
        raise Truncated(f"query of {len(data)} bytes", data)
    flags, interval, count = struct.unpack_from("!BBH", data, offset)
    sources = decode_addresses(data, offset + 4, count, family)
    if sources and group is None:
        raise Malformed("general query with sources", data)
    return Query(
        group,
        sources,
        max_response_time,
        suppress=bool(flags & _SUPPRESS),
        robustness=flags & _ROBUSTNESS,
        interval=decode_exponent(interval),
    )


def encode_source_query_end(query: Query) -> bytes:
    """The last part of a query; a robustness beyond 7 is sent as 0 (RFC 3376 §4.1.6)."""
    flags = query.suppress << 3 | (query.robustness if query.robustness <= _ROBUSTNESS else 0)
    end = struct.pack("!BBH", flags, encode_exponent(query.interval), len(query.sources))
    return end + b"".join(source.packed for source in query.sources)
