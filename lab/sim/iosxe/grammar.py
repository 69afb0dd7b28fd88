"""Configuration commands the simulators know, by mode, and what each does to the running configuration.

The commands a relay needs are modelled word by word. Families that only need to be kept (logging, NTP, BGP neighbours)
take any argument. Whatever is not here is `% Invalid input`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How a command and its `no` form act on the lines of its section."""

    LEAF = "leaf"
    """The last one wins; `no` with the key alone removes it."""
    MULTI = "multi"
    """Each different line is kept."""
    DEFAULT_ON = "default on"
    """In force unless there is a `no` line; typing it removes that line."""
    SECTION = "section"
    """Opens a section, which `no` removes with all it holds."""


@dataclass(frozen=True, slots=True)
class Command:
    """One configuration command."""

    pattern: str
    kind: Kind = Kind.LEAF
    key: int = 0
    """How many leading words tell two lines of the same thing apart from others; 0: all of them."""
    opens: str | None = None
    """The mode of the section."""
    default: str | None = None
    """A line that says nothing new is not kept."""
    feature: str | None = None
    """Only on devices that have it."""
    as_key: str | None = None
    """Lines of different words that replace each other share this key."""


def _leaf(pattern: str, key: int, default: str | None = None, feature: str | None = None) -> Command:
    return Command(pattern, Kind.LEAF, key, default=default, feature=feature)


def _multi(pattern: str, feature: str | None = None) -> Command:
    return Command(pattern, Kind.MULTI, feature=feature)


def _on(pattern: str) -> Command:
    return Command(pattern, Kind.DEFAULT_ON)


def _section(pattern: str, opens: str, key: int = 0) -> Command:
    return Command(pattern, Kind.SECTION, key, opens=opens)


_ENDPOINT = "{any|host <ip>|<ip> <mask>}"
_PORT = "[{eq|gt|lt|neq} <word>|range <word> <word>]"
_LOG = "[log]"

GLOBAL = (
    _leaf("hostname <word>", 1),
    _section("interface <interface>", "interface"),
    _section("ip access-list extended <word>", "extended-acl"),
    _section("ip access-list standard <word>", "standard-acl"),
    _section("route-map <word> {permit|deny} <int:0-65535>", "route-map"),
    Command("route-map <word> {permit|deny}", Kind.SECTION, opens="route-map"),
    _section("router bgp <word>", "router"),
    _section("router ospf <int:1-65535> [vrf <word>]", "router"),
    _section("router isis [<word>]", "router"),
    _section("class-map [match-any|match-all] <word>", "class-map"),
    _section("policy-map <word>", "policy-map"),
    _section("control-plane", "control-plane"),
    _section("vrf definition <word>", "vrf"),
    _section("line {con|vty|aux} <int> [<int>]", "line"),
    _section("archive", "archive"),
    _section("key chain <word>", "generic"),
    _section("event manager applet <word>", "generic"),
    _leaf("ip multicast-routing [distributed]", 2),
    _leaf("ip multicast-routing vrf <word> [distributed]", 4),
    Command("ip pim ssm {default|range <word>}", Kind.LEAF, 3),
    _leaf("ip pim rp-address <ip> [<word>]", 4),
    _leaf("ip igmp limit <int:1-64000>", 3),
    _leaf("ip igmp ssm-map enable", 4),
    _on("ip igmp ssm-map query dns"),
    _multi("ip igmp ssm-map static <word> <ip>"),
    _leaf("ip multicast limit [rpf|connected|out] <line>", 3),
    _leaf("ip multicast route-limit <int> [<int>]", 3),
    _multi("ip prefix-list <word> seq <int> {permit|deny} <prefix> [ge <int:1-32>] [le <int:1-32>]"),
    _multi("ip prefix-list <word> {permit|deny} <prefix> [ge <int:1-32>] [le <int:1-32>]"),
    _multi("ip prefix-list <word> description <line>"),
    _multi("ip route <ip> <mask> <line>"),
    _multi("ip mroute <ip> <mask> <line>"),
    _multi("access-list <int:1-2699> {permit|deny|remark} <line>"),
    _leaf("ip domain name <word>", 3),
    _on("ip domain lookup"),
    _leaf("ip ssh <word> <line>", 3),
    _leaf("ip scp server enable", 4),
    _multi("ip tacacs <line>"),
    _multi("ip http <line>"),
    _multi("ip forward-protocol <line>"),
    _leaf("ip cef", 2),
    _leaf("enable secret <line>", 2),
    _leaf("enable password <line>", 2),
    _leaf("username <word> <line>", 2),
    _multi("snmp-server <line>"),
    _multi("logging <line>"),
    _multi("ntp <line>"),
    _multi("aaa <line>"),
    _multi("service <line>"),
    _on("service pad"),
    _on("ip http server"),
    _on("ip http secure-server"),
    _on("logging console"),
    _leaf("clock timezone <line>", 2),
    _leaf("version <word>", 1),
    _leaf("boot-start-marker", 1),
    _leaf("boot-end-marker", 1),
    _multi("boot <line>"),
    _multi("platform <line>"),
    _multi("license <line>"),
    _multi("netconf-yang [<line>]", feature="netconf"),
    _multi("alias <line>"),
    _multi("banner <line>"),
)

