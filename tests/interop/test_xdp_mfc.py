"""The plane xdp-mfc: stripped in the uplink's driver, forwarded by multicast routing as of the tunnel interface."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.dataplane.fast.layout import Plane
from agent.dataplane.userspace_flow import DONT_FRAGMENT_SOURCE, PLAIN_SOURCE
from agent.net.bpf import object_path
from lab.bench.engine_border import Border
from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import UPLINK_AT_GATEWAY, UPLINK_AT_RELAY, EngineTopology, set_sysctl
from lab.bench.inner_packets import GROUP, SOURCE, datagram, datagram_ipv4, ipv4, one_hop_on
from lab.bench.relay_topology import inside, run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not object_path("gateway").exists(), reason="gateway.bpf.o is missing: `make bpf`"),
]

DONT_FRAGMENT, MORE_FRAGMENTS = 0x4000, 0x2000
GUESSES = 300
SECRETS = slice(20, 32)  # both secret addresses in struct settings
OF_FAMILIES = pytest.mark.parametrize(("outer", "inner"), [(4, 4), (4, 6), (6, 4), (6, 6)])
NFT_COUNTER = """
table inet {name} {{
    chain seen {{
        type filter hook forward priority 0; policy accept;
        iifname "{interface}" counter
    }}
}}
"""


class Tunnelled:
    """A border whose channels go by multicast routing, its relay, the wire behind it, and what is seen on the way."""

    def __init__(self, topology: EngineTopology, stack: ExitStack, **settings) -> None:
        self.stack = stack
        self.topology = topology
        self.border = stack.enter_context(Border(topology, on_unsupported=pytest.skip, plane=Plane.XDP_MFC, **settings))
        self.relay = self.border.relay()
        self.wire = self.border.wire()
        self.name = self.border.tap.name
        self.tap = self.watch(self.name)

    def watch(self, interface: str) -> socket.socket:
        """What tcpdump would see on an interface of the gateway."""
        watching = self.stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        watching.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
        watching.bind((interface, 0))
        watching.setblocking(False)
        return watching

    def received(self, count: int) -> list[bytes]:
        self.border.run_until(lambda: len(self.wire.collect()) >= count)
        return self.wire.packets

    def forwarded(self) -> int:
        """Packets the program counted; those of the userspace engine are not among them."""
        return sum(packets for packets, _ in self.border.programs.map("tunnel_counters").all_sums(0, 4))

    def settings(self) -> bytes:
        value = self.border.programs.map("settings").lookup(bytes(4))
        assert value is not None
        return value

    def send_frames(self, *frames: bytes) -> None:
        """Put frames on the uplink's link as somebody beside the relay would."""
        with inside(self.topology.relay), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as far:
            far.bind((UPLINK_AT_RELAY, 0))
            for frame in frames:
                far.send(frame)

    def expect_alone(self, packet: bytes) -> None:
        """A packet of the relay arrives, and nothing that was sent before it."""
        self.relay.send(packet)
        assert self.received(1) == [one_hop_on(packet)]


def frames_of(watching: socket.socket, group: bytes) -> list[bytes]:
    """Frames an interface saw of a group."""
    frames = []
    while True:
        try:
            frame = watching.recv(1 << 17)
        except BlockingIOError:
            return frames
        if group in frame[14:54]:
            frames.append(frame)


def group_of(version: int) -> bytes:
    return socket.inet_pton(socket.AF_INET if version == 4 else socket.AF_INET6, GROUP[version])


@pytest.fixture
def topology() -> Iterator[EngineTopology]:
    if missing := missing_for_engine():
        pytest.skip(missing)
    with EngineTopology(f"isx-mfc{os.getpid()}", downstreams=2) as made, inside(made.gateway):
        yield made


@pytest.fixture
def make(topology: EngineTopology) -> Iterator:
    with ExitStack() as stack:
        yield lambda **settings: Tunnelled(topology, stack, **settings)


