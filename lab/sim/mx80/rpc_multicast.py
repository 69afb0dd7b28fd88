"""The AMT, IGMP, PIM and multicast route RPCs, fed by the population and by what is committed.

Element names are those of Juniper's YANG; state strings and the numbers of `ud-` units are synthetic guesses.
Rendered replies are kept until the population ticks or something is committed, since many pollers ask for the same.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from lxml import etree

from lab.sim.mx80.device import VERSION, Handler, Mx80
from lab.sim.mx80.selection import active, all_active
from lab.sim.netconf_server import OK, NetconfSession
from lab.sim.population import SimTunnel, Snapshot

_SPACE: Final = f'xmlns="http://xml.juniper.net/junos/{VERSION[:6]}/junos-routing"'
_NOT_RUNNING: Final = b"<output>instance is not running</output>"
_FIRST_UNIT: Final = 1120256
_INT32: Final = (1 << 31) - 1
_UINT32: Final = (1 << 32) - 1
Pair = tuple[ipaddress.IPv4Address | None, ipaddress.IPv4Address]


class View:
    """Population and configuration brought together.

    Attributes:
        snapshot: the population; without tunnels and channels while the relay is not configured to run.
        relay: `protocols amt relay`, or None.
    """

    def __init__(self, device: Mx80) -> None:
        tree = device.committed
        self.relay = active(tree, "protocols/amt/relay")
        everything = device.population.snapshot()
        self.devices = tunnel_devices(tree)
        runs = self.relay is not None and bool(self.devices)
        self.snapshot = everything if runs else Snapshot(everything.generation, neighbors=everything.neighbors)
        self.pim_interfaces = {one.findtext("name", "") for one in all_active(tree, "protocols/pim/interface")}
        self.igmp_interfaces = [one.findtext("name", "") for one in all_active(tree, "protocols/igmp/interface")]

    def interface(self, index: int) -> str:
        """Logical interface of a tunnel by its place in the population."""
        return f"{self.devices[index % len(self.devices)]}.{_FIRST_UNIT + index}"

    @property
    def upstream(self) -> str:
        """Where multicast comes from."""
        real = sorted(name for name in self.pim_interfaces if name not in {"all", "lo0.0", "fxp0.0"})
        return real[0] if real else "xe-0/0/0.0"

    def runs_pim_on(self, interface: str) -> bool:
        """Whether PIM is configured there."""
        return bool(self.pim_interfaces & {interface, "all"})


def tunnel_devices(tree: etree._Element) -> list[str]:
    """`ud-` interfaces that AMT may use: those it is told, as far as tunnel services make them, or all there are."""
    there = [
        f"ud-{fpc.findtext('name')}/{pic.findtext('name')}/0"
        for fpc in all_active(tree, "chassis/fpc")
        for pic in all_active(fpc, "pic")
        if active(pic, "tunnel-services") is not None
    ]
    told = [str(one.text) for one in all_active(tree, "protocols/amt/relay/tunnel-devices")]
    return [name for name in told if name.rpartition("/")[0] in {one.rpartition("/")[0] for one in there}] or (
        [] if told else there
    )


def tunnels(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-amt-tunnel-information, -interface and -gateway-address."""
    detail = request.find("detail") is not None or request.findtext("verbosity_level") == "detail"
    address, port = request.findtext("address"), request.findtext("port")
    interface = request.findtext("interface")

    def render(view: View) -> str:
        shown = (
            _tunnel(view, index, tunnel, detail=detail)
            for index, tunnel in enumerate(view.snapshot.tunnels)
            if address in {None, str(tunnel.gateway_address)}
            and port in {None, str(tunnel.gateway_port)}
            and (interface is None or interface == view.interface(index))
        )
        return f"<amt-tunnel-information {_SPACE}>\n{''.join(shown)}</amt-tunnel-information>"

    return _kept(device, request, f"tunnels {detail} {address} {port} {interface}", render)


