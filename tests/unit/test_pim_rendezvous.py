"""As RP we learn of sources from Registers and stop each of them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from vectors.loader import load_vectors

from agent.protocol.channels import Address, Channel
from agent.protocol.pim_events import SourceRegistered
from agent.protocol.pim_rendezvous import KEEPALIVE_PERIOD, OutgoingRegisterStop, Rendezvous
from agent.protocol.wire import ip, pim
from agent.protocol.wire.pim import Register, RegisterStop

RP = ip_address("192.0.2.1")
RP_IPV6 = ip_address("2001:db8:ff::1")
DR = ip_address("198.51.100.1")
OTHER_DR = ip_address("198.51.100.2")
SOURCE = ip_address("203.0.113.7")
GROUP = ip_address("239.1.1.1")
GROUPS = (ip_network("239.0.0.0/8"), ip_network("ff1e::/16"))
CHANNEL = Channel(SOURCE, GROUP)


def rendezvous(max_sources: int = 100) -> Rendezvous:
    return Rendezvous((RP, RP_IPV6), GROUPS, max_sources)


def registered(source: Address = SOURCE, group: Address = GROUP) -> Register:
    return Register(ip.IPPacket(source, group, 17, b"12345678data", ttl=8).encode())


def test_source_is_told_and_its_register_stopped() -> None:
    """RFC 7761 §4.4.2."""
    point = rendezvous()
    point.receive(registered(), DR, RP, 0.0)
    assert point.messages() == [OutgoingRegisterStop(RegisterStop(GROUP, SOURCE), RP, DR)]
    assert point.events() == [SourceRegistered(CHANNEL)]
    assert point.sources(CHANNEL.group, KEEPALIVE_PERIOD - 1) == [CHANNEL.source]
    assert point.sources(CHANNEL.group, KEEPALIVE_PERIOD) == []
    assert not point.refused


def test_source_of_ipv6_is_told() -> None:
    point = rendezvous()
    source, group = ip_address("2001:db8::7"), ip_address("ff1e::5")
    point.receive(registered(source, group), ip_address("2001:db8::1"), RP_IPV6, 0.0)
    assert point.events() == [SourceRegistered(Channel(source, group))]


@pytest.mark.parametrize("name", ["pim-null-register", "pim-null-register-ipv6", "pim-register"])
def test_registers_of_the_vectors_are_understood(name: str) -> None:
    packet = ip.decode(load_vectors()[name].data)
    message = pim.decode(packet.payload, packet.source, packet.destination)
    point = Rendezvous((packet.destination,), GROUPS)
    assert isinstance(message, Register)
    point.receive(message, packet.source, packet.destination, 0.0)
    assert len(point.events()) == 1


@pytest.mark.parametrize("name", ["pim-frr-8.4.4-register", "pim-frr-8.4.4-null-register"])
def test_registers_of_frr_are_understood(name: str) -> None:
    packet = ip.decode(load_vectors()[name].data)
    message = pim.decode(packet.payload, packet.source, packet.destination)
    point = Rendezvous((packet.destination,), GROUPS)
    assert isinstance(message, Register)
    point.receive(message, packet.source, packet.destination, 0.0)
    channel = Channel(ip_address("198.51.100.2"), ip_address("239.1.1.9"))
    assert point.events() == [SourceRegistered(channel)]


def test_register_for_an_address_that_is_not_ours_is_not_answered() -> None:
    point = rendezvous()
    point.receive(registered(), DR, ip_address("192.0.2.2"), 0.0)
    assert point.messages() == []
    assert point.refused == {"not_for_us": 1}
    point.set_addresses([ip_address("192.0.2.2")])
    point.receive(registered(), DR, ip_address("192.0.2.2"), 0.0)
    assert len(point.messages()) == 1


@pytest.mark.parametrize("group", ["238.1.1.1", "232.1.1.1"])
def test_register_of_a_group_that_is_not_ours_is_stopped_and_tells_nothing(group: str) -> None:
    """RFC 7761 §4.4.2; source-specific groups have no RP (§4.8)."""
    point = Rendezvous((RP,), (*GROUPS, ip_network("232.0.0.0/8")))
    point.receive(registered(group=ip_address(group)), DR, RP, 0.0)
    assert [stop.message.group for stop in point.messages()] == [ip_address(group)]
    assert point.events() == []
    assert point.refused == {"not_rendezvous": 1}


@pytest.mark.parametrize(
    ("register", "sender", "reason"),
    [
        (Register(b""), DR, "register_truncated"),
        (Register(b"", null=True), DR, "register_malformed"),
        (Register(b"\x45" + bytes(10), null=True), DR, "register_truncated"),
        (Register(b"\x60" + bytes(30), null=True), DR, "register_truncated"),
        (Register(b"\x45" + bytes(19)), DR, "register_malformed"),
        (Register(registered().packet[:-1]), DR, "register_truncated"),
        (Register(b"\x46" + registered().packet[1:]), DR, "register_bad_checksum"),
        (registered(ip_address("224.0.0.5")), DR, "register_address"),
        (registered(ip_address("127.0.0.1")), DR, "register_address"),
        (registered(group=ip_address("224.0.0.5")), DR, "register_address"),
        (registered(group=ip_address("203.0.113.9")), DR, "register_address"),
        (registered(ip_address("2001:db8::7"), ip_address("ff1e::5")), DR, "register_address"),
        (registered(), ip_address("224.0.0.13"), "not_for_us"),
        (registered(), ip_address("0.0.0.0"), "not_for_us"),
    ],
)
def test_bad_register_is_counted_and_not_answered(register: Register, sender: Address, reason: str) -> None:
    point = rendezvous()
    point.receive(register, sender, RP, 0.0)
    assert point.messages() == []
    assert point.events() == []
    assert point.refused == {reason: 1}


def test_stream_of_registers_is_answered_once_a_second() -> None:
    point = rendezvous()
    for number in range(30):
        point.receive(registered(), DR, RP, number / 10)
    assert len(point.messages()) == 3
    assert len(point.events()) == 1


def test_every_dr_is_answered() -> None:
    point = rendezvous()
    point.receive(registered(), DR, RP, 0.0)
    point.receive(registered(), OTHER_DR, RP, 0.0)
    assert [stop.destination for stop in point.messages()] == [DR, OTHER_DR]


def test_source_that_fell_silent_is_told_again() -> None:
    point = rendezvous()
    point.receive(registered(), DR, RP, 0.0)
    point.receive(registered(), DR, RP, 100.0)
    assert len(point.events()) == 1
    point.receive(registered(), DR, RP, 100.0 + KEEPALIVE_PERIOD)
    assert point.events() == [SourceRegistered(CHANNEL)]


def test_memory_is_bounded_and_expired_sources_make_room() -> None:
    point = rendezvous(max_sources=3)
    for number in range(10):
        point.receive(registered(SOURCE + number), DR, RP, 0.0)
    assert len(point.events()) == 3
    assert point.refused == {"too_many_sources": 7}
    assert len(point.messages()) == 10, "stopped all the same"
    point.receive(registered(SOURCE + 9), DR, RP, KEEPALIVE_PERIOD)
    assert point.events() == [SourceRegistered(Channel(SOURCE + 9, GROUP))]
