"""RelayIntent to the sections of IOS-XE, and what that platform cannot do.

Loopbacks, physical interfaces and their other lines belong to the operator: of them only the lines named in the scope
are owned. The tunnel interface, the access lists, the prefix list and the route-map belong to the intent as a whole.
Attaching the protection filter and the route-map stays the operator's, as does `ip multicast-routing distributed`,
`ip pim ssm` and the routing of the anycast prefix.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from relaymgr.domain.configuration import OwnedConfiguration
from relaymgr.domain.intent import AdvertiseProtocol, IosxeExtras, RelayFamily, RelayIntent
from relaymgr.domain.platforms import Capabilities, Capability, CapabilityMissing
from relaymgr.drivers import templates
from relaymgr.drivers.iosxe.running_config import BELOW, rendered

REASONS: Final = {
    Capability.AMT_IPV6: "IOS-XE: AMT tunnels run over IPv4 only",
    Capability.DEVICE_DIFF: "IOS-XE: AMT is in no YANG model, so the manager computes the difference",
    Capability.TUNNEL_LIMIT: "IOS-XE: no command that limits AMT tunnels is documented",
    Capability.STREAM_LIMIT: "IOS-XE: no command that limits AMT streams is documented",
    Capability.KEY_TIMEOUT: "IOS-XE: the life of the AMT secret cannot be configured",
    Capability.ACCOUNTING: "IOS-XE: there is no accounting of AMT",
    Capability.TUNNEL_SERVICES: "IOS-XE: tunnel services are hardware of a Junos chassis",
    Capability.TRACE_OPTIONS: "IOS-XE: tracing is a debug command, which is no configuration",
    Capability.RELAY_STATISTICS: "IOS-XE: no AMT message or error counters are documented",
}
"""Why the platform cannot, as an operator reads it."""

CAPABILITIES: Final = Capabilities(frozenset(Capability) - frozenset(REASONS), REASONS)


def render(intent: RelayIntent, *, drained: bool) -> OwnedConfiguration:
    """The sections `intent` owns; drained without the anycast address and with a policy that announces nothing.

    Raises:
        CapabilityMissing: the intent asks for what IOS-XE cannot do.
    """
    _refuse_what_is_missing(intent)
    assert isinstance(intent.inet, RelayFamily)
    extras = intent.iosxe or IosxeExtras()
    family = intent.inet
    text = templates.render(
        "iosxe/relay.j2",
        drained=drained,
        extras=extras,
        local_address=family.local_address,
        anycast_address=family.discovery_address,
        anycast_mask=_anycast_mask(family),
        anycast_prefix=family.anycast_prefix,
        tunnel_mask=IPv4Network((0, extras.tunnel_prefix_length)).netmask,
        igmp=intent.igmp,
        group_policy=intent.group_policy,
        protection_filter=intent.protection_filter,
        pim_interfaces=intent.pim_interfaces,
        advertise=None if intent.advertise.protocol is AdvertiseProtocol.NONE else intent.advertise,
        destination=_destination,
    )
    return rendered(text, _scope(intent, extras))


def _scope(intent: RelayIntent, extras: IosxeExtras) -> tuple[str, ...]:
    scope = [
        f"interface {extras.tunnel_interface}",
        f"interface {extras.local_loopback}{BELOW}ip address",
        f"interface {extras.anycast_loopback}{BELOW}ip address",
    ]
    scope += [
        f"ip access-list extended {part.name}" for part in (intent.group_policy, intent.protection_filter) if part
    ]
    if intent.advertise.protocol is not AdvertiseProtocol.NONE:
        scope += [f"ip prefix-list {intent.advertise.policy}", f"route-map {intent.advertise.policy}"]
    for interface in intent.pim_interfaces:
        scope.append(f"interface {interface.name}{BELOW}ip pim sparse-mode")
        if interface.hello_interval_seconds is not None:
            scope.append(f"interface {interface.name}{BELOW}ip pim query-interval")
        if interface.priority is not None:
            scope.append(f"interface {interface.name}{BELOW}ip pim dr-priority")
    return tuple(sorted(scope))


def _anycast_mask(family: RelayFamily) -> IPv4Address:
    """The prefix's own mask, so that the prefix comes and goes with the address; a host's where the address is none."""
    prefix, address = family.anycast_prefix, family.discovery_address
    assert isinstance(prefix, IPv4Network)
    is_host = prefix.prefixlen >= 31 or address not in {prefix.network_address, prefix.broadcast_address}
    return prefix.netmask if is_host else IPv4Address("255.255.255.255")


def _destination(network: IPv4Network) -> str:
    """An access list's way to write a prefix."""
    if network.prefixlen == 32:
        return f"host {network.network_address}"
    if network.prefixlen == 0:
        return "any"
    return f"{network.network_address} {network.hostmask}"


def _refuse_what_is_missing(intent: RelayIntent) -> None:
    if intent.inet is None or intent.inet6 is not None:
        raise CapabilityMissing(Capability.AMT_IPV6, CAPABILITIES.reason(Capability.AMT_IPV6))
    asked = {
        Capability.TUNNEL_LIMIT: intent.tunnel_limit is not None,
        Capability.STREAM_LIMIT: intent.stream_limit is not None,
        Capability.KEY_TIMEOUT: intent.key_timeout_minutes is not None,
        Capability.ACCOUNTING: intent.accounting,
        Capability.TUNNEL_SERVICES: intent.tunnel_services is not None,
        Capability.TRACE_OPTIONS: intent.trace is not None,
    }
    for capability, is_asked in asked.items():
        if is_asked:
            raise CapabilityMissing(capability, CAPABILITIES.reason(capability))
    _refuse_igmp(intent)
    _refuse_lists(intent)


def _refuse_igmp(intent: RelayIntent) -> None:
    igmp = intent.igmp
    if igmp is None:
        return
    wrong = {
        "AMT is source-specific only, which takes IGMP version 3": igmp.version != 3,
        "the robustness variable cannot be configured": igmp.robustness is not None,
        "there is no threshold of igmp.group_limit": igmp.group_threshold_percent is not None,
        "there is no IGMP accounting": bool(igmp.accounting),
        "the query response interval is at most 25 s": (igmp.query_response_interval_seconds or 0) > 25,
    }
    for reason, is_wrong in wrong.items():
        if is_wrong:
            raise CapabilityMissing(Capability.IGMP_PARAMETERS, f"IOS-XE: {reason}")


def _refuse_lists(intent: RelayIntent) -> None:
    policy, protection = intent.group_policy, intent.protection_filter
    if policy is not None and _has_ipv6(policy.permit):
        raise CapabilityMissing(Capability.GROUP_POLICY, "IOS-XE: groups of an AMT tunnel are IPv4")
    if protection is None:
        return
    if _has_ipv6(protection.permit_from):
        raise CapabilityMissing(Capability.PROTECTION_FILTER, "IOS-XE: AMT tunnels run over IPv4 only")
    if protection.rate_kbps is not None:
        raise CapabilityMissing(
            Capability.PROTECTION_FILTER,
            "IOS-XE: a rate takes control-plane policing, which is one policy of the whole router and stays the "
            "operator's; leave protection_filter.rate_kbps out",
        )
    if policy is not None and policy.name == protection.name:
        raise CapabilityMissing(
            Capability.PROTECTION_FILTER,
            "IOS-XE: group_policy and protection_filter are both access lists; they need different names",
        )


def _has_ipv6(values: tuple[IPv4Network | IPv6Network | IPv4Address | IPv6Address, ...]) -> bool:
    return any(value.version == 6 for value in values)
