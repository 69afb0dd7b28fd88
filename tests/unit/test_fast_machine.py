"""Whatever is set, removed, chosen or changed: the kernel's maps say what a simple model derives from it."""

from __future__ import annotations

import errno
import struct
from ipaddress import ip_address, ip_network
from itertools import count
from typing import Any

import pytest
from forwarding.fake_kernel import FakePorts, FakePrograms, FakeUplinks, Loop, Slow
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.dataplane.accelerated import AcceleratedEngine
from agent.dataplane.engine import TunnelSocket
from agent.dataplane.fast.layout import (
    Plane,
    channel_key,
    devmap_value,
    group_key,
    index_key,
    port_value,
    tunnel_key,
)
from agent.dataplane.fast.port import Port
from agent.dataplane.fast.replanning import SLICE
from agent.protocol.channels import Channel, Endpoint

CHANNELS = [Channel.parse(f"198.51.100.{n % 3 + 1}", f"232.1.1.{n // 3 + 1}") for n in range(9)]
GROUPS = sorted({channel.group for channel in CHANNELS})
NAMES = ("lan0", "lan1", "lan2")
TUNNELS = ("one", "two")
LOCAL = (ip_network("198.51.100.2/32"),)
FAST = (Plane.XDP, Plane.XDP_MFC, Plane.TC)
ROOM = 6
"""Entries the map of channels has room for."""

A_LONG_TIME = 20.0
"""Seconds after which everything that waits has had its turn."""

