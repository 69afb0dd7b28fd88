"""tshark reads all that a PIM interface says, in both families, and finds nothing to remark."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from vectors.tshark import TSHARK, run_tshark, write_pcap

from agent.protocol.channels import Address, Channel, Family
from agent.protocol.pim import PimConfig, PimInterface
from agent.protocol.pim_packet import ALL_PIM_ROUTERS, encode_packet
from agent.protocol.wire import ip
from agent.protocol.wire.pim import (
    Assert,
    EncodedSource,
    Hello,
    JoinPrune,
    JoinPruneGroup,
    LanPruneDelay,
    Message,
    Register,
)

pytestmark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")

HELLO, REGISTER_STOP, JOIN_PRUNE, ASSERT = "0", "2", "3", "5"
FIELDS = (
    "pim.type",
    "pim.version",
    "pim.cksum.status",
    "pim.numgroups",
    "pim.numjoins",
    "pim.numprunes",
    "ip.checksum.status",
    "_ws.malformed",
    "_ws.expert.severity",
    "_ws.expert.message",
)


class Words:
    """A started interface with a neighbour, and every packet it sent."""

    def __init__(self, family: Family) -> None:
        ipv4 = family is Family.IPV4
        self.family = family
        self.ours = ip_address("192.0.2.1" if ipv4 else "fe80::1")
        self.neighbor = ip_address("192.0.2.2" if ipv4 else "fe80::2")
        self.another = ip_address("192.0.2.3" if ipv4 else "fe80::3")
        self.remote = ip_address("198.51.100.1" if ipv4 else "2001:db8:1::1")
        self.rendezvous = ip_address("192.0.2.11" if ipv4 else "2001:db8::1")
        self.source = ip_address("203.0.113.1" if ipv4 else "2001:db8:2::1")
        self.group = ip_address("232.1.1.1" if ipv4 else "ff3e::8000:1")
        self.shared_group = ip_address("239.1.1.1" if ipv4 else "ff1e::5")
        groups = (ip_network("239.0.0.0/8"), ip_network("ff1e::/16"))
        self.interface = PimInterface(PimConfig(rendezvous_groups=groups), family, lambda: 0.5, lambda: 0x12345678)
        self.packets: list[bytes] = []
        self.now = 0.0

    def receive(self, message: Message, sender: Address, destination: Address | None = None) -> None:
        packet = encode_packet(message, sender, destination or ALL_PIM_ROUTERS[self.family])
        self.interface.receive_packet(packet, self.now)
        self.take()

    def take(self) -> None:
        self.packets += self.interface.packets_to_send()

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (deadline := self.interface.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.interface.handle_timer(self.now)
            self.take()
        self.now = end

    def say_everything(self) -> None:
        """Hellos, Joins and Prunes upstream, a prune echo, Asserts and their end, a Register-Stop, a goodbye."""
        bits = self.ours.max_prefixlen
        self.interface.set_address(self.ours, (self.rendezvous,), self.now)
        self.interface.start(self.now)
        self.run(10)
        for neighbor in (self.neighbor, self.another):
            self.receive(Hello(105, LanPruneDelay(500, 2500), 1, int(neighbor) & 0xFFFF), neighbor)
        for number in range(400):
            self.interface.join_upstream(
                Channel(self.source + number, self.group + number // 7), self.neighbor, self.now
            )
        self.run(70)
        self.interface.prune_upstream(Channel(self.source, self.group), self.now)
        channel = Channel(self.source, self.group + 1000)
        wanted = (EncodedSource(self.source),)
        asked = JoinPrune(self.ours, 210, (JoinPruneGroup(channel.group, bits, joins=wanted),))
        self.receive(asked, self.neighbor)
        self.receive(JoinPrune(self.ours, 210, (JoinPruneGroup(channel.group, bits, prunes=wanted),)), self.neighbor)
        self.run(5)
        self.interface.set_forwarding(channel, (200, 0), self.now)
        self.interface.data_received(channel, self.now)
        self.take()
        self.interface.set_forwarding(channel, None, self.now)
        self.interface.set_forwarding(Channel(None, self.shared_group), (200, 0), self.now)
        self.receive(Assert(self.shared_group, None, 201, 5, rpt=True), self.neighbor)
        inner = ip.IPPacket(self.source, self.shared_group, 17, bytes(8)).encode()
        self.receive(Register(inner), self.remote, self.rendezvous)
        self.interface.stop(self.now)
        self.take()


@pytest.mark.parametrize("family", list(Family))
def test_everything_we_say_is_read_without_a_remark(family: Family, tmp_path: Path) -> None:
    words = Words(family)
    words.say_everything()
    write_pcap(tmp_path / "said.pcap", words.packets)
    fields = [part for name in FIELDS for part in ("-e", name)]
    read = json.loads(run_tshark("-r", str(tmp_path / "said.pcap"), "-T", "json", *fields))
    layers = [packet["_source"]["layers"] for packet in read]
    assert len(layers) == len(words.packets)
    assert {layer["pim.type"][0] for layer in layers} == {HELLO, REGISTER_STOP, JOIN_PRUNE, ASSERT}
    for layer in layers:
        assert layer["pim.cksum.status"] == ["1"], "good"
        assert layer["pim.version"] == ["2"]
        assert not {name for name in layer if name.startswith("_ws.")}, layer
        assert layer.get("ip.checksum.status", ["1"]) == ["1"]
    joined = sum(int(number) for layer in layers for number in layer.get("pim.numjoins", ()))
    pruned = sum(int(number) for layer in layers for number in layer.get("pim.numprunes", ()))
    assert joined >= 800, "400 channels, at once and with the next round"
    assert pruned >= 400, "one, the echo of the neighbour's, and the rest when we stop"
