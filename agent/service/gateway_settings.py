"""From the configuration file to the settings of tunnels, queriers and relay selection in the gateway role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agent.protocol.channels import Family
from agent.protocol.discovery import RelayLocation
from agent.protocol.gateway_config import GatewayConfig
from agent.protocol.querier import QuerierConfig
from agent.protocol.relay_candidates import RelayCandidate
from agent.protocol.relay_selection_config import SelectionConfig
from agent.protocol.wire.amt import PORT
from agent.service.config import Configuration, GatewayRelay
from agent.service.model import AnyAddress, JoinRequest
from agent.service.tunnel import TunnelSettings

_HINT_INTERVAL: Final = 1.0
"""Seconds: silent tunnels are asked ever less often anyway, so this is for ICMP errors."""


def families(configuration: Configuration) -> tuple[Family, ...]:
    """Families of multicast that are carried."""
    gateway = configuration.gateway
    return tuple(family for family, wanted in ((Family.IPV4, gateway.ipv4), (Family.IPV6, gateway.ipv6)) if wanted)


def tunnel_settings(configuration: Configuration) -> dict[str, TunnelSettings]:
    """Settings of the tunnels to the relays of the file, by name."""
    ports = configuration.gateway.port
    settings: dict[str, TunnelSettings] = {}
    for relay, address, candidate in _configured(configuration):
        for name in candidate.tunnel_names:
            config = _gateway_config(configuration, address, relay.port, discover=relay.discover)
            port = ports[len(settings)] if len(settings) < len(ports) else 0
            settings[name] = _tunnel(configuration, name, config, port, strict_port=relay.strict_data_port)
    return settings


def discovered_settings(configuration: Configuration, name: str, location: RelayLocation) -> TunnelSettings:
    """Settings of the tunnel to a discovered relay."""
    config = _gateway_config(configuration, location.address, location.port, discover=location.discover)
    return _tunnel(configuration, name, config, 0, strict_port=configuration.discovery.strict_data_port)


def relay_candidates(configuration: Configuration) -> tuple[RelayCandidate, ...]:
    """The relays of the file in order of preference, each address a candidate."""
    return tuple(candidate for _, _, candidate in _configured(configuration))


def discovered_candidate(location: RelayLocation) -> RelayCandidate:
    """A discovered relay."""
    return RelayCandidate(
        relay_name(location.address, location.port),
        preference=location.preference,
        origin=location.method.value,
    )


def selection_config(configuration: Configuration) -> SelectionConfig:
    """When channels move from one relay to another."""
    failover = configuration.failover
    return SelectionConfig(
        hold_down=failover.hold_down,
        failback_delay=failover.failback_delay,
        move_on_limit=failover.move_on_limit,
        patience=configuration.discovery.family_delay,
        live_live=failover.live_live,
    )


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


def relay_name(address: AnyAddress, port: int) -> str:
    """Name of the first tunnel to an address."""
    if port == PORT:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _configured(configuration: Configuration) -> Iterator[tuple[GatewayRelay, AnyAddress, RelayCandidate]]:
    for number, relay in enumerate(configuration.gateway.relay):
        names = [relay_name(address, relay.port) for address in relay.address]
        for address, name in zip(relay.address, names, strict=True):
            candidate = RelayCandidate(name, relay.sources, names[0], number, relay.tunnels, groups=relay.groups)
            yield relay, address, candidate


def _gateway_config(configuration: Configuration, address: AnyAddress, port: int, *, discover: bool) -> GatewayConfig:
    return GatewayConfig(
        address=address,
        port=port,
        discover=discover,
        report_interval=configuration.igmp.unsolicited_report_interval,
        hint_interval=_HINT_INTERVAL,
    )


def _tunnel(
    configuration: Configuration, name: str, config: GatewayConfig, port: int, *, strict_port: bool
) -> TunnelSettings:
    uplink = configuration.gateway.uplink
    return TunnelSettings(
        name=name,
        gateway=config,
        port=port,
        interface=uplink[0] if len(uplink) == 1 else None,
        strict_port=strict_port,
        receive_buffer=configuration.dataplane.receive_buffer,
    )
