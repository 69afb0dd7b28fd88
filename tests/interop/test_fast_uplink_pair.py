"""Two uplinks of one gateway: both at once, a relay that moves between them, and frames that are on the wrong one."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from agent.dataplane.engine import TunnelSocket
from agent.dataplane.fast import uplink_programs
from agent.dataplane.fast.layout import Plane
from agent.net.bpf import BpfError, BpfObject, Link, attach_tc
from agent.protocol.channels import Channel, Endpoint
from lab.bench.engine_border import AMT_PORT, Border
from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import UPLINK_AT_GATEWAY, UPLINK_AT_RELAY, EngineTopology
from lab.bench.inner_packets import datagram_ipv4, one_hop_on
from lab.bench.relay_topology import inside, ip_lines, run
from lab.namespaces import wait_until

pytestmark = [pytest.mark.root, pytest.mark.parametrize("plane", ["xdp", "xdp-mfc", "tc"], indirect=True)]

SECOND_AT_RELAY, SECOND_AT_GATEWAY = "uplink2", "uplink3"
MOBILE_RELAY = "10.90.0.1"
"""Of a relay that both uplinks lead to."""

MOBILE_GATEWAY = "10.91.0.1"
"""Of ours, on no uplink."""

FIRST_WAY, SECOND_WAY = ("10.81.0.2", "10.81.0.1"), ("10.83.0.2", "10.83.0.1")
"""Our end and the relay's end of each uplink."""


class Pair:
    """A gateway with two uplinks and two tunnels: `relay` on the first one, and `mobile`, whose way can be chosen."""

    def __init__(self, plane: Plane | None, stack: ExitStack) -> None:
        self.stack, self.plane = stack, plane
        self.topology = stack.enter_context(
            EngineTopology(f"isx-pair{os.getpid()}", downstreams=2, redirectable=True),
        )
        self._connect()
        stack.enter_context(inside(self.topology.gateway))

    def open(self, uplinks: tuple[str, ...] = ()) -> None:
        """Start the engine."""
        self.border = self.stack.enter_context(
            Border(self.topology, on_unsupported=pytest.skip, plane=self.plane, uplinks=uplinks)
        )
        assert self.border.fast is not None
        self.uplinks = self.border.fast._uplinks
        self.relay = self.border.relay()
        self.wire = self.border.wire()
        with inside(self.topology.relay):
            self.far = self.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            self.far.bind((MOBILE_RELAY, AMT_PORT))
        self.near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.border.sockets.append(self.near)  # to be closed after the engine
        self.near.bind((MOBILE_GATEWAY, 0))
        relay = Endpoint(ip_address(MOBILE_RELAY), AMT_PORT)
        self.border.engine.add_tunnel(TunnelSocket("mobile", self.near, relay, lambda *_: None, lambda _: None))

    def _connect(self) -> None:
        near, far = self.topology.gateway, self.topology.relay
        run(
            *("ip", "link", "add", SECOND_AT_RELAY, "netns", far, "type", "veth"),
            *("peer", "name", SECOND_AT_GATEWAY, "netns", near),
        )
        ours, theirs = SECOND_WAY
        ip_lines(
            *(far, f"address add {theirs}/24 dev {SECOND_AT_RELAY}", f"link set {SECOND_AT_RELAY} up"),
            *(f"address add {MOBILE_RELAY}/32 dev lo", f"route add {MOBILE_GATEWAY}/32 via {FIRST_WAY[0]}"),
        )
        ip_lines(
            *(near, f"address add {ours}/24 dev {SECOND_AT_GATEWAY}", f"link set {SECOND_AT_GATEWAY} up"),
            *(f"address add {MOBILE_GATEWAY}/32 dev lo", f"route add {MOBILE_RELAY}/32 via {FIRST_WAY[1]}"),
        )
        with inside(far):
            run("ethtool", "-K", SECOND_AT_RELAY, "tso", "off")
        with inside(near):
            run("ethtool", "-K", SECOND_AT_GATEWAY, "gro", "on")
            # The kernel takes up to a second to say that a new link is up, and channels do not leave by others.
            for name in (UPLINK_AT_GATEWAY, SECOND_AT_GATEWAY):
                wait_until(lambda name=name: " UP " in run("ip", "-br", "link", "show", name), 5.0, f"{name} is up")

    def comes_by(self, uplink: str) -> None:
        """Wait until the mobile relay is known to be behind an uplink."""
        index = socket.if_nametoindex(uplink)
        self.border.run_until(lambda: self.uplinks.interface("mobile") == index)

    def ways(self, *, to_relay: tuple[str, str] | None = None, to_gateway: tuple[str, str] | None = None) -> None:
        """Choose the uplink towards the mobile relay, and the one its data comes by."""
        if to_relay is not None:
            ip_lines(self.topology.gateway, f"route replace {MOBILE_RELAY}/32 via {to_relay[1]}")
        if to_gateway is not None:
            ip_lines(self.topology.relay, f"route replace {MOBILE_GATEWAY}/32 via {to_gateway[0]}")

    def from_mobile(self, packets: Sequence[bytes]) -> None:
        """Send from the mobile relay."""
        for packet in packets:
            self.far.sendto(b"\x06\x00" + packet, self.near.getsockname())

    def forward(self, tunnel: str, group: str) -> Channel:
        """Set a channel, and wait until it is on the plane."""
        return self.border.forward(4, tunnels=[tunnel], group=group)

    def on_plane(self, channel: Channel) -> bool:
        return self.border.plane_of(channel) is self.plane

    def reason(self, channel: Channel) -> str:
        assert self.border.fast is not None
        return self.border.fast.explain(channel)[1]

    def expect(self, packets: Sequence[bytes]) -> None:
        """These arrive next, each once, and in the order of each group."""
        self.border.run_until(lambda: len(self.wire.collect()) >= len(packets))
        assert sorted(self.wire.packets) == sorted(one_hop_on(packet) for packet in packets)
        self.wire.packets.clear()

    def by_program(self) -> int:
        """Packets forwarded by the programs so far, of all tunnels."""
        return sum(packets for packets, _ in self.border.programs.map("tunnel_counters").all_sums(0, 4))

    def send_frame(self, interface: str, station: bytes, packet: bytes) -> None:
        """Put a frame of the mobile relay's for a station on an uplink."""
        message = b"\x06\x00" + packet
        address, port = self.near.getsockname()
        outer = datagram_ipv4(message, source=MOBILE_RELAY, group=address, ports=(AMT_PORT, port))
        with inside(self.topology.relay), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as far:
            far.bind((interface, 0))
            far.send(station + bytes.fromhex("02000000000a") + b"\x08\x00" + outer)


