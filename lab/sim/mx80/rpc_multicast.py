"""The IGMP, PIM and multicast route RPCs. Element names are those of Juniper's YANG; states are synthetic."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from lxml import etree

from lab.sim.mx80.device import Handler, Mx80
from lab.sim.mx80.relay_view import SPACE, Pair, View, clock, kept, membership
from lab.sim.mx80.selection import active
from lab.sim.netconf_server import NetconfSession
from lab.sim.population import SimChannel

_UINT32: Final = (1 << 32) - 1


def igmp_interfaces(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-igmp-interface-information."""

    def render(view: View) -> str:
        parts = [_igmp_interface(name, 0) for name in view.igmp_interfaces]
        parts += [
            _igmp_interface(view.interface(index), len(tunnel.channels))
            for index, tunnel in enumerate(view.snapshot.tunnels)
        ]
        defaults = active(view.instance, "protocols/igmp/amt/relay/defaults")
        interval = defaults.findtext("query-interval", "125") if defaults is not None else "125"
        robust = defaults.findtext("robust-count", "2") if defaults is not None else "2"
        amt = (
            f"<mgm-amt-configured-parameters>\n<query-interval>{interval}.0</query-interval>\n"
            f"<query-response-interval>10.0</query-response-interval>\n<robustness-count>{robust}</robustness-count>\n"
            "</mgm-amt-configured-parameters>\n"
        )
        return (
            f"<igmp-interface-information {SPACE}>\n{''.join(parts)}<mgm-configured-parameters>\n"
            "<query-interval>125.0</query-interval>\n<query-response-interval>10.0</query-response-interval>\n"
            "<last-member-query-interval>1.0</last-member-query-interval>\n<robustness-count>2</robustness-count>\n"
            f"</mgm-configured-parameters>\n{amt if view.relay is not None else ''}</igmp-interface-information>"
        )

    return kept(device, request, "igmp interfaces", render)


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
            f"{''.join(membership(pair, tunnel) for pair in tunnel.channels)}</mgm-interface-groups>\n"
            for index, tunnel in enumerate(view.snapshot.tunnels)
        ]
        return f"<igmp-group-information {SPACE}>\n{''.join(parts)}</igmp-group-information>"

    return kept(device, request, "igmp groups", render)


def routes(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-multicast-route-information; rates and packets only with `<extensive/>`."""
    extensive = request.find("extensive") is not None

    def render(view: View) -> str:
        downstream: dict[Pair, list[str]] = defaultdict(list)
        for index, tunnel in enumerate(view.snapshot.tunnels):
            for pair in tunnel.channels:
                downstream[pair].append(view.interface(index))
        parts = "".join(
            _route(channel, downstream[channel.source, channel.group], view.upstream, extensive=extensive)
            for channel in view.snapshot.channels
        )
        return (
            f"<multicast-route-information {SPACE}>\n<route-family>\n<multicast-instance>master</multicast-instance>\n"
            f"<address-family>INET</address-family>\n{parts}</route-family>\n</multicast-route-information>"
        )

    return kept(device, request, f"routes {extensive}", render)


def _route(channel: SimChannel, downstream: list[str], upstream: str, *, extensive: bool) -> str:
    names = "".join(
        f"<downstream-interface-names>\n<interface-name>{name}</interface-name>\n</downstream-interface-names>\n"
        for name in downstream
    )
    source = f"{channel.source}/32" if channel.source is not None else "*"
    return (
        f"<multicast-route>\n{names}<multicast-group-address>{channel.group}</multicast-group-address>\n"
        f"<multicast-source-address>{source}</multicast-source-address>\n"
        f"<upstream-interface-name>{upstream}</upstream-interface-name>\n"
        f"{_traffic(channel) if extensive else ''}</multicast-route>\n"
    )


def _traffic(channel: SimChannel) -> str:
    """Counters of a route; a rate that is not known is left out, as the router does."""
    rates = ""
    if channel.packets_per_second is not None:
        rates = (
            f"<forwarding-rate-kilobytes>{channel.kilobytes_per_second or 0}</forwarding-rate-kilobytes>\n"
            f"<forwarding-rate-packets>{channel.packets_per_second}</forwarding-rate-packets>\n"
        )
    return (
        f"{rates}<forwarded-packet-count>{channel.packets & _UINT32}</forwarded-packet-count>\n"
        "<upstream-protocol>PIM</upstream-protocol>\n<multicast-route-state>Active</multicast-route-state>\n"
        "<multicast-route-forwarding-state>Forwarding</multicast-route-forwarding-state>\n"
        f"<multicast-route-uptime>{clock(channel.uptime_seconds)}</multicast-route-uptime>\n"
    )


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
        return f"<multicast-usage-information {SPACE}>\n{''.join(parts)}</multicast-usage-information>"

    return kept(device, request, "usage", render)


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
            f"<pim-neighbors-information {SPACE}>\n<pim-instance>PIM.master</pim-instance>\n"
            f"{''.join(parts)}</pim-neighbors-information>"
        )

    return kept(device, request, f"neighbors {detail}", render)


HANDLERS: Final[dict[str, Handler]] = {
    "get-igmp-interface-information": igmp_interfaces,
    "get-igmp-group-information": igmp_groups,
    "get-multicast-route-information": routes,
    "get-multicast-usage-information": usage,
    "get-pim-neighbors-information": pim_neighbors,
}