INTERFACE = (
    _leaf("description <line>", 1),
    Command("shutdown", Kind.LEAF),
    _leaf("ip address <ip> <mask>", 2),
    _multi("ip address <ip> <mask> secondary"),
    _leaf("ip address dhcp", 2),
    Command("ip unnumbered <interface>", key=2, as_key="ip address"),
    _on("ip redirects"),
    _on("ip unreachables"),
    _on("ip proxy-arp"),
    _on("ip mroute-cache"),
    Command("ip pim {sparse-mode|dense-mode|sparse-dense-mode|passive}", as_key="ip pim"),
    _leaf("ip pim dr-priority <int>", 3, default="ip pim dr-priority 1"),
    _leaf("ip pim query-interval <int:0-65535> [msec]", 3, default="ip pim query-interval 30"),
    _leaf("ip pim neighbor-filter <word>", 3),
    _leaf("ip pim bsr-border", 3),
    _leaf("ip igmp version <int:1-3>", 3, default="ip igmp version 2"),
    _leaf("ip igmp query-interval <int:0-18000>", 3, default="ip igmp query-interval 60"),
    _leaf("ip igmp query-max-response-time <int:1-25>", 3, default="ip igmp query-max-response-time 10"),
    _leaf("ip igmp robustness-variable <int:1-10>", 3, default="ip igmp robustness-variable 2"),
    _leaf("ip igmp querier-timeout <int:60-300>", 3),
    _leaf("ip igmp access-group <word>", 3),
    _leaf("ip igmp limit <int:1-64000> [except <word>]", 3),
    _leaf("ip igmp explicit-tracking", 3),
    _leaf("ip igmp immediate-leave group-list <word>", 4),
    _multi("ip igmp static-group <ip> [source <ip>]"),
    _multi("ip igmp join-group <ip> [source <ip>]"),
    Command("ip access-group <word> in", as_key="ip access-group in", key=2),
    Command("ip access-group <word> out", as_key="ip access-group out", key=2),
    _leaf("ip mtu <int:68-9216>", 2),
    _leaf("ip tcp adjust-mss <int:500-1460>", 3),
    _leaf("ip multicast boundary <line>", 3),
    _multi("ip multicast limit <line>"),
    _multi("ip ospf <line>"),
    _multi("ip router isis [<word>]"),
    _multi("ipv6 <line>"),
    _leaf("mtu <int:64-9216>", 1),
    _leaf("bandwidth <int:1-100000000>", 1),
    _leaf("load-interval <int:30-600>", 1),
    _leaf("negotiation auto", 2),
    _leaf("speed <word>", 1),
    _leaf("duplex <word>", 1),
    _leaf("encapsulation <line>", 1),
    _leaf("vrf forwarding <word>", 2),
    Command("service-policy input <word>", key=2),
    Command("service-policy output <word>", key=2),
    _leaf("tunnel source {<interface>|<ip>}", 2),
    _leaf("tunnel destination {dynamic|<ip>}", 2),
    _leaf("tunnel mode udp {ip|multipoint}", 2, feature="amt"),
    _leaf("tunnel mode {gre {ip|multipoint}|ipip|ipsec ipv4}", 2, default="tunnel mode gre ip"),
    _leaf("tunnel dst-port {dynamic|<int:1-65535>}", 2, feature="amt"),
    _leaf("tunnel src-port {dynamic|<int:1-65535>}", 2, feature="amt"),
    _leaf("tunnel vrf <word>", 2),
    _leaf("tunnel ttl <int:0-255>", 2),
    _leaf("tunnel key <int>", 2),
    _leaf("amt relay traffic {ip|ipv6}", 3, feature="amt"),
    _leaf("amt gateway traffic {ip|ipv6}", 3, feature="amt"),
    _leaf("amt gateway relay-address <ip>", 3, feature="amt"),
    _leaf("keepalive [<int> [<int>]]", 1),
    _leaf("isis <word> <line>", 2),
    _leaf("cdp enable", 2),
)