@pytest.fixture
def make(plane: Plane | None) -> Iterator[Callable[..., Pair]]:
    if missing := missing_for_engine():
        pytest.skip(missing)
    with ExitStack() as stack:

        def make(uplinks: tuple[str, ...] = ()) -> Pair:
            pair = Pair(plane, stack)
            pair.open(uplinks)
            return pair

        yield make


def packets_of(group: str, count: int = 20, first: int = 0) -> list[bytes]:
    numbers = range(first, first + count)
    return [datagram_ipv4(bytes([number]) * 100, group=group, identification=number) for number in numbers]


def station_of(pair: Pair, interface: str) -> bytes:
    shown = run("ip", "-br", "link", "show", interface).split()
    return bytes.fromhex(shown[2].replace(":", ""))


def is_known(pair: Pair, station: bytes) -> bool:
    """Whether the programs take frames for a station."""
    tunnels = pair.border.programs.map("tunnels4")
    return any(station in (tunnels.lookup(key) or b"") for key in tuple(tunnels.keys()))


def test_two_relays_are_heard_on_two_uplinks_at_once(make: Callable[..., Pair]) -> None:
    pair = make()
    pair.ways(to_relay=SECOND_WAY, to_gateway=SECOND_WAY)
    pair.comes_by(SECOND_AT_GATEWAY)
    pair.forward("relay", "232.1.1.1")
    pair.forward("mobile", "232.1.1.2")
    one, other = packets_of("232.1.1.1"), packets_of("232.1.1.2")
    for left, right in zip(one, other, strict=True):
        pair.relay.send(left)
        pair.from_mobile([right])
    pair.expect([*one, *other])
    assert pair.by_program() == 40
    through = pair.border.engine.tunnel_traffic()
    assert {name: traffic.packets for name, traffic in through.items()} == {"relay": 20, "mobile": 20}


def test_a_relay_whose_route_changes_is_followed_to_the_other_uplink(make: Callable[..., Pair]) -> None:
    pair = make()
    channel = pair.forward("mobile", "232.1.1.2")
    sent = packets_of("232.1.1.2")
    pair.from_mobile(sent)
    pair.expect(sent)
    for way, uplink in ((SECOND_WAY, SECOND_AT_GATEWAY), (FIRST_WAY, UPLINK_AT_GATEWAY)) * 2:
        pair.ways(to_relay=way, to_gateway=way)
        between = packets_of("232.1.1.2", first=100)
        pair.from_mobile(between)
        pair.expect(between)
        pair.comes_by(uplink)
        pair.border.run_until(lambda: pair.on_plane(channel))
        before = pair.by_program()
        pair.from_mobile(sent)
        pair.expect(sent)
        assert pair.by_program() - before == len(sent)


