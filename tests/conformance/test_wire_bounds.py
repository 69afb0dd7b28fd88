"""What headers cannot say is refused on both sides, and what they can say is taken."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from itertools import product

import pytest

from agent.protocol.channels import Family
from agent.protocol.wire import group_packet, igmp, ip, mld
from agent.protocol.wire.errors import Malformed, Truncated, WireError
from agent.protocol.wire.groups import AnySourceReport, GroupVersion, Leave, Query, Report

ENDS = {
    Family.IPV4: (ip_address("203.0.113.5"), ip_address("232.1.2.3")),
    Family.IPV6: (ip_address("2001:db8::5"), ip_address("ff3e::1234")),
}
HOSTS = {Family.IPV4: ip_address("192.0.2.10"), Family.IPV6: ip_address("fe80::10")}
ANY_GROUP = {Family.IPV4: ip_address("239.1.2.3"), Family.IPV6: ip_address("ff1e::5")}
both_families = pytest.mark.parametrize("family", list(Family))


@both_families
def test_packet_beyond_the_length_field_is_not_encoded(family: Family) -> None:
    """RFC 791 §3.1 (total length), RFC 8200 §3 (payload length): 16 bits."""
    largest = 65535 - 20 if family is Family.IPV4 else 65535
    assert len(ip.IPPacket(*ENDS[family], 17, bytes(largest)).encode()) == largest + (20 if family == 4 else 40)
    with pytest.raises(ValueError, match=r"."):
        ip.IPPacket(*ENDS[family], 17, bytes(largest + 1)).encode()


@both_families
@pytest.mark.parametrize("length", [1, 3, 5])
def test_options_that_fill_no_words_are_not_encoded(family: Family, length: int) -> None:
    """RFC 791 §3.1 (header length in 4 bytes), RFC 8200 §4.3 (8 bytes, two of them the header's own)."""
    with pytest.raises(ValueError, match=r"."):
        ip.IPPacket(*ENDS[family], 17, b"", options=bytes(length)).encode()


def test_ipv4_options_beyond_forty_bytes_are_not_encoded() -> None:
    """RFC 791 §3.1: fifteen words of header."""
    ip.IPPacket(*ENDS[Family.IPV4], 17, b"", options=b"\x01" * 40).encode()
    with pytest.raises(ValueError, match=r"."):
        ip.IPPacket(*ENDS[Family.IPV4], 17, b"", options=b"\x01" * 44).encode()


@both_families
def test_udp_of_a_fragment_is_refused(family: Family) -> None:
    """RFC 768: only the whole packet has a datagram."""
    first = ip.IPPacket(*ENDS[family], 17, bytes(16), more_fragments=True)
    last = ip.IPPacket(*ENDS[family], 17, bytes(16), fragment_offset=8)
    for fragment in (first, last):
        with pytest.raises(Malformed):
            ip.decode_udp(fragment)


@both_families
def test_udp_datagram_beyond_its_length_field_is_not_encoded(family: Family) -> None:
    """RFC 768: the length counts the header, in 16 bits."""
    with pytest.raises((ValueError, struct.error), match=r"."):
        ip.encode_udp(*ENDS[family], ip.UDPDatagram(1, 2, bytes(65536 - 8)))


@pytest.mark.parametrize("port", [-1, 65536])
def test_impossible_port_is_not_encoded(port: int) -> None:
    """RFC 768: 16 bits."""
    with pytest.raises((ValueError, struct.error), match=r"."):
        ip.encode_udp(*ENDS[Family.IPV4], ip.UDPDatagram(port, 2, b""))


def extended(chain: bytes, first: int, payload: bytes = b"data") -> bytes:
    """An IPv6 packet with extension headers."""
    body = chain + payload
    header = bytes((0x60, 0, 0, 0)) + len(body).to_bytes(2, "big") + bytes((first, 64))
    return header + ENDS[Family.IPV6][0].packed + ENDS[Family.IPV6][1].packed + body


NOTHING_NEXT = bytes((253, 0, 1, 4, 0, 0, 0, 0))
"""An extension header with padding, protocol 253 behind it."""


@pytest.mark.parametrize("first", [0, 43, 60])
def test_extension_header_is_passed(first: int) -> None:
    """RFC 8200 §4.3, §4.4, §4.6."""
    packet = ip.decode(extended(NOTHING_NEXT, first))
    assert (packet.protocol, packet.payload) == (253, b"data")


def test_chain_of_extension_headers_in_the_recommended_order_is_passed() -> None:
    """RFC 8200 §4.1: hop-by-hop, destination options, routing, fragment, destination options."""
    pad = bytes((0, 1, 4, 0, 0, 0, 0))
    fragment = bytes((60, 0, 0, 0, 0, 0, 0, 9))
    chain = bytes([60]) + pad + bytes([43]) + pad + bytes([44]) + pad + fragment + bytes([17]) + pad
    packet = ip.decode(extended(chain, 0))
    assert (packet.protocol, packet.payload, packet.identification) == (17, b"data", 9)
    assert not packet.is_fragment, "RFC 6946: an atomic fragment is a whole packet"


@pytest.mark.parametrize("first", [0, 43, 44, 60])
@pytest.mark.parametrize("length", range(8))
def test_extension_header_cut_short_is_refused(first: int, length: int) -> None:
    """RFC 8200 §4: eight bytes at least."""
    with pytest.raises(Truncated):
        ip.decode(extended(NOTHING_NEXT[:length], first, b""))


def test_endless_chain_of_extension_headers_is_refused_or_passed_but_ends() -> None:
    """RFC 8504 §5.3: a host may limit the number of headers."""
    chain = bytes((60, 0, 1, 4, 0, 0, 0, 0)) * 8000
    with pytest.raises(WireError):
        ip.decode(extended(chain, 60, b"")[: 40 + 64000 - 4])


def test_second_fragment_header_is_refused_or_ends_the_chain() -> None:
    """RFC 8200 §4.1: each at most once, destination options apart."""
    fragment = bytes((44, 0, 0, 1, 0, 0, 0, 9))
    try:
        packet = ip.decode(extended(fragment * 2, 44))
    except WireError:
        return
    assert packet.protocol == 44


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("94 04 00 00", True),
        ("01 01 01 01 94 04 00 00", True),
        ("94 04 00 01", True),
        ("00 00 00 00", False),
        ("00 00 00 00 94 04 00 00", False),
        ("44 08 05 00 00 00 00 00 94 04 00 00", True),
        ("44 00 00 00 94 04 00 00", False),
        ("44 01 00 00 94 04 00 00", False),
        ("94 ff 00 00", False),
        ("01 01 01 94", False),
    ],
)
def test_router_alert_among_ipv4_options(options: str, found: bool) -> None:
    """RFC 791 §3.1 (option lengths, end of list), RFC 2113."""
    packet = ip.IPPacket(*ENDS[Family.IPV4], 2, b"", options=bytes.fromhex(options))
    assert packet.router_alert == found
    assert ip.decode(packet.encode()).router_alert == found


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("05 02 00 00 01 00", True),
        ("01 00 05 02 00 00", True),
        ("00 00 05 02 00 00", True),
        ("01 04 00 00 00 00", False),
        ("05 03 00 00 00 00", False),
        ("01 ff 05 02 00 00", False),
        ("1e 03 00 00 00 05", False),
    ],
)
def test_router_alert_among_ipv6_options(options: str, found: bool) -> None:
    """RFC 8200 §4.2 (Pad1, PadN, option lengths), RFC 2711."""
    packet = ip.IPPacket(*ENDS[Family.IPV6], 58, b"", options=bytes.fromhex(options))
    assert packet.router_alert == found
    assert ip.decode(packet.encode()).router_alert == found


