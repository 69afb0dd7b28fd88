"""Mode `frr`: FRR's pimd routes multicast on this host and has us as its neighbour behind the tunnel interface.

FRR's Joins arrive on the tunnel interface, so every wish is one of that interface; what the engine writes into it is
what FRR forwards. Which interfaces it leaves by is FRR's knowledge: here a channel goes out to the tunnel interface.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

from pyroute2 import IPRoute, NetlinkError

from agent.net.interfaces import Interface, InterfaceAddress
from agent.net.link import OpenLink
from agent.net.rtnetlink import with_rtnetlink
from agent.net.tap import Tap, TapSettings
from agent.net.tap_link import TapNeighbor
from agent.net.unicast_rules import UnicastRules
from agent.protocol.channels import Family
from agent.service.config import Configuration, GatewayMode

_QUEUE: Final = 16_384
"""Packets on the tunnel interface: FRR says each new Join in one of its own, ten thousand in a burst."""


def tap_settings(configuration: Configuration) -> TapSettings:
    """What the tunnel interface should be in either mode."""
    gateway = configuration.gateway
    is_beside_frr = gateway.mode is GatewayMode.FRR
    addresses = configuration.frr.router_address if is_beside_frr else gateway.tunnel_addresses
    settings = TapSettings(name=gateway.tunnel_interface, addresses=addresses)
    return replace(settings, queue=_QUEUE) if is_beside_frr else settings


def wish_interfaces(configuration: Configuration) -> tuple[str, ...]:
    """Interfaces wishes come from: the downstream ones, or the tunnel interface when FRR speaks to the others."""
    gateway = configuration.gateway
    return (gateway.tunnel_interface,) if gateway.mode is GatewayMode.FRR else gateway.downstream


def use_only(tap: Tap, wanted: Iterable[IPv4Interface | IPv6Interface], former: Iterable[object]) -> None:
    """Take addresses of mode `router` off the tunnel interface, which FRR would speak from.

    Args:
        tap: the device.
        wanted: addresses that stay.
        former: addresses to take away unless they are wanted.
    """
    kept = {str(address) for address in wanted}

    def remove(route: IPRoute) -> None:
        for address in former:
            if str(address) not in kept:
                ip, _, length = str(address).partition("/")
                try:
                    route.addr("del", index=tap.index, address=ip, prefixlen=int(length))
                except NetlinkError:  # mostly: not there
                    continue

    with_rtnetlink(remove)


@dataclass(frozen=True, slots=True)
class FrrStatus:
    """How mode `frr` does, for `status` and metrics.

    Attributes:
        dropped: frames that came out of the tunnel interface and were not for us, by what they were.
        answered: questions for our MAC address that were answered.
        copies: default routes kept beside FRR's, by family; empty when the rules are not ours to manage.
        errors: rules and routes the kernel refused.
        last_error: the last of them, in words.
    """

    dropped: dict[str, int]
    answered: int
    copies: dict[Family, int]
    errors: int
    last_error: str | None


class FrrMode:
    """The neighbour behind the tunnel interface, and the rules that keep unicast out of it.

    Attributes:
        neighbor: what FRR sees of us.
        rules: None when the operator manages them.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, configuration: Configuration, tap: Tap, families: Iterable[Family]
    ) -> None:
        """Start reading the tap and set up the rules.

        Raises:
            OSError: the kernel refuses the rules.
        """
        self._configuration = configuration
        self._tap = tap
        section, gateway = configuration.frr, configuration.gateway
        former = (*gateway.tunnel_addresses, "192.0.0.8/32") if _has_ipv4(section.router_address) else ()
        use_only(tap, section.router_address, former)
        self.neighbor = TapNeighbor(loop, tap, [address.ip for address in section.neighbor_address])
        self.rules: UnicastRules | None = None
        try:
            if section.manage_rules:
                self.rules = UnicastRules(
                    loop,
                    tap.name,
                    families,
                    priority=section.rule_priority,
                    table=section.unicast_table,
                )
        except BaseException:
            self.neighbor.close()
            raise

    @property
    def open_link(self) -> OpenLink:
        """Opens links to FRR on the tunnel interface."""
        return self.neighbor.open_link

    def as_neighbor(self, interface: Interface | None) -> Interface | None:
        """The tunnel interface as it is at our end: the same link with our addresses."""
        if interface is None:
            return None
        ours = tuple(
            InterfaceAddress(address.ip, address.network.prefixlen)
            for address in self._configuration.frr.neighbor_address
        )
        return replace(interface, addresses=ours)

    def status(self) -> FrrStatus:
        """Counters and state."""
        rules = self.rules
        return FrrStatus(
            dropped=dict(self.neighbor.dropped),
            answered=self.neighbor.answered,
            copies=dict(rules.copies) if rules is not None else {},
            errors=rules.errors if rules is not None else 0,
            last_error=str(rules.last_error) if rules is not None and rules.last_error is not None else None,
        )

    def close(self) -> None:
        """Stop reading and take the rules away; to be called before the tap is closed, and safe to call twice."""
        self.neighbor.close()
        if self.rules is not None:
            self._tap.lower()  # or FRR's half-default routes would have all unicast for as long as they lead there
            self.rules.close()


def _has_ipv4(addresses: Iterable[IPv4Interface | IPv6Interface]) -> bool:
    return any(address.version == 4 for address in addresses)
