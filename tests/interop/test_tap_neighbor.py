"""The host's own routing daemon speaks to us through the tunnel interface, in a namespace of its own."""

import asyncio
import socket

import pytest

from agent.net.rawlink import multicast_mac
from agent.net.rawlink_filter import LinkProtocol
from agent.net.tap import Tap
from agent.net.tap_link import TapNeighbor
from agent.protocol.channels import Family
from agent.protocol.wire.ip import IPPacket
from agent.service.config import parse
from agent.service.frr_mode import tap_settings
from lab.own_namespace import missing_for_own_namespace, run_in_own_namespace, until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_own_namespace()), reason=missing or "never"),
]

CONFIGURATION = """
role = "gateway"

[gateway]
mode = "frr"
uplink = "up0"
downstream = ["down0"]

[[gateway.relay]]
address = "192.0.2.1"
"""


def test_ten_thousand_packets_of_frr_wait_for_a_busy_loop():
    """FRR says each Join in a packet of its own."""

    async def scenario():
        settings = tap_settings(parse(CONFIGURATION))
        address = settings.addresses[0].ip
        hello = IPPacket(address, type(address)("224.0.0.13"), 103, bytes((0x20, 0, 0xDF, 0xFF)), ttl=1).encode()
        with Tap(settings) as tap:
            loop = asyncio.get_running_loop()
            neighbor = TapNeighbor(loop, tap, ())
            link = neighbor.open_link(loop, tap.name, Family.IPV4, lambda _packet: None, LinkProtocol.PIM)
            with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as daemon:
                where = (tap.name, 0x0800, 0, 0, multicast_mac(hello))
                await until(lambda: daemon.sendto(hello, where) and link.counters.received)
                before = link.counters.received
                for _ in range(10_000):
                    daemon.sendto(hello, where)
            await until(lambda: link.counters.received >= before + 10_000, seconds=20.0)
            neighbor.close()
            tap.remove()

    run_in_own_namespace(scenario)