tunnel_sets = st.sampled_from([frozenset(), *(frozenset({name}) for name in TUNNELS), frozenset(TUNNELS)])
name_sets = st.frozensets(st.sampled_from(NAMES))
plane_sets = st.sampled_from([(), (Plane.XDP, Plane.TC), (Plane.TC,), (Plane.XDP_MFC,), (Plane.XDP,)])


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop, self.programs, self.slow = Loop(), FakePrograms(ROOM), Slow()
        self.ports, self.uplinks = FakePorts(), FakeUplinks()
        self.planes: tuple[Plane, ...] = (Plane.XDP, Plane.TC)
        fakes: Any = (self.loop, self.slow, self.programs, self.ports, self.uplinks)
        self.engine = AcceleratedEngine(*fakes, self.planes)
        self.set: dict[Channel, tuple[frozenset[str], frozenset[str], str | None]] = {}
        self.groups: set[Any] = set()
        self.tunnels: set[str] = set()
        self.networks: tuple[Any, ...] = ()
        self.indexes = count(3)

    def teardown(self) -> None:
        for channel in CHANNELS:
            self.engine.remove_channel(channel)
        for group in tuple(self.groups):
            self.engine.remove_group(group)
        for name in TUNNELS:
            self.engine.remove_tunnel(name)
        self.loop.pass_time(A_LONG_TIME)
        for name in ("channels4", "groups4", "tunnels4", "ports", "single_ports"):
            assert self.programs.map(name).entries == {}, name
        engine: Any = self.engine
        assert [slots.in_use for slots in engine._all_slots] == [0, 0], "slots leak"
        assert engine._sets.in_use == 0, "sets leak"
        assert self.slow.whole == set(), "trains are given again"
        assert self.ports.wanted == frozenset()
        self.engine.close()
        self.engine.close()
        before = {name: dict(each.entries) for name, each in self.programs.maps.items()}
        self.loop.pass_time(A_LONG_TIME)
        assert before == {name: each.entries for name, each in self.programs.maps.items()}

    @rule(
        channel=st.sampled_from(CHANNELS),
        tunnels=tunnel_sets,
        names=name_sets,
        incoming=st.sampled_from([None, None, None, "lan0"]),
    )
    def set_channel(
        self, channel: Channel, tunnels: frozenset[str], names: frozenset[str], incoming: str | None
    ) -> None:
        self.engine.set_channel(channel, tunnels, names, incoming)
        self.set[channel] = (tunnels, names, incoming)

    @rule(channel=st.sampled_from(CHANNELS))
    def remove_channel(self, channel: Channel) -> None:
        self.engine.remove_channel(channel)
        self.set.pop(channel, None)

    @rule(group=st.sampled_from(GROUPS), wanted=st.booleans())
    def any_source(self, group: Any, wanted: bool) -> None:
        if wanted:
            self.engine.set_group(group, frozenset(TUNNELS))
            self.groups.add(group)
        else:
            self.engine.remove_group(group)
            self.groups.discard(group)

    @rule(planes=plane_sets)
    def choose(self, planes: tuple[Plane, ...]) -> None:
        self.engine.choose(planes)
        self.planes = planes

    @rule(name=st.sampled_from(TUNNELS), port=st.integers(1, 3), located=st.booleans())
    def add_tunnel(self, name: str, port: int, located: bool) -> None:
        local = Endpoint(ip_address("192.0.2.1"), port + 10 * TUNNELS.index(name)) if located else None
        relay = Endpoint(ip_address("192.0.2.9"), 2268)
        self.uplinks.locals[name] = local
        unread: Any = None
        tunnel = TunnelSocket(name, unread, relay, lambda *_: None, lambda *_: None)
        self.slow.whole.discard(name)
        self.engine.add_tunnel(tunnel)
        self.tunnels.add(name)

    @rule(name=st.sampled_from(TUNNELS))
    def remove_tunnel(self, name: str) -> None:
        self.engine.remove_tunnel(name)
        self.tunnels.discard(name)
        self.slow.whole.discard(name)

    @rule(name=st.sampled_from(TUNNELS), planes=st.sets(st.sampled_from(FAST)), port=st.none() | st.integers(1, 3))
    def uplink_changes(self, name: str, planes: set[Plane], port: int | None) -> None:
        self.uplinks.attached = frozenset(planes)
        number = 10 * TUNNELS.index(name)
        self.uplinks.locals[name] = None if port is None else Endpoint(ip_address("192.0.2.1"), port + number)
        for each in TUNNELS:
            self.uplinks.on_changed(each)

    @rule(
        name=st.sampled_from(NAMES),
        exists=st.booleans(),
        anew=st.booleans(),
        mtu=st.sampled_from([1400, 1500]),
        last=st.integers(0, 1),
        planes=st.sampled_from([FAST, FAST, (Plane.TC,)]),
    )
    def port_changes(self, name: str, exists: bool, anew: bool, mtu: int, last: int, planes: tuple[Plane, ...]) -> None:
        former = self.ports.ports.pop(name, None)
        if exists:
            index = next(self.indexes) if anew or former is None else former.index
            self.ports.ports[name] = Port(name, index, bytes((2, 0, 0, 0, 0, last)), mtu, frozenset(planes))
        self.ports.on_changed(name)

    @rule(networks=st.sampled_from([(), LOCAL]))
    def local_networks(self, networks: tuple[Any, ...]) -> None:
        self.engine.set_local_networks(networks)
        self.networks = networks

    @rule(seconds=st.sampled_from([0.01, 0.3, A_LONG_TIME]))
    def wait(self, seconds: float) -> None:
        self.loop.pass_time(seconds)
        if seconds >= A_LONG_TIME:
            assert len(self.programs.map("channels4").entries) == min(ROOM, len(self.set)), "room is used again"

    def plan(self, channel: Channel) -> tuple[Plane, tuple[Port, ...]]:
        """Who ought to forward a channel, and where to."""
        tunnels, names, incoming = self.set[channel]
        ports = tuple(sorted((self.ports.ports[n] for n in names & self.ports.ports.keys()), key=lambda p: p.index))
        is_known = len(tunnels) == 1 and tunnels <= self.tunnels and self.uplinks.locals[next(iter(tunnels))]
        if incoming is None and is_known and ports:
            for plane in self.planes:
                if plane in self.uplinks.attached and all(plane in port.planes for port in ports):
                    return plane, ports
        return Plane.USERSPACE, ()

    @invariant()
    def maps_say_what_is_wanted(self) -> None:
        self.loop.pass_time(0.01)
        entries = self.programs.map("channels4").entries
        assert entries.keys() <= {channel_key(channel) for channel in self.set}
        left_out = [channel for channel in self.set if channel_key(channel) not in entries]
        assert {group_key(each) for each in self.groups | {each.group for each in left_out}} == self.programs.map(
            "groups4"
        ).entries.keys()
        slots = []
        for channel in self.set.keys() - set(left_out):
            slot, plane = self.check(channel, entries[channel_key(channel)])
            slots += [slot] if plane else []
        assert len(slots) == len(set(slots)), "a slot has one owner"
        wanted = {name for names in self.set.values() for name in names[1]}
        assert self.ports.wanted == wanted
        self.tunnels_are_known()

    def check(self, channel: Channel, entry: bytes) -> tuple[int, int]:
        slot, tunnel, number, single, limit, plane, _announce, refuse = struct.unpack("=IIIIHBBB3x", entry)
        expected, ports = self.plan(channel)
        assert (plane, channel) == (expected, channel)
        assert bool(refuse) == any(channel.source in network for network in self.networks)
        assert self.engine.explain(channel)[0] is expected
        if not plane:
            return slot, plane
        (name,) = self.set[channel][0]
        known = self.programs.map("tunnels4").entries[tunnel_key(self.uplinks.locals[name])]
        assert tunnel == int.from_bytes(known[24:28], "little")
        assert limit == min(port.mtu for port in ports)
        assert single == (ports[0].index if len(ports) == 1 else 0)
        if plane == Plane.TC or (plane == Plane.XDP and len(ports) > 1):
            listed = self.programs.map("set_interfaces").entries[index_key(number)]
            assert struct.unpack_from(f"=I{len(ports)}I", listed) == (len(ports), *(port.index for port in ports))
        if plane == Plane.TC:
            assert name in self.slow.whole, "TC sees no trains"
        for port in ports:
            assert self.programs.map("ports").entries[index_key(port.index)] == port_value(port.address)
            assert self.programs.map("single_ports").entries[index_key(port.index)] == devmap_value(port.index, 7)
        return slot, plane

    def tunnels_are_known(self) -> None:
        expected = {tunnel_key(local) for name in self.tunnels if (local := self.uplinks.locals[name])}
        assert self.programs.map("tunnels4").entries.keys() == expected


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40)


