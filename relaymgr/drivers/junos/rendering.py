"""RelayIntent to Junos configuration: which paths it owns and what stands there.

- Owned are whole sections (`protocols/amt`), or single entries where the operator has others beside them (the local
  address on its loopback unit, a PIM interface, a policy, a filter). Nothing else is ever changed.
- The protection filter speaks of UDP 2268 to the relay's addresses alone and lets everything else pass, so it locks
  nobody out; attaching it (to lo0 or to the core interfaces) is the operator's, who may have a filter there already.
- The advertise policy is the operator's to attach too. Therefore a drain does not delete it, which would leave a
  dangling reference that no commit passes: it turns its one term to reject. The anycast address goes altogether;
  `protocols amt` and the local address, a /32 beside it on the same unit of lo0, stay, so that tunnels do.
- `primary` and `preferred` of an address on lo0 are the operator's, also where he has them on the local address. See
  `loopback` for why a router may need one before the anycast address comes.
- What a deleted section stood in stays, empty (`fpc 1 pic 0`, `firewall family inet`): it may have been the operator's.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from lxml import etree

from relaymgr.domain.configuration import OwnedConfiguration
from relaymgr.domain.intent import AdvertiseProtocol, JunosExtras, RelayFamily, RelayIntent
from relaymgr.drivers import templates
from relaymgr.drivers.junos.capabilities import check
from relaymgr.drivers.junos.trees import canonical_text, cleaned, merge
from relaymgr.drivers.netconf.documents import parse

_LOOPBACK = "interfaces/interface[lo0]"
_SMALLEST_BURST = 15_000
"""Octets: ten full frames, below which a policer drops what its rate allows."""


class _Section:
    """Collects fragments and the paths they own."""

    def __init__(self, instance: str | None) -> None:
        self.root = etree.Element("configuration")
        self.scope: set[str] = set()
        self._instance = instance

    def own(self, *paths: str, in_instance: bool = False) -> None:
        prefix = f"routing-instances/instance[{self._instance}]/" if in_instance and self._instance else ""
        self.scope.update(prefix + path for path in paths)

    def add(self, template: str, /, *, in_instance: bool = False, **values: object) -> None:
        text = templates.render(f"junos/{template}.xml.j2", **values)
        fragment = cleaned(parse(f"<configuration>{text}</configuration>".encode()))
        if in_instance and self._instance:
            fragment = self._wrapped(fragment)
        merge(self.root, fragment)

    def _wrapped(self, fragment: etree._Element) -> etree._Element:
        root = etree.Element("configuration")
        instance = etree.SubElement(etree.SubElement(root, "routing-instances"), "instance")
        etree.SubElement(instance, "name").text = self._instance
        instance.extend(list(fragment))
        return root


def render(intent: RelayIntent, *, drained: bool) -> OwnedConfiguration:
    """What `intent` owns of a Junos relay. Raises CapabilityMissing."""
    check(intent)
    family = intent.inet
    assert family is not None
    extras = intent.junos if intent.junos is not None else JunosExtras()
    section = _Section(extras.routing_instance)
    _relay(section, intent, family, extras)
    _igmp(section, intent, extras)
    _loopbacks(section, family, extras, drained=drained)
    _forwarding(section, intent)
    _filter(section, intent, family)
    _advertise(section, intent, family, drained=drained)
    return OwnedConfiguration(tuple(sorted(section.scope)), canonical_text(section.root))


def _relay(section: _Section, intent: RelayIntent, family: RelayFamily, extras: JunosExtras) -> None:
    prefix = str(family.anycast_prefix)
    if family.anycast_address is not None:
        prefix = f"{family.anycast_address}/{family.anycast_prefix.prefixlen}"
    section.own("protocols/amt", in_instance=True)
    section.add(
        "amt",
        in_instance=True,
        trace=intent.trace,
        accounting=intent.accounting,
        anycast_prefix=prefix,
        local_address=family.local_address,
        key_timeout_minutes=intent.key_timeout_minutes,
        tunnel_devices=extras.tunnel_devices,
        tunnel_limit=intent.tunnel_limit,
        stream_limit=intent.stream_limit,
    )


def _igmp(section: _Section, intent: RelayIntent, extras: JunosExtras) -> None:
    policy = intent.group_policy
    if intent.igmp is not None or policy is not None or extras.ssm_map_policy is not None:
        section.own("protocols/igmp/amt", in_instance=True)
        section.add(
            "igmp",
            in_instance=True,
            igmp=intent.igmp,
            group_policy=policy.name if policy else None,
            ssm_map_policy=extras.ssm_map_policy,
        )
    if policy is not None:
        section.own(f"policy-options/policy-statement[{policy.name}]")
        section.add("policy", name=policy.name, permit=policy.permit)


def _loopbacks(section: _Section, family: RelayFamily, extras: JunosExtras, *, drained: bool) -> None:
    unit = extras.loopback_unit
    section.own(_address(unit, family.local_address), _address(unit, family.discovery_address))
    section.add("loopback", unit=unit, address=family.local_address)
    if not drained:
        section.add("loopback", unit=unit, address=family.discovery_address)
    if extras.routing_instance is not None:
        section.own(f"interface[lo0.{unit}]", in_instance=True)
        section.add("instance", in_instance=True, unit=unit)


def _address(unit: int, address: IPv4Address | IPv6Address) -> str:
    return f"{_LOOPBACK}/unit[{unit}]/family/inet/address[{address}/32]"


def _forwarding(section: _Section, intent: RelayIntent) -> None:
    services = intent.tunnel_services
    if services is not None:
        section.own(f"chassis/fpc[{services.fpc}]/pic[{services.pic}]/tunnel-services")
        section.add("chassis", fpc=services.fpc, pic=services.pic, bandwidth_gbps=services.bandwidth_gbps)
    if intent.pim_interfaces:
        names = (f"protocols/pim/interface[{interface.name}]" for interface in intent.pim_interfaces)
        section.own(*names, in_instance=True)
        section.add("pim", in_instance=True, interfaces=intent.pim_interfaces)


def _filter(section: _Section, intent: RelayIntent, family: RelayFamily) -> None:
    wanted = intent.protection_filter
    if wanted is None:
        return
    section.own(f"firewall/family/inet/filter[{wanted.name}]")
    burst = _SMALLEST_BURST
    if wanted.rate_kbps is not None:
        section.own(f"firewall/policer[{wanted.name}]")
        burst = max(_SMALLEST_BURST, wanted.rate_kbps * 1000 // 8 // 10)  # a tenth of a second at the rate
    section.add(
        "filter",
        name=wanted.name,
        rate_kbps=wanted.rate_kbps,
        burst_octets=burst,
        permit_from=wanted.permit_from,
        addresses=(family.discovery_address, family.local_address),
    )


def _advertise(section: _Section, intent: RelayIntent, family: RelayFamily, *, drained: bool) -> None:
    policy = intent.advertise.policy
    if intent.advertise.protocol is AdvertiseProtocol.NONE or policy is None:
        return
    prefix = family.anycast_prefix
    static = prefix.num_addresses > 1
    section.own(f"policy-options/policy-statement[{policy}]")
    section.add("advertise", name=policy, prefix=prefix, static_route=static, drained=drained)
    if static:
        section.own(f"routing-options/static/route[{prefix}]", in_instance=True)
        if not drained:
            section.add("static_route", in_instance=True, prefix=prefix)