@OF_FAMILIES
def test_single_packets_enter_by_the_tunnel_interface(make, outer: int, inner: int) -> None:
    bench = make(outer=outer)
    bench.border.forward(inner, "down0", "down1")
    second = bench.border.wire(1)
    sent = [datagram(inner, bytes(range(size % 256)) * (size // 255 + 1)) for size in (0, 1, 200, 1000)]
    bench.relay.send(*sent)
    assert bench.received(len(sent)) == [one_hop_on(packet) for packet in sent]
    bench.border.run_until(lambda: second.collect() == [one_hop_on(packet) for packet in sent])
    seen = frames_of(bench.tap, group_of(inner))
    assert [frame[14:] for frame in seen] == sent
    assert {frame[6:12] for frame in seen} == {PLAIN_SOURCE}
    assert {frame[0] & 1 for frame in seen} == {1}
    assert bench.forwarded() == len(sent)
    assert f"Iif: {bench.name}" in run("ip", f"-{inner}", "-s", "mroute", "show", "table", "all")


@OF_FAMILIES
def test_trains_that_were_joined_leave_as_they_were_sent(make, outer: int, inner: int) -> None:
    bench = make(outer=outer)
    bench.border.forward(inner)
    fields = [{"identification": 65530 + n & 0xFFFF} for n in range(40)]
    sent = [
        datagram_ipv4(bytes([n]) * 1316, **fields[n]) if inner == 4 else datagram(6, bytes([n]) * 1316)
        for n in range(40)
    ]
    bench.relay.send_train(sent)
    assert bench.received(len(sent)) == [one_hop_on(packet) for packet in sent]
    assert bench.forwarded() == len(sent)
    assert max(len(frame) for frame in frames_of(bench.tap, group_of(inner))) > 1500


@pytest.mark.parametrize("train", [True, False], ids=["train", "one-by-one"])
@pytest.mark.parametrize("outer", [4, 6])
def test_dont_fragment_is_given_back(make, outer: int, train: bool) -> None:
    """Off on the tunnel interface, for the routing drops trains that carry it; set again by the rule behind it."""
    bench = make(outer=outer)
    bench.border.forward(4)
    sent = [datagram_ipv4(bytes([n]) * 1316, identification=9 + n, flags=DONT_FRAGMENT) for n in range(30)]
    if train:
        bench.relay.send_train(sent)
    else:
        bench.relay.send(*sent)
    assert bench.received(30) == [one_hop_on(packet) for packet in sent]
    seen = frames_of(bench.tap, group_of(4))
    assert {frame[6:12] for frame in seen} == {DONT_FRAGMENT_SOURCE}
    assert {frame[20:22] for frame in seen} == {b"\0\0"}
    assert not train or max(map(len, seen)) > 1500
    assert bench.forwarded() == 30


@pytest.mark.parametrize("flags", [MORE_FRAGMENTS, 3, DONT_FRAGMENT | MORE_FRAGMENTS, DONT_FRAGMENT | 3])
def test_fragments_keep_all_of_their_flags(make, flags: int) -> None:
    bench = make()
    bench.border.forward(4)
    bench.expect_alone(ipv4(bytes(800), flags=flags))
    assert bench.forwarded() == 1


@pytest.mark.parametrize("everywhere", ["0", "1", "2"])
def test_packets_pass_whatever_reverse_path_filter_the_operator_set(make, everywhere: str) -> None:
    set_sysctl("net/ipv4/conf/all/rp_filter", everywhere)
    bench = make()
    bench.border.forward(4)
    bench.expect_alone(datagram(4, b"x" * 100))
    assert bench.forwarded() == 1
    assert Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text().strip() == everywhere


@pytest.mark.parametrize("inner", [4, 6])
def test_packet_filters_count_what_is_forwarded(make, inner: int) -> None:
    nft = shutil.which("nft")
    if nft is None:
        pytest.skip("needs nft")
    bench = make()
    bench.border.forward(inner)
    rules = NFT_COUNTER.format(name="counted", interface=bench.name)
    subprocess.run([nft, "-f", "-"], input=rules, text=True, check=True)
    sent = [datagram(inner, bytes([n]) * 100) for n in range(5)]
    bench.relay.send(*sent)
    bench.received(5)
    assert "counter packets 5" in run(nft, "list", "table", "inet", "counted")


def test_what_others_put_on_the_link_is_not_taken_for_tunnelled(make) -> None:
    """Neither with the group's address nor with guessed ones, nor with those seen on the tunnel interface."""
    bench = make()
    bench.border.forward(4)
    forged = datagram_ipv4(b"forged")
    group = b"\x01\x00\x5e\x01\x01\x01"
    near: bytes = bench.watch(UPLINK_AT_GATEWAY).getsockname()[4]
    secrets = bench.settings()[SECRETS]
    known = [group, near, PLAIN_SOURCE, DONT_FRAGMENT_SOURCE, b"\xff" * 6]
    guesses = [b"\x02" + os.urandom(5) for _ in range(GUESSES)]
    sources = (PLAIN_SOURCE, DONT_FRAGMENT_SOURCE, secrets[:6], secrets[6:])
    for source in sources:
        bench.send_frames(*(address + source + b"\x08\x00" + forged for address in (*known, *guesses)))
    bench.expect_alone(datagram_ipv4(b"tunnelled"))
    assert len(frames_of(bench.tap, group_of(4))) == 1


def test_the_secret_is_what_keeps_them_out(make) -> None:
    """The counterpart: who knew it could. It is drawn for each engine, and nothing sends it anywhere."""
    bench = make()
    bench.border.forward(4)
    secrets = bench.settings()[SECRETS]
    packet = datagram_ipv4(b"known")
    bench.send_frames(secrets[:6] + bytes(6) + b"\x08\x00" + packet)
    assert bench.received(1) == [one_hop_on(packet)]
    assert secrets[0] & 3 == secrets[6] & 3 == 2  # of a station, locally administered
    assert secrets[:6] != secrets[6:]


def test_when_nothing_behind_the_driver_takes_the_packets_nobody_does(make) -> None:
    """The stack drops what is for another station: it is not multicast that came in natively by the uplink."""
    bench = make()
    bench.border.forward(4)
    listening = bench.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    listening.bind(("", 5004))
    member = socket.inet_aton(GROUP[4]) + socket.inet_aton("10.81.0.2") + socket.inet_aton(SOURCE[4])
    listening.setsockopt(socket.IPPROTO_IP, 39, member)  # IP_ADD_SOURCE_MEMBERSHIP
    listening.setblocking(False)
    uplink = bench.watch(UPLINK_AT_GATEWAY)
    set_sysctl(f"net/ipv4/conf/{UPLINK_AT_GATEWAY}/rp_filter", "0")
    bench.send_frames(b"\x01\x00\x5e\x01\x01\x01" + bytes(6) + b"\x08\x00" + datagram_ipv4(b"native"))
    bench.border.run_until(lambda: frames_of(uplink, group_of(4)))
    assert listening.recv(2000) == b"native"
    value = bench.settings()
    bench.border.programs.map("settings").update(bytes(4), bytes(4) + value[4:])  # the program behind it does nothing
    bench.relay.send(*(datagram_ipv4(b"tunnelled") for _ in range(10)))
    stations: list[bytes] = []
    deadline = time.monotonic() + 5
    while len(stations) < 10 and time.monotonic() < deadline:
        stations += [frame[:6] for frame in frames_of(uplink, group_of(4)) if frame[34:36] == (5000).to_bytes(2, "big")]
    assert set(stations) == {bench.settings()[SECRETS][:6]}
    with pytest.raises(BlockingIOError):
        listening.recv(2000)
    assert bench.wire.collect() == []
    assert frames_of(bench.tap, group_of(4)) == []


def test_packets_the_program_does_not_understand_go_through_the_socket(make) -> None:
    bench = make()
    bench.border.forward(4)
    options, plain = datagram_ipv4(b"options", options=bytes(4)), datagram_ipv4(b"plain")
    bench.relay.send(options)
    assert bench.received(1) == [one_hop_on(options)]
    bench.relay.send(plain)
    assert bench.received(2)[1] == one_hop_on(plain)
    assert bench.forwarded() == 1
