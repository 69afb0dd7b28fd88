"""Hypothesis strategies of addresses, messages and packets, valid and spoilt."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st
from vectors.loader import load_vectors

from agent.protocol.channels import Address, Family, Filter
from agent.protocol.wire import amt, pim
from agent.protocol.wire.groups import (
    AnySourceReport,
    GroupMessage,
    GroupRecord,
    GroupVersion,
    Leave,
    Query,
    RecordType,
    Report,
)

VECTORS = load_vectors()
GROUP_NUMBERS = st.integers(1, 6)
SOURCE_NUMBERS = st.integers(1, 6)
FAMILIES = st.sampled_from(list(Family))


def group(family: Family, number: int, *, any_source: bool = False) -> Address:
    """A forwardable group of the source-specific or the any-source range."""
    if family is Family.IPV4:
        return IPv4Address(f"{239 if any_source else 232}.1.1.{number}")
    return IPv6Address(f"{'ff1e' if any_source else 'ff3e'}::1:{number:x}")


def source(family: Family, number: int) -> Address:
    """A unicast source."""
    return IPv4Address(f"203.0.113.{number}") if family is Family.IPV4 else IPv6Address(f"2001:db8::{number:x}")


def any_address(family: Family) -> st.SearchStrategy[Address]:
    """Any address of a family."""
    if family is Family.IPV4:
        return st.integers(0, 2**32 - 1).map(IPv4Address)
    return st.integers(0, 2**128 - 1).map(IPv6Address)


def multicast(family: Family) -> st.SearchStrategy[Address]:
    """Any multicast address, link-local ones as well."""
    if family is Family.IPV4:
        return st.integers(0xE0000000, 0xEFFFFFFF).map(IPv4Address)
    return st.integers(0xFF << 120, (1 << 128) - 1).map(IPv6Address)


@st.composite
def group_messages(draw: st.DrawFn, family: Family) -> GroupMessage:
    """Any message of a family that its version can say, over the whole range of addresses."""
    kind = draw(st.sampled_from(["query", "report", "older", "leave"]))
    if kind == "report":
        record = st.builds(
            GroupRecord,
            st.sampled_from(RecordType),
            multicast(family),
            st.lists(any_address(family), max_size=5).map(tuple),
        )
        return Report(tuple(draw(st.lists(record, max_size=5))))
    if kind == "leave":
        return Leave(draw(multicast(family)))
    if kind == "older":
        versions = [GroupVersion.ANY_SOURCE] + ([GroupVersion.ANY_SOURCE_BASIC] if family is Family.IPV4 else [])
        return AnySourceReport(draw(multicast(family)), draw(st.sampled_from(versions)))
    return draw(queries(family))


@st.composite
def queries(draw: st.DrawFn, family: Family) -> Query:
    """A source-specific query; times are those that codes can say."""
    asked = draw(st.none() | multicast(family))
    sources = draw(st.lists(any_address(family), max_size=5)) if asked else []
    return Query(
        group=asked,
        sources=tuple(sources),
        max_response_time=draw(st.integers(0, 127)) / 10,
        suppress=draw(st.booleans()),
        robustness=draw(st.integers(0, 7)),
        interval=draw(st.integers(0, 127)),
    )


def encoded_sources(family: Family) -> st.SearchStrategy[pim.EncodedSource]:
    """Any source of a Join/Prune; a wildcard has the RPT bit."""
    kinds = st.sampled_from([(False, False), (False, True), (True, True)])
    return st.tuples(any_address(family), kinds).map(lambda drawn: pim.EncodedSource(drawn[0], *drawn[1]))


@st.composite
def pim_messages(draw: st.DrawFn, family: Family) -> pim.Message:
    """Any PIM message of a family."""
    kind = draw(st.sampled_from(["hello", "join prune", "assert", "register", "register stop", "bootstrap"]))
    bits = 32 if family is Family.IPV4 else 128
    short, long = st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF)
    if kind == "hello":
        delay = st.builds(pim.LanPruneDelay, st.integers(0, 0x7FFF), short, st.booleans())
        addresses = st.lists(any_address(family), max_size=4).map(tuple)
        return draw(
            st.builds(pim.Hello, st.none() | short, st.none() | delay, st.none() | long, st.none() | long, addresses)
        )
    if kind == "join prune":
        sources = st.lists(encoded_sources(family), max_size=4).map(tuple)
        listed = st.builds(pim.JoinPruneGroup, multicast(family), st.integers(0, bits), sources, sources)
        upstream = any_address(family).filter(lambda address: not address.is_multicast)
        return draw(st.builds(pim.JoinPrune, upstream, short, st.lists(listed, max_size=4).map(tuple)))
    if kind == "assert":
        named = draw(st.none() | any_address(family).filter(lambda address: not address.is_unspecified))
        rpt = named is None or draw(st.booleans())
        return pim.Assert(draw(multicast(family)), named, draw(st.integers(0, 0x7FFF_FFFF)), draw(long), rpt)
    if kind == "register":
        return draw(st.builds(pim.Register, st.binary(max_size=64), st.booleans(), st.booleans()))
    if kind == "register stop":
        return draw(st.builds(pim.RegisterStop, multicast(family), any_address(family)))
    bsr, priority, rest = draw(any_address(family)), draw(st.integers(0, 255)), draw(st.binary(max_size=32))
    address = bytes((1 if family is Family.IPV4 else 2, 0)) + bsr.packed
    return pim.Bootstrap(bsr, priority, bytes((1, 2, 30, priority)) + address + rest, draw(st.booleans()))


@st.composite
def filters(draw: st.DrawFn, family: Family, *, any_source: bool) -> Filter:
    """A filter over a few sources; EXCLUDE only where it is allowed."""
    sources = [source(family, number) for number in draw(st.sets(SOURCE_NUMBERS, max_size=4))]
    if any_source and draw(st.booleans()):
        return Filter.exclude(sources)
    return Filter.include(sources)


@st.composite
def spoilt(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with bits flipped, bytes replaced, cut, repeated or inserted."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(changed)))
        action = draw(st.sampled_from(["flip", "replace", "cut", "insert", "repeat", "drop"]))
        if action == "flip" and place < len(changed):
            changed[place] ^= 1 << draw(st.integers(0, 7))
        elif action == "replace" and place < len(changed):
            changed[place] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif action == "cut":
            del changed[place:]
        elif action == "insert":
            changed[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif action == "repeat":
            changed += changed[place : place + 16]
        else:
            del changed[place : place + draw(st.integers(1, 8))]
    return bytes(changed)


def ones_complement(data: bytes) -> int:
    """One's complement sum, word by word (RFC 1071), on its own so that no codec checks itself."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum((padded[at] << 8) + padded[at + 1] for at in range(0, len(padded), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def sealed(packet: bytes) -> bytes:
    """An IP packet with lengths and checksums made right where that is possible, so that spoilt fields get through."""
    if len(packet) < 20:
        return packet
    changed = bytearray(packet)
    if changed[0] >> 4 == 4:
        return _sealed_ipv4(changed)
    if changed[0] >> 4 == 6 and len(changed) >= 48:
        return _sealed_ipv6(changed)
    return packet


