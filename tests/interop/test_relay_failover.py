"""Channels move to the next relay when theirs is killed, drained or swallowed by the network; live-live loses nothing.

The relays are found in the DNS, which bind9 serves, or named in the file where the test is about that. The gap a
receiver sees is bounded by what docs/failover.md promises, and slack for a busy machine; what was measured is shown by
`-rP`.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from scripted.failover_scene import FIRST, PROXY, QUICK, RATE, SECOND, SERVER, Scene, published, section

from lab.names import missing_for_names
from lab.namespaces import wait_until
from lab.scenario import Counting
from lab.topology import SSM_GROUP_IPV4

pytestmark = [pytest.mark.root, pytest.mark.slow]
needs_names = pytest.mark.skipif(bool(missing_for_names()), reason="named (Debian: bind9) is not installed")

OTHER_GROUP = "232.1.1.2"
SILENCE = 1.0
DETECTION = SILENCE * 1.25  # looked for four times in that time
SLACK = 2.0  # scheduling on a busy machine


def failover(**keys: object) -> str:
    return section("failover", **({"relay_silence": SILENCE} | keys))


def named(*relays: str, **keys: object) -> str:
    """The relays of a file."""
    return "".join(section("[gateway.relay]", address=f'"{relay}"', **keys) for relay in relays)


@pytest.fixture
def make_scene(make_lab, tmp_path):
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Scene(make_lab(), tmp_path, **settings))


@pytest.fixture
def make_discovering(make_scene):
    """Makes a scene in which the DNS names the relays."""

    def make(*relays: str, faulty: bool = False, relay: dict | None = None, **keys: object) -> Scene:
        sections = section("discovery", methods='"driad"', resolvers=f'"{SERVER}"') + failover(**keys)
        return make_scene(sections=sections, zone=published(*relays), faulty=faulty, relay=relay)

    return make


def measured(what: str, counting: Counting, scene: Scene) -> dict:
    """End the receiver, and show what it saw."""
    figures = counting.finish()
    kind, seconds = scene.flows_again()
    lost, doubled, gap = (figures[name] for name in ("lost", "duplicates", "longest_gap_seconds"))
    print(f"{what}: {lost} packets lost, {doubled} doubled, gap {gap:.3f} s, {seconds:.3f} s from {kind} to the next")
    return figures | {"signal": kind, "since_signal": seconds}


# Relays of the DNS ----------------------------------------------------------------------------------------------------


@needs_names
def test_a_killed_relay_is_left_for_the_next(make_discovering):
    scene = make_discovering(FIRST, SECOND)
    counting = scene.flowing()
    counting.wait_for_more(20.0, packets=2 * RATE)  # nothing is said to the relay any more that ICMP could answer
    assert scene.tunnels_of() == {FIRST}
    scene.first.kill()
    scene.moves_to(DETECTION + 1.0 + SLACK, SECOND)
    counting.wait_for_more(SLACK, packets=100)
    figures = measured("killed", counting, scene)
    assert figures["longest_gap_seconds"] < DETECTION + 1.0 + SLACK
    assert figures["signal"] == "icmp"
    assert figures["since_signal"] < 1.0 + SLACK
    assert scene.moves() == ["request_unanswered"]


@needs_names
def test_a_swallowed_relay_is_left_for_the_next(make_discovering):
    scene = make_discovering(PROXY, FIRST, faulty=True)
    counting = scene.flowing()
    scene.faults(silence=True)
    scene.moves_to(DETECTION + 3.0 + SLACK, FIRST)
    counting.wait_for_more(SLACK, packets=100)
    figures = measured("swallowed", counting, scene)
    assert figures["longest_gap_seconds"] < DETECTION + 3.0 + SLACK
    assert figures["signal"] == "silence"


@needs_names
def test_a_relay_that_is_about_to_close_is_left_without_a_gap_where_configured(make_discovering):
    scene = make_discovering(PROXY, FIRST, faulty=True, relay=QUICK, move_on_limit=True)
    counting = scene.flowing()
    scene.faults(limit=True)
    scene.moves_to(QUICK["query_interval"] + 1.0 + SLACK, FIRST)
    counting.wait_for_more(15.0, packets=RATE)
    figures = measured("L flag", counting, scene)
    assert (figures["lost"], figures["duplicates"]) == (0, 0)
    assert (figures["signal"], scene.moves()) == ("limit", ["relay_limit"])


@needs_names
def test_a_drained_relay_keeps_its_tunnel_and_sends_others_to_the_next(make_discovering):
    """RFC 7450 §5.1.4.4: the L flag is for those who come anew."""
    scene = make_discovering(FIRST, SECOND, relay=QUICK, move_on_limit=True)
    counting = scene.flowing()
    asked = scene.requests_to(scene.first)
    scene.drain(scene.first)
    wait_until(lambda: scene.requests_to(scene.first) >= asked + 2, 10.0, "the relay was asked again")
    assert scene.tunnels_of() == {FIRST}
    assert counting.figures["lost"] == 0
    scene.border.stop()
    scene.border.start()
    scene.moves_to(10.0, SECOND)
    counting.wait_for_more(SLACK, packets=100)
    assert [row["hold_reason"] for row in scene.border.get("tunnels")["items"] if row["id"] == FIRST] == ["relay_limit"]


@needs_names
def test_live_live_loses_nothing_with_a_relay(make_discovering):
    scene = make_discovering(FIRST, SECOND, live_live='["232.1.1.0/24"]')
    counting = scene.flowing()
    scene.moves_to(10.0, FIRST, SECOND)
    counting.wait_for_more(SLACK)
    scene.first.kill()
    scene.moves_to(DETECTION + 3.0 + SLACK, SECOND)
    counting.wait_for_more(SLACK, packets=RATE)
    figures = counting.finish()
    print(f"live-live: {figures['lost']} packets lost, {figures['duplicates']} doubled, {figures['received']} received")
    assert (figures["lost"], figures["duplicates"]) == (0, 0)


# Relays of the file ---------------------------------------------------------------------------------------------------


def test_channels_move_back_without_a_gap_when_the_preferred_relay_is_well_again(make_scene):
    scene = make_scene(sections=named(FIRST, SECOND) + failover(hold_down=1.0, failback_delay=1.0))
    counting = scene.flowing()
    scene.answers(SECOND)
    scene.first.kill()
    scene.moves_to(DETECTION + 1.0 + SLACK, SECOND)
    counting.wait_for_more(SLACK, packets=100)
    lost = counting.figures["lost"]
    scene.first.start()
    scene.moves_to(60.0, FIRST)
    counting.wait_for_more(15.0, packets=RATE)
    assert scene.moves() == ["request_unanswered", "preferred_relay_is_back"]
    assert counting.finish()["lost"] == lost


def test_a_burst_is_enough_for_its_relay_to_be_missed(make_scene):
    """No steady stream: a few packets, then the relay dies."""
    scene = make_scene(sections=named(FIRST, SECOND) + failover())
    scene.answers(SECOND)
    counting = scene.receive(SSM_GROUP_IPV4)
    scene.moves_to(10.0, FIRST)
    scene.send(SSM_GROUP_IPV4, "--seconds", "0.1")
    counting.wait_for_more(10.0, packets=1)
    scene.first.kill()
    scene.moves_to(DETECTION + 1.0 + SLACK, SECOND)


def test_a_channel_that_stops_alone_is_tried_elsewhere(make_scene):
    sections = named(PROXY, FIRST) + failover(channel_silence=1.0)
    scene = make_scene(sections=sections, faulty=True)
    others = scene.flowing()
    counting = scene.flowing(OTHER_GROUP)
    scene.answers(FIRST)
    scene.faults(mute=[OTHER_GROUP])
    scene.moves_to(DETECTION + SLACK, FIRST, group=OTHER_GROUP)
    counting.wait_for_more(SLACK, packets=RATE)
    assert scene.tunnels_of() == {PROXY}
    assert scene.moves() == ["channel_silent"]
    assert others.finish()["lost"] == 0


# Several tunnels to one relay -----------------------------------------------------------------------------------------


def test_channels_are_spread_over_the_tunnels_to_a_relay(make_scene):
    scene = make_scene(sections=named(FIRST, tunnels=3) + failover(), second=False)
    groups = [f"232.1.1.{number}" for number in range(1, 13)]
    receivers = [scene.receive(group) for group in groups[:3]]
    for group in groups[3:]:
        scene.join(group)
    for group in groups[:3]:
        scene.send(group)
    for receiver in receivers:
        receiver.wait_for_more(20.0, packets=RATE)
    names = [FIRST, f"{FIRST}#2", f"{FIRST}#3"]
    wait_until(lambda: {row["id"] for row in scene.border.tunnels()} == set(names), 10.0, "all three are established")
    wait_until(lambda: len(scene.border.channels()) == len(groups), 10.0, "every channel is there")
    used = [row["tunnels"] for row in scene.border.channels()]
    assert all(len(tunnels) == 1 for tunnels in used)
    assert {tunnels[0] for tunnels in used} == set(names)
    ports = {row["local_port"] for row in scene.border.tunnels()}
    assert len(ports) == 3
    wait_until(lambda: {row["gateway_port"] for row in scene.first.tunnels()} == ports, 10.0, "the relay sees three")
    for receiver in receivers:
        figures = receiver.finish()
        assert (figures["lost"], figures["duplicates"]) == (0, 0)


def test_a_relays_limit_counts_each_tunnel(make_scene):
    """What does not fit goes through the tunnels that are there."""
    relay = QUICK | {"tunnel_limit": 2}
    scene = make_scene(sections=named(FIRST, tunnels=3) + failover(), relay=relay, second=False)
    groups = [f"232.1.1.{number}" for number in range(1, 10)]
    for group in groups:
        scene.join(group)
    wait_until(lambda: len(scene.first.tunnels()) == 2, 10.0, "the relay has two tunnels")
    for group in groups:
        scene.send(group, "--rate", "20")
    wait_until(
        lambda: {row["group"] for row in scene.border.channels() if row["packets"]} == set(groups),
        20.0,
        "all of them come",
    )
    assert len(scene.first.tunnels()) == 2