def test_data_may_come_in_on_another_uplink_than_its_route_leads_to(make: Callable[..., Pair]) -> None:
    pair = make((UPLINK_AT_GATEWAY, SECOND_AT_GATEWAY))
    pair.ways(to_gateway=SECOND_WAY)
    pair.forward("mobile", "232.1.1.2")
    sent = packets_of("232.1.1.2")
    pair.from_mobile(sent)
    pair.expect(sent)
    assert pair.by_program() == len(sent)


def test_frames_for_the_other_uplink_s_station_are_not_ours(make: Callable[..., Pair]) -> None:
    """A switch floods them to an uplink in promiscuous mode, and the copy for the right one is forwarded already."""
    pair = make((UPLINK_AT_GATEWAY, SECOND_AT_GATEWAY))
    pair.forward("mobile", "232.1.1.2")
    run("ip", "link", "set", UPLINK_AT_GATEWAY, "promisc", "on")
    first, second = station_of(pair, UPLINK_AT_GATEWAY), station_of(pair, SECOND_AT_GATEWAY)
    right, wrong, last = packets_of("232.1.1.2", 3)
    pair.send_frame(UPLINK_AT_RELAY, first, right)
    pair.send_frame(UPLINK_AT_RELAY, second, wrong)
    pair.send_frame(SECOND_AT_RELAY, second, last)
    pair.expect([right, last])


def test_another_station_address_of_an_uplink_is_followed(make: Callable[..., Pair]) -> None:
    pair = make()
    channel = pair.forward("mobile", "232.1.1.2")
    old, new = station_of(pair, UPLINK_AT_GATEWAY), bytes.fromhex("020000000042")
    ip_lines(pair.topology.gateway, f"link set {UPLINK_AT_GATEWAY} address {new.hex(':')}")
    right, wrong, last = packets_of("232.1.1.2", 3)
    pair.border.run_until(lambda: is_known(pair, new) and pair.on_plane(channel))
    pair.send_frame(UPLINK_AT_RELAY, new, right)
    pair.send_frame(UPLINK_AT_RELAY, old, wrong)
    pair.send_frame(UPLINK_AT_RELAY, new, last)
    pair.expect([right, last])
    assert pair.by_program() == 2


def test_a_channel_may_leave_by_an_uplink(make: Callable[..., Pair]) -> None:
    """Also by the one it came in on."""
    pair = make()
    with inside(pair.topology.relay):
        for name in (UPLINK_AT_RELAY, SECOND_AT_RELAY):
            run("ethtool", "-K", name, "gro", "on")
        seen = []
        for name in (UPLINK_AT_RELAY, SECOND_AT_RELAY):
            watching = pair.stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
            watching.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
            watching.bind((name, 0))
            watching.setblocking(False)
            seen.append(watching)
    ways = ("down0", UPLINK_AT_GATEWAY, SECOND_AT_GATEWAY)
    pair.border.forward(4, *ways, tunnels=["mobile"], group="232.1.1.2")
    sent = packets_of("232.1.1.2")
    pair.from_mobile(sent)
    pair.expect(sent)
    for watching, near in zip(seen, (UPLINK_AT_GATEWAY, SECOND_AT_GATEWAY), strict=True):
        frames: list[bytes] = []

        def have_all(watching: socket.socket = watching, frames: list[bytes] = frames) -> bool:
            frames += multicast_frames(watching)
            return len(frames) >= len(sent)

        pair.border.run_until(have_all)
        assert [frame[14:] for frame in frames] == [one_hop_on(packet) for packet in sent]
        if pair.plane is not Plane.XDP_MFC:
            assert {frame[6:12] for frame in frames} == {station_of(pair, near)}
    assert pair.by_program() == len(sent)


