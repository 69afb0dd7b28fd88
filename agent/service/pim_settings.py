"""From the configuration file to the settings of PIM."""

from __future__ import annotations

from typing import Final

from agent.protocol.channels import Address, Family
from agent.protocol.pim_config import PimConfig
from agent.service.config import Configuration
from agent.service.config.sections import GatewayMode

_STATES_PER_CHANNEL: Final = 2
"""States a link's neighbours may make us remember, per channel that can be carried: what is refused is shown too."""

_LEAST_STATES: Final = 1000


def pim_config(configuration: Configuration) -> PimConfig:
    """Timers and limits of every PIM interface."""
    section = configuration.pim
    return PimConfig(
        hello_interval=section.hello_interval,
        triggered_hello_delay=min(5.0, section.hello_interval),
        dr_priority=section.dr_priority,
        propagation_delay=section.propagation_delay,
        override_interval=section.override_interval,
        join_prune_interval=section.join_prune_interval,
        assert_preference=section.assert_preference,
        assert_metric=section.assert_metric,
        max_neighbors=section.neighbor_limit,
        max_channels=max(_LEAST_STATES, _STATES_PER_CHANNEL * configuration.gateway.channel_limit),
        rendezvous_groups=section.rendezvous_groups,
        forward_bootstrap=section.forward_bootstrap,
    )


def pim_interfaces(configuration: Configuration) -> tuple[str, ...]:
    """Interfaces the agent speaks PIM on: beside FRR only the tunnel interface, where FRR is its neighbour."""
    gateway = configuration.gateway
    if not configuration.pim.enabled:
        return ()
    if gateway.mode is GatewayMode.FRR:
        return (gateway.tunnel_interface,)
    return (*gateway.downstream, *gateway.native)


def rendezvous_addresses(configuration: Configuration, families: tuple[Family, ...]) -> tuple[Address, ...]:
    """Our addresses as RP, of the families carried."""
    addresses = configuration.pim.rendezvous_address
    return tuple(address for address in addresses if Family.of(address) in families)