def test_a_closed_engine_writes_nothing_more() -> None:
    """The descriptors of its maps may be somebody else's by then."""
    machine = Machine()
    machine.add_tunnel("one", 1, located=True)
    machine.port_changes("lan0", exists=True, anew=True, mtu=1500, last=0, planes=FAST)
    machine.set_channel(CHANNELS[0], frozenset({"one"}), frozenset({"lan0"}), None)
    machine.engine.remove_channel(CHANNELS[0])
    assert machine.programs.map("ports").entries
    machine.engine.close()
    machine.loop.pass_time(A_LONG_TIME)
    assert machine.programs.map("ports").entries
    assert machine.programs.map("single_ports").entries


def test_an_interface_that_went_away_unheard_leaves_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    machine.add_tunnel("one", 1, located=True)
    machine.port_changes("lan0", exists=True, anew=True, mtu=1500, last=0, planes=FAST)

    def gone(_key: bytes, _value: bytes) -> None:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(machine.programs.map("single_ports"), "update", gone)
    machine.engine.set_channel(CHANNELS[0], frozenset({"one"}), frozenset({"lan0"}))
    assert machine.engine.explain(CHANNELS[0]) == (Plane.USERSPACE, "the kernel's maps: No such device")
    assert machine.programs.map("ports").entries == {}


def test_a_channel_without_room_says_so() -> None:
    machine = Machine()
    for channel in CHANNELS:
        machine.engine.set_channel(channel, frozenset({"one"}), frozenset({"lan0"}))
    reasons = [machine.engine.explain(channel)[1] for channel in CHANNELS]
    assert reasons.count("the kernel's maps: no room is left") == len(CHANNELS) - ROOM


def test_a_tunnel_that_comes_back_at_once_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels are planned again a few at a time: until then their entries name the tunnel by its former number."""
    machine = Machine()
    machine.add_tunnel("two", 1, located=True)
    machine.add_tunnel("one", 1, located=True)
    machine.port_changes("lan0", exists=True, anew=True, mtu=1500, last=0, planes=FAST)
    for channel in CHANNELS[:ROOM]:
        machine.set_channel(channel, frozenset({"one"}), frozenset({"lan0"}), None)
    channels = machine.programs.map("channels4")

    def update(key: bytes, value: bytes) -> None:
        machine.loop.now += SLICE
        channels.entries[key] = value

    monkeypatch.setattr(channels, "update", update)
    machine.engine.remove_tunnel("one")
    machine.add_tunnel("one", 1, located=True)
    known = machine.programs.map("tunnels4").entries[tunnel_key(machine.uplinks.locals["one"])]
    entries = [struct.unpack("=IIIIHBBB3x", entry) for entry in channels.entries.values()]
    fast = [tunnel for _slot, tunnel, *_rest, plane, _announce, _refuse in entries if plane]
    assert len(fast) == ROOM - 1, "most were not planned again yet"
    assert set(fast) == {int.from_bytes(known[24:28], "little")}
    machine.teardown()
