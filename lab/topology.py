"""The one place that knows the lab's names and addresses.

    source --native LAN-- relay --uplink-- internet --uplink-- border --downstream LANs-- router -- receivers

The Internet forwards unicast only. The router is a layer-2 switch that never snoops, so that a join reaches the border
as the receiver sent it. With `routed`, the domain has that many routers in a row between the border's first downstream
LAN and the receivers, and the switch is a namespace of its own; with `borders=2`, a second border with an uplink of its
own sits on that LAN:

    border ---+-- LAN 0 -- router -- LAN 201 -- router2 -- LAN 202 -- receivers
    border2 --+

A topology's prefix names its namespaces, and topologies of different prefixes never meet:
each uses the same addresses in namespaces of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Final

DEFAULT_PREFIX: Final = "isl"
AMT_PORT: Final = 2268  # RFC 7450 §7.2
PAYLOAD_PORT: Final = 5004
SSM_GROUP_IPV4: Final = "232.1.1.1"
NUMBERED_GROUP_IPV4: Final = "232.1.1.2"
SSM_GROUP_IPV6: Final = "ff3e::8000:1"
ASM_GROUP_IPV4: Final = "239.1.1.1"
ASM_GROUP_IPV6: Final = "ff15::1:1"

RELAY_NATIVE: Final = "native0"
RELAY_UPLINK: Final = "up0"
BORDER_UPLINK: Final = "up0"
HOST_INTERFACE: Final = "eth0"  # of the source and of every receiver
ROUTER_UPSTREAM: Final = "up0"
ROUTER_DOWNSTREAM: Final = "down0"
EXTERNAL_PREFIXES: Final = ("198.51.100.0/24", "2001:db8:51::/64")  # where the sources are
DOMAIN_PREFIXES: Final = ("10.20.0.0/16", "2001:db8:d::/48")
_ROUTED_LANS: Final = 200  # LAN 200 + n is the one below the domain's router n


@dataclass(frozen=True, slots=True)
class Address:
    """An interface's IPv4 and IPv6 address, each with its prefix length."""

    with_prefix_ipv4: str
    with_prefix_ipv6: str

    @property
    def ipv4(self) -> IPv4Address:
        """The IPv4 address alone."""
        return IPv4Interface(self.with_prefix_ipv4).ip

    @property
    def ipv6(self) -> IPv6Address:
        """The IPv6 address alone."""
        return IPv6Interface(self.with_prefix_ipv6).ip

    def of(self, family: int) -> IPv4Address | IPv6Address:
        """The address of IP version `family` (4 or 6)."""
        return self.ipv4 if family == 4 else self.ipv6


SOURCE: Final = Address("198.51.100.10/24", "2001:db8:51::10/64")
RELAY_NATIVE_ADDRESS: Final = Address("198.51.100.1/24", "2001:db8:51::1/64")
RELAY: Final = Address("192.0.2.1/25", "2001:db8:a::1/64")
FAULTY_RELAY: Final = Address("192.0.2.2/25", "2001:db8:a::2/64")  # where the fault proxy answers, beside the relay
STRANGER: Final = Address("192.0.2.3/25", "2001:db8:a::3/64")  # "another address" of the fault of that name
DISCOVERY: Final = Address("192.52.193.1/32", "2001:3::1/128")  # anycast, RFC 7450 §7.1
INTERNET_RELAY_SIDE: Final = Address("192.0.2.126/25", "2001:db8:a::fe/64")
INTERNET_BORDER_SIDE: Final = Address("203.0.113.254/24", "2001:db8:b::fe/64")
BORDER: Final = Address("203.0.113.1/24", "2001:db8:b::1/64")
TRANSLATED: Final = "192.0.2.120"  # what the relay sees of the border behind address translation
SECOND_BORDER: Final = Address("192.0.2.129/25", "2001:db8:c::1/64")
INTERNET_SECOND_BORDER_SIDE: Final = Address("192.0.2.254/25", "2001:db8:c::fe/64")
SECOND_BORDER_DOWNSTREAM: Final = Address("10.20.0.2/24", "2001:db8:d::2/64")  # on LAN 0
GUEST: Final = Address("198.18.0.2/24", "2001:db8:18::2/64")  # the User Mode Linux guest on its tap
GUEST_GATEWAY: Final = Address("198.18.0.1/24", "2001:db8:18::1/64")


def downstream(index: int) -> str:
    """Name of the border's downstream interface `index`."""
    return f"down{index}"


def border_downstream(index: int) -> Address:
    """The border's address on downstream LAN `index`."""
    return Address(f"10.20.{index}.1/24", f"2001:db8:d:{index:x}::1/64")


