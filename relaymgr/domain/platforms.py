"""The platforms the manager knows, and what a device of each can be asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Platform(StrEnum):
    """A kind of relay; one driver each."""

    JUNOS = "junos"
    IOSXE = "iosxe"
    IOS = "ios"
    ISTHMUS = "isthmus"


class Capability(StrEnum):
    """Something a platform or a device either can do or cannot. The value is what an error names."""

    AMT_IPV4 = "amt-ipv4"
    AMT_IPV6 = "amt-ipv6"
    CONFIRMED_COMMIT = "confirmed-commit"
    """The device itself takes back a change that nobody confirmed."""
    DEVICE_DIFF = "device-diff"
    """The device computes the difference a candidate makes."""
    TUNNEL_LIST = "tunnel-list"
    """Gateways are listed with address and port."""
    TUNNEL_STATISTICS = "tunnel-statistics"
    """Counters for each tunnel."""
    CHANNEL_LIST = "channel-list"
    PIM_NEIGHBORS = "pim-neighbors"
    RELAY_STATISTICS = "relay-statistics"
    """AMT message and error counters of the relay as a whole."""
    TUNNEL_LIMIT = "tunnel-limit"
    STREAM_LIMIT = "stream-limit"
    KEY_TIMEOUT = "key-timeout"
    ACCOUNTING = "accounting"
    IGMP_PARAMETERS = "igmp-parameters"
    GROUP_POLICY = "group-policy"
    PIM_INTERFACES = "pim-interfaces"
    PROTECTION_FILTER = "protection-filter"
    TUNNEL_SERVICES = "tunnel-services"
    TRACE_OPTIONS = "trace-options"
    ADVERTISE = "advertise"
    DRAIN = "drain"
    BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can be asked for, and for what it cannot the reason an operator reads."""

    supported: frozenset[Capability]
    reasons: dict[Capability, str] = field(default_factory=dict)

    def reason(self, capability: Capability) -> str:
        """Why `capability` is missing, as one sentence."""
        return self.reasons.get(capability, f"{capability} is not available on this platform")


class CapabilityMissing(Exception):
    """A device is asked for what it cannot do; raised before anything is touched. The API answers 422."""

    def __init__(self, capability: Capability, reason: str) -> None:
        super().__init__(reason)
        self.capability = capability
        self.reason = reason
