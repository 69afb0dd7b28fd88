"""Relay discovery in the DNS (RFC 8777): records, names, preference; sections are the RFC's."""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import ip_address

import dns.rdata
import pytest
from scripted.dns_peer import dns_peer, raw_reply, reply, zone

from agent.net.dns import DnsClient
from agent.protocol.discovery import DiscoveryMethod, Finding, Outcome, order_candidates
from agent.protocol.driad import RelayRecord, decode_record, reverse_name
from agent.protocol.wire.errors import Malformed, Truncated, UnknownType
from agent.service.config.discovery_section import DiscoverySection
from agent.service.discovery_methods import ask_dns_sd, ask_driad

SOURCE = ip_address("198.51.100.12")
NAME = "12.100.51.198.in-addr.arpa."
SERVICE = "_amt._udp.example.com."


def wire(text: str) -> bytes:
    """RDATA as another implementation writes it."""
    data = dns.rdata.from_text("IN", "AMTRELAY", text).to_wire()
    assert data is not None
    return data


def records(*texts: str, name: str = NAME) -> dict[tuple[str, str], list[str]]:
    return {(name, "AMTRELAY"): [f"{name} 300 AMTRELAY {text}" for text in texts]}


async def find(script, **settings) -> Finding:
    async with dns_peer(script) as peer:
        client = DnsClient(asyncio.get_running_loop(), peer.settings(**settings), Counter())
        return await ask_driad(client, SOURCE, lambda _: None)


async def browse(script) -> Finding:
    async with dns_peer(script) as peer:
        client = DnsClient(asyncio.get_running_loop(), peer.settings(), Counter())
        return await ask_dns_sd(client, "example.com.", lambda _: None)


def ordered(*findings: Finding, seed: bytes = b"") -> list[str]:
    methods = [finding.method for finding in findings]
    return [str(item.address) for item in order_candidates(findings, methods, lambda _: True, seed, 100)]


# --- §2.2: the name


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("198.51.100.12", "12.100.51.198.in-addr.arpa."),
        ("2001:db8::a", "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."),
        ("2001:db8::a%eth0", "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."),
    ],
)
def test_the_name_asked_for_is_the_source_s_reverse_name(source: str, name: str) -> None:
    """§2.2, RFC 1035 §3.5, RFC 3596 §2.5."""
    assert reverse_name(ip_address(source)) == name


async def test_the_tunnel_s_family_does_not_follow_the_source_s() -> None:
    """§2.2: an IPv4 source may have a relay with an IPv6 address."""
    finding = await find(zone(records("10 0 2 2001:db8::15")))
    assert [str(item.address) for item in finding.locations] == ["2001:db8::15"]


# --- §2.3: preference


def test_standard_order_is_dns_sd_then_anycast_then_driad() -> None:
    """§2.3.2; the enumeration has that order, and administrative configuration may have another."""
    assert [method.value for method in DiscoveryMethod] == ["dns-sd", "anycast", "driad"]
    assert DiscoverySection(methods=["driad", "anycast"]).methods == (DiscoveryMethod.DRIAD, DiscoveryMethod.ANYCAST)


def test_anycast_is_the_addresses_of_rfc_7450() -> None:
    """§2.3.2, RFC 7450 §7.1, §7.2."""
    assert list(map(str, DiscoverySection().anycast)) == ["192.52.193.1", "2001:3::1"]


async def test_lower_precedence_is_tried_first() -> None:
    """§4.2.1, and §2.3.2: before any rule about addresses."""
    texts = ["20 0 2 2001:db8::15", "10 0 1 192.0.2.1", "255 0 1 192.0.2.3", "0 0 1 192.0.2.4"]
    assert ordered(await find(zone(records(*texts)))) == ["192.0.2.4", "192.0.2.1", "2001:db8::15", "192.0.2.3"]


async def test_equal_precedence_is_tried_in_an_order_of_chance() -> None:
    """§2.3.2: to support load balancing by many records."""
    finding = await find(zone(records(*(f"10 0 1 192.0.2.{number}" for number in range(1, 6)))))
    first = {ordered(finding, seed=bytes([number]))[0] for number in range(200)}
    assert len(first) == 5


async def test_queries_are_limited_by_default() -> None:
    """§2.4.2: not more than 10 in any 100 ms."""
    assert DiscoverySection().queries_per_second == 100


