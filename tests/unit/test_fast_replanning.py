"""Many channels planned again a few at a time, and what is derived from their counters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agent.dataplane.fast.channels import FastChannel
from agent.dataplane.fast.layout import ChannelEntry, Plane
from agent.dataplane.fast.loaded import channel_slots
from agent.dataplane.fast.planning import Plan, Wish
from agent.dataplane.fast.port import Port
from agent.dataplane.fast.redirected import Redirected
from agent.dataplane.fast.registry import NOTHING, ChannelRegistry
from agent.dataplane.fast.replanning import SLICE, Replanning
from agent.protocol.channels import Channel

COST = SLICE / 10
WISH = Wish(frozenset({"relay"}), frozenset({"lan"}))
LAN = Port("lan", 5, bytes(6), 1500, frozenset(Plane))
OTHER = Port("other", 6, bytes(6), 1500, frozenset(Plane))


def make(count: int) -> list[FastChannel]:
    channels = [Channel.parse("198.51.100.1", f"232.1.{n // 250}.{n % 250}") for n in range(count)]
    return [FastChannel(channel, WISH, entry=ChannelEntry(0, 0)) for channel in channels]


class Bench:
    """A loop whose time passes as channels are written, and the planner and maps of one plan for all."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[Callable[[], None]] = []
        self.wanted = Plan(Plane.TC)
        self.drained = 0
        fakes: Any = (self, self, self)
        self.plans = Replanning(*fakes, self.drain, lambda _state: False)

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[[], None]) -> Bench:
        self.calls.append(call)
        return self

    def cancel(self) -> None:
        self.calls.clear()

    def plan(self, _channel: Channel, _wish: Wish) -> Plan:
        return self.wanted

    def apply(self, state: FastChannel, plan: Plan) -> None:
        self.now += COST
        state.plan = plan

    def drain(self, _name: str) -> None:
        self.drained += 1

    def turn(self) -> float:
        calls, self.calls = self.calls, []
        before = self.now
        for call in calls:
            call()
        return self.now - before


@pytest.mark.parametrize("before", [Plane.XDP, Plane.USERSPACE])
def test_no_turn_of_the_loop_is_long_and_the_end_is_told(before: Plane) -> None:
    bench, states, told = Bench(), make(200), []
    for state in states:
        state.plan = Plan(before)
    bench.plans.again(states)
    bench.plans.when_done(lambda: told.append(bench.now))
    turns = 0
    while bench.calls:
        assert not told
        assert bench.turn() <= 2 * (SLICE + COST)
        turns += 1
    assert told == [bench.now]
    assert turns >= 10
    assert all(state.plan is bench.wanted for state in states)
    assert bool(bench.drained) == (before is Plane.USERSPACE)


def test_a_channel_that_is_removed_meanwhile_is_left_alone() -> None:
    bench, states = Bench(), make(50)
    bench.plans.later(states)
    for state in states:
        bench.plans.drop(state)
    bench.turn()
    assert bench.now == 0
    bench.plans.later(states)
    bench.plans.close()
    assert not bench.calls


def test_channels_are_found_by_what_they_use() -> None:
    wanted: list[frozenset[str]] = []
    registry = ChannelRegistry(wanted.append)
    one, two = make(2)
    for state in (one, two):
        state.wish = NOTHING
        registry.add(state)
        registry.use(state, WISH, WISH.interfaces)
        state.wish = WISH
    assert registry.of_tunnel("relay") == registry.of_interface("lan") == (one, two)
    registry.use(one, Wish(frozenset({"b"}), frozenset()), frozenset({"wan"}))
    one.wish = Wish(frozenset({"b"}), frozenset())
    assert registry.of_tunnel("relay") == registry.of_interface("lan") == (two,)
    assert registry.of_tunnel("b") == registry.of_interface("wan") == (one,)
    assert registry.remove(one.channel) is one
    assert registry.remove(one.channel) is None
    assert registry.of_tunnel("b") == registry.of_interface("wan") == ()
    assert wanted == [frozenset({"lan"}), frozenset({"lan", "wan"}), frozenset({"lan"})]


def test_only_channels_that_went_the_same_way_all_the_time_count_as_redirected() -> None:
    states, packets = make(3), [0, 0, 0]
    for slot, state in enumerate(states):
        state.entry, state.plan = ChannelEntry(slot, 0), Plan(Plane.XDP, ports=(LAN,))
    states[2].plan = Plan(Plane.TC, ports=(LAN,))
    slots: Any = type("Slots", (), {"read_all": lambda _self: (packets, packets)})()
    redirected = Redirected(lambda: states, slots)
    assert redirected.count() == {}
    packets[:] = [10, 20, 40]
    assert redirected.count() == {"lan": 30}
    packets[:] = [15, 1020, 80]
    states[1].plan = Plan(Plane.XDP, ports=(LAN, OTHER))
    assert redirected.count() == {"lan": 35}
    packets[:] = [15, 1027, 80]
    assert redirected.count() == {"lan": 42, "other": 7}


@pytest.mark.parametrize(("cpus", "slots"), [(1, 131_072), (16, 131_072), (64, 32_768), (128, 16_384), (512, 16_384)])
def test_counters_stay_small_with_many_processors(cpus: int, slots: int) -> None:
    assert channel_slots(cpus) == slots
