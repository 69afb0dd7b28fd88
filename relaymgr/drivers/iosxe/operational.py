"""Operational trees of IOS-XE over NETCONF, as the neutral model: routes with their AMT next hops, tunnels, neighbours.

Modules: Cisco-IOS-XE-mroute-oper, -tunnel-oper and -pim-oper (17.3.1 on). The model keys outgoing interfaces of a route
by name alone; entries of one name with different next hops are all taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import ip_address
from typing import Final

from lxml import etree

from relaymgr.domain.observed import Address, Channel, PimNeighbor, Tunnel, TunnelState
from relaymgr.drivers.netconf.documents import child_text, children, descendants, find

NAMESPACE: Final = "http://cisco.com/ns/yang/"
CLI_RPC: Final = f"{NAMESPACE}Cisco-IOS-XE-cli-rpc"
MROUTE: Final = (
    f'<get><filter type="subtree"><mroute-oper-data xmlns="{NAMESPACE}Cisco-IOS-XE-mroute-oper"/></filter></get>'
)
PIM: Final = f'<get><filter type="subtree"><pim-oper-data xmlns="{NAMESPACE}Cisco-IOS-XE-pim-oper"/></filter></get>'
TUNNELS: Final = (
    f'<get><filter type="subtree"><tunnel-oper-data xmlns="{NAMESPACE}Cisco-IOS-XE-tunnel-oper"/></filter></get>'
)

_RELAY_MODE: Final = "tunnel-mode-mudp-ip"
_AMT: Final = ("amt-next-hop-addr-v4", "amt-next-hop-addr-v6")

Endpoint = tuple[Address, int]


@dataclass(slots=True)
class _Gateway:
    interface: str
    channels: int = 0
    packets: int | None = None
    since: list[datetime] = field(default_factory=list)


def routes(reply: etree._Element, now: datetime) -> tuple[tuple[Channel, ...], tuple[Tunnel, ...]]:
    """Channels, and the gateways they go to, from one reply of Cisco-IOS-XE-mroute-oper.

    Args:
        reply: the rpc-reply.
        now: to make ages of the points in time the model gives.
    """
    gateways: dict[Endpoint, _Gateway] = {}
    channels = tuple(_channel(route, gateways, now) for route in descendants(reply, "mroute-state"))
    tunnels = tuple(
        Tunnel(
            gateway_address=address,
            gateway_port=port,
            state=TunnelState.ACTIVE,
            interface=gateway.interface,
            uptime_seconds=max((_age(at, now) for at in gateway.since), default=None),
            channels=gateway.channels,
            packets=gateway.packets,
        )
        for (address, port), gateway in gateways.items()
    )
    return channels, tunnels


def relay_addresses(reply: etree._Element) -> dict[str, tuple[Address | None, str]]:
    """Relay tunnel interface -> its source address and state, from Cisco-IOS-XE-tunnel-oper."""
    found: dict[str, tuple[Address | None, str]] = {}
    for interface in descendants(reply, "tunnel-if"):
        name, source = child_text(interface, "name"), child_text(interface, "src-addr")
        if name and child_text(interface, "mode") == _RELAY_MODE:
            found[name] = (ip_address(source) if source else None, child_text(interface, "status") or "")
    return found


def neighbors(reply: etree._Element, now: datetime) -> tuple[PimNeighbor, ...]:
    """PIM neighbours from Cisco-IOS-XE-pim-oper."""
    found = []
    for entry in descendants(reply, "pim-neighbor-entry"):
        for state in children(entry, "pim-neighbor-state"):
            expires = child_text(state, "state", "expires")
            uptime = child_text(state, "state", "neighbor-uptime")
            found.append(
                PimNeighbor(
                    address=ip_address(_text(state, "pim-neighbor-address")),
                    interface=_text(entry, "if-name"),
                    uptime_seconds=_age(datetime.fromisoformat(uptime), now) if uptime else None,
                    hold_time_seconds=_age(now, datetime.fromisoformat(expires)) if expires else None,
                    priority=_number(state, "state", "dr-priority"),
                    version=_number(state, "state", "version"),
                )
            )
    return tuple(found)


def _channel(route: etree._Element, gateways: dict[Endpoint, _Gateway], now: datetime) -> Channel:
    source = ip_address(_text(route, "source"))
    uptime = child_text(route, "mroute-uptime")
    interfaces: dict[str, None] = {}
    served: list[Endpoint] = []
    for entry in children(route, "mcast-egress-if-entry"):
        name = _text(entry, "if-name")
        interfaces[name] = None
        endpoint = _gateway(entry)
        if endpoint is not None:
            served.append(endpoint)
            _count(gateways.setdefault(endpoint, _Gateway(name)), entry)
    packets, size = _number(route, "hw-packet-count"), _number(route, "hw-average-packet-size")
    return Channel(
        group=ip_address(_text(route, "group")),
        source=None if source.is_unspecified else source,
        upstream_interface=child_text(route, "ingress-if", "if-name"),
        downstream_interfaces=tuple(interfaces),
        gateways=tuple(served),
        packets=packets,
        bytes=packets * size if packets is not None and size is not None else None,
        packets_per_second=_number(route, "hw-packets-per-second"),
        kilobits_per_second=_number(route, "hw-kbits-per-second"),
        state=child_text(route, "mroute-flags"),
        uptime_seconds=_age(datetime.fromisoformat(uptime), now) if uptime else None,
    )


def _gateway(entry: etree._Element) -> Endpoint | None:
    for name in _AMT:
        hop = find(entry, "mcast-egress-if-data", "mfib-next-hop-addr", name)
        if hop is not None:
            return ip_address(_text(hop, "nh-ip-addr")), int(_text(hop, "amt-udp-port"))
    return None


def _count(gateway: _Gateway, entry: etree._Element) -> None:
    gateway.channels += 1
    packets = _number(entry, "mcast-egress-if-data", "hw-packet-count")
    if packets is not None:
        gateway.packets = (gateway.packets or 0) + packets
    since = child_text(entry, "mcast-egress-if-data", "if-uptime")
    if since:
        gateway.since.append(datetime.fromisoformat(since))


def with_relay(tunnels: Iterable[Tunnel], relays: dict[str, tuple[Address | None, str]]) -> tuple[Tunnel, ...]:
    """Tunnels with the address of the relay interface they leave by."""
    return tuple(
        replace(tunnel, local_address=relays[tunnel.interface][0], vendor_state=relays[tunnel.interface][1] or None)
        if tunnel.interface in relays
        else tunnel
        for tunnel in tunnels
    )


def _text(element: etree._Element, *path: str) -> str:
    text = child_text(element, *path)
    if text is None:
        raise ValueError(f"{path[-1]} is missing")
    return text


def _number(element: etree._Element, *path: str) -> int | None:
    text = child_text(element, *path)
    return int(text) if text else None


def _age(earlier: datetime, later: datetime) -> int:
    return max(0, int((later - earlier).total_seconds()))