async def test_services_are_browsed_for_and_resolved() -> None:
    """§2.3.2: DNS-SD with the service _amt._udp (RFC 6763 §4, RFC 2782)."""
    table = {
        (SERVICE, "PTR"): [f"{SERVICE} 300 PTR site\\032relay.{SERVICE}"],
        (f"site\\032relay.{SERVICE}", "SRV"): [f"site\\032relay.{SERVICE} 120 SRV 3 7 2300 relay.example.com."],
        ("relay.example.com.", "A"): ["relay.example.com. 300 A 192.0.2.1"],
        ("relay.example.com.", "AAAA"): ["relay.example.com. 300 AAAA 2001:db8::1"],
    }
    finding = await browse(zone(table, soa="example.com."))
    assert {(str(item.address), item.port, item.precedence, item.weight) for item in finding.locations} == {
        ("192.0.2.1", 2300, 3, 7),
        ("2001:db8::1", 2300, 3, 7),
    }
    assert all(item.discover for item in finding.locations)


async def test_lower_priority_of_a_service_is_tried_first() -> None:
    """RFC 2782, Priority."""
    table = {(SERVICE, "SRV"): [f"{SERVICE} 300 SRV {priority} 0 2268 r{priority}.example.com." for priority in (9, 1)]}
    table |= {(f"r{n}.example.com.", "A"): [f"r{n}.example.com. 300 A 192.0.2.{n}"] for n in (1, 9)}
    assert ordered(await browse(zone(table, soa="example.com."))) == ["192.0.2.1", "192.0.2.9"]


async def test_a_service_that_is_decidedly_not_there_is_none() -> None:
    """RFC 2782, Target."""
    finding = await browse(zone({(SERVICE, "SRV"): [f"{SERVICE} 300 SRV 0 0 0 ."]}, soa="example.com."))
    assert (finding.outcome, finding.locations) == (Outcome.NOTHING, ())


# --- §2.6, §2.7: asking


async def test_silence_is_asked_again() -> None:
    """§2.7: a question may be sent again when there is no response."""
    answered = zone(records("10 0 1 192.0.2.1"))
    times = Counter[str]()

    def script(query, transport):
        times[transport] += 1
        return None if times[transport] == 1 else answered(query, transport)

    finding = await find(script, timeout=2.0)
    assert finding.outcome is Outcome.FOUND
    assert times["udp"] == 2


@pytest.mark.parametrize("kind", ["CNAME", "DNAME"])
async def test_aliases_are_followed(kind: str) -> None:
    """§2.6: any CNAMEs or DNAMEs found MUST be followed, as delegation needs (RFC 2317 §5.2)."""
    alias = (
        f"{NAME} 300 CNAME 12.holder.example."
        if kind == "CNAME"
        else "100.51.198.in-addr.arpa. 300 DNAME holder.example."
    )
    table = {(NAME, "AMTRELAY"): [alias]} | records("10 0 1 192.0.2.1", name="12.holder.example.")
    assert ordered(await find(zone(table))) == ["192.0.2.1"]


# --- §4.2: RDATA


def test_the_type_has_number_260() -> None:
    """§4.1."""
    from agent.protocol.discovery_reply import QuestionType

    assert QuestionType.AMTRELAY == 260


@pytest.mark.parametrize(
    "text",
    ["10 0 1 203.0.113.15", "10 0 2 2001:db8::15", "128 1 3 amtrelays.example.com.", "0 0 0 .", "255 1 0 ."],
)
def test_records_are_read_as_others_write_them(text: str) -> None:
    """§4.2, §4.3.1: precedence, D bit, type and relay."""
    assert str(decode_record(wire(text))) == text


def test_d_bit_is_the_top_bit_of_the_second_byte() -> None:
    """§4.2."""
    assert decode_record(bytes.fromhex("0a81c0000201")) == RelayRecord(10, True, ip_address("192.0.2.1"))
    assert decode_record(bytes.fromhex("0a01c0000201")) == RelayRecord(10, False, ip_address("192.0.2.1"))


def test_unknown_types_example_of_a_name() -> None:
    """§4.3.2 with erratum 6218: the wire form of the name ends with the root, 25 bytes in all, where the RFC has 24."""
    data = bytes.fromhex("8083" + "09616d7472656c617973" + "076578616d706c65" + "03636f6d" + "00")
    assert len(data) == 25
    assert decode_record(data) == RelayRecord(128, True, "amtrelays.example.com.")
    with pytest.raises(Truncated):
        decode_record(data[:-1])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("", Truncated),
        ("0a", Truncated),
        ("0a00ff", Malformed),  # type 0: the relay field is empty
        ("0a01c00002", Truncated),
        ("0a01c000020100", Malformed),
        ("0a0220010db8", Truncated),
        ("0a02" + "20" * 17, Malformed),
        ("0a03", Truncated),
        ("0a03c00c", Malformed),  # the name MUST NOT be compressed
        ("0a030161", Truncated),
        ("0a03016100ff", Malformed),
        ("0a0300", Malformed),  # the root is nowhere
        ("0a03" + ("3f" + "61" * 63) * 4 + "00", Malformed),
    ],
)
def test_records_that_are_none_are_refused(data: str, error: type[Exception]) -> None:
    """§4.2.4."""
    with pytest.raises(error):
        decode_record(bytes.fromhex(data))


