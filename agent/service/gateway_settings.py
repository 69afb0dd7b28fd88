"""From the configuration file to the settings of tunnels, queriers and relay selection in the gateway role."""

from __future__ import annotations

from collections.abc import Mapping

from agent.protocol.channels import Family
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.querier import QuerierConfig
from agent.protocol.relay_selection import RelayCandidate, RelaySelection
from agent.protocol.wire.amt import PORT
from agent.service.config import Configuration, GatewayRelay
from agent.service.model import AnyAddress, JoinRequest
from agent.service.tunnel import TunnelSettings


def families(configuration: Configuration) -> tuple[Family, ...]:
    """Families of multicast that are carried."""
    gateway = configuration.gateway
    return tuple(family for family, wanted in ((Family.IPV4, gateway.ipv4), (Family.IPV6, gateway.ipv6)) if wanted)


def tunnel_settings(configuration: Configuration) -> dict[str, TunnelSettings]:
    """Settings of every tunnel by name: one for each relay address.

    With several relays each keeps its Request cycle going, so that a relay is known to live before channels move to it.
    """
    gateway = configuration.gateway
    is_choice = sum(len(relay.address) for relay in gateway.relay) > 1
    settings: dict[str, TunnelSettings] = {}
    for relay in gateway.relay:
        for address in relay.address:
            name = _name(relay, address)
            settings[name] = TunnelSettings(
                name=name,
                gateway=GatewayConfig(
                    address=address,
                    port=relay.port,
                    discover=relay.discover,
                    report_interval=configuration.igmp.unsolicited_report_interval,
                    keep_warm=frozenset(families(configuration)[:1]) if is_choice else frozenset(),
                ),
                port=gateway.port[len(settings)] if len(settings) < len(gateway.port) else 0,
                interface=gateway.uplink[0] if len(gateway.uplink) == 1 else None,
                strict_port=relay.strict_data_port,
                receive_buffer=configuration.dataplane.receive_buffer,
            )
    return settings


def relay_selection(configuration: Configuration, failed_at: Mapping[str, float] | None = None) -> RelaySelection:
    """The relays in order of preference, each address a candidate; `failed_at` tells of tunnels that go on."""
    candidates = (
        RelayCandidate(_name(relay, address), relay.sources)
        for relay in configuration.gateway.relay
        for address in relay.address
    )
    return RelaySelection(candidates, failed_at)


def querier_config(configuration: Configuration, family: Family) -> QuerierConfig:
    """Timers and limits of IGMP or MLD."""
    section = configuration.igmp if family is Family.IPV4 else configuration.mld
    return QuerierConfig(
        robustness_variable=section.robustness_variable,
        query_interval=section.query_interval,
        query_response_interval=section.query_response_interval,
        startup_query_interval=section.startup_query_interval,
        startup_query_count=section.startup_query_count,
        last_member_query_interval=section.last_member_query_interval,
        last_member_query_count=section.effective_last_member_query_count,
        fast_leave=section.fast_leave,
        max_groups=section.group_limit,
        max_sources=section.source_limit,
        maximum_adopted_interval=max(3600.0, section.query_interval),
    )


def configured_joins(configuration: Configuration) -> list[JoinRequest]:
    """Static joins of the file."""
    return [
        JoinRequest(source=join.source, group=join.group, interface=join.interface)
        for join in configuration.gateway.join
    ]


def _name(relay: GatewayRelay, address: AnyAddress) -> str:
    if relay.port == PORT:
        return str(address)
    return f"[{address}]:{relay.port}" if address.version == 6 else f"{address}:{relay.port}"
