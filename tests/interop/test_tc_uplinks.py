"""The TC program on uplinks of every kind, and what it does about checksums, ECN marks and copies that cannot leave."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from ipaddress import ip_address
from itertools import product

import pytest

from agent.dataplane.engine import Refusal
from agent.dataplane.fast.layout import (
    EXCEPTIONS,
    REFUSALS,
    index_key,
    interface_list,
    tunnel_key,
    tunnel_value,
)
from agent.net.bpf.links import attach_tc
from agent.protocol.channels import Endpoint
from lab.bench.engine_topology import UPLINK_AT_GATEWAY, UPLINK_AT_RELAY, downstream, set_offload
from lab.bench.gateway_program import Outer
from lab.bench.inner_packets import datagram, datagram_ipv4, datagram_ipv6, one_hop_on
from lab.bench.relay_topology import inside, ip_lines, run
from tests.interop.test_tc_program import GATEWAY, RELAY, Uplink, expected
from tests.interop.test_tc_program import make_uplink as make_uplink  # noqa: PLC0414 - the fixture

pytestmark = pytest.mark.root

SET_FLAGS, TAGS_BY_CARD = 0x26, 1 << 7  # ETHTOOL_SFLAGS, ETH_FLAG_TXVLAN
TAG = 7
ABOVE = {
    "vlan": f"link {UPLINK_AT_GATEWAY} name over1 type vlan id {TAG}",
    "bridge": "name over1 type bridge mcast_snooping 0",
    "bond": "name over1 type bond mode active-backup",
}
OF_FAMILIES = pytest.mark.parametrize(("outer", "inner"), [(4, 4), (4, 6), (6, 4), (6, 6)])
DECAPSULATED = {  # RFC 6040 §4.2, figure 4: by inner and outer field
    0: (0, 0, 0, None),
    1: (1, 1, 1, 3),
    2: (2, 1, 2, 3),
    3: (3, 3, 3, 3),
}
TUN_SET_INTERFACE, TAP, NO_INFORMATION, OFFLOAD_HEADER = 0x400454CA, 0x0002, 0x1000, 0x4000


def add_above(namespace: str, words: str) -> None:
    """Make a device; skips where this kernel has none of its kind."""
    with inside(namespace):
        done = subprocess.run(["ip", "link", "add", *words.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no such devices in this kernel: {words}: {done.stderr.strip()}")


def move_addresses(namespace: str, addresses: dict[int, str], old: str, new: str) -> None:
    lines = [f"link set {new} up", f"address flush dev {old}"]
    for version, length in ((4, 24), (6, 64)):
        address = f"{addresses[version]}/{length}"
        nodad = " nodad" if version == 6 else ""
        lines.append(f"address add {address} dev {new}{nodad}")
    ip_lines(namespace, *lines)


def build_above(uplink: Uplink, kind: str) -> None:
    """Let tunnels come in by a device `over1` above the uplink, where the program goes."""
    topology = uplink.topology
    add_above(topology.gateway, ABOVE[kind])
    if kind == "vlan":
        add_above(topology.relay, f"link {UPLINK_AT_RELAY} name over1 type vlan id {TAG}")
        move_addresses(topology.relay, RELAY, UPLINK_AT_RELAY, "over1")
    else:
        lines = (f"{UPLINK_AT_GATEWAY} down", f"{UPLINK_AT_GATEWAY} master over1", f"{UPLINK_AT_GATEWAY} up")
        ip_lines(topology.gateway, *(f"link set {line}" for line in lines))
    move_addresses(topology.gateway, GATEWAY, UPLINK_AT_GATEWAY, "over1")
    attach(uplink, "over1")


def attach(uplink: Uplink, interface: str) -> None:
    with inside(uplink.topology.gateway):
        uplink.stack.enter_context(attach_tc(uplink.loaded, "gateway_tc", socket.if_nametoindex(interface)))


def expect_forwarded(uplink: Uplink, outer: int, packet: bytes) -> None:
    """What a neighbour's address is asked for first is sent again."""
    uplink.forward(packet[0] >> 4, outer)
    uplink.send(outer, packet)
    frames = uplink.frames(0, packet)
    assert frames == [expected(uplink.addresses[0], packet, one_hop_on(packet))]
    assert uplink.counted("channel_counters", 5) == 1