def _tunnel(view: View, index: int, tunnel: SimTunnel, *, detail: bool) -> str:
    brief = (
        f"<amt-tunnel>\n<amt-tunnel-gateway-address>{tunnel.gateway_address}</amt-tunnel-gateway-address>\n"
        f"<amt-tunnel-gateway-port>{tunnel.gateway_port}</amt-tunnel-gateway-port>\n"
        f"<amt-tunnel-interface>{view.interface(index)}</amt-tunnel-interface>\n"
        f"<amt-tunnel-state>{tunnel.state}</amt-tunnel-state>\n"
        f"<amt-inactivity-timeout>{tunnel.expires_seconds}</amt-inactivity-timeout>\n"
    )
    if not detail:
        return brief + "</amt-tunnel>\n"
    memberships = "".join(_membership(pair, tunnel) for pair in tunnel.channels)
    return (
        f"{brief}<amt-tunnel-gateway-nonce>{tunnel.nonce & _INT32}</amt-tunnel-gateway-nonce>\n"
        f"<amt-tunnel-gateway-mac>{tunnel.mac}</amt-tunnel-gateway-mac>\n"
        f"<amt-tunnel-multicast-groups>{len(tunnel.channels)}</amt-tunnel-multicast-groups>\n{memberships}"
        f"<amt-tunnel-message-count>\n<amt-request-message>{tunnel.requests & _INT32}</amt-request-message>\n"
        f"<amt-membership-update-message>{tunnel.updates & _INT32}</amt-membership-update-message>\n"
        "</amt-tunnel-message-count>\n</amt-tunnel>\n"
    )


def _membership(pair: Pair, tunnel: SimTunnel) -> str:
    source, group = pair
    mode = "Include" if source is not None else "Exclude"
    timeout = tunnel.expires_seconds if source is not None else 0
    return (
        f"<mgm-group>\n<multicast-group-address>{group}</multicast-group-address>\n"
        f"<mgm-group-mode-type>{mode}</mgm-group-mode-type>\n"
        f"<multicast-source-address>{source or '0.0.0.0'}</multicast-source-address>\n"
        f"<last-address>{tunnel.joined_by}</last-address>\n<mgm-timeout>{0 if source else tunnel.expires_seconds}"
        f"</mgm-timeout>\n<mgm-type>Dynamic</mgm-type>\n<mgm-source-timeout>{timeout}</mgm-source-timeout>\n"
        "</mgm-group>\n"
    )