# --- IGMP and MLD


@both_families
@pytest.mark.parametrize("kind", ["query", "older", "leave"])
def test_group_that_is_not_multicast_is_refused(family: Family, kind: str) -> None:
    """RFC 3376 §4.1.3, RFC 3810 §5.1.5, RFC 2236 §2.4: a multicast address, or none in a general query."""
    strange = ENDS[family][0]
    message = {
        "query": Query(group=strange),
        "older": AnySourceReport(strange),
        "leave": Leave(strange),
    }[kind]
    packet = group_packet.encode(message, HOSTS[family], ANY_GROUP[family])
    with pytest.raises(Malformed):
        group_packet.decode(packet)


@both_families
@pytest.mark.parametrize("version", list(GroupVersion))
def test_query_of_every_version(family: Family, version: GroupVersion) -> None:
    """RFC 3376 §7.1, RFC 3810 §8.1: told apart by length and code."""
    asked = Query(group=ANY_GROUP[family], max_response_time=2, version=version)
    heard = group_packet.decode(group_packet.encode(asked, HOSTS[family])).message
    assert isinstance(heard, Query)
    if family is Family.IPV6 and version is GroupVersion.ANY_SOURCE_BASIC:
        assert heard.version is GroupVersion.ANY_SOURCE, "MLD has no version that basic"
        return
    assert heard.version is version
    assert heard.group == asked.group
    if version is GroupVersion.ANY_SOURCE_BASIC:
        assert heard.max_response_time == 10, "RFC 2236 §4"
    else:
        assert heard.max_response_time == 2