_PROTOCOL = "{ip|udp|tcp|icmp|igmp|pim|gre|ospf|<int:0-255>}"
EXTENDED_ACL = (
    _multi(f"{{permit|deny}} {_PROTOCOL} {_ENDPOINT} {_PORT} {_ENDPOINT} {_PORT} [<word>] {_LOG}"),
    _multi(f"<int:1-2147483647> {{permit|deny}} {_PROTOCOL} {_ENDPOINT} {_PORT} {_ENDPOINT} {_PORT} [<word>] {_LOG}"),
    _multi("remark <line>"),
    _multi("<int:1-2147483647> remark <line>"),
)
STANDARD_ACL = (
    _multi(f"{{permit|deny}} {{any|host <ip>|<ip> [<mask>]}} {_LOG}"),
    _multi(f"<int:1-2147483647> {{permit|deny}} {{any|host <ip>|<ip> [<mask>]}} {_LOG}"),
    _multi("remark <line>"),
    _multi("<int:1-2147483647> remark <line>"),
)
ROUTE_MAP = (
    _leaf("description <line>", 1),
    _multi("match <line>"),
    _multi("set <line>"),
    _leaf("continue [<int>]", 1),
)
ROUTER = (
    _section("address-family <line>", "address-family"),
    _multi("neighbor <line>"),
    _multi("network <line>"),
    _multi("redistribute <line>"),
    _multi("aggregate-address <line>"),
    _multi("passive-interface <line>"),
    _multi("bgp <line>"),
    _multi("net <word>"),
    _multi("metric-style <line>"),
    _multi("is-type <line>"),
    _multi("log-adjacency-changes [<line>]"),
    _multi("log-adj-changes [<line>]"),
    _leaf("router-id <ip>", 1),
    _leaf("default-metric <int>", 1),
    _leaf("maximum-paths <line>", 1),
    _leaf("distance <line>", 1),
)
ADDRESS_FAMILY = tuple(command for command in ROUTER if command.opens is None)
CLASS_MAP = (_multi("match <line>"), _leaf("description <line>", 1))
POLICY_MAP = (_section("class <word>", "policy-class"), _leaf("description <line>", 1))
POLICY_CLASS = (
    _leaf("police <line>", 1),
    _leaf("bandwidth <line>", 1),
    _leaf("priority <line>", 1),
    _leaf("set <line>", 2),
    _leaf("shape <line>", 1),
)
ARCHIVE = (
    _leaf("path <word>", 1),
    _leaf("maximum <int:1-14>", 1),
    _leaf("time-period <int:1-525600>", 1),
    Command("write-memory"),
    _section("log config", "archive-log"),
)
ARCHIVE_LOG = (_leaf("logging <line>", 2), _leaf("hidekeys", 1), _leaf("notify <line>", 1))
LINE = (
    _multi("transport <line>"),
    _leaf("login <line>", 1),
    _leaf("password <line>", 1),
    _leaf("exec-timeout <int> [<int>]", 1),
    _leaf("access-class <line>", 1),
    _leaf("privilege level <int:0-15>", 2),
    _leaf("stopbits <int>", 1),
    _leaf("logging synchronous", 2),
    _leaf("length <int:0-512>", 1),
)
VRF = (
    _leaf("rd <word>", 1),
    _multi("route-target <line>"),
    _section("address-family <line>", "generic"),
    _leaf("description <line>", 1),
)
GENERIC = (_multi("<line>"),)


