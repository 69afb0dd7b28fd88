"""Streams that flow while their channel moves between tunnels and native links: what the receivers' wire shows."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest
from forwarding.planes import EACH_ONCE

from agent.dataplane.fast.layout import Plane
from agent.protocol.channels import Channel, Filter
from agent.protocol.upstream import NativeUpstream, TunnelUpstream, Upstream
from agent.service.gateway_channels import ChannelControl
from agent.tree import InterestKind, Owner, Tree
from lab.bench.engine_border import Border
from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import EngineTopology, host_interface
from lab.bench.inner_packets import GROUP, SOURCE, datagram_ipv4, datagram_ipv6
from lab.bench.relay_topology import inside

pytestmark = pytest.mark.root

NATIVE = NativeUpstream("down1", ip_address("10.82.1.2"))
ONE, TWO = TunnelUpstream(("relay",)), TunnelUpstream(("second",))
LEAD = 40
"""Packets that pass before and after each move."""


class Asked:
    """Stands in for tunnels and PIM: whoever is asked sends."""

    def __init__(self) -> None:
        self.by: set[str] = set()

    def tunnel(self, name: str) -> Asked.Tunnel:
        return Asked.Tunnel(self, name)

    def join(self, _channel: Channel, _upstream: NativeUpstream) -> None:
        self.by.add("native")

    def prune(self, _channel: Channel) -> None:
        self.by.discard("native")

    class Tunnel:
        def __init__(self, asked: Asked, name: str) -> None:
            self.asked, self.name = asked, name

        def set_membership(self, _group: object, wanted: Filter) -> None:
            if wanted.wants_nothing:
                self.asked.by.discard(self.name)
            else:
                self.asked.by.add(self.name)


class Scene:
    """A receiver's wire, two relays, a native source, and the channel control between them."""

    def __init__(self, topology: EngineTopology, stack: ExitStack, version: int, plane: Plane | None) -> None:
        stack.enter_context(inside(topology.gateway))
        self.border = stack.enter_context(Border(topology, on_unsupported=pytest.skip, plane=plane))
        self.border.add_tunnel("second", 2269)
        if reason := self.border.unsupported.get(version):
            pytest.skip(reason)
        self.relays = {"relay": self.border.relay(), "second": self.border.relay(2269, receiving=1)}
        self.wire = self.border.wire(0)
        with inside(topology.host):
            self.native = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self.native.bind((host_interface(1), 0))
        stack.callback(self.native.close)
        self.version, self.number = version, 0
        self.lag = 0
        self.on_the_way: list[tuple[str, bytes]] = []
        self.asked = Asked()
        self.upstream: Upstream = ONE
        self.tree = Tree(lambda _channel: self.upstream)
        engine = self.border.engine
        tunnels = {name: self.asked.tunnel(name) for name in self.relays}
        self.control = ChannelControl(self.border.loop, self.tree, engine, tunnels, self.asked)
        stack.callback(self.control.close)
        engine.on_first_packet = self.control.first_packet
        engine.on_wrong_interface = self.control.wrong_interface
        for name in ("down0", "down1"):
            engine.watch_interface(name)
        self.channel = Channel.parse(SOURCE[version], GROUP[version])
        self.tree.set_interest(
            Owner(InterestKind.STATIC, "down0"), self.channel.group, Filter.include([ip_address(SOURCE[version])])
        )
        self.control.apply()

    def send(self) -> None:
        """The next packet of the stream, from everybody who is asked for it; relays are `lag` packets behind."""
        payload = struct.pack(">I", self.number).ljust(200, b"\x47")
        self.number += 1
        packet = datagram_ipv4(payload) if self.version == 4 else datagram_ipv6(payload)
        self.on_the_way += [(name, packet) for name in self.relays.keys() & self.asked.by]
        while len(self.on_the_way) > self.lag:
            self._arrive()
        if "native" in self.asked.by:
            group, kind = (
                (b"\x01\x00\x5e" + bytes((packet[17] & 0x7F,)) + packet[18:20], b"\x08\x00")
                if self.version == 4
                else (b"\x33\x33" + packet[36:40], b"\x86\xdd")
            )
            self.native.send(group + b"\x02\0\0\0\0\x09" + kind + packet)

    def _arrive(self) -> None:
        name, packet = self.on_the_way.pop(0)
        self.relays[name].send(packet)

    def flow(self, packets: int) -> None:
        """Let packets flow, and see each of them on the wire."""

        async def flowing() -> None:
            for _ in range(packets):
                self.send()
                await asyncio.sleep(0.002)
            while self.on_the_way:
                self._arrive()

        self.border.loop.run_until_complete(flowing())
        self.border.run_until(lambda: self.number - 1 in self.seen())

    def move(self, upstream: Upstream, until: set[str]) -> None:
        """Choose another upstream, and let packets flow until only it is asked."""
        self.upstream = upstream
        self.tree.mark_all()
        self.control.apply()
        self.flow(LEAD)
        self.border.run_until(lambda: self.asked.by == until)
        self.flow(LEAD)

    def seen(self) -> Counter[int]:
        """How often each packet was on the wire."""
        header = 28 if self.version == 4 else 48
        return Counter(int.from_bytes(packet[header : header + 4], "big") for packet in self.wire.collect())


@pytest.fixture
def make_scene(plane: Plane | None) -> Iterator:
    if missing := missing_for_engine():
        pytest.skip(missing)
    with EngineTopology(f"isx-moves{os.getpid()}", downstreams=2, redirectable=True) as topology, ExitStack() as stack:
        yield lambda version: Scene(topology, stack, version, plane)


@EACH_ONCE
def test_a_stream_goes_from_tunnel_to_tunnel_and_each_packet_leaves_once(make_scene, version) -> None:
    scene = make_scene(version)
    scene.flow(LEAD)
    scene.move(TWO, {"second"})
    scene.move(ONE, {"relay"})
    assert scene.seen() == Counter(range(scene.number))


@EACH_ONCE
def test_a_source_that_becomes_native_and_a_tunnels_again_loses_nothing(make_scene, version) -> None:
    scene = make_scene(version)
    scene.flow(LEAD)
    scene.move(NATIVE, {"native"})
    scene.move(ONE, {"relay"})
    seen = scene.seen()
    assert seen.keys() == set(range(scene.number)), "nothing is lost"
    assert seen.total() - len(seen) <= 2 * 2, "what two upstreams have under way at once is doubled, no more"


@EACH_ONCE
def test_what_the_native_way_is_ahead_of_the_tunnel_comes_out_of_the_tunnel(make_scene, version) -> None:
    scene = make_scene(version)
    scene.lag = 8
    scene.flow(LEAD)
    scene.move(NATIVE, {"native"})
    seen = scene.seen()
    assert seen.keys() == set(range(scene.number)), "nothing is lost"
    assert seen.total() - len(seen) <= 2, "nothing but what passed while the route was moved is doubled"
