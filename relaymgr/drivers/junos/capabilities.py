"""What a Junos relay can be asked for."""

from __future__ import annotations

from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import Capabilities, Capability, CapabilityMissing

_NO_IPV6 = "Junos has AMT for IPv4 only: protocols amt relay family knows inet and no inet6"
CAPABILITIES = Capabilities(frozenset(Capability) - {Capability.AMT_IPV6}, {Capability.AMT_IPV6: _NO_IPV6})


def check(intent: RelayIntent) -> None:
    """Raise CapabilityMissing for what `intent` asks of Junos in vain."""
    if intent.inet6 is not None:
        raise CapabilityMissing(Capability.AMT_IPV6, f"{_NO_IPV6}; remove inet6 from the intent")
    if intent.inet is None:
        raise CapabilityMissing(Capability.AMT_IPV6, f"{_NO_IPV6}; the intent has no inet")
    if intent.group_policy is not None and any(network.version == 6 for network in intent.group_policy.permit):
        raise CapabilityMissing(Capability.AMT_IPV6, f"{_NO_IPV6}; group_policy.permit names IPv6 groups")
    admitted = intent.protection_filter.permit_from if intent.protection_filter is not None else ()
    if any(network.version == 6 for network in admitted):
        raise CapabilityMissing(Capability.AMT_IPV6, f"{_NO_IPV6}; protection_filter.permit_from names IPv6 prefixes")