@pytest.mark.parametrize("kind", [4, 5, 64, 127])
def test_undefined_types_are_not_considered(kind: int) -> None:
    """§4.2.3; with erratum 6688 the 7 bits hold 0 to 127."""
    for d_bit in (0, 0x80):
        with pytest.raises(UnknownType):
            decode_record(bytes([10, kind | d_bit]) + b"anything")


async def test_records_beside_one_of_an_undefined_type_count() -> None:
    """§4.2.3: that record SHOULD NOT be considered, the others are."""
    finding = await find(lambda query, _: raw_reply(query, b"\x00\x7fxyz", bytes.fromhex("0a01c0000201")))
    assert ordered(finding) == ["192.0.2.1"]


async def test_without_the_d_bit_discovery_comes_first() -> None:
    """§4.2.2: D=0, MUST perform relay discovery; D=1, may send a Request at once."""
    finding = await find(zone(records("10 0 1 192.0.2.1", "10 1 1 192.0.2.2")))
    assert {str(item.address): item.discover for item in finding.locations} == {"192.0.2.1": True, "192.0.2.2": False}
    assert {item.port for item in finding.locations} == {2268}


async def test_type_0_says_that_no_relay_shall_be_used() -> None:
    """§4.2.4, which is not the same as having none."""
    assert (await find(zone(records("0 0 0 .")))).outcome is Outcome.NO_RELAY
    assert (await find(zone({}, soa="51.198.in-addr.arpa."))).outcome is Outcome.NOTHING


async def test_type_0_ends_the_list_at_its_precedence() -> None:
    """§4.2.1 and §4.2.4 together: relays before it are tried, none after it."""
    finding = await find(zone(records("10 0 1 192.0.2.1", "20 0 0 .", "30 0 1 192.0.2.3")))
    assert ordered(finding) == ["192.0.2.1"]
    finding = await find(zone(records("30 0 1 192.0.2.3", "20 0 0 .")))
    assert finding.outcome is Outcome.NO_RELAY


async def test_a_name_counts_like_the_addresses_it_has() -> None:
    """§4.2.4: D bit and precedence carry over to all its A and AAAA records."""
    table = records("10 1 3 relays.example.com.", "5 0 1 192.0.2.9") | {
        ("relays.example.com.", "A"): ["relays.example.com. 100 A 192.0.2.1"],
        ("relays.example.com.", "AAAA"): ["relays.example.com. 200 AAAA 2001:db8::1"],
    }
    by_name = await find(zone(table))
    by_address = await find(zone(records("10 1 1 192.0.2.1", "10 1 2 2001:db8::1", "5 0 1 192.0.2.9")))
    assert set(by_name.locations) == set(by_address.locations)
    assert ordered(by_name) == ordered(by_address) == ["192.0.2.9", "2001:db8::1", "192.0.2.1"]
    assert by_name.lifetime == 100.0


async def test_a_name_without_addresses_is_nothing() -> None:
    """§4.2.4."""
    finding = await find(zone(records("10 0 3 relays.example."), soa="."))
    assert finding.outcome is Outcome.NOTHING
    assert finding.lifetime == 40.0


# --- §6: what a record of an attacker must not do


async def test_relays_at_addresses_of_this_host_are_passed_over() -> None:
    """§6.2: a malicious record shall not make the gateway speak to itself, to its links or to groups."""
    texts = ["1 0 1 127.0.0.1", "1 0 1 224.0.0.1", "1 0 2 ::1", "1 0 2 fe80::1", "1 0 2 ::ffff:127.0.0.1"]
    finding = await find(zone(records(*texts, "9 0 1 192.0.2.1")))
    assert ordered(finding) == ["192.0.2.1"]


async def test_names_are_looked_up_up_to_a_limit() -> None:
    """§2.4.2: the count of queries an answer leads to is bounded."""
    asked = Counter[str]()
    table = zone(records(*(f"10 0 3 r{number}.example." for number in range(60))), soa=".")

    def script(query, transport):
        asked[str(query.question[0].name)] += 1
        if transport == "udp" and query.question[0].rdtype == 260:
            return reply(query, flags=0x0200).to_wire()
        return table(query, transport)

    finding = await find(script)
    assert finding.outcome is Outcome.NOTHING
    assert len([name for name in asked if name.endswith(".example.")]) == 16