def summary(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-amt-summary."""

    def render(view: View) -> str:
        if view.relay is None:
            return f"<amt-summary {_SPACE}/>"
        prefix = view.relay.findtext("family/inet/anycast-prefix")
        values = {
            "amt-anycast-prefix": prefix,
            "amt-anycast-address": anycast_address(device.committed, prefix),
            "amt-local-address": view.relay.findtext("family/inet/local-address"),
            "amt-tunnel-limit": view.relay.findtext("tunnel-limit"),
            "amt-active-tunnels": str(len(view.snapshot.tunnels)),
            "amt-unicast-stream-limit": view.relay.findtext("unicast-stream-limit"),
            "amt-active-unicast-streams": str(sum(len(tunnel.channels) for tunnel in view.snapshot.tunnels)),
        }
        inner = "".join(f"<{name}>{_bounded(text)}</{name}>\n" for name, text in values.items() if text is not None)
        return f"<amt-summary {_SPACE}>\n{inner}</amt-summary>"

    return _kept(device, request, "summary", render)


def anycast_address(tree: etree._Element, prefix: str | None) -> str | None:
    """The address of a loopback in the prefix, else the prefix's own."""
    if prefix is None:
        return None
    given = ipaddress.IPv4Interface(prefix)
    for address in all_active(tree, "interfaces/interface/unit/family/inet/address/name"):
        host = ipaddress.IPv4Interface(address.text or "0.0.0.0").ip
        if host in given.network:
            return str(host)
    return str(given.ip)


def statistics(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-amt-statistics."""

    def render(view: View) -> str:
        if view.relay is None:
            return f"<amt-instance-statistics {_SPACE}/>"
        now = asdict(view.snapshot.counters)
        since = {name: max(0, value - device.cleared.get(name, 0)) & _INT32 for name, value in now.items()}
        values = {name: since.get(counter, 0) for name, counter in _STATISTICS.items()}
        inner = "".join(f"<{name}>{value}</{name}>\n" for name, value in values.items())
        return f"<amt-instance-statistics {_SPACE}>\n{inner}</amt-instance-statistics>"

    return _kept(device, request, "statistics", render)


_STATISTICS: Final = {
    "amt-relay-discovery-messages": "discoveries",
    "amt-membership-request-messages": "requests",
    "amt-membership-update-messages": "updates",
    "amt-relay-advertisement-messages": "advertisements",
    "amt-membership-query-messages": "queries",
    "amt-incomplete-packet": "",
    "amt-invalid-mac": "invalid_mac",
    "amt-unexpected-type": "",
    "amt-relay-discovery-invalid-address": "",
    "amt-membership-request-invalid-address": "",
    "amt-membership-update-invalid-address": "",
    "amt-incomplete-relay-discovery": "",
    "amt-incomplete-membership-request": "",
    "amt-incomplete-membership-update": "",
    "amt-no-active-gateway": "no_gateway",
    "amt-invalid-inner-packet-checksum": "",
    "amt-gateways-timed-out": "timed_out",
}


def clear_statistics(device: Mx80, _session: NetconfSession, _request: etree._Element) -> bytes:
    """clear-amt-statistics."""
    device.cleared = asdict(device.population.snapshot().counters)
    device.reply_cache.clear()
    return OK


def clear_tunnels(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """clear-amt-tunnel, -interface and -gateway-address."""
    view = View(device)
    address, interface = request.findtext("address"), request.findtext("interface")
    device.population.set_tunnels(
        [
            tunnel
            for index, tunnel in enumerate(view.snapshot.tunnels)
            if (address is not None and address != str(tunnel.gateway_address))
            or (interface is not None and interface != view.interface(index))
        ]
    )
    return OK


def igmp_interfaces(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-igmp-interface-information."""

    def render(view: View) -> str:
        parts = [_igmp_interface(name, 0) for name in view.igmp_interfaces]
        parts += [
            _igmp_interface(view.interface(index), len(tunnel.channels))
            for index, tunnel in enumerate(view.snapshot.tunnels)
        ]
        defaults = active(device.committed, "protocols/igmp/amt/relay/defaults")
        interval = defaults.findtext("query-interval", "125") if defaults is not None else "125"
        robust = defaults.findtext("robust-count", "2") if defaults is not None else "2"
        amt = (
            f"<mgm-amt-configured-parameters>\n<query-interval>{interval}.0</query-interval>\n"
            f"<query-response-interval>10.0</query-response-interval>\n<robustness-count>{robust}</robustness-count>\n"
            "</mgm-amt-configured-parameters>\n"
        )
        return (
            f"<igmp-interface-information {_SPACE}>\n{''.join(parts)}<mgm-configured-parameters>\n"
            "<query-interval>125.0</query-interval>\n<query-response-interval>10.0</query-response-interval>\n"
            "<last-member-query-interval>1.0</last-member-query-interval>\n<robustness-count>2</robustness-count>\n"
            f"</mgm-configured-parameters>\n{amt if view.relay is not None else ''}</igmp-interface-information>"
        )

    return _kept(device, request, "igmp interfaces", render)


def _igmp_interface(name: str, groups: int) -> str:
    return (
        f"<mgm-interface>\n<interface-name>{name}</interface-name>\n<mgm-interface-state>Up</mgm-interface-state>\n"
        f"<mgm-interface-version>3</mgm-interface-version>\n<mgm-group-count>{groups}</mgm-group-count>\n"
        "</mgm-interface>\n"
    )


def igmp_groups(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-igmp-group-information."""

    def render(view: View) -> str:
        parts = [
            f"<mgm-interface-groups>\n<interface-name>{view.interface(index)}</interface-name>\n"
            f"<mgm-group-count>{len(tunnel.channels)}</mgm-group-count>\n"
            f"{''.join(_membership(pair, tunnel) for pair in tunnel.channels)}</mgm-interface-groups>\n"
            for index, tunnel in enumerate(view.snapshot.tunnels)
        ]
        return f"<igmp-group-information {_SPACE}>\n{''.join(parts)}</igmp-group-information>"

    return _kept(device, request, "igmp groups", render)


def routes(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-multicast-route-information; rates and packets only with `<extensive/>`."""
    extensive = request.find("extensive") is not None

    def render(view: View) -> str:
        downstream: dict[Pair, list[str]] = defaultdict(list)
        for index, tunnel in enumerate(view.snapshot.tunnels):
            for pair in tunnel.channels:
                downstream[pair].append(view.interface(index))
        parts = []
        for channel in view.snapshot.channels:
            names = "".join(
                f"<interface-name>{name}</interface-name>\n" for name in downstream[channel.source, channel.group][:1]
            )
            others = "".join(
                f"<downstream-interface-names>\n<interface-name>{name}</interface-name>\n</downstream-interface-names>\n"
                for name in downstream[channel.source, channel.group][1:]
            )
            first = f"<downstream-interface-names>\n{names}</downstream-interface-names>\n" if names else ""
            rates = ""
            if extensive and channel.packets_per_second is not None:
                rates = (
                    f"<forwarding-rate-kilobytes>{channel.kilobytes_per_second or 0}</forwarding-rate-kilobytes>\n"
                    f"<forwarding-rate-packets>{channel.packets_per_second}</forwarding-rate-packets>\n"
                )
            more = ""
            if extensive:
                more = (
                    f"{rates}<forwarded-packet-count>{channel.packets & _UINT32}</forwarded-packet-count>\n"
                    "<upstream-protocol>PIM</upstream-protocol>\n<multicast-route-state>Active</multicast-route-state>\n"
                    "<multicast-route-forwarding-state>Forwarding</multicast-route-forwarding-state>\n"
                    f"<multicast-route-uptime>{clock(channel.uptime_seconds)}</multicast-route-uptime>\n"
                )
            source = f"{channel.source}/32" if channel.source is not None else "*"
            parts.append(
                f"<multicast-route>\n{first}{others}"
                f"<multicast-group-address>{channel.group}</multicast-group-address>\n"
                f"<multicast-source-address>{source}</multicast-source-address>\n"
                f"<upstream-interface-name>{view.upstream}</upstream-interface-name>\n{more}</multicast-route>\n"
            )
        return (
            f"<multicast-route-information {_SPACE}>\n<route-family>\n<multicast-instance>master</multicast-instance>\n"
            f"<address-family>INET</address-family>\n{''.join(parts)}</route-family>\n</multicast-route-information>"
        )

    return _kept(device, request, f"routes {extensive}", render)


def usage(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-multicast-usage-information."""

    def render(view: View) -> str:
        parts = [
            f"<multicast-group>\n<multicast-group-address>{channel.group}</multicast-group-address>\n"
            f"<multicast-source-count>1</multicast-source-count>\n"
            f"<multicast-packet-count>{channel.packets & _UINT32}</multicast-packet-count>\n"
            f"<multicast-byte-count>{channel.bytes & _UINT32}</multicast-byte-count>\n</multicast-group>\n"
            for channel in view.snapshot.channels
        ]
        return f"<multicast-usage-information {_SPACE}>\n{''.join(parts)}</multicast-usage-information>"

    return _kept(device, request, "usage", render)


def pim_neighbors(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-pim-neighbors-information: neighbours on interfaces that PIM is configured on."""
    detail = request.find("detail") is not None

    def render(view: View) -> str:
        parts = [
            "<pim-interface>\n<pim-neighbor>\n"
            f"<pim-interface-name>{one.interface}</pim-interface-name>\n<ip-protocol-version>4</ip-protocol-version>\n"
            "<protocol-version>2</protocol-version>\n"
            f"<pim-neighbor-uptime>{clock(one.uptime_seconds)}</pim-neighbor-uptime>\n"
            f"<pim-neighbor-address>{one.address}</pim-neighbor-address>\n"
            + (
                f"<hello-holdtime>{one.hold_time_seconds}</hello-holdtime>\n"
                f"<hello-dr-priority>{one.priority}</hello-dr-priority>\n"
                if detail
                else ""
            )
            + "</pim-neighbor>\n</pim-interface>\n"
            for one in view.snapshot.neighbors
            if view.runs_pim_on(one.interface)
        ]
        return (
            f"<pim-neighbors-information {_SPACE}>\n<pim-instance>PIM.master</pim-instance>\n"
            f"{''.join(parts)}</pim-neighbors-information>"
        )

    return _kept(device, request, f"neighbors {detail}", render)


def clock(seconds: int) -> str:
    """As Junos prints an age: `3d 04:05:06`, `04:05:06`."""
    days, rest = divmod(seconds, 86400)
    time = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}d {time}" if days else time


def _bounded(text: str) -> str:
    return str(min(int(text), _INT32)) if text.isdigit() else text


def _kept(device: Mx80, request: etree._Element, key: str, render: Callable[[View], str]) -> bytes:
    if request.findtext("instance", "master") != "master":
        return _NOT_RUNNING
    state = (device.population.snapshot().generation, device.history.revision)
    kept = device.reply_cache.get(key)
    if kept is not None and kept[0] == state:
        return kept[1]
    made = render(View(device)).encode()
    device.reply_cache[key] = (state, made)
    return made


HANDLERS: Final[dict[str, Handler]] = {
    "get-amt-tunnel-information": tunnels,
    "get-amt-tunnel-interface": tunnels,
    "get-amt-tunnel-gateway-address": tunnels,
    "get-amt-summary": summary,
    "get-amt-statistics": statistics,
    "clear-amt-statistics": clear_statistics,
    "clear-amt-tunnel": clear_tunnels,
    "clear-amt-tunnel-interface": clear_tunnels,
    "clear-amt-tunnel-gateway-address": clear_tunnels,
    "get-igmp-interface-information": igmp_interfaces,
    "get-igmp-group-information": igmp_groups,
    "get-multicast-route-information": routes,
    "get-multicast-usage-information": usage,
    "get-pim-neighbors-information": pim_neighbors,
}
