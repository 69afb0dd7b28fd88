"""IGMP and MLD messages inside their IP packets, family by family in one call."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.protocol.channels import Address
from agent.protocol.wire import igmp, ip, mld
from agent.protocol.wire.errors import Malformed, UnknownType
from agent.protocol.wire.groups import AnySourceReport, GroupMessage, Leave, Query, Report

INTERNETWORK_CONTROL: Final = 0xC0
"""TOS of IGMPv3 messages (RFC 3376 §4)."""

ALL_SYSTEMS: Final = IPv4Address("224.0.0.1")
ALL_ROUTERS: Final = IPv4Address("224.0.0.2")
ALL_IGMPV3_ROUTERS: Final = IPv4Address("224.0.0.22")
ALL_NODES: Final = IPv6Address("ff02::1")
ALL_ROUTERS_IPV6: Final = IPv6Address("ff02::2")
ALL_MLDV2_ROUTERS: Final = IPv6Address("ff02::16")


@dataclass(frozen=True, slots=True)
class GroupPacket:
    """A group message and what its IP packet says about it."""

    source: Address
    destination: Address
    message: GroupMessage
    ttl: int
    router_alert: bool


def decode(packet: bytes) -> GroupPacket:
    """Decode an IP packet that carries IGMP or MLD.

    Raises:
        UnknownType: IP carrying something else, or an unknown message type.
        Malformed: a fragment, or whatever the codecs inside refuse (any `WireError`).
    """
    outer = ip.decode(packet)
    if outer.is_fragment:
        raise Malformed("group message in a fragment", packet)
    if outer.source.version == 4 and outer.protocol == ip.PROTOCOL_IGMP:
        message = igmp.decode(outer.payload)
    elif outer.source.version == 6 and outer.protocol == ip.PROTOCOL_ICMPV6:
        message = mld.decode(outer.payload, outer.source, outer.destination)
    else:
        raise UnknownType(f"IP protocol {outer.protocol} is neither IGMP nor ICMPv6", packet)
    return GroupPacket(outer.source, outer.destination, message, outer.ttl, outer.router_alert)


def encode(message: GroupMessage, source: Address, destination: Address | None = None) -> bytes:
    """Whole IP packet with TTL 1 and Router Alert, family by `source`.

    `destination` defaults to the address the RFC gives: all systems for a general query, the group for a specific
    one and for old reports, all routers for a leave, and the v3/v2 routers' group for source-specific reports.
    """
    target = destination if destination is not None else _destination(message, source.version)
    if source.version == 4:
        packet = ip.IPPacket(
            source,
            target,
            ip.PROTOCOL_IGMP,
            igmp.encode(message),
            ttl=1,
            traffic_class=INTERNETWORK_CONTROL,
            options=ip.ROUTER_ALERT_IPV4,
        )
    else:
        body = mld.encode(message, source, target)
        packet = ip.IPPacket(source, target, ip.PROTOCOL_ICMPV6, body, ttl=1, options=ip.ROUTER_ALERT_IPV6)
    return packet.encode()


def _destination(message: GroupMessage, version: int) -> Address:
    match message:
        case Query(group):
            if group is not None:
                return group
            return ALL_SYSTEMS if version == 4 else ALL_NODES
        case Report():
            return ALL_IGMPV3_ROUTERS if version == 4 else ALL_MLDV2_ROUTERS
        case AnySourceReport(group):
            return group
        case Leave():
            return ALL_ROUTERS if version == 4 else ALL_ROUTERS_IPV6
