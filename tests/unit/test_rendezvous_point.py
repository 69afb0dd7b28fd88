"""The sockets of our RP addresses, and what is kept when the configuration changes."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network

import pytest

from agent.protocol.channels import Channel
from agent.protocol.pim_rendezvous import KEEPALIVE_PERIOD
from agent.protocol.wire import ip, pim
from agent.service.rendezvous_point import RendezvousPoint

RP, OTHER_RP, BROKEN = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3))
DR = ip_address("198.51.100.1")
SOURCE = ip_address("203.0.113.7")
GROUPS = (ip_network("239.0.0.0/8"),)
OPEN: list[Socket] = []


class Socket:
    """A socket without a kernel; that of `BROKEN` cannot be had."""

    def __init__(self, _loop, address, _on_message):
        if address == BROKEN:
            raise OSError("not this one")
        self.address = address
        OPEN.append(self)

    def send(self, _message, _destination):
        return True

    def close(self):
        OPEN.remove(self)


@pytest.fixture
async def point(monkeypatch):
    OPEN.clear()
    monkeypatch.setattr("agent.service.rendezvous_point.PimSocket", Socket)
    clock = [0.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock[0])
    made = RendezvousPoint(asyncio.get_running_loop(), (RP,), GROUPS, lambda _: None)
    made.clock = clock
    yield made
    made.close()


def register(point, group, source=SOURCE):
    message = pim.Register(ip.IPPacket(source, group, 17, b"12345678data", ttl=8).encode())
    point._receive(pim.encode(message, DR, RP), DR, RP)


def test_sources_are_forgotten_when_they_register_no_more(point):
    """However many there were: an attacker's do not pile up."""
    for number in range(100):
        register(point, ip_address("239.1.1.1"), SOURCE + number)
    assert len(point.sources(ip_address("239.1.1.1"))) == 100
    point.clock[0] = KEEPALIVE_PERIOD
    register(point, ip_address("239.1.1.2"))
    assert point.sources(ip_address("239.1.1.1")) == []
    assert set(point.machine._sources) == {ip_address("239.1.1.2")}


def test_sources_of_groups_that_stay_are_kept_by_another_configuration(point):
    kept, gone = ip_address("239.1.1.1"), ip_address("239.2.1.1")
    register(point, kept)
    register(point, gone)
    point.configure((RP, OTHER_RP), (ip_network("239.1.0.0/16"),))
    assert (point.sources(kept), point.sources(gone)) == ([SOURCE], [])
    assert [each.address for each in OPEN] == [RP, OTHER_RP]
    point.configure((OTHER_RP,), (ip_network("239.1.0.0/16"),))
    assert [each.address for each in OPEN] == [OTHER_RP]


def test_an_address_that_cannot_be_had_leaves_everything_as_it_was(point):
    register(point, ip_address("239.1.1.1"))
    with pytest.raises(OSError, match="not this one"):
        point.configure((OTHER_RP, BROKEN), ())
    assert [each.address for each in OPEN] == [RP]
    assert point.sources(ip_address("239.1.1.1")) == [SOURCE]
    assert point.machine.is_rendezvous(Channel(SOURCE, ip_address("239.1.1.1")).group)
