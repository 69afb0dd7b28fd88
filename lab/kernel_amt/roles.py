"""What the guest runs: the kernel's AMT relay with a source behind it, or its gateway with listeners behind it."""

from __future__ import annotations

from lab.topology import GUEST, HOST_INTERFACE, RELAY_NATIVE_ADDRESS, SOURCE

_GROUP_LIMIT = 64  # net.ipv4.igmp_max_memberships of a listener


def relay_script(commands: str = "") -> str:
    """The kernel's relay on GUEST:2268, bridged to a namespace `source` with the lab's source addresses.

    Says `ready`; then runs `commands`; then waits for `stop`. `in_source COMMAND…` runs a program at the source.
    """
    return f"""
set -e
in_source() {{ ip netns exec source "$@"; }}
ip netns add source
ip link add bridge0 type bridge mcast_snooping 0 forward_delay 0
ip link add native0 type veth peer name {HOST_INTERFACE} netns source
ip link add amt0 type amt mode relay local {GUEST.ipv4} dev vec0 relay_port 2268 max_tunnels 16
ip link set native0 master bridge0
ip link set amt0 master bridge0
for link in native0 amt0 bridge0; do ip link set $link up; done
ip -n source link set lo up
ip -n source link set {HOST_INTERFACE} mtu 1400 up
ip -n source address add {SOURCE.with_prefix_ipv4} dev {HOST_INTERFACE}
ip -n source address add {SOURCE.with_prefix_ipv6} dev {HOST_INTERFACE} nodad
ip -n source route add default via {RELAY_NATIVE_ADDRESS.ipv4}
say ready
{commands}
hear stop
"""


def gateway_script(discovery: str, commands: str) -> str:
    """The kernel's gateway towards `discovery`, bridged to a namespace `listener`.

    Says `ready`; then runs `commands`; then waits for `stop`. `in_listener COMMAND…` runs a program at the listener.
    """
    return f"""
set -e
in_listener() {{ ip netns exec listener "$@"; }}
ip netns add listener
ip link add bridge0 type bridge mcast_snooping 0 forward_delay 0
ip link add down0 type veth peer name {HOST_INTERFACE} netns listener
ip link add amt0 type amt mode gateway local {GUEST.ipv4} discovery {discovery} dev vec0 \\
    gateway_port 2268 relay_port 2268
ip link set down0 master bridge0
ip link set amt0 master bridge0
ip -n listener link set lo up
in_listener sysctl -q -w net.ipv4.igmp_max_memberships={_GROUP_LIMIT} net.ipv4.conf.all.rp_filter=0
in_listener sysctl -q -w net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.{HOST_INTERFACE}.rp_filter=0
ip -n listener link set {HOST_INTERFACE} up
ip -n listener address add 10.30.0.2/24 dev {HOST_INTERFACE}
ip -n listener address add 2001:db8:e::2/64 dev {HOST_INTERFACE} nodad
for link in down0 bridge0 amt0; do ip link set $link up; done
say ready
{commands}
hear stop
"""
