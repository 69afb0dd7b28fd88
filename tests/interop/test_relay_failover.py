"""Channels move to the next relay when theirs is killed, drained or swallowed by the network; live-live loses nothing.

The gap a receiver sees is bounded by what docs/failover.md promises, and slack for a busy machine; what was measured is
shown by `-rP`.
"""

from __future__ import annotations

import re

import pytest

from lab.agents import Agent, AgentPlace, relay_configuration
from lab.namespaces import wait_until
from lab.topology import RELAY, SSM_GROUP_IPV4, STRANGER

pytestmark = [pytest.mark.root, pytest.mark.slow]

SILENCE = 1.0
DETECTION = SILENCE * 1.25  # looked for four times in that time
SLACK = 2.0  # scheduling on a busy machine
RATE = 500
QUICK = {"query_interval": 1.0, "query_response_interval": 0.5}

PATIENT = {"query_interval": 30.0}  # it is not the next Request that notices


def failover(**keys: object) -> str:
    lines = {"relay_silence": SILENCE} | keys
    text = "".join(
        f"{key} = {str(value).lower() if isinstance(value, bool) else value}\n" for key, value in lines.items()
    )
    return f"\n[failover]\n{text}"


def second_relay(address: object) -> str:
    return f'\n[[gateway.relay]]\naddress = "{address}"\n'


@pytest.fixture
def make_pair(make_scenario, tmp_path):
    """Makes a lab in which another relay of the same source runs beside the first one, and is the border's second."""
    others = []

    def make(**keys):
        scenario = make_scenario(sections=second_relay(STRANGER.ipv4) + failover(**keys), relay=PATIENT)
        place = AgentPlace(scenario.lab.topology.relay, tmp_path, "relay2")
        other = Agent(scenario.lab, place, relay_configuration(address=[str(STRANGER.ipv4)], **QUICK))
        others.append(other)
        other.start()
        scenario.other = other
        return scenario

    yield make
    for other in others:
        other.close()


def flowing(scenario, group=SSM_GROUP_IPV4):
    """A steady stream and its receiver."""
    scenario.send(group, "--rate", str(RATE), "--size", "400")
    counting = scenario.receive(group)
    counting.wait_for_more(15.0)
    counting.wait_for_more(15.0, packets=int(5 * SILENCE * RATE))  # steady enough that its silence means something
    return counting


def through(scenario) -> set[str]:
    (channel,) = scenario.border.channels()
    return set(channel["tunnels"])


def moves(scenario) -> list[str]:
    """Reasons of the moves in the log."""
    return re.findall(r"channel moved .*reason=(\w+)", scenario.border.place.log.read_text())


def second_answers(scenario, address=STRANGER) -> None:
    """It may have started after the border, which asks it less and less often."""
    wait_until(
        lambda: str(address.ipv4) in {tunnel["id"] for tunnel in scenario.border.tunnels()},
        40.0,
        "the second one answers",
    )


def test_a_killed_relay_is_left_for_the_next(make_pair):
    scenario = make_pair()
    second_answers(scenario)
    counting = flowing(scenario)
    assert through(scenario).isdisjoint({str(STRANGER.ipv4)})
    scenario.relay.kill()
    wait_until(lambda: str(STRANGER.ipv4) in through(scenario), DETECTION + 1.0 + SLACK, "the channel moved")
    counting.wait_for_more(SLACK, packets=100)
    gap = counting.finish()["longest_gap_seconds"]
    print(f"killed: gap of {gap:.3f} s, of which {DETECTION:.2f} s at most until it is noticed")
    assert gap < DETECTION + 1.0 + SLACK
    assert moves(scenario)[0] == "request_unanswered"


def test_a_swallowed_relay_is_left_for_the_next(make_scenario):
    scenario = make_scenario(faulty=True, sections=second_relay(RELAY.ipv4) + failover(), relay=PATIENT)
    second_answers(scenario, RELAY)
    counting = flowing(scenario)
    scenario.faults(silence=True)
    wait_until(lambda: through(scenario) == {str(RELAY.ipv4)}, DETECTION + 3.0 + SLACK, "the channel moved")
    counting.wait_for_more(SLACK, packets=100)
    gap = counting.finish()["longest_gap_seconds"]
    print(f"swallowed: gap of {gap:.3f} s, of which {DETECTION:.2f} s at most until it is noticed")
    assert gap < DETECTION + 3.0 + SLACK


def test_a_draining_relay_keeps_its_tunnel(make_scenario):
    scenario = make_scenario(faulty=True, sections=second_relay(RELAY.ipv4) + failover())
    second_answers(scenario, RELAY)
    counting = flowing(scenario)
    scenario.faults(limit=True)
    wait_until(lambda: limited(scenario), QUICK["query_interval"] + SLACK, "the L flag is seen")
    counting.wait_for_more(15.0, packets=3 * RATE)
    assert through(scenario) == limited(scenario)
    assert counting.finish()["lost"] == 0


def limited(scenario) -> set[str]:
    return {tunnel["id"] for tunnel in scenario.border.tunnels() if tunnel["limited"]}


def test_a_draining_relay_is_left_without_a_gap_where_configured(make_scenario):
    scenario = make_scenario(faulty=True, sections=second_relay(RELAY.ipv4) + failover(move_on_limit=True))
    second_answers(scenario, RELAY)
    counting = flowing(scenario)
    scenario.faults(limit=True)
    wait_until(
        lambda: through(scenario) == {str(RELAY.ipv4)}, QUICK["query_interval"] + 1.0 + SLACK, "the channel moved"
    )
    counting.wait_for_more(15.0, packets=3 * RATE)
    figures = counting.finish()
    print(f"drained: gap of {figures['longest_gap_seconds']:.3f} s, {figures['lost']} packets lost")
    assert figures["lost"] == 0
    assert moves(scenario)[0] == "relay_limit"


def test_live_live_loses_nothing_with_a_relay(make_pair):
    scenario = make_pair(live_live='["232.1.1.0/24"]')
    second_answers(scenario)
    counting = flowing(scenario)
    wait_until(lambda: len(through(scenario)) == 2, 5.0, "both relays bring it")
    scenario.relay.kill()
    wait_until(lambda: through(scenario) == {str(STRANGER.ipv4)}, DETECTION + 3.0 + SLACK, "the other one is given up")
    counting.wait_for_more(SLACK, packets=RATE)
    figures = counting.finish()
    assert (figures["lost"], figures["duplicates"]) == (0, 0)


def test_channels_move_back_without_a_gap_when_the_preferred_relay_is_well_again(make_pair):
    scenario = make_pair(hold_down=2.0, failback_delay=2.0)
    second_answers(scenario)
    counting = flowing(scenario)
    first = through(scenario)
    scenario.relay.kill()
    wait_until(lambda: through(scenario) == {str(STRANGER.ipv4)}, DETECTION + 1.0 + SLACK, "the channel moved")
    counting.wait_for_more(SLACK, packets=100)
    lost = counting.figures["lost"]
    scenario.relay.start()
    wait_until(lambda: through(scenario) <= first or "preferred_relay_is_back" in moves(scenario), 60.0, "it is back")
    counting.wait_for_more(15.0, packets=5 * RATE)
    assert counting.finish()["lost"] == lost
