"""Turns a topology into iproute2 commands: which links, addresses, routes and kernel settings each namespace gets."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab import topology
from lab.topology import Address, Topology

_LINK_SETTINGS = {
    # Addresses are usable at once: nobody else is on these links to collide with (RFC 4862 §5.4).
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "2",  # what systemd sets on Debian
}
_ROUTER_SETTINGS = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}


@dataclass(slots=True)
class WiringPlan:
    """Commands that make a topology.

    Attributes:
        links: `ip link add` commands, in order.
        batches: namespace to lines for `ip -batch`: addresses, link state, routes.
        sysctls: namespace to kernel settings, made before its links.
        offloads: (namespace, interface) with the options of `ethtool -K` for it.
    """

    links: list[list[str]] = field(default_factory=list)
    batches: dict[str, list[str]] = field(default_factory=dict)
    sysctls: dict[str, dict[str, str]] = field(default_factory=dict)
    offloads: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    _ends: list[tuple[str, str, str, str]] = field(default_factory=list)

    def connect(self, one: str, one_interface: str, other: str, other_interface: str, mtu: int) -> None:
        """Join two namespaces with a veth pair."""
        command = ["ip", "link", "add", one_interface, "netns", one, "mtu", str(mtu), "type", "veth"]
        self.links.append([*command, "peer", "name", other_interface, "netns", other, "mtu", str(mtu)])
        self._ends.append((one, one_interface, other, other_interface))

    def add_lan(self, switch: str, lan: int) -> None:
        """Make a bridge that floods multicast."""
        self.batches[switch] += [
            f"link add lan{lan} type bridge mcast_snooping 0 forward_delay 0",
            f"link set lan{lan} up",
        ]

    def plug(self, lab: Topology, namespace: str, interface: str, port: str, lan: int) -> None:
        """Connect an interface to a port of the domain's switch."""
        self.connect(namespace, interface, lab.switch, port, lab.downstream_mtu)
        self.batches[lab.switch] += [f"link set {port} master lan{lan}", f"link set {port} up"]

    def plug_border(self, lab: Topology, namespace: str, interface: str, port: str, lan: int) -> None:
        """Connect a border to the switch; a veth drops what XDP redirects to it unless its other end has GRO."""
        self.plug(lab, namespace, interface, port, lan)
        if lab.takes_redirected:
            self.offloads.append((lab.switch, port, ("gro", "on")))

    def segment(self, namespace: str, interface: str) -> None:
        """Have an interface send packets one by one, as a wire carries them.

        A veth pair hands trains of packets over whole, and the multicast routing of the next router takes a train with
        "don't fragment" for one packet too long, and drops it.
        """
        self.offloads.append((namespace, interface, ("tx-udp-segmentation", "off")))

    def links_of(self, namespace: str, interface: str) -> list[list[str]]:
        """The commands that make the pair one end of which is `interface` in `namespace`."""
        wanted = (namespace, interface)
        return [link for link, ends in zip(self.links, self._ends, strict=True) if wanted in (ends[:2], ends[2:])]

    def address(self, namespace: str, interface: str, address: Address) -> None:
        """Bring an interface up with its addresses."""
        self.batches[namespace] += [
            f"link set {interface} up",
            f"address replace {address.with_prefix_ipv4} dev {interface}",
            f"address replace {address.with_prefix_ipv6} dev {interface} nodad",
        ]

    def route(self, namespace: str, ipv4: str, ipv6: str, via: Address) -> None:
        """Route a destination of each family by a neighbour."""
        self.batches[namespace] += [f"route replace {ipv4} via {via.ipv4}", f"route replace {ipv6} via {via.ipv6}"]


def plan(lab: Topology) -> WiringPlan:
    """Everything to do for `lab`."""
    wiring = WiringPlan()
    routers = {lab.relay, lab.internet, lab.border, lab.second_border, *lab.routers()}
    for name in lab.namespaces:
        wiring.sysctls[name] = _LINK_SETTINGS | (_ROUTER_SETTINGS if name in routers else {})
        wiring.batches[name] = ["link set lo up"]
    _plan_outside(lab, wiring)
    _plan_domain(lab, wiring)
    if lab.borders == 2:
        _plan_second_border(lab, wiring)
    _plan_routers(lab, wiring)
    _plan_receivers(lab, wiring)
    return wiring


