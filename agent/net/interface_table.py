"""Network interfaces as a table built from rtnetlink messages, and the differences between two states of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

from agent.protocol.channels import Address, Family, Network

RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21

_AF_UNSPEC: Final = 0  # links of other families are bridge ports and protocol settings, not interfaces
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_IFF_POINTOPOINT: Final = 0x10
_IFF_RUNNING: Final = 0x40
_IFF_MULTICAST: Final = 0x1000
_IFF_LOWER_UP: Final = 0x10000
_IFF_USABLE: Final = _IFF_UP | _IFF_RUNNING | _IFF_LOWER_UP  # a new device runs before its missing carrier is noticed
_IFA_F_DADFAILED: Final = 0x08
_IFA_F_DEPRECATED: Final = 0x20
_IFA_F_TENTATIVE: Final = 0x40


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address of an interface.

    Attributes:
        address: the address.
        prefix_length: length of its prefix, in bits.
        tentative: duplicate address detection has not finished, or has failed: not to be used as a source.
        deprecated: no longer to be chosen for new communication.
    """

    address: Address
    prefix_length: int
    tentative: bool = False
    deprecated: bool = False

    @property
    def network(self) -> Network:
        """The prefix the address lies in."""
        return ip_network((self.address, self.prefix_length), strict=False)


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface.

    Attributes:
        name: name, which may change.
        index: ifindex, which never changes and is not used again soon.
        up: administratively up and able to pass packets.
        administratively_up: what `ip link set up` asked for.
        mtu: bytes of the largest IP packet.
        mac: link-layer address, empty where there is none.
        multicast: the device supports multicast.
        loopback: it is `lo` or a device like it.
        point_to_point: no link-layer addresses (tun, ppp).
        addresses: sorted, link-local and tentative ones included.
    """

    name: str
    index: int
    up: bool = False
    administratively_up: bool = False
    mtu: int = 1500
    mac: bytes = b""
    multicast: bool = True
    loopback: bool = False
    point_to_point: bool = False
    addresses: tuple[InterfaceAddress, ...] = ()

    def ipv4_address(self) -> IPv4Address | None:
        """The lowest IPv4 address, or None."""
        return next((item.address for item in self.addresses if isinstance(item.address, IPv4Address)), None)

    def ipv6_link_local(self) -> IPv6Address | None:
        """The lowest IPv6 link-local address that finished duplicate address detection, or None."""
        for item in self.addresses:
            if isinstance(item.address, IPv6Address) and item.address.is_link_local and not item.tentative:
                return item.address
        return None

    def querier_address(self, family: Family) -> Address | None:
        """The source of IGMP or MLD queries on this interface (RFC 3376 §4.1.12, RFC 3810 §5.1.14), or None."""
        return self.ipv4_address() if family is Family.IPV4 else self.ipv6_link_local()


class ChangeKind(Enum):
    """What happened to an interface."""

    ADDED = "added"
    REMOVED = "removed"
    RENAMED = "renamed"
    UP = "up"
    DOWN = "down"
    ADDRESSES = "addresses"
    PROPERTIES = "properties"  # MTU, MAC address or flags


@dataclass(frozen=True, slots=True)
class InterfaceChange:
    """One change of one interface.

    A device that was replaced by another of the same name is a REMOVED and an ADDED with different indexes.

    Attributes:
        kind: what happened.
        interface: the interface after the change, or what it was before its removal.
        previous: the interface before the change, None when it was added.
    """

    kind: ChangeKind
    interface: Interface
    previous: Interface | None


class InterfaceTable:
    """Links and addresses by ifindex, fed with decoded rtnetlink messages in the order the kernel sent them."""

    def __init__(self) -> None:
        self._links: dict[int, Interface] = {}
        self._addresses: dict[int, dict[tuple[Address, int], InterfaceAddress]] = {}
        self._built: dict[int, Interface] = {}  # with addresses, without those that changed since

    def apply(self, message: Mapping[str, Any]) -> None:
        """Take over one message; those of other types or families are ignored."""
        kind = message["header"]["type"]
        if kind in {RTM_NEWLINK, RTM_DELLINK}:
            self._apply_link(message, removed=kind == RTM_DELLINK)
        elif kind in {RTM_NEWADDR, RTM_DELADDR}:
            self._apply_address(message, removed=kind == RTM_DELADDR)

    def interfaces(self) -> dict[int, Interface]:
        """Every interface with its addresses, by ifindex."""
        for index, link in self._links.items():
            if index not in self._built:
                self._built[index] = self._with_addresses(link)
        return dict(self._built)

    def _with_addresses(self, link: Interface) -> Interface:
        addresses = self._addresses.get(link.index, {}).values()
        return replace(link, addresses=tuple(sorted(addresses, key=lambda item: (item.address.version, item.address))))

    def _apply_link(self, message: Mapping[str, Any], *, removed: bool) -> None:
        if message["family"] != _AF_UNSPEC:
            return
        index, flags = message["index"], message["flags"]
        self._built.pop(index, None)
        if removed:
            self._links.pop(index, None)
            self._addresses.pop(index, None)
            return
        attributes = dict(message["attrs"])
        self._links[index] = Interface(
            name=attributes["IFLA_IFNAME"],
            index=index,
            up=flags & _IFF_USABLE == _IFF_USABLE,
            administratively_up=bool(flags & _IFF_UP),
            mtu=attributes.get("IFLA_MTU", 1500),
            mac=_mac(attributes.get("IFLA_ADDRESS")),
            multicast=bool(flags & _IFF_MULTICAST),
            loopback=bool(flags & _IFF_LOOPBACK),
            point_to_point=bool(flags & _IFF_POINTOPOINT),
        )

    def _apply_address(self, message: Mapping[str, Any], *, removed: bool) -> None:
        attributes = dict(message["attrs"])
        text = attributes.get("IFA_LOCAL") or attributes.get("IFA_ADDRESS")  # differ on point-to-point links
        if text is None:
            return
        flags = attributes.get("IFA_FLAGS", message["flags"])
        item = InterfaceAddress(
            address=ip_address(text),
            prefix_length=message["prefixlen"],
            tentative=bool(flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED)),
            deprecated=bool(flags & _IFA_F_DEPRECATED),
        )
        self._built.pop(message["index"], None)
        of_interface = self._addresses.setdefault(message["index"], {})
        if removed:
            of_interface.pop((item.address, item.prefix_length), None)
        else:
            of_interface[item.address, item.prefix_length] = item


def differences(before: Mapping[int, Interface], after: Mapping[int, Interface]) -> Iterator[InterfaceChange]:
    """Changes between two states, removals first, so that a name is free before another device takes it."""
    for index, interface in before.items():
        if index not in after:
            yield InterfaceChange(ChangeKind.REMOVED, interface, interface)
    for index, interface in after.items():
        previous = before.get(index)
        if previous is None:
            yield InterfaceChange(ChangeKind.ADDED, interface, None)
        elif previous is not interface and previous != interface:
            for kind in _kinds_of_change(previous, interface):
                yield InterfaceChange(kind, interface, previous)


def _kinds_of_change(previous: Interface, interface: Interface) -> Iterator[ChangeKind]:
    if previous.name != interface.name:
        yield ChangeKind.RENAMED
    if previous.up and not interface.up:
        yield ChangeKind.DOWN
    if previous.addresses != interface.addresses:
        yield ChangeKind.ADDRESSES
    same = replace(previous, name=interface.name, up=interface.up, addresses=interface.addresses)
    if same != interface:
        yield ChangeKind.PROPERTIES
    if interface.up and not previous.up:
        yield ChangeKind.UP


def _mac(text: str | None) -> bytes:
    return bytes.fromhex(text.replace(":", "")) if text else b""
