"""The fast engine under traffic: spread over processors, with a far end that fails, with planes chosen anew."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.dataplane.fast.layout import Plane, index_key
from agent.dataplane.fast.loaded import LoadedPrograms
from agent.dataplane.fast.receiving import receive_cores
from agent.dataplane.fast.watchdog import Watchdog
from agent.protocol.channels import Channel
from lab.bench.engine_border import Border
from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import EngineTopology, downstream, host_interface
from lab.bench.inner_packets import datagram_ipv4, one_hop_on
from lab.bench.relay_topology import inside, run

pytestmark = pytest.mark.root


@pytest.fixture
def topology(_no_programs: str) -> Iterator[EngineTopology]:
    if missing := missing_for_engine() or _no_programs:
        pytest.skip(missing)
    with EngineTopology(f"isx-traffic{os.getpid()}", redirectable=True) as made:
        yield made


@pytest.fixture
def border(topology: EngineTopology) -> Iterator[Border]:
    with ExitStack() as stack:
        stack.enter_context(inside(topology.gateway))
        yield stack.enter_context(Border(topology, plane=Plane.XDP))


def numbered(group: str, numbers: range) -> list[bytes]:
    return [datagram_ipv4(struct.pack(">I", number) * 50, group=group) for number in numbers]


def set_gro(topology: EngineTopology, state: str) -> None:
    with inside(topology.host):
        run("ethtool", "-K", host_interface(0), "gro", state)


def test_packets_spread_over_processors_arrive_in_the_order_of_their_channel(
    topology: EngineTopology, monkeypatch: pytest.MonkeyPatch
) -> None:
    if receive_cores(2) < 2:
        pytest.skip("this machine has one processor")
    monkeypatch.setattr("lab.bench.engine_border.LoadedPrograms", lambda index, _cores: LoadedPrograms(index, 2))
    groups = [f"232.1.1.{number}" for number in range(1, 9)]
    with inside(topology.gateway), Border(topology, plane=Plane.XDP) as border:
        channels = [border.forward(4, group=group) for group in groups]
        relay, wire = border.relay(), border.wire()
        assert struct.unpack_from("=II", border.programs.map("settings").lookup(index_key(0)) or bytes(8))[1] == 2
        by_channel = [numbered(group, range(100)) for group in groups]
        for packets in zip(*by_channel, strict=True):
            relay.send(*packets)
        border.run_until(lambda: len(wire.collect()) == 800)
        border.run_until(lambda: border.engine.counters().forwarded.packets == 800)
        for channel, packets in zip(channels, by_channel, strict=True):
            seen = [packet for packet in wire.packets if packet[16:20] == channel.group.packed]
            assert seen == [one_hop_on(packet) for packet in packets]
            assert border.fast is not None
            assert border.fast.explain(channel)[0] is Plane.XDP


class Sending:
    """A relay that never stops."""

    def __init__(self, border: Border, channel: Channel) -> None:
        self._border = border
        self._relay = border.relay()
        self._packet = numbered(str(channel.group), range(1))[0]
        self._send()

    def _send(self) -> None:
        self._relay.send(*(self._packet,) * 20)
        self._border.loop.call_later(0.02, self._send)


def test_an_interface_whose_far_end_fails_under_traffic_leaves_xdp_and_comes_back(
    topology: EngineTopology, border: Border
) -> None:
    fast = border.fast
    assert fast is not None
    fast.choose((Plane.XDP, Plane.TC))
    channel = border.forward(4)
    Sending(border, channel)
    wire = border.wire()
    watchdog = Watchdog(border.loop, fast._ports, fast.redirected)  # type: ignore[arg-type]
    border.run_until(lambda: fast.redirected().get(downstream(0), 0) > 100)
    set_gro(topology, "off")
    border.run_until(lambda: fast.explain(channel)[0] is not Plane.XDP, 10)
    assert downstream(0) in fast.explain(channel)[1]
    before = len(wire.collect())
    border.run_until(lambda: len(wire.collect()) > before + 100)
    set_gro(topology, "on")
    border.run_until(lambda: fast.explain(channel)[0] is Plane.XDP, 20)
    before = len(wire.collect())
    border.run_until(lambda: len(wire.collect()) > before + 100)
    watchdog.close()


def test_planes_chosen_anew_lose_no_packet(border: Border) -> None:
    fast = border.fast
    assert fast is not None
    groups = [f"232.1.{number // 250}.{number % 250 + 1}" for number in range(500)]
    channels = [border.forward(4, group=group) for group in groups]
    relay, wire = border.relay(), border.wire()
    sent = 0
    for planes, wanted in (
        ((Plane.TC,), Plane.TC),
        ((), Plane.USERSPACE),
        ((Plane.XDP_MFC,), Plane.XDP_MFC),
        ((Plane.XDP, Plane.TC), Plane.XDP),
    ):
        fast.choose(planes)
        for group in (groups[0], groups[-1]):
            relay.send(*numbered(group, range(sent, sent + 20)))
            sent += 20
        border.run_until(lambda: all(fast.explain(channel)[0] is wanted for channel in channels))  # noqa: B023
        border.run_until(lambda: len(wire.collect()) >= sent)  # noqa: B023
    assert len(wire.packets) == sent
    border.run_until(lambda: border.engine.counters().forwarded.packets == sent)