@OF_FAMILIES
@pytest.mark.parametrize("kind", ["bridge", "bond"])
def test_the_uplink_is_a_device_above_others(make_uplink, kind: str, outer: int, inner: int) -> None:
    uplink = make_uplink(attached=False)
    build_above(uplink, kind)
    expect_forwarded(uplink, outer, datagram(inner, b"above"))


@OF_FAMILIES
@pytest.mark.parametrize("by_card", [True, False], ids=["accelerated", "in-band"])
def test_the_uplink_is_a_vlan(make_uplink, by_card: bool, outer: int, inner: int) -> None:
    uplink = make_uplink(attached=False)
    build_above(uplink, "vlan")
    with inside(uplink.topology.relay):
        set_offload(UPLINK_AT_RELAY, SET_FLAGS, enabled=TAGS_BY_CARD if by_card else 0)
    expect_forwarded(uplink, outer, datagram(inner, b"tagged"))


@pytest.mark.parametrize("known", [True, False], ids=["its tag", "another tag"])
@pytest.mark.parametrize("by_card", [True, False], ids=["accelerated", "in-band"])
def test_tagged_frames_below_the_vlan_are_a_tunnels_that_has_the_tag(make_uplink, by_card: bool, known: bool) -> None:
    """The tag does not leave by the downstream; without it in the tunnel's entry the socket has the message."""
    uplink = make_uplink(attached=False)
    build_above(uplink, "vlan")
    attach(uplink, UPLINK_AT_GATEWAY)
    with inside(uplink.topology.relay):
        set_offload(UPLINK_AT_RELAY, SET_FLAGS, enabled=TAGS_BY_CARD if by_card else 0)
    local = Endpoint(ip_address(GATEWAY[4]), uplink.sockets[4].getsockname()[1])
    relay = Endpoint(ip_address(RELAY[4]), 2268)
    value = tunnel_value(relay, 1, strict_port=True, vlans=(TAG if known else TAG + 1,))
    uplink.loaded.map("tunnels4").update(tunnel_key(local), value)
    packet = datagram_ipv4(b"below")
    if known:
        expect_forwarded(uplink, 4, packet)
    else:
        uplink.forward(4, 4)
        uplink.send(4, packet)
        assert uplink.sockets[4].recv(70000) == b"\x06\x00" + packet