def test_an_uplink_that_takes_no_tc_program_loses_no_packet(
    make: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver's program strips for multicast routing is taken behind it, or not stripped."""

    def attach(loaded: BpfObject, program: str, index: int) -> Link:
        if socket.if_indextoname(index) == SECOND_AT_GATEWAY:
            raise BpfError(errno.EBUSY, "no room for another one")
        return attach_tc(loaded, program, index)

    monkeypatch.setattr(uplink_programs, "attach_tc", attach)
    pair = make((UPLINK_AT_GATEWAY, SECOND_AT_GATEWAY))
    assert pair.border.fast is not None
    channel = pair.forward("mobile", "232.1.1.2")
    first, second, third = (packets_of("232.1.1.2", first=number) for number in (0, 50, 100))
    pair.from_mobile(first)
    pair.expect(first)
    pair.ways(to_gateway=SECOND_WAY)
    pair.from_mobile(second)
    pair.expect(second)
    for planes in ((Plane.XDP,), (pair.plane,)):
        pair.border.fast.choose(planes)
        pair.border.run_until(lambda planes=planes: pair.border.plane_of(channel) is planes[0])
        pair.from_mobile(third)
        pair.expect(third)
    if pair.plane is Plane.XDP_MFC:
        usable, reasons = pair.uplinks.attached()[SECOND_AT_GATEWAY]
        assert not usable
        assert "no tc program can be attached" in reasons[Plane.XDP_MFC]


def multicast_frames(watching: socket.socket) -> list[bytes]:
    frames = []
    while True:
        try:
            frame = watching.recv(1 << 16)
        except BlockingIOError:
            return frames
        if frame[:6] == bytes.fromhex("01005e010102"):
            frames.append(frame)


def test_an_uplink_without_ethernet_header_carries_no_plane_and_says_so(make: Callable[..., Pair]) -> None:
    """The programs look for one: on a tunnel of layer 3 they would read packets from the wrong place on."""
    pair = make()
    ip_lines(pair.topology.gateway, "tuntap add dev layer3 mode tun", "link set layer3 up")
    ip_lines(pair.topology.gateway, f"route replace {MOBILE_RELAY}/32 dev layer3")
    pair.border.run_until(lambda: "layer3" in pair.uplinks.attached())
    assert pair.plane is not None
    usable, reasons = pair.uplinks.attached()["layer3"]
    assert (usable, reasons) == (frozenset(), {pair.plane: "layer3 has no Ethernet header"})
    assert pair.uplinks.reason("mobile", pair.plane) == "layer3 has no Ethernet header"


ABOVE = {"macvlan": ("a macvlan device", "macvlan mode bridge"), "vlan": ("a VLAN device", "vlan id 7")}


def move_above(namespace: str, interface: str, kind: str, address: str) -> None:
    """Make a device `above0` above an interface, with its address; skips where this kernel has none of its kind."""
    with inside(namespace):
        try:
            run("ip", "link", "add", "link", interface, "name", "above0", "type", *ABOVE[kind][1].split())
        except RuntimeError as error:
            pytest.skip(f"no {kind} devices in this kernel: {error}")
    ip_lines(namespace, f"address del {address}/24 dev {interface}")
    ip_lines(namespace, "link set above0 up", f"address add {address}/24 dev above0")


@pytest.mark.parametrize("kind", ABOVE)
def test_an_uplink_above_another_is_served_by_tc_and_says_why_by_nothing_faster(
    make: Callable[..., Pair], kind: str
) -> None:
    """Though the interface below it could carry a program in its driver."""
    pair = make()
    assert pair.plane is not None
    move_above(pair.topology.gateway, SECOND_AT_GATEWAY, kind, SECOND_WAY[0])
    far = SECOND_AT_RELAY
    if kind == "vlan":
        move_above(pair.topology.relay, SECOND_AT_RELAY, kind, SECOND_WAY[1])
        far = "above0"
    pair.ways(to_relay=SECOND_WAY, to_gateway=SECOND_WAY)
    # Both interfaces would answer who has that address.
    station = station_of(pair, "above0").hex(":")
    ip_lines(pair.topology.relay, f"neighbor replace {SECOND_WAY[0]} lladdr {station} dev {far}")
    pair.comes_by("above0")
    sent = packets_of("232.1.1.2")
    pair.border.waits = False
    channel = pair.forward("mobile", "232.1.1.2")
    wanted = Plane.TC if pair.plane is Plane.TC else Plane.USERSPACE
    pair.border.run_until(lambda: pair.border.plane_of(channel) is wanted)
    pair.from_mobile(sent)
    pair.expect(sent)
    assert pair.by_program() == (len(sent) if wanted is Plane.TC else 0)
    if wanted is Plane.USERSPACE:
        assert pair.uplinks.reason("mobile", pair.plane) == f"above0 is {ABOVE[kind][0]}, which has no native XDP"