def _plan_outside(lab: Topology, wiring: WiringPlan) -> None:
    """Source, relay and Internet, up to the border's uplink."""
    host, native, uplink = topology.HOST_INTERFACE, topology.RELAY_NATIVE, topology.RELAY_UPLINK
    wiring.connect(lab.source, host, lab.relay, native, lab.native_mtu)
    wiring.connect(lab.relay, uplink, lab.internet, "relay0", lab.uplink_mtu)
    wiring.connect(lab.internet, "border0", lab.border, topology.BORDER_UPLINK, lab.uplink_mtu)

    wiring.address(lab.source, host, topology.SOURCE)
    wiring.route(lab.source, "0.0.0.0/0", "::/0", topology.RELAY_NATIVE_ADDRESS)

    wiring.address(lab.relay, native, topology.RELAY_NATIVE_ADDRESS)
    for address in (topology.RELAY, topology.FAULTY_RELAY, topology.STRANGER):
        wiring.address(lab.relay, uplink, address)
    wiring.address(lab.relay, "lo", topology.DISCOVERY)
    wiring.route(lab.relay, "0.0.0.0/0", "::/0", topology.INTERNET_RELAY_SIDE)

    wiring.address(lab.internet, "relay0", topology.INTERNET_RELAY_SIDE)
    wiring.address(lab.internet, "border0", topology.INTERNET_BORDER_SIDE)
    if lab.translate:
        wiring.batches[lab.internet].append(f"address replace {topology.TRANSLATED}/32 dev relay0")
    discovery = topology.DISCOVERY
    wiring.route(lab.internet, discovery.with_prefix_ipv4, discovery.with_prefix_ipv6, topology.RELAY)
    wiring.route(lab.internet, *topology.EXTERNAL_PREFIXES, topology.RELAY)
    wiring.route(lab.internet, *topology.DOMAIN_PREFIXES, topology.BORDER)


def _plan_domain(lab: Topology, wiring: WiringPlan) -> None:
    """The border and its downstream LANs: one bridge a LAN."""
    wiring.address(lab.border, topology.BORDER_UPLINK, topology.BORDER)
    wiring.route(lab.border, "0.0.0.0/0", "::/0", topology.INTERNET_BORDER_SIDE)
    for index in range(lab.downstreams):
        wiring.add_lan(lab.switch, index)
        wiring.plug_border(lab, lab.border, topology.downstream(index), f"border{index}", index)
        wiring.address(lab.border, topology.downstream(index), topology.border_downstream(index))
    if lab.routed:
        wiring.segment(lab.border, topology.downstream(0))


def _plan_second_border(lab: Topology, wiring: WiringPlan) -> None:
    """Another border on LAN 0, with another way to the Internet."""
    second, uplink = lab.second_border, topology.BORDER_UPLINK
    wiring.connect(lab.internet, "second0", second, uplink, lab.uplink_mtu)
    wiring.address(lab.internet, "second0", topology.INTERNET_SECOND_BORDER_SIDE)
    wiring.address(second, uplink, topology.SECOND_BORDER)
    wiring.route(second, "0.0.0.0/0", "::/0", topology.INTERNET_SECOND_BORDER_SIDE)
    wiring.plug_border(lab, second, topology.downstream(0), "second", 0)
    wiring.address(second, topology.downstream(0), topology.SECOND_BORDER_DOWNSTREAM)
    wiring.segment(second, topology.downstream(0))
    if lab.routed:
        wiring.route(second, *topology.DOMAIN_PREFIXES, topology.router_upstream(1))


def _plan_routers(lab: Topology, wiring: WiringPlan) -> None:
    """The routers behind LAN 0, with unicast routes; multicast is up to what runs in them."""
    above = topology.border_downstream(0)
    for index, router in enumerate(lab.routers(), start=1):
        lan_above = 0 if index == 1 else topology.lan_below(index - 1)
        wiring.add_lan(lab.switch, topology.lan_below(index))
        wiring.plug(lab, router, topology.ROUTER_UPSTREAM, f"up{index}", lan_above)
        wiring.plug(lab, router, topology.ROUTER_DOWNSTREAM, f"down{index}", topology.lan_below(index))
        wiring.address(router, topology.ROUTER_UPSTREAM, topology.router_upstream(index))
        wiring.address(router, topology.ROUTER_DOWNSTREAM, topology.router_downstream(index))
        wiring.route(router, "0.0.0.0/0", "::/0", above)
        if index < lab.routed:
            wiring.route(router, *topology.DOMAIN_PREFIXES, topology.router_upstream(index + 1))
        above = topology.router_downstream(index)
    if lab.routed:
        wiring.route(lab.border, *topology.DOMAIN_PREFIXES, topology.router_upstream(1))


def _plan_receivers(lab: Topology, wiring: WiringPlan) -> None:
    """Every receiver a port of the switch."""
    for index in range(lab.receivers):
        receiver, lan = lab.receiver(index), lab.receiver_lan(index)
        wiring.plug(lab, receiver, topology.HOST_INTERFACE, f"receiver{index}", lan)
        wiring.address(receiver, topology.HOST_INTERFACE, lab.receiver_address(index))
        wiring.route(receiver, "0.0.0.0/0", "::/0", topology.border_downstream(lan))
