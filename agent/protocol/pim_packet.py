"""PIM messages inside their IP packets, family by family in one call (RFC 7761 §4.9)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.protocol.channels import Address, Family, is_unicast
from agent.protocol.wire import ip, pim
from agent.protocol.wire.errors import Malformed, UnknownType

ALL_PIM_ROUTERS: Final[dict[Family, Address]] = {
    Family.IPV4: IPv4Address("224.0.0.13"),
    Family.IPV6: IPv6Address("ff02::d"),
}

INTERNETWORK_CONTROL: Final = 0xC0
"""TOS and traffic class of PIM: it keeps the routes themselves, like other routing protocols (RFC 4594 §3.1: CS6)."""

_UNICAST_TTL: Final = 64

KINDS: Final[dict[type[pim.Message], str]] = {
    pim.Hello: "hello",
    pim.JoinPrune: "join_prune",
    pim.Assert: "assert",
    pim.Register: "register",
    pim.RegisterStop: "register_stop",
    pim.Bootstrap: "bootstrap",
}
"""What messages are called in counters."""


@dataclass(frozen=True, slots=True)
class PimPacket:
    """A PIM message, what its IP packet says about it, and the message as bytes."""

    source: Address
    destination: Address
    message: pim.Message
    ttl: int
    payload: bytes


def decode_packet(packet: bytes) -> PimPacket:
    """Decode an IP packet that carries PIM.

    Raises:
        UnknownType: IP carrying something else, or an unknown message type.
        Malformed: a fragment, or whatever the codecs inside refuse (any `WireError`).
    """
    outer = ip.decode(packet)
    if outer.protocol != pim.PROTOCOL_PIM:
        raise UnknownType(f"IP protocol {outer.protocol} is not PIM", packet)
    if outer.is_fragment:
        raise Malformed("PIM message in a fragment", packet)
    message = pim.decode(outer.payload, outer.source, outer.destination)
    return PimPacket(outer.source, outer.destination, message, outer.ttl, outer.payload)


def encode_packet(message: pim.Message, source: Address, destination: Address) -> bytes:
    """Whole IP packet; TTL 1 to a multicast destination (RFC 7761 §4.9)."""
    body = pim.encode(message, source, destination)
    ttl = 1 if destination.is_multicast else _UNICAST_TTL
    return ip.IPPacket(
        source, destination, pim.PROTOCOL_PIM, body, ttl=ttl, traffic_class=INTERNETWORK_CONTROL
    ).encode()


def refusal(received: PimPacket, address: Address) -> str | None:
    """Why a packet that came to a router with this link address is not what its message travels in, or None.

    Registers and their answers come from afar, by unicast; all else from the link, to its PIM routers with TTL 1
    (RFC 7761 §4.9). A Bootstrap may come to us alone (RFC 5059 §3.5.1).
    """
    if not is_unicast(received.source):
        return "source_not_unicast"
    if isinstance(received.message, pim.Register | pim.RegisterStop):
        return "wrong_destination" if received.destination.is_multicast else None
    if received.ttl != 1:
        return "ttl_not_1"
    if received.source.version == 6 and not received.source.is_link_local:
        return "source_not_link_local"
    to_us_alone = isinstance(received.message, pim.Bootstrap) and received.destination == address
    to_routers = received.destination == ALL_PIM_ROUTERS[Family.of(received.source)]
    return None if to_routers or to_us_alone else "wrong_destination"
