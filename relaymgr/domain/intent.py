"""RelayIntent: what an operator wants of one relay, the same for every vendor.

Addresses and prefixes are checked here, because the vendors' models do not (Juniper's YANG types them as strings).
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

PolicyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
InterfaceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9/.:_-]{0,63}$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RelayFamily(_Section):
    """Addresses of the relay in one IP family."""

    anycast_prefix: IPv4Network | IPv6Network = Field(examples=["192.0.2.0/24"])
    """Prefix under which gateways find some relay (RFC 7450 section 4.1.4); announced by `advertise`."""
    anycast_address: IPv4Address | IPv6Address | None = Field(default=None, examples=["192.0.2.1"])
    """Address inside the prefix that this relay answers on; the prefix's first host address when absent."""
    local_address: IPv4Address | IPv6Address = Field(examples=["198.51.100.7"])
    """Unicast address that tunnels are made to; never withdrawn by a drain. Outside the anycast prefix."""

    @property
    def discovery_address(self) -> IPv4Address | IPv6Address:
        """The anycast address in force."""
        if self.anycast_address is not None:
            return self.anycast_address
        prefix = self.anycast_prefix
        return prefix.network_address if prefix.num_addresses == 1 else prefix.network_address + 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.local_address.version != self.anycast_prefix.version:
            raise ValueError("local_address and anycast_prefix are of different IP versions")
        for name, address in (("local_address", self.local_address), ("anycast_address", self.discovery_address)):
            if address.is_multicast or address.is_unspecified or address.is_loopback:
                raise ValueError(f"{name} {address} is not a unicast address a gateway can reach")
        if self.discovery_address not in self.anycast_prefix:
            raise ValueError(f"anycast_address {self.discovery_address} lies outside {self.anycast_prefix}")
        if self.local_address in self.anycast_prefix:
            raise ValueError(
                f"local_address {self.local_address} lies inside {self.anycast_prefix}; a drain would cut tunnels"
            )
        return self


class AdvertiseProtocol(StrEnum):
    """Routing protocol that carries the anycast prefix; NONE leaves it to the operator."""

    NONE = "none"
    BGP = "bgp"
    OSPF = "ospf"
    ISIS = "isis"


class Advertise(_Section):
    """How the anycast prefix is announced."""

    protocol: AdvertiseProtocol = AdvertiseProtocol.NONE
    """Who carries the prefix; `none` leaves it to the operator."""
    policy: PolicyName | None = None
    """Name of the export policy (Junos) or route-map (IOS-XE) that Isthmus owns; required unless `protocol` is none."""
    group: PolicyName | None = None
    """BGP group (Junos) the policy is for. Isthmus writes the policy; attaching it stays the operator's."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.protocol is not AdvertiseProtocol.NONE and self.policy is None:
            raise ValueError("advertise.policy is required with a routing protocol")
        return self


class IgmpParameters(_Section):
    """IGMP on AMT tunnels (RFC 3376 section 8)."""

    version: Literal[2, 3] = 3
    """Version of IGMP on the tunnels; 2 has no sources."""
    query_interval_seconds: int | None = Field(default=None, ge=1, le=1024)
    """Seconds between two General Queries."""
    query_response_interval_seconds: int | None = Field(default=None, ge=1, le=1024)
    """Seconds within which hosts answer."""
    robustness: int | None = Field(default=None, ge=2, le=10)
    """How many losses in a row are made up for, plus one."""
    group_limit: int | None = Field(default=None, ge=1, le=32767)
    """Groups on one tunnel at most."""
    group_threshold_percent: int | None = Field(default=None, ge=1, le=100)
    """Percent of `group_limit` from which on the device warns."""
    accounting: bool | None = None
    """Whether joins and leaves are recorded on the device."""

    @model_validator(mode="after")
    def _interval(self) -> Self:
        query, response = self.query_interval_seconds, self.query_response_interval_seconds
        if query is not None and response is not None and response >= query:
            raise ValueError(
                "query_response_interval_seconds must be below query_interval_seconds (RFC 3376 section 8.3)"
            )
        return self


class GroupPolicy(_Section):
    """Which groups gateways may join; everything else is refused."""

    name: PolicyName
    """Name of the policy or access list that Isthmus owns."""
    permit: tuple[IPv4Network | IPv6Network, ...] = Field(min_length=1, max_length=512)
    """Multicast prefixes gateways may join."""

    @model_validator(mode="after")
    def _multicast(self) -> Self:
        for network in self.permit:
            if not network.is_multicast:
                raise ValueError(f"{network} is not a multicast prefix")
        return self


class PimInterface(_Section):
    """An interface that runs PIM sparse mode towards the core."""

    name: InterfaceName
    """Name of the interface on the device."""
    hello_interval_seconds: int | None = Field(default=None, ge=1, le=255)
    """Seconds between two Hellos."""
    priority: int | None = Field(default=None, ge=0, le=4294967295)
    """DR priority."""


class ProtectionFilter(_Section):
    """Admits UDP 2268 to the relay's addresses, at a bounded rate."""

    name: PolicyName
    """Name of the filter or access list that Isthmus owns."""
    rate_kbps: int | None = Field(default=None, ge=32, le=100_000_000)
    """Discovery and Request traffic admitted, kbit/s; unbounded when absent."""
    permit_from: tuple[IPv4Network | IPv6Network, ...] = Field(default=(), max_length=512)
    """Gateways' prefixes; everyone when empty."""