def _sealed_ipv4(packet: bytearray) -> bytes:
    header = (packet[0] & 15) * 4
    if not 20 <= header <= len(packet):
        return bytes(packet)
    packet[2:4] = len(packet).to_bytes(2, "big")
    packet[10:12] = b"\0\0"
    packet[10:12] = (0xFFFF ^ ones_complement(bytes(packet[:header]))).to_bytes(2, "big")
    if packet[9] == 2 and len(packet) >= header + 4:
        packet[header + 2 : header + 4] = b"\0\0"
        packet[header + 2 : header + 4] = (0xFFFF ^ ones_complement(bytes(packet[header:]))).to_bytes(2, "big")
    return bytes(packet)


def _sealed_ipv6(packet: bytearray) -> bytes:
    packet[4:6] = (len(packet) - 40).to_bytes(2, "big")
    at = 40
    if packet[6] == 0:
        at += 8 + 8 * packet[41]
    if len(packet) >= at + 4:
        packet[at + 2 : at + 4] = b"\0\0"
        pseudo = bytes(packet[8:40]) + (len(packet) - at).to_bytes(4, "big") + b"\0\0\0\x3a"
        packet[at + 2 : at + 4] = (0xFFFF ^ ones_complement(pseudo + bytes(packet[at:]))).to_bytes(2, "big")
    return bytes(packet)


@st.composite
def vector_bytes(draw: st.DrawFn, *decoders: str) -> bytes:
    """Bytes of some vector of these decoders, as they are, spoilt, or spoilt and sealed again."""
    names = [name for name, vector in VECTORS.items() if vector.decoder in decoders]
    data = VECTORS[draw(st.sampled_from(names))].data
    treatment = draw(st.sampled_from(["as it is", "spoilt", "sealed"]))
    if treatment == "as it is":
        return data
    data = draw(spoilt(data))
    return sealed(data) if treatment == "sealed" and "amt" not in decoders else data


NONCES = st.integers(0, 2**32 - 1)
MACS = st.binary(min_size=6, max_size=6)
PORTS = st.integers(0, 65535)
ENDPOINTS = st.tuples(FAMILIES.flatmap(any_address), PORTS)


def _is_plain(endpoint: tuple[Address, int]) -> bool:
    """Whether an address survives the 16 bytes of RFC 7450 §5.1.4.9: ::a.b.c.d means IPv4 there, :: and ::1 do not."""
    address, _ = endpoint
    return int(address) >> (24 if Family.of(address) is Family.IPV4 else 32) != 0


GATEWAYS = ENDPOINTS.filter(_is_plain)
INNER_PACKETS = st.sampled_from([vector.data for vector in VECTORS.values() if vector.decoder == "group"])
AMT_MESSAGES: st.SearchStrategy[amt.Message] = st.one_of(
    st.builds(amt.RelayDiscovery, NONCES),
    st.builds(amt.RelayAdvertisement, NONCES, FAMILIES.flatmap(any_address)),
    st.builds(amt.Request, NONCES, st.booleans(), st.booleans()),
    st.builds(amt.MembershipQuery, MACS, NONCES, INNER_PACKETS, st.booleans(), st.none() | GATEWAYS),
    st.builds(amt.MembershipUpdate, MACS, NONCES, INNER_PACKETS),
    st.builds(amt.MulticastData, st.binary(min_size=1, max_size=64)),
    st.builds(amt.Teardown, MACS, NONCES, GATEWAYS),
)
