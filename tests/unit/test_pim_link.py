"""A link between the wire and the PIM machine, without a kernel."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_address

import pytest

from agent.net.interfaces import Interface, InterfaceAddress
from agent.net.rawlink import RawLinkCounters, deliver
from agent.protocol.channels import Channel, Family, Filter
from agent.protocol.pim_config import PimConfig
from agent.protocol.pim_packet import ALL_PIM_ROUTERS, encode_packet
from agent.protocol.wire.pim import EncodedSource, Hello, JoinPrune, JoinPruneGroup
from agent.service.pim_link import PimEvents, PimLink

OURS = {Family.IPV4: ip_address("192.0.2.1"), Family.IPV6: ip_address("fe80::1")}
NEIGHBOR = {Family.IPV4: ip_address("192.0.2.2"), Family.IPV6: ip_address("fe80::2")}
CHANNEL = Channel(ip_address("198.51.100.1"), ip_address("232.1.1.1"))


class Wire:
    """What a raw link is to a PIM link."""

    def __init__(self, _loop, _interface, _family, on_packet, _protocol):
        self.counters = RawLinkCounters()
        self.on_packet = on_packet
        self.sent = []

    def arrive(self, packet):
        deliver(self.on_packet, packet, self.counters)

    def reopen(self):
        return True

    def send(self, packet):
        self.sent.append(packet)
        return True

    def close(self):
        pass


class Wishes:
    def __init__(self):
        self.wanted = {}

    def wish(self, _owner, group, wanted, _neighbor):
        self.wanted[group] = wanted

    def withdraw(self, _owner):
        self.wanted.clear()


def ignored(*_):
    pass


@pytest.fixture(params=list(Family))
async def link(request, monkeypatch):
    monkeypatch.setattr(PimLink, "_join_routers", ignored)
    family, loop = request.param, asyncio.get_running_loop()
    made = PimLink(loop, "lan0", family, PimConfig(), Wishes(), PimEvents(*[ignored] * 4), Wire)
    length = 24 if family is Family.IPV4 else 64
    made.follow(Interface(name="lan0", index=1, up=True, addresses=(InterfaceAddress(OURS[family], length),)))
    yield made
    made.close()


def packet(link, message):
    return encode_packet(message, NEIGHBOR[link.family], ALL_PIM_ROUTERS[link.family])


def test_packets_that_claim_to_be_shorter_than_a_header_are_counted_by_the_machine(link, caplog):
    data = bytearray(packet(link, Hello(105)))
    length = slice(2, 4) if link.family is Family.IPV4 else slice(4, 6)
    for stated in range(40):
        data[length] = stated.to_bytes(2)
        link.link.arrive(bytes(data))
    assert link.link.counters.receive_errors == 0
    assert sum(link.machine.refused.values()) > 20
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("link", [Family.IPV4], indirect=True)
def test_another_configuration_ends_no_join(link):
    link.link.arrive(packet(link, Hello(105)))
    wanted = JoinPruneGroup(CHANNEL.group, 32, (EncodedSource(CHANNEL.source),), ())
    link.link.arrive(packet(link, JoinPrune(OURS[link.family], 210, (wanted,))))
    assert link._wishes.wanted == {CHANNEL.group: Filter.include([CHANNEL.source])}
    sent = len(link.link.sent)
    link.configure(PimConfig(hello_interval=5.0))
    assert link._wishes.wanted == {CHANNEL.group: Filter.include([CHANNEL.source])}
    assert len(link.link.sent) <= sent + 1
    assert [neighbor.address for neighbor in link.machine.neighbors()] == [NEIGHBOR[link.family]]


def test_a_packet_that_nobody_can_take_costs_no_other_its_way(caplog):
    taken, counters = [], RawLinkCounters()

    def take(data):
        if not taken:
            taken.append(b"")
            raise IndexError("a mistake of ours")
        taken.append(data)

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            deliver(take, bytes.fromhex("45000004") + bytes(16), counters)
    assert taken == [b"", bytes.fromhex("45000004")]
    assert counters.receive_errors == 1
    assert [record.reason for record in caplog.records] == ["packet"]