@pytest.mark.parametrize(("seconds", "heard"), [(0.1, 0.1), (12.7, 12.7), (12.8, 12.8), (13.0, 12.8), (9999, 3174.4)])
def test_igmpv3_response_times_round_down_to_their_codes(seconds: float, heard: float) -> None:
    """RFC 3376 §4.1.1: tenths of a second, floating from 12.8 up."""
    message = igmp.decode(igmp.encode(Query(max_response_time=seconds)))
    assert isinstance(message, Query)
    assert message.max_response_time == pytest.approx(heard)


@pytest.mark.parametrize(("seconds", "heard"), [(0.1, 0.1), (25.5, 25.5), (100, 25.5)])
def test_igmpv2_response_times_know_no_exponent(seconds: float, heard: float) -> None:
    """RFC 2236 §2.2: tenths of a second, a plain number."""
    message = igmp.decode(igmp.encode(Query(max_response_time=seconds, version=GroupVersion.ANY_SOURCE)))
    assert isinstance(message, Query)
    assert message.max_response_time == pytest.approx(heard)


@pytest.mark.parametrize(("seconds", "heard"), [(0.001, 0.001), (32.767, 32.767), (32.768, 32.768), (1e6, 8387.584)])
def test_mldv2_response_times_round_down_to_their_codes(seconds: float, heard: float) -> None:
    """RFC 3810 §5.1.3: milliseconds, floating from 32.768 up."""
    ends = HOSTS[Family.IPV6], ip_address("ff02::1")
    message = mld.decode(mld.encode(Query(max_response_time=seconds), *ends), *ends)
    assert isinstance(message, Query)
    assert message.max_response_time == pytest.approx(heard)


@pytest.mark.parametrize(("seconds", "heard"), [(0.001, 0.001), (65.535, 65.535), (100, 65.535)])
def test_mldv1_response_times_know_no_exponent(seconds: float, heard: float) -> None:
    """RFC 2710 §3.4: milliseconds, a plain number."""
    ends = HOSTS[Family.IPV6], ip_address("ff02::1")
    query = Query(max_response_time=seconds, version=GroupVersion.ANY_SOURCE)
    message = mld.decode(mld.encode(query, *ends), *ends)
    assert isinstance(message, Query)
    assert message.max_response_time == pytest.approx(heard)


@both_families
@pytest.mark.parametrize("robustness", [0, 7, 8, 255])
def test_robustness_beyond_its_field_travels_as_zero(family: Family, robustness: int) -> None:
    """RFC 3376 §4.1.6, RFC 3810 §5.1.8."""
    heard = group_packet.decode(group_packet.encode(Query(robustness=robustness), HOSTS[family])).message
    assert isinstance(heard, Query)
    assert heard.robustness == (robustness if robustness <= 7 else 0)


@both_families
def test_empty_report_is_no_error(family: Family) -> None:
    """RFC 3376 §4.2.3: zero records are possible, and mean nothing."""
    assert group_packet.decode(group_packet.encode(Report(()), HOSTS[family])).message == Report(())


def test_igmp_and_mld_of_every_short_length_are_refused() -> None:
    """RFC 2236 §2, RFC 3376 §4, RFC 2710 §3, RFC 3810 §5, RFC 4443 §2.1."""
    ends = HOSTS[Family.IPV6], ip_address("ff02::1")
    for kind, length in product(range(256), range(24)):
        data = bytes([kind]).ljust(length, b"\0")[:length]
        if length < 8:
            with pytest.raises(Truncated):
                igmp.decode(data)
        with pytest.raises(WireError):
            mld.decode(data, *ends)