@pytest.mark.parametrize("kind", ["uplink", "downstream"])
@OF_FAMILIES
def test_delay_on_a_link_changes_nothing(make_uplink, kind: str, outer: int, inner: int) -> None:
    uplink = make_uplink()
    topology = uplink.topology
    namespace, interface = (topology.relay, UPLINK_AT_RELAY) if kind == "uplink" else (topology.gateway, downstream(0))
    with inside(namespace):
        command = ["tc", "qdisc", "add", "dev", interface, "root", "netem", "delay", "5ms"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no netem in this kernel: {done.stderr.strip()}")
    expect_forwarded(uplink, outer, datagram(inner, b"late"))


@OF_FAMILIES
def test_marks_are_combined(make_uplink, outer: int, inner: int) -> None:
    uplink = make_uplink()
    uplink.forward(inner, outer)
    make = datagram_ipv4 if inner == 4 else datagram_ipv6
    level, option = ((socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS))[outer == 6]
    field = "tos" if inner == 4 else "traffic_class"
    lost = 0
    for mark, around in product(range(4), range(4)):
        uplink.senders[outer].setsockopt(level, option, around)
        packet, settled = make(bytes([16 * mark + around]), **{field: 0xB8 | mark}), DECAPSULATED[mark][around]
        uplink.send(outer, packet)
        if settled is None:
            lost += 1
            continue
        wanted = one_hop_on(make(bytes([16 * mark + around]), **{field: 0xB8 | settled}))
        assert uplink.frames(0, packet) == [expected(uplink.addresses[0], packet, wanted)]
    assert uplink.counted("refused", REFUSALS.index(Refusal.CONGESTION_LOST)) == lost == 1


@pytest.mark.parametrize("outer", [4, 6])
def test_outer_fragments_are_the_sockets(make_uplink, outer: int) -> None:
    uplink = make_uplink()
    uplink.forward(4, outer, limit=9000)
    packet = datagram_ipv4(bytes(3000))
    uplink.send(outer, packet)
    assert uplink.sockets[outer].recv(70000) == b"\x06\x00" + packet
    assert uplink.counted("exceptions", EXCEPTIONS.index("outer_fragment")) == 1
    assert uplink.counted("channel_counters", 5) == 0


@pytest.mark.parametrize("lacks", ["source address", "interface"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_copy_that_cannot_leave_is_counted_and_the_others_leave(make_uplink, place: int, lacks: str) -> None:
    """The last interface is not tried: the kernel sends by it after the program's end."""
    uplink = make_uplink(3)
    uplink.forward(4, 4)
    with inside(uplink.topology.gateway):
        indexes = [socket.if_nametoindex(downstream(number)) for number in range(3)]
        if lacks == "interface":
            run("ip", "link", "delete", downstream(place))
    if lacks != "interface":
        assert uplink.loaded.map("ports").delete(index_key(indexes[place]))
    uplink.loaded.map("set_interfaces").update(index_key(3), interface_list(tuple(indexes)))
    packet = datagram_ipv4(b"two of three")
    uplink.send(4, packet)
    for number in {0, 1, 2} - {place}:
        assert uplink.frames(number, packet) == [expected(uplink.addresses[number], packet, one_hop_on(packet))]
    assert uplink.counted("refused", REFUSALS.index(Refusal.OUTPUT_ERROR)) == 1
    assert uplink.counted("channel_counters", 5) == 1


@pytest.mark.parametrize("checked", ["not", "left to do", "by the card"])
@OF_FAMILIES
def test_it_does_not_matter_who_sums_the_outer_datagram(make_uplink, outer: int, inner: int, checked: str) -> None:
    """A tap device says of each frame what a card would: virtio's header in front of it."""
    uplink = make_uplink(attached=False)
    with inside(uplink.topology.gateway):
        card = os.open("/dev/net/tun", os.O_RDWR)
        uplink.stack.callback(os.close, card)
        fcntl.ioctl(card, TUN_SET_INTERFACE, struct.pack("16sH22x", b"card0", TAP | NO_INFORMATION | OFFLOAD_HEADER))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as probe:
            probe.bind(("card0", 0))
            station: bytes = probe.getsockname()[4]
    ip_lines(uplink.topology.gateway, "link set card0 up")
    attach(uplink, "card0")
    uplink.forward(inner, outer)
    packet = datagram(inner, b"summed")
    ports = (2268, uplink.sockets[outer].getsockname()[1])
    around = Outer(outer, relay=RELAY[outer], gateway=GATEWAY[outer], ports=ports).around(packet)
    size = 34 if outer == 4 else 54
    head = {
        "not": struct.pack("=BBHHHH", 0, 0, 0, 0, 0, 0),
        "left to do": struct.pack("=BBHHHH", 1, 0, 0, 0, size, 6),
        "by the card": struct.pack("=BBHHHH", 2, 0, 0, 0, 0, 0),
    }[checked]
    os.write(card, head + station + around[6:])
    assert uplink.frames(0, packet) == [expected(uplink.addresses[0], packet, one_hop_on(packet))]