def lan_below(index: int) -> int:
    """Number of the LAN below the domain's router `index`, from 1."""
    return _ROUTED_LANS + index


def router_upstream(index: int) -> Address:
    """Address of the domain's router `index`, from 1, on the LAN above it."""
    lan = 0 if index == 1 else lan_below(index - 1)
    return Address(f"10.20.{lan}.254/24", f"2001:db8:d:{lan:x}::fe/64")


def router_downstream(index: int) -> Address:
    """Address of the domain's router `index`, from 1, on the LAN below it."""
    return border_downstream(lan_below(index))


@dataclass(frozen=True, slots=True)
class Topology:
    """Sizes and names of one lab.

    Attributes:
        prefix: starts every namespace's name; no two running topologies share one.
        downstreams: downstream LANs of the border, 1 to 200.
        receivers: receiver namespaces; receiver `i` sits on LAN `i % downstreams`.
        native_mtu: MTU of the source's LAN, in bytes.
        uplink_mtu: MTU of both uplinks, in bytes.
        downstream_mtu: MTU of the downstream LANs, in bytes.
        translate: the Internet translates the border's IPv4 address and port (RFC 3022).
        routed: routers in a row behind LAN 0, 0 to 20; receivers of that LAN sit behind the last one.
        borders: 1, or 2 for a second border on LAN 0.
        takes_redirected: ports of the domain's switch take frames that XDP redirects to the border's ends of them.
    """

    prefix: str = DEFAULT_PREFIX
    downstreams: int = 1
    receivers: int = 1
    native_mtu: int = 1500
    uplink_mtu: int = 1500
    downstream_mtu: int = 1500
    translate: bool = False
    routed: int = 0
    borders: int = 1
    takes_redirected: bool = True

    def __post_init__(self) -> None:
        """Refuse sizes the addresses have no room for."""
        if not 1 <= self.downstreams <= 200 or not 0 <= self.receivers <= 200:
            raise ValueError("a lab has 1 to 200 downstream LANs and at most 200 receivers")
        if not 0 <= self.routed <= 20 or self.borders not in {1, 2}:
            raise ValueError("a lab has at most 20 routers and one or two borders")

    @property
    def source(self) -> str:
        """Namespace of the multicast source."""
        return f"{self.prefix}-source"

    @property
    def relay(self) -> str:
        """Namespace of the relay."""
        return f"{self.prefix}-relay"

    @property
    def internet(self) -> str:
        """Namespace of the unicast-only Internet."""
        return f"{self.prefix}-internet"

    @property
    def border(self) -> str:
        """Namespace of the border router the agent runs on."""
        return f"{self.prefix}-border"

    @property
    def second_border(self) -> str:
        """Namespace of the other border router; there with `borders=2`."""
        return f"{self.prefix}-border2"

    @property
    def router(self) -> str:
        """Namespace of the domain's first router, or of its switch where nothing is routed."""
        return f"{self.prefix}-router"

    def routers(self) -> list[str]:
        """Namespaces of the domain's routers, from the border to the receivers."""
        return [self.router if index == 1 else f"{self.router}{index}" for index in range(1, self.routed + 1)]

    @property
    def switch(self) -> str:
        """Namespace of the domain's switch."""
        return f"{self.prefix}-switch" if self.routed else self.router

    def receiver(self, index: int = 0) -> str:
        """Namespace of receiver `index`."""
        return f"{self.prefix}-receiver" if index == 0 else f"{self.prefix}-receiver{index + 1}"

    def receiver_lan(self, index: int) -> int:
        """The LAN receiver `index` sits on: one of the border's, or the one below the last router."""
        lan = index % self.downstreams
        return lan_below(self.routed) if self.routed and lan == 0 else lan

    def receiver_address(self, index: int = 0) -> Address:
        """Addresses of receiver `index`."""
        lan = self.receiver_lan(index)
        return Address(f"10.20.{lan}.{10 + index}/24", f"2001:db8:d:{lan:x}::{10 + index:x}/64")

    @property
    def downstream_interfaces(self) -> list[str]:
        """Names of the border's downstream interfaces."""
        return [downstream(index) for index in range(self.downstreams)]

    @property
    def namespaces(self) -> list[str]:
        """Every namespace, in the order they are made."""
        fixed = [self.source, self.relay, self.internet, self.border, self.switch, *self.routers()]
        if self.borders == 2:
            fixed.append(self.second_border)
        return fixed + [self.receiver(index) for index in range(self.receivers)]
