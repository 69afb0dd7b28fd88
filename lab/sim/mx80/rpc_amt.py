"""The AMT RPCs. Element names are those of Juniper's YANG; states and the units of `ud-` interfaces are synthetic."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from lxml import etree

from lab.sim.mx80.device import Handler, Mx80
from lab.sim.mx80.relay_view import SPACE, View, anycast_address, kept, membership
from lab.sim.netconf_server import OK, NetconfSession
from lab.sim.population import SimTunnel

_INT32: Final = (1 << 31) - 1


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
        return f"<amt-tunnel-information {SPACE}>\n{''.join(shown)}</amt-tunnel-information>"

    return kept(device, request, f"tunnels {detail} {address} {port} {interface}", render)


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
    memberships = "".join(membership(pair, tunnel) for pair in tunnel.channels)
    return (
        f"{brief}<amt-tunnel-gateway-nonce>{tunnel.nonce & _INT32}</amt-tunnel-gateway-nonce>\n"
        f"<amt-tunnel-gateway-mac>{tunnel.mac}</amt-tunnel-gateway-mac>\n"
        f"<amt-tunnel-multicast-groups>{len(tunnel.channels)}</amt-tunnel-multicast-groups>\n{memberships}"
        f"<amt-tunnel-message-count>\n<amt-request-message>{tunnel.requests & _INT32}</amt-request-message>\n"
        f"<amt-membership-update-message>{tunnel.updates & _INT32}</amt-membership-update-message>\n"
        "</amt-tunnel-message-count>\n</amt-tunnel>\n"
    )


def summary(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-amt-summary."""

    def render(view: View) -> str:
        if view.relay is None:
            return f"<amt-summary {SPACE}/>"
        prefix = view.relay.findtext("family/inet/anycast-prefix")
        values = {
            "amt-anycast-prefix": prefix,
            "amt-anycast-address": anycast_address(view.configuration, prefix),
            "amt-local-address": view.relay.findtext("family/inet/local-address"),
            "amt-tunnel-limit": view.relay.findtext("tunnel-limit"),
            "amt-active-tunnels": str(len(view.snapshot.tunnels)),
            "amt-unicast-stream-limit": view.relay.findtext("unicast-stream-limit"),
            "amt-active-unicast-streams": str(sum(len(tunnel.channels) for tunnel in view.snapshot.tunnels)),
        }
        inner = "".join(f"<{name}>{_bounded(text)}</{name}>\n" for name, text in values.items() if text is not None)
        return f"<amt-summary {SPACE}>\n{inner}</amt-summary>"

    return kept(device, request, "summary", render)


def statistics(device: Mx80, _session: NetconfSession, request: etree._Element) -> bytes:
    """get-amt-statistics."""

    def render(view: View) -> str:
        if view.relay is None:
            return f"<amt-instance-statistics {SPACE}/>"
        now = asdict(view.snapshot.counters)
        since = {name: max(0, value - device.cleared.get(name, 0)) & _INT32 for name, value in now.items()}
        values = {name: since.get(counter, 0) for name, counter in _STATISTICS.items()}
        inner = "".join(f"<{name}>{value}</{name}>\n" for name, value in values.items())
        return f"<amt-instance-statistics {SPACE}>\n{inner}</amt-instance-statistics>"

    return kept(device, request, "statistics", render)


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
    view = View(device, device.committed)
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


def _bounded(text: str) -> str:
    return str(min(int(text), _INT32)) if text.isdigit() else text


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
}
