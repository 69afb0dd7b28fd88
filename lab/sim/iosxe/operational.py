"""Operational data of IOS-XE as XML: routes with AMT next hops, tunnel interfaces, PIM neighbours.

Element names, enumeration values and namespaces are those of Cisco-IOS-XE-mroute-oper, -tunnel-oper and -pim-oper as
released with 17.3.1. Two things no model or document tells are guesses: the name of the global VRF, and what a device
does with several gateways behind one interface, whose entries the model keys by the interface's name alone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from xml.sax.saxutils import escape

from lab.sim.iosxe.device import IosDevice
from lab.sim.iosxe.relay import Interface, View, interfaces, view
from lab.sim.population import SimChannel, SimTunnel

NAMESPACE = "http://cisco.com/ns/yang/"
REVISION = "2020-07-01"
MROUTE = "Cisco-IOS-XE-mroute-oper"
TUNNEL = "Cisco-IOS-XE-tunnel-oper"
PIM = "Cisco-IOS-XE-pim-oper"
TREES = {"mroute-oper-data": MROUTE, "tunnel-oper-data": TUNNEL, "pim-oper-data": PIM}
"""Top container -> module."""
_VRF = "default"


def tree(device: IosDevice, container: str, *, one_gateway: bool = False) -> str:
    """A top container in full, or nothing when it is empty.

    Args:
        device: whose.
        container: a key of TREES.
        one_gateway: keep the model's key: of the gateways behind one interface only the last is told.
    """
    seen = view(device)
    now = device.clock()
    if container == "mroute-oper-data":
        body = _routes(seen, now, one_gateway=one_gateway)
    elif container == "tunnel-oper-data":
        body = "".join(_tunnel(seen, one) for one in interfaces(device) if one.name.startswith("Tunnel"))
    else:
        body = _neighbors(seen, now)
    return f'<{container} xmlns="{NAMESPACE}{TREES[container]}">{body}</{container}>' if body else ""


def _moment(at: float) -> str:
    return _printed(int(at))


@lru_cache(maxsize=4096)
def _printed(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _routes(seen: View, now: float, *, one_gateway: bool) -> str:
    gateways = seen.gateways() if seen.relay is not None else {}
    printed = []
    for channel in seen.channels:
        served = gateways.get((str(channel.source or "*"), str(channel.group)), [])
        printed.append(_route(seen, now, channel, served[-1:] if one_gateway else served))
    return "".join(printed)


def _route(seen: View, now: float, channel: SimChannel, served: list[SimTunnel]) -> str:
    assert seen.relay is not None
    incoming = f"<if-name>{seen.core.name}</if-name>" if seen.core else ""
    neighbor = f"<rpf-nbr>{seen.neighbors[0].address}</rpf-nbr>" if seen.neighbors else ""
    rate = channel.packets_per_second or 0
    size = channel.bytes // channel.packets if channel.packets else 0
    egress = "".join(_egress(seen.relay.interface.name, now, rate, gateway) for gateway in served)
    return (
        f"<mroute-state><source>{channel.source or '0.0.0.0'}</source><group>{channel.group}</group>"
        f"<vrf>{_VRF}</vrf>"
        f"<af>mroute-af-ipv4</af><ingress-if>{incoming}<mfib-if-flags>mfib-intf-accept</mfib-if-flags>"
        f"<mfib-next-hop-type>mfib-nh-type-invalid</mfib-next-hop-type></ingress-if>{egress}{neighbor}"
        f"<mroute-uptime>{_moment(now - channel.uptime_seconds)}</mroute-uptime>"
        "<mroute-mode>mroute-sparse</mroute-mode>"
        "<mroute-flags>mroute-ssm mroute-spt mroute-received-source-specific-host-report</mroute-flags>"
        f"<hw-packet-count>{channel.packets}</hw-packet-count><hw-packets-per-second>{rate}</hw-packets-per-second>"
        f"<hw-average-packet-size>{size}</hw-average-packet-size>"
        f"<hw-kbits-per-second>{8 * (channel.kilobytes_per_second or 0)}</hw-kbits-per-second>"
        f"<hw-total>{channel.packets}</hw-total></mroute-state>"
    )


def _egress(name: str, now: float, rate: int, gateway: SimTunnel) -> str:
    packets = gateway.packets // max(1, len(gateway.channels))
    return (
        f"<mcast-egress-if-entry><if-name>{name}</if-name><mcast-egress-if-data>"
        "<mfib-if-flags>mfib-intf-forward</mfib-if-flags>"
        f"<output-if-counters>{packets}</output-if-counters>"
        f"<if-uptime>{_moment(now - gateway.uptime_seconds)}</if-uptime>"
        f"<if-expiry-set/><if-expires>{_moment(now + max(0, gateway.expires_seconds))}</if-expires>"
        "<is-static>false</is-static><is-proxy>false</is-proxy><if-state>intf-forward</if-state><blocked>false</blocked>"
        f"<hw-packet-count>{packets}</hw-packet-count><egress-rate-pps>{rate}</egress-rate-pps>"
        "<mfib-next-hop-type>mfib-nh-type-amt-ipv4</mfib-next-hop-type><mfib-next-hop-addr><amt-next-hop-addr-v4>"
        f"<nh-ip-addr>{gateway.gateway_address}</nh-ip-addr><amt-udp-port>{gateway.gateway_port}</amt-udp-port>"
        "</amt-next-hop-addr-v4></mfib-next-hop-addr></mcast-egress-if-data></mcast-egress-if-entry>"
    )


def _tunnel(seen: View, one: Interface) -> str:
    relay = seen.relay if seen.relay is not None and seen.relay.interface.name == one.name else None
    mode = {"udp multipoint": "tunnel-mode-mudp-ip", "udp ip": "tunnel-mode-udp-ip"}.get(
        one.value("tunnel mode") or "", "tunnel-mode-gre-ip"
    )
    source = one.value("tunnel source") or ""
    address = f"<intf-ipv4>{one.address.ip}</intf-ipv4>" if one.address else ""
    up = relay is not None and relay.up
    packets = sum(tunnel.packets for tunnel in seen.tunnels) if up else 0
    rate = sum(1000 * len(tunnel.channels) for tunnel in seen.tunnels) if up else 0
    octets = sum(tunnel.bytes for tunnel in seen.tunnels) if up else 0
    below = f"<src-if>{escape(source)}</src-if>" if source and not source[0].isdecimal() else ""
    if relay is not None and relay.source:
        below += f"<src-addr>{relay.source}</src-addr>"
    return (
        f"<tunnel-if><name>{one.name}</name><mode>{mode}</mode>{address}<intf-vrf>Global</intf-vrf>"
        f"<transport-vrf>Global</transport-vrf><admin-status>tunnel-{'up' if one.enabled else 'down'}</admin-status>"
        f"<status>tunnel-{'up' if up else 'down'}</status>{below}<ip-mtu>1472</ip-mtu>"
        "<stats><in-octets>0</in-octets>"
        f"<in-discards>0</in-discards><in-errors>0</in-errors><out-octets>{octets}</out-octets>"
        f"<out-multicast-pkts>{packets}</out-multicast-pkts><out-discards>0</out-discards><out-errors>0</out-errors>"
        f"<tx-pps>{rate}</tx-pps></stats></tunnel-if>"
    )


def _neighbors(seen: View, now: float) -> str:
    if seen.core is None or not seen.neighbors:
        return ""
    states = "".join(
        f"<pim-neighbor-state><pim-neighbor-address>{one.address}</pim-neighbor-address><state><version>2</version>"
        f"<dr-priority>{one.priority}</dr-priority><gen-id>1</gen-id>"
        f"<neighbor-uptime>{_moment(now - one.uptime_seconds)}</neighbor-uptime>"
        f"<expires>{_moment(now + one.hold_time_seconds - one.uptime_seconds % 30)}</expires>"
        f"<pim-dr>{one.address}</pim-dr><neighbor-count>{len(seen.neighbors)}</neighbor-count>"
        "<query-interval>30000</query-interval><jp-interval>60000</jp-interval><pim-mode>pim-sparse</pim-mode>"
        "</state></pim-neighbor-state>"
        for one in seen.neighbors
    )
    return (
        f"<pim-neighbor-entry><af>multicast-af-ipv4</af><vrf>{_VRF}</vrf><if-name>{seen.core.name}</if-name>{states}"
        "</pim-neighbor-entry>"
    )
