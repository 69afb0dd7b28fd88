"""Addresses, channels and source filters: the nouns every protocol machine shares.

A channel is (S,G) or, with no source, (*,G). A filter is the pair of filter mode and source list that RFC 3376 §3.2 and
RFC 3810 §4.2 attach to a group; INCLUDE of nothing means "not wanted".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_LINK_LOCAL_IPV4: Final = IPv4Network("224.0.0.0/24")  # RFC 5771 §4, never forwarded
_AUTO_RP: Final = frozenset({int(IPv4Address("224.0.1.39")), int(IPv4Address("224.0.1.40"))})
"""Where Cisco's routers, and FRR 10, look for rendezvous points of their own domain, unasked and on every interface."""
_SSM_IPV4: Final = IPv4Network("232.0.0.0/8")  # RFC 4607 §1
_SSM_IPV6: Final = (0xFF30_0000 << 96, 0xFFF0_FFFF << 96)  # ff3x::/32, value and mask


class Family(IntEnum):
    """IP version; the value is the version number on the wire."""

    IPV4 = 4
    IPV6 = 6

    @classmethod
    def of(cls, address: Address) -> Family:
        """Family of an address."""
        return cls.IPV4 if address.version == 4 else cls.IPV6


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A UDP address and port."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP payload to send; `source` is the local address to send from, or None to let the kernel choose."""

    data: bytes
    destination: Endpoint
    source: Address | None = None


@dataclass(frozen=True, slots=True)
class Channel:
    """(S,G), or (*,G) when `source` is None."""

    source: Address | None
    group: Address

    @classmethod
    def parse(cls, source: str, group: str) -> Channel:
        """Channel from text; `source` may be `*`.

        Raises:
            ValueError: not addresses, not one family, or not a multicast group.
        """
        parsed_group = ip_address(group)
        parsed_source = None if source == "*" else ip_address(source)
        if not parsed_group.is_multicast:
            raise ValueError(f"{group} is not a multicast group")
        if parsed_source is not None:
            if parsed_source.version != parsed_group.version:
                raise ValueError(f"{source} and {group} are of different families")
            if not is_unicast(parsed_source):
                raise ValueError(f"{source} is not a unicast source")
        return cls(parsed_source, parsed_group)

    @property
    def family(self) -> Family:
        """Family of the group."""
        return Family.of(self.group)

    def __str__(self) -> str:
        return f"({self.source if self.source is not None else '*'},{self.group})"


class FilterMode(Enum):
    """Filter mode of a group (RFC 3376 §3.2, RFC 3810 §4.2)."""

    INCLUDE = "include"
    EXCLUDE = "exclude"


@dataclass(frozen=True, slots=True)
class Filter:
    """Filter mode and source list of one group."""

    mode: FilterMode
    sources: frozenset[Address]

    @classmethod
    def include(cls, sources: Iterable[Address] = ()) -> Filter:
        """Only these sources."""
        return cls(FilterMode.INCLUDE, frozenset(sources))

    @classmethod
    def exclude(cls, sources: Iterable[Address] = ()) -> Filter:
        """Every source but these."""
        return cls(FilterMode.EXCLUDE, frozenset(sources))

    @property
    def wants_nothing(self) -> bool:
        """True for INCLUDE of no source, which is how a leave looks."""
        return self.mode is FilterMode.INCLUDE and not self.sources

    def admits(self, source: Address) -> bool:
        """Whether traffic of `source` passes."""
        return (source in self.sources) is (self.mode is FilterMode.INCLUDE)


NOTHING: Final = Filter.include()


def merge_filters(filters: Iterable[Filter]) -> Filter:
    """The least filter that admits whatever any of `filters` admits (RFC 3376 §3.2, RFC 4605 §4.1)."""
    included: set[Address] = set()
    excluded: frozenset[Address] | None = None
    for item in filters:
        if item.mode is FilterMode.INCLUDE:
            included |= item.sources
        else:
            excluded = item.sources if excluded is None else excluded & item.sources
    if excluded is None:
        return Filter.include(included)
    return Filter.exclude(excluded - included)


def is_unicast(address: Address) -> bool:
    """Whether an address can be the source of a routed packet: not multicast, unspecified, loopback or broadcast."""
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        return False
    return not (address.version == 4 and (int(address) >> 28) == 0xF)


def is_forwardable_group(group: Address) -> bool:
    """Whether a group may cross the border: multicast beyond link-local scope (RFC 5771 §4, RFC 4291 §2.7).

    Auto-RP's two groups may not: what routers announce there is meant for one domain.
    """
    if not group.is_multicast:
        return False
    if isinstance(group, IPv4Address):
        return group not in _LINK_LOCAL_IPV4 and int(group) not in _AUTO_RP
    return (int(group) >> 112) & 0xF > 2


def is_ssm_group(group: Address) -> bool:
    """Whether a group lies in the source-specific range (RFC 4607 §1: 232/8, ff3x::/32)."""
    if isinstance(group, IPv4Address):
        return group in _SSM_IPV4
    value, mask = _SSM_IPV6
    return int(group) & mask == value
