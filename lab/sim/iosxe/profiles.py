"""The kinds of router that are simulated, with a first configuration. Synthetic: no device printed these."""

from __future__ import annotations

from lab.sim.iosxe.device import Profile

_HEAD = """service timestamps debug datetime msec
service timestamps log datetime msec
hostname {hostname}
enable secret 9 $9$synthetic$enable
no ip domain lookup
ip domain name example.net
username {username} privilege 15 secret 9 $9$synthetic$user
archive
 path bootflash:archive
 maximum 10
interface Loopback0
 description management
 ip address 192.0.2.250 255.255.255.255
interface GigabitEthernet1
 description core
 ip address 10.255.0.1 255.255.255.252
 ip pim sparse-mode
 negotiation auto
interface GigabitEthernet2
 no ip address
 shutdown
 negotiation auto
router bgp 65000
 bgp log-neighbor-changes
 neighbor 10.255.0.2 remote-as 65000
ip pim ssm default
ip ssh version 2
snmp-server community synthetic-community RO
line con 0
 stopbits 1
line vty 0 4
 login local
 transport input ssh
"""
_RELAY = """interface Loopback2268
 description tunnels
 ip address 203.0.113.7 255.255.255.255
interface Loopback2269
 description anycast
 ip address 192.0.2.1 255.255.255.255
interface Tunnel2268
 ip address 172.31.68.1 255.255.255.0
 no ip redirects
 ip pim sparse-mode
 ip igmp version 3
 tunnel source Loopback2268
 tunnel mode udp multipoint
 tunnel dst-port dynamic
 tunnel src-port dynamic
 amt relay traffic ip
"""
_ACCESS = """interface GigabitEthernet0/2
 description receivers
 no shutdown
 ip address 172.31.0.1 255.255.255.0
 ip pim sparse-mode
 ip igmp version 3
"""


def iosxe(version: str, *, relay: bool) -> Profile:
    """A virtual router with IOS-XE `version`; `relay`: with a relay configured by hand."""
    text = "ip multicast-routing distributed\n" + _HEAD + "netconf-yang\n" + (_RELAY if relay else "")
    return Profile(
        platform="iosxe",
        version=version,
        model="C8000V",
        features=frozenset({"amt", "netconf", "acl-numbers"}),
        configuration=text,
        hostname="xe-relay",
        core_interface="GigabitEthernet1",
    )


def ios(version: str = "15.7(3)M8") -> Profile:
    """A router with classic IOS: no AMT, no NETCONF."""
    text = "ip multicast-routing\n" + _HEAD.replace("bootflash:", "flash0:").replace(
        "GigabitEthernet", "GigabitEthernet0/"
    )
    return Profile(
        platform="ios",
        version=version,
        model="CISCO2911/K9",
        features=frozenset(),
        configuration=text + _ACCESS,
        hostname="ios-router",
        core_interface="GigabitEthernet0/1",
        access_interface="GigabitEthernet0/2",
    )
