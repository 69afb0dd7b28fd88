"""The kernel's own AMT gateway beside native multicast routing, both in the User Mode Linux guest.

The guest has one CPU, and a datagram is on its way through sender, router and sink before the call that sent it
returns: the time of those calls is the cost of everything. What the sender costs alone, measured on a link that drops,
is taken off. Trains of datagrams are cut by the sender; the router sees single packets.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from statistics import median
from typing import Final

from agent.net.mroute import MulticastRouter
from agent.protocol.channels import Family
from lab.bench.inner_packets import datagram_ipv4
from lab.bench.relay_topology import inside
from lab.kernel_amt.guest import DIRECTORY, Guest, missing_to_boot
from lab.namespaces import Lab, LabError
from lab.topology import Topology

_SECONDS: Final = 60.0
_RELAY: Final = "10.93.0.2"
_GATEWAY: Final = "10.93.0.1"
_SOURCE: Final = "198.51.100.10"
_GROUP: Final = "232.1.1.1"
_SIZE: Final = 1316
_BURST: Final = 16
_PACKETS: Final = 48_000
_ROUNDS: Final = 25
_AMT_DATA: Final = b"\x06\0"
_UDP_SEGMENT: Final = 103
_PORT: Final = 2268

_SCRIPT: Final = f"""
set -e
uname -r > $OUT/release
modprobe -d {DIRECTORY}/modules dummy
for name in source sink; do ip netns add $name; ip -n $name link set lo up; done
ip link add up0 type veth peer name out0 netns source
ip link add down0 type veth peer name in0 netns sink
ip -n source link add nowhere type dummy
ip address add {_GATEWAY}/24 dev up0
ip address add 10.94.0.1/24 dev down0
ip -n source address add {_RELAY}/24 dev out0
for link in up0 down0; do ip link set $link up; done
for link in out0 nowhere; do ip -n source link set $link up; done
ip -n source route add default dev nowhere
ip -n sink link set in0 up
sysctl -q -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.up0.rp_filter=0
ip netns exec source ethtool -K out0 tx-udp-segmentation off
ip netns exec source ethtool -K nowhere tx-udp-segmentation off
sysctl -q -w net.ipv6.conf.all.disable_ipv6=1
ip netns exec source sysctl -q -w net.ipv6.conf.all.disable_ipv6=1
ip netns exec sink sysctl -q -w net.ipv6.conf.all.disable_ipv6=1
ip -n source link add amt1 type amt mode relay local {_RELAY} dev out0 relay_port {_PORT} max_tunnels 4
ip -n source link set amt1 up
ip link add amt0 type amt mode gateway local {_GATEWAY} discovery {_RELAY} dev up0 \\
    gateway_port {_PORT} relay_port {_PORT}
ip link set amt0 up
$PYTHON -m lab.bench.fast_guest > $OUT/figures
"""


@dataclass(frozen=True, slots=True)
class GuestRatio:
    """Seconds a packet takes there.

    Attributes:
        release: of the guest's kernel.
        native: to route a packet, the sink's first steps included.
        gateway: to take it out of a tunnel and do the same.
    """

    release: str
    native: float
    gateway: float

    @property
    def ratio(self) -> float:
        """What the gateway takes to what routing alone takes."""
        return self.gateway / self.native


def measure(prefix: str) -> GuestRatio:
    """Boot the guest and measure there, in half a minute.

    Raises:
        RuntimeError: it cannot be done here; the message says why.
    """
    if missing := missing_to_boot():
        raise RuntimeError("the guest needs " + ", ".join(missing))
    try:
        with Lab(Topology(prefix=prefix)) as lab, Guest(lab, lab.topology.internet, _SCRIPT) as guest:
            status = guest.finish(_SECONDS)
            if status:
                raise RuntimeError(f"the guest's script failed: {guest.read('log')[-400:]}")
            figures = json.loads(guest.read("figures"))
            if min(figures.values()) <= 0:
                raise RuntimeError(
                    "other programs disturbed the guest: its sender alone took longer than with a router"
                )
            return GuestRatio(guest.read("release").strip(), figures["native"], figures["gateway"])
    except LabError as error:
        raise RuntimeError(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Way:
    """How packets are sent: by a socket, and by one whose link drops them."""

    sender: socket.socket
    nowhere: socket.socket
    address: tuple[str, int]
    payload: bytes


def _received() -> int:
    with inside("sink"):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    (line,) = [line for line in lines if line.strip().startswith("in0:")]
    return int(line.partition(":")[2].split()[1])


def _seconds_a_packet(sender: socket.socket, address: tuple[str, int], payload: bytes) -> float:
    control = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", len(payload)))]
    data = payload * _BURST
    begun = time.perf_counter()
    for _ in range(_PACKETS // _BURST):
        sender.sendmsg([data], control, 0, address)
    return (time.perf_counter() - begun) / _PACKETS


def _through(sender: socket.socket, address: tuple[str, int], payload: bytes) -> float:
    """Seconds a packet, all of which have to arrive at the sink."""
    before = _received()
    found = _seconds_a_packet(sender, address, payload)
    arrived = _received() - before
    if arrived < _PACKETS:
        raise RuntimeError(f"{arrived} of {_PACKETS} packets arrived")
    return found


def _multicast_sender(interface: str) -> socket.socket:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 16)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
    return sender


def _gateway(router: MulticastRouter) -> _Way:
    with inside("source"):
        relay = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        relay.bind((_RELAY, 0))  # the kernel's relay has the port, and its gateway looks at the address alone
        nowhere = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        nowhere.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"nowhere\0")
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # it takes data only after its first Update
    wanted = struct.pack("=4s4si", socket.inet_aton("239.1.1.1"), bytes(4), socket.if_nametoindex("amt0"))
    router.set_route(ip_address(_SOURCE), ip_address(_GROUP), "amt0", ["down0"])
    payload = _AMT_DATA + datagram_ipv4(bytes(_SIZE), source=_SOURCE, group=_GROUP)
    deadline = time.monotonic() + 20
    while True:
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, wanted)
        before = _received()
        relay.sendto(payload, (_GATEWAY, _PORT))
        time.sleep(0.5)
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, wanted)
        if _received() > before:
            break
        if time.monotonic() > deadline:
            raise RuntimeError("the kernel's gateway does not forward")
    return _Way(relay, nowhere, (_GATEWAY, _PORT), payload)


def _native(router: MulticastRouter) -> _Way:
    with inside("source"):
        sender, nowhere = _multicast_sender("out0"), _multicast_sender("nowhere")
        sender.bind((_RELAY, 0))
        nowhere.bind((_RELAY, 0))
    router.set_route(ip_address(_RELAY), ip_address(_GROUP), "up0", ["down0"])
    return _Way(sender, nowhere, (_GROUP, 5000), bytes(_SIZE))


def main() -> None:
    """Measure; in the guest."""
    router = MulticastRouter(Family.IPV4)
    ways = {"native": _native(router), "gateway": _gateway(router)}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _, (name, way) in product(range(_ROUNDS), ways.items()):  # in turn: whatever else runs here delays both
        whole = _through(way.sender, way.address, way.payload)
        costs[name].append(whole - _seconds_a_packet(way.nowhere, way.address, way.payload))
    print(json.dumps({name: median(found) for name, found in costs.items()}), flush=True)


if __name__ == "__main__":
    main()
