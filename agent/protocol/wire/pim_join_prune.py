"""Body of a PIM Join/Prune (RFC 7761 §4.9.5)."""

from __future__ import annotations

import struct

from agent.protocol.channels import Family
from agent.protocol.wire.errors import Malformed, Truncated
from agent.protocol.wire.pim_addresses import (
    SOURCE_SIZE,
    decode_group,
    decode_sources,
    decode_unicast_of,
    encode_group,
    encode_source,
    encode_unicast,
)
from agent.protocol.wire.pim_messages import JoinPrune, JoinPruneGroup


def decode_join_prune(data: bytes, offset: int, family: Family) -> JoinPrune:
    """Body of a Join/Prune from `offset`; bytes behind the last group are ignored.

    Raises:
        Truncated: fewer bytes than the counts in it say.
        Malformed: an address that does not fit `family` or its place.
    """
    upstream, offset = decode_unicast_of(data, offset, family)
    if upstream.is_multicast:
        raise Malformed(f"PIM upstream neighbour {upstream}", data)
    if offset + 4 > len(data):
        raise Truncated("PIM Join/Prune", data)
    count, holdtime = struct.unpack_from("!xBH", data, offset)
    offset += 4
    groups = []
    for _ in range(count):
        group, mask, offset = decode_group(data, offset, family)
        if offset + 4 > len(data):
            raise Truncated("group of a PIM Join/Prune", data)
        joined, pruned = struct.unpack_from("!HH", data, offset)
        offset += 4
        joins = decode_sources(data, offset, joined, family)
        offset += joined * SOURCE_SIZE[family]
        prunes = decode_sources(data, offset, pruned, family)
        offset += pruned * SOURCE_SIZE[family]
        groups.append(JoinPruneGroup(group, mask, joins, prunes))
    return JoinPrune(upstream, holdtime, tuple(groups))


def encode_join_prune(message: JoinPrune) -> bytes:
    """Body of a Join/Prune.

    Raises:
        ValueError: more groups or sources than their counts can say, or a holdtime beyond its field.
    """
    try:
        parts = [encode_unicast(message.upstream), struct.pack("!xBH", len(message.groups), message.holdtime)]
        for group in message.groups:
            parts.append(encode_group(group.group, group.mask_length))
            parts.append(struct.pack("!HH", len(group.joins), len(group.prunes)))
            parts.extend(encode_source(source) for source in (*group.joins, *group.prunes))
    except struct.error as error:
        raise ValueError(f"PIM Join/Prune: {error}") from None
    return b"".join(parts)
