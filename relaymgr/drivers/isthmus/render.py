"""RelayIntent to the keys of the agent's configuration, and what the agent's relay cannot do."""

from __future__ import annotations

from typing import Final

from relaymgr.domain.configuration import OwnedConfiguration
from relaymgr.domain.intent import AdvertiseProtocol, RelayIntent
from relaymgr.domain.platforms import Capabilities, Capability, CapabilityMissing
from relaymgr.drivers.isthmus.document import DRAIN, Value, canonical

TUNNEL_LIMIT_MAXIMUM: Final = 1_000_000
ROBUSTNESS_MAXIMUM: Final = 7

REASONS: Final = {
    Capability.PIM_NEIGHBORS: "Isthmus: a relay joins its sources like a host and speaks no PIM",
    Capability.PIM_INTERFACES: "Isthmus: a relay joins its sources like a host and speaks no PIM; "
    "name the interface in isthmus.native_interface",
    Capability.STREAM_LIMIT: "Isthmus: the relay limits tunnels (tunnel_limit) and channels of a tunnel "
    "(igmp.group_limit), not copies as a whole",
    Capability.GROUP_POLICY: "Isthmus: the relay has no list of groups a gateway may join",
    Capability.PROTECTION_FILTER: "Isthmus: the relay limits Requests by itself; "
    "filters on UDP 2268 belong to the host's firewall",
    Capability.TUNNEL_SERVICES: "Isthmus: tunnel services are hardware of a Junos chassis",
    Capability.TRACE_OPTIONS: "Isthmus: the agent logs to the journal and has no trace files",
    Capability.ADVERTISE: "Isthmus: the agent speaks no routing protocol; "
    "the host's routing daemon announces the anycast prefix",
}
"""Why the agent cannot, as an operator reads it."""

CAPABILITIES: Final = Capabilities(frozenset(Capability) - frozenset(REASONS), REASONS)


def render(intent: RelayIntent, *, drained: bool) -> OwnedConfiguration:
    """The keys `intent` owns; a drained relay keeps its addresses and takes no new tunnels.

    Raises:
        CapabilityMissing: the intent asks for what the agent cannot do.
    """
    _refuse_what_is_missing(intent)
    values: dict[str, Value] = _addresses(intent)
    if intent.isthmus is not None and intent.isthmus.native_interface is not None:
        values["relay.interfaces"] = [intent.isthmus.native_interface]
    if intent.tunnel_limit is not None:
        if intent.tunnel_limit > TUNNEL_LIMIT_MAXIMUM:
            raise CapabilityMissing(Capability.TUNNEL_LIMIT, f"Isthmus: tunnel_limit is at most {TUNNEL_LIMIT_MAXIMUM}")
        values["relay.tunnel_limit"] = intent.tunnel_limit
    if intent.key_timeout_minutes is not None:
        values["relay.secret_rotation"] = intent.key_timeout_minutes * 60
    values |= _igmp(intent)
    scope = {*values, DRAIN}
    if drained:
        values[DRAIN] = True
    return OwnedConfiguration(tuple(sorted(scope)), canonical(values))


def _addresses(intent: RelayIntent) -> dict[str, Value]:
    families = [family for family in (intent.inet, intent.inet6) if family is not None]
    return {
        "relay.address": [str(family.local_address) for family in families],
        "relay.discovery_address": [str(family.discovery_address) for family in families],
    }


def _igmp(intent: RelayIntent) -> dict[str, Value]:
    igmp = intent.igmp
    if igmp is None:
        return {}
    values: dict[str, Value | None] = {
        "relay.query_interval": igmp.query_interval_seconds,
        "relay.query_response_interval": igmp.query_response_interval_seconds,
        "relay.robustness_variable": igmp.robustness,
        "relay.channels_per_tunnel": igmp.group_limit,
    }
    return {key: value for key, value in values.items() if value is not None}


def _refuse_what_is_missing(intent: RelayIntent) -> None:
    asked = {
        Capability.STREAM_LIMIT: intent.stream_limit is not None,
        Capability.GROUP_POLICY: intent.group_policy is not None,
        Capability.PIM_INTERFACES: bool(intent.pim_interfaces),
        Capability.PROTECTION_FILTER: intent.protection_filter is not None,
        Capability.TUNNEL_SERVICES: intent.tunnel_services is not None,
        Capability.TRACE_OPTIONS: intent.trace is not None,
        Capability.ADVERTISE: intent.advertise.protocol is not AdvertiseProtocol.NONE,
    }
    for capability, is_asked in asked.items():
        if is_asked:
            raise CapabilityMissing(capability, CAPABILITIES.reason(capability))
    igmp = intent.igmp
    if igmp is None:
        return
    wrong = {
        "version 2 (RFC 7450 carries IGMPv3 queries)": igmp.version != 3,
        "group_threshold_percent": igmp.group_threshold_percent is not None,
        "accounting (it counts each tunnel and channel always)": igmp.accounting is False,
        f"robustness above {ROBUSTNESS_MAXIMUM}": (igmp.robustness or 0) > ROBUSTNESS_MAXIMUM,
        "group_limit above 100000": (igmp.group_limit or 0) > 100_000,
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise CapabilityMissing(Capability.IGMP_PARAMETERS, f"Isthmus: the relay has no IGMP {name}")
