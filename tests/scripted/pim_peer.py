"""A PIM interface under test, and hands to play the routers of its link with."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest

from agent.protocol.channels import Address, Channel, Family, Filter
from agent.protocol.group_state import InterestChanged
from agent.protocol.pim import PimConfig, PimInterface
from agent.protocol.pim_packet import ALL_PIM_ROUTERS, PimPacket, decode_packet, encode_packet
from agent.protocol.wire.pim import EncodedSource, Hello, JoinPrune, JoinPruneGroup, LanPruneDelay, Message

GENERATION = 0x1234
OTHER_GENERATION = 0x5678
FOREVER = 0xFFFF
HOST_MASK = {Family.IPV4: 32, Family.IPV6: 128}
RENDEZVOUS_GROUPS = (ip_network("239.0.0.0/8"), ip_network("ff1e::/16"))

both_families = pytest.mark.parametrize("family", list(Family))


def router(number: int, family: Family = Family.IPV4) -> Address:
    """Address of a router on the link; ours is number 5."""
    return ip_address(f"192.0.2.{number}" if family is Family.IPV4 else f"fe80::{number:x}")


def secondary(number: int, family: Family = Family.IPV4) -> Address:
    return ip_address(f"198.51.100.{number}" if family is Family.IPV4 else f"2001:db8:1::{number:x}")


def group(number: int, family: Family = Family.IPV4) -> Address:
    """A source-specific group."""
    return ip_address(f"232.1.1.{number}" if family is Family.IPV4 else f"ff3e::1:{number:x}")


def shared(number: int, family: Family = Family.IPV4) -> Address:
    """A group we are the RP for."""
    return ip_address(f"239.1.1.{number}" if family is Family.IPV4 else f"ff1e::1:{number:x}")


def source(number: int, family: Family = Family.IPV4) -> Address:
    return ip_address(f"203.0.113.{number}" if family is Family.IPV4 else f"2001:db8::{number:x}")


OURS, LOWER, HIGHER, THIRD = 5, 4, 6, 7


@dataclass
class Dice:
    """Randomness that comes up as told."""

    value: float = 0.0

    def __call__(self) -> float:
        return self.value


def interface(
    family: Family = Family.IPV4, *, random: float = 0.0, started: bool = True, **options: object
) -> PimInterface:
    """A machine at router 5; with random 0 every delay is at its least and periods are exact."""
    options.setdefault("rendezvous_groups", RENDEZVOUS_GROUPS)
    machine = PimInterface(PimConfig(**options), family, Dice(random), iter(range(GENERATION, 1 << 32)).__next__)
    machine.set_address(router(OURS, family), (), 0)
    if started:
        machine.start(0)
    return machine


def family_of(machine: PimInterface) -> Family:
    assert machine.address is not None
    return Family.of(machine.address)


def hear(machine: PimInterface, message: Message, sender: Address | None = None, now: float = 1.0) -> None:
    family = family_of(machine)
    machine.receive_packet(encode_packet(message, sender or router(LOWER, family), ALL_PIM_ROUTERS[family]), now)


DELAY = LanPruneDelay(500, 2500)


def greet(machine: PimInterface, number: int = LOWER, now: float = 0.0, **options: object) -> Address:
    """Be a neighbour."""
    said = {"holdtime": 105, "lan_prune_delay": DELAY, "dr_priority": 1, "generation_id": GENERATION, **options}
    address = router(number, family_of(machine))
    hear(machine, Hello(**said), address, now)
    return address


def beside_neighbors(*numbers: int, family: Family = Family.IPV4, **options: object) -> PimInterface:
    """A machine that said Hello and knows routers of these numbers for ever; nothing is left to drain."""
    machine = interface(family, **options)
    for number in numbers:
        greet(machine, number, holdtime=FOREVER)
    machine.handle_timer(0)
    machine.packets_to_send()
    machine.events()
    return machine


def plain(address: Address) -> EncodedSource:
    return EncodedSource(address)


def rpt(address: Address) -> EncodedSource:
    return EncodedSource(address, rpt=True)


def star(rendezvous: Address) -> EncodedSource:
    return EncodedSource(rendezvous, wildcard=True, rpt=True)


def listed(address: Address, joins: tuple[EncodedSource, ...] = (), prunes: tuple[EncodedSource, ...] = ()):
    return JoinPruneGroup(address, HOST_MASK[Family.of(address)], joins, prunes)


def join(channel: Channel, *, upstream: Address | None = None, holdtime: int = 210) -> JoinPrune:
    """Join of one channel; of (*,G) with us as RP."""
    ours = router(OURS, channel.family)
    wanted = star(ours) if channel.source is None else plain(channel.source)
    return JoinPrune(upstream or ours, holdtime, (listed(channel.group, joins=(wanted,)),))


def prune(channel: Channel, *, upstream: Address | None = None, holdtime: int = 210) -> JoinPrune:
    ours = router(OURS, channel.family)
    unwanted = star(ours) if channel.source is None else plain(channel.source)
    return JoinPrune(upstream or ours, holdtime, (listed(channel.group, prunes=(unwanted,)),))


def sent(machine: PimInterface) -> list[PimPacket]:
    return [decode_packet(packet) for packet in machine.packets_to_send()]


def messages(machine: PimInterface, kind: type[Message]) -> list[Message]:
    """Messages of one kind among what is to be sent."""
    return [packet.message for packet in sent(machine) if isinstance(packet.message, kind)]


def run(machine: PimInterface, until: float) -> list[tuple[float, PimPacket]]:
    """Packets sent up to `until`, with their times."""
    packets = [(0.0, packet) for packet in sent(machine)]
    while (deadline := machine.next_deadline()) is not None and deadline <= until:
        machine.handle_timer(deadline)
        packets += [(deadline, packet) for packet in sent(machine)]
    return packets


def wanted(machine: PimInterface) -> dict[Address, Filter]:
    """Interest told since the last call, group by group."""
    return {event.group: event.filter for event in machine.events() if isinstance(event, InterestChanged)}


def tell(machine: PimInterface, kind: type) -> list[object]:
    """Events of one kind."""
    return [event for event in machine.events() if isinstance(event, kind)]