class TunnelServices(_Section):
    """Chassis tunnel services (Junos); slots are given, never guessed."""

    fpc: int = Field(ge=0, le=255)
    """Slot of the line card."""
    pic: int = Field(ge=0, le=255)
    """Slot of the PIC."""
    bandwidth_gbps: Literal[1, 10, 20, 40, 100]
    """Bandwidth set aside for tunnels, Gbit/s."""


class TraceFlag(StrEnum):
    """What the relay traces."""

    PACKETS = "packets"
    ERRORS = "errors"
    TUNNELS = "tunnels"
    STATE = "state"
    ALL = "all"


class TraceOptions(_Section):
    """Tracing of AMT on the device."""

    file: PolicyName
    """Name of the trace file on the device."""
    size_bytes: int = Field(default=10_485_760, ge=10_240, le=1_073_741_824)
    """Bytes of one file at most."""
    files: int = Field(default=3, ge=2, le=1000)
    """Files kept."""
    flags: tuple[TraceFlag, ...] = Field(default=(TraceFlag.ERRORS,), min_length=1)
    """What is traced."""


class JunosExtras(_Section):
    """What only Junos knows."""

    tunnel_devices: tuple[Annotated[str, StringConstraints(pattern=r"^ud-\d+/\d+/\d+$")], ...] = ()
    """Tunnel interfaces to use, in this order; the device's own choice when empty."""
    loopback_unit: int = Field(default=0, ge=0, le=16384)
    """Unit of lo0 that holds the local and the anycast address, next to what the operator has there: Junos takes one
    unit of lo0 for each routing instance, and AMT runs in one. They are two /32s; a drain takes the anycast one alone
    and cuts no tunnel. With `routing_instance` the unit in that instance, which is not 0. The router's own address on
    the unit shall be marked `primary`: a plan that would make another one speak for the router is refused."""
    routing_instance: PolicyName | None = None
    """Routing instance the relay runs in; the default one when absent."""
    ssm_map_policy: PolicyName | None = None
    """Policy that maps groups of IGMPv2 to sources."""

    @model_validator(mode="after")
    def _of_one_instance(self) -> Self:
        if self.routing_instance is not None and self.loopback_unit == 0:
            raise ValueError("a routing_instance needs a loopback_unit of its own; 0 is the main instance's")
        return self


class IosxeExtras(_Section):
    """What only IOS-XE knows."""

    tunnel_interface: Annotated[str, StringConstraints(pattern=r"^Tunnel\d{1,10}$")] = "Tunnel2268"
    """The multipoint tunnel interface that Isthmus owns."""
    tunnel_address: IPv4Address | None = None
    """Address of the multipoint tunnel interface itself; with `tunnel_prefix_length`."""
    tunnel_prefix_length: int = Field(default=24, ge=8, le=30)
    """Prefix length of `tunnel_address`, bits."""
    local_loopback: Annotated[str, StringConstraints(pattern=r"^Loopback\d{1,10}$")] = "Loopback2268"
    """Loopback that holds the local address."""
    anycast_loopback: Annotated[str, StringConstraints(pattern=r"^Loopback\d{1,10}$")] = "Loopback2269"
    """Loopback that holds the anycast address and nothing else."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.local_loopback == self.anycast_loopback:
            raise ValueError(
                "local_loopback and anycast_loopback must differ; one shared loopback would cut tunnels on a drain"
            )
        return self


class IsthmusExtras(_Section):
    """What only our own relay knows."""

    native_interface: InterfaceName | None = None
    """Interface the relay joins natively on; the agent's own choice when absent."""


class RelayIntent(_Section):
    """What one relay shall be. A missing optional element is the device's default, and Isthmus then leaves it alone."""

    inet: RelayFamily | None = None
    """AMT over IPv4."""
    inet6: RelayFamily | None = None
    """AMT over IPv6, where the platform has it."""
    tunnel_limit: int | None = Field(default=None, ge=1, le=4294967295)
    """Tunnels at most."""
    stream_limit: int | None = Field(default=None, ge=1, le=4294967295)
    """Unicast copies of channels at most."""
    key_timeout_minutes: int | None = Field(default=None, ge=5, le=1440)
    """Life of the secret the Response MAC is made with (RFC 7450 section 5.3.5)."""
    accounting: bool = False
    """Whether the device counts for each tunnel."""
    igmp: IgmpParameters | None = None
    """IGMP on the tunnels."""
    group_policy: GroupPolicy | None = None
    """Which groups gateways may join; every one when absent."""
    pim_interfaces: tuple[PimInterface, ...] = Field(default=(), max_length=256)
    """Interfaces that run PIM towards the core; those not named are left alone."""
    protection_filter: ProtectionFilter | None = None
    """Filter for UDP 2268."""
    tunnel_services: TunnelServices | None = None
    """Chassis tunnel services (Junos)."""
    trace: TraceOptions | None = None
    """Tracing of AMT on the device."""
    advertise: Advertise = Advertise()
    """How the anycast prefix is announced, so that gateways find the relay."""
    junos: JunosExtras | None = None
    """What only Junos knows."""
    iosxe: IosxeExtras | None = None
    """What only IOS-XE knows."""
    isthmus: IsthmusExtras | None = None
    """What only our own relay knows."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.inet is None and self.inet6 is None:
            raise ValueError("at least one of inet and inet6 is required")
        for name, family, version in (("inet", self.inet, 4), ("inet6", self.inet6, 6)):
            if family is not None and family.local_address.version != version:
                raise ValueError(f"{name} holds IPv{family.local_address.version} addresses")
        names = [interface.name for interface in self.pim_interfaces]
        if len(set(names)) != len(names):
            raise ValueError("an interface is named twice in pim_interfaces")
        return self