@dataclass(frozen=True, slots=True)
class Mode:
    """One configuration mode."""

    prompt: str
    """What stands in the prompt's brackets."""
    commands: tuple[Command, ...]
    ranked: tuple[str, ...] = ()
    """Beginnings of lines in the order the running configuration prints them; others come after, as typed."""


_INTERFACE_ORDER = (
    "description", "vrf", "ip address", "ip unnumbered", "no ip address", "no ip redirects", "no ip unreachables",
    "no ip proxy-arp", "ip mtu", "ip access-group", "ip pim", "ip multicast", "ip tcp", "ip igmp", "ip router",
    "ip ospf",
    "shutdown", "load-interval", "negotiation", "tunnel source", "tunnel mode", "tunnel destination", "tunnel key",
    "tunnel dst-port", "tunnel src-port", "tunnel ttl", "tunnel vrf", "amt", "isis", "service-policy",
)  # fmt: skip
GLOBAL_ORDER = (
    "version", "service", "no service", "platform", "hostname", "boot", "vrf", "logging", "enable", "aaa", "clock",
    "ip domain", "ip multicast-routing", "ip multicast", "ip igmp", "license", "archive", "username", "class-map",
    "policy-map", "interface", "router", "ip forward-protocol", "ip http", "ip pim", "ip route", "ip mroute", "ip ssh",
    "ip scp", "ip access-list", "ip prefix-list", "access-list", "route-map", "snmp-server", "control-plane", "banner",
    "line", "ntp", "event", "netconf-yang",
)  # fmt: skip
SORTED_SECTIONS = (
    "interface",
    "ip access-list",
    "ip prefix-list",
    "access-list",
    "route-map",
    "class-map",
    "policy-map",
)
"""Global lines printed by name and number whatever order they were typed in."""

MODES: dict[str, Mode] = {
    "global": Mode("config", GLOBAL, GLOBAL_ORDER),
    "interface": Mode("config-if", INTERFACE, _INTERFACE_ORDER),
    "extended-acl": Mode("config-ext-nacl", EXTENDED_ACL),
    "standard-acl": Mode("config-std-nacl", STANDARD_ACL),
    "route-map": Mode("config-route-map", ROUTE_MAP, ("description", "match", "set", "continue")),
    "router": Mode("config-router", ROUTER, ("router-id", "bgp", "net")),
    "address-family": Mode("config-router-af", ADDRESS_FAMILY),
    "class-map": Mode("config-cmap", CLASS_MAP),
    "policy-map": Mode("config-pmap", POLICY_MAP),
    "policy-class": Mode("config-pmap-c", POLICY_CLASS),
    "control-plane": Mode("config-cp", (Command("service-policy input <word>", key=2),)),
    "vrf": Mode("config-vrf", VRF),
    "line": Mode("config-line", LINE),
    "archive": Mode("config-archive", ARCHIVE, ("log", "path", "maximum", "write-memory", "time-period")),
    "archive-log": Mode("config-archive-log-cfg", ARCHIVE_LOG),
    "generic": Mode("config-generic", GENERIC),
}
