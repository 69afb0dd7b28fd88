"""Intents as IOS-XE sections, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import Capability, CapabilityMissing
from relaymgr.drivers.iosxe.render import CAPABILITIES, render

SMALLEST: dict[str, Any] = {"inet": {"anycast_prefix": "192.0.2.0/24", "local_address": "198.51.100.7"}}
INET6 = {"anycast_prefix": "2001:db8::/64", "local_address": "2001:db8:1::1"}


def rendered(drained: bool = False, **more: Any) -> str:
    return render(RelayIntent.model_validate(SMALLEST | more), drained=drained).text


def test_the_smallest_intent_is_a_tunnel_and_two_loopbacks():
    assert rendered() == (
        "interface Loopback2268\n ip address 198.51.100.7 255.255.255.255\n"
        "interface Loopback2269\n ip address 192.0.2.1 255.255.255.0\n"
        "interface Tunnel2268\n ip unnumbered Loopback2268\n no ip redirects\n ip pim sparse-mode\n"
        " ip igmp version 3\n tunnel source Loopback2268\n tunnel mode udp multipoint\n tunnel dst-port dynamic\n"
        " tunnel src-port dynamic\n amt relay traffic ip\n"
    )


def test_drained_only_the_anycast_address_is_missing():
    assert rendered(drained=True) == rendered().replace(
        "interface Loopback2269\n ip address 192.0.2.1 255.255.255.0\n", ""
    )


def test_drained_and_not_own_the_same():
    intent = RelayIntent.model_validate(SMALLEST | {"advertise": {"protocol": "bgp", "policy": "A"}})
    assert render(intent, drained=True).scope == render(intent, drained=False).scope


def test_an_address_that_is_no_host_of_its_prefix_gets_a_hosts_mask():
    inet = SMALLEST["inet"] | {"anycast_address": "192.0.2.0"}
    assert "ip address 192.0.2.0 255.255.255.255" in rendered(inet=inet)


def test_a_tunnel_may_have_an_address_of_its_own():
    text = rendered(iosxe={"tunnel_address": "172.31.68.1"})
    assert " ip address 172.31.68.1 255.255.255.0\n" in text
    assert "unnumbered" not in text


def test_gateways_not_named_are_kept_from_the_relay_and_from_nothing_else():
    text = rendered(protection_filter={"name": "P", "permit_from": ["10.0.0.0/8", "203.0.113.9/32"]})
    entries = text.partition("ip access-list extended P\n")[2].splitlines()
    assert entries == [
        " permit udp 10.0.0.0 0.255.255.255 host 198.51.100.7 eq 2268",
        " permit udp host 203.0.113.9 host 198.51.100.7 eq 2268",
        " permit udp 10.0.0.0 0.255.255.255 host 192.0.2.1 eq 2268",
        " permit udp host 203.0.113.9 host 192.0.2.1 eq 2268",
        " deny udp any host 198.51.100.7 eq 2268",
        " deny udp any host 192.0.2.1 eq 2268",
        " permit ip any any",
    ]


@pytest.mark.parametrize(
    ("asked", "capability"),
    [
        ({"inet6": INET6}, Capability.AMT_IPV6),
        ({"tunnel_limit": 5}, Capability.TUNNEL_LIMIT),
        ({"stream_limit": 5}, Capability.STREAM_LIMIT),
        ({"key_timeout_minutes": 5}, Capability.KEY_TIMEOUT),
        ({"accounting": True}, Capability.ACCOUNTING),
        ({"igmp": {"version": 2}}, Capability.IGMP_PARAMETERS),
        ({"igmp": {"robustness": 3}}, Capability.IGMP_PARAMETERS),
        ({"igmp": {"group_threshold_percent": 80}}, Capability.IGMP_PARAMETERS),
        ({"group_policy": {"name": "G", "permit": ["ff3e::/32"]}}, Capability.GROUP_POLICY),
        ({"protection_filter": {"name": "P", "rate_kbps": 64}}, Capability.PROTECTION_FILTER),
        ({"protection_filter": {"name": "P", "permit_from": ["2001:db8::/32"]}}, Capability.PROTECTION_FILTER),
        ({"tunnel_services": {"fpc": 0, "pic": 0, "bandwidth_gbps": 1}}, Capability.TUNNEL_SERVICES),
        ({"trace": {"file": "t"}}, Capability.TRACE_OPTIONS),
    ],
)
def test_what_the_platform_cannot_do_is_named(asked, capability):
    with pytest.raises(CapabilityMissing) as caught:
        rendered(**asked)
    assert caught.value.capability is capability
    assert caught.value.reason.startswith("IOS-XE: ")


def test_ipv6_alone_is_refused_too():
    with pytest.raises(CapabilityMissing):
        render(RelayIntent.model_validate({"inet6": INET6}), drained=False)
    assert Capability.AMT_IPV6 not in CAPABILITIES.supported
