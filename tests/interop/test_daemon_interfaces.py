"""Interfaces that come late, go and come back while the agent runs, and relays that a reload adds and removes."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from lab.namespaces import LabError, wait_until
from lab.topology import BORDER_UPLINK, RELAY, SSM_GROUP_IPV4, downstream

pytestmark = [pytest.mark.root, pytest.mark.slow]

SILENT_RELAY = '\n[[gateway.relay]]\naddress = "192.0.2.77"\n'


@contextmanager
def starting(agent):
    """Start an agent that is not ready before the block has done something about it."""
    failures = []

    def start():
        try:
            agent.start()
        except LabError as error:
            failures.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    try:
        yield
    finally:
        thread.join(40.0)
    assert failures == []


def has_problem(agent, code, subject):
    if not agent.place.socket.exists():
        return False
    return any((item["code"], item["subject"]) == (code, subject) for item in agent.get("status")["problems"])


def rename(scenario, before, after):
    """Rename a link of the border; it is up again afterwards."""
    lab, border = scenario.lab, scenario.lab.topology.border
    lab.run(border, "ip", "link", "set", before, "down")
    lab.run(border, "ip", "link", "set", before, "name", after)
    lab.set_link(border, after, up=True)


def flowing(scenario):
    scenario.send(SSM_GROUP_IPV4, "--rate", "200", "--size", "400")
    counting = scenario.receive(SSM_GROUP_IPV4)
    counting.wait_for_more(15.0)
    return counting


@pytest.mark.parametrize("interface", [BORDER_UPLINK, downstream(0)])
def test_an_interface_that_is_absent_at_start_is_waited_for(make_scenario, interface):
    scenario = make_scenario()
    assert scenario.border.stop() == 0
    rename(scenario, interface, "elsewhere")
    with starting(scenario.border):
        wait_until(lambda: has_problem(scenario.border, "interface_down", interface), 20.0, "the problem is told")
        assert not scenario.border.get("status")["ready"]
        assert f"interface absent, waiting for it interface={interface}" in scenario.border.log_tail()
        rename(scenario, "elsewhere", interface)
    flowing(scenario)
    assert not has_problem(scenario.border, "interface_down", interface)


def test_an_uplink_that_was_made_anew_is_used_again(make_scenario):
    scenario = make_scenario()
    counting = flowing(scenario)
    scenario.lab.recreate_link(scenario.lab.topology.border, BORDER_UPLINK)
    counting.wait_for_more(20.0, packets=400)


def test_a_downstream_interface_of_another_name_gets_nothing(make_scenario):
    scenario = make_scenario()
    counting = flowing(scenario)
    rename(scenario, downstream(0), "elsewhere")
    wait_until(lambda: has_problem(scenario.border, "interface_down", downstream(0)), 5.0, "the problem is told")
    forwarded = scenario.lab.run(scenario.lab.topology.border, "ip", "mroute", "show").stdout
    assert "elsewhere" not in forwarded
    rename(scenario, "elsewhere", downstream(0))
    counting.wait_for_more(15.0)


def test_relays_that_reloads_remove_and_add_disturb_no_stream_through_another(make_scenario):
    scenario = make_scenario()
    counting = flowing(scenario)
    both = scenario.border.place.configuration.read_text()
    one = both.replace(f'address = ["{RELAY.ipv4}", "{RELAY.ipv6}"]', f'address = ["{RELAY.ipv4}"]')
    for text, count in ((one, 1), (one + SILENT_RELAY, 2), (both, 2)):
        scenario.border.place.configuration.write_text(text)
        scenario.border.reload()
        wait_until(lambda: len(scenario.border.get("tunnels")["items"]) == count, 10.0, "the relays are known")  # noqa: B023
        counting.wait_for_more(10.0, packets=200)
    figures = counting.finish()
    assert figures["lost"] == 0


def test_a_removed_tunnel_interface_ends_the_agent_with_an_error_and_a_new_start_heals(make_scenario):
    scenario = make_scenario()
    counting = flowing(scenario)
    scenario.lab.run(scenario.lab.topology.border, "ip", "link", "delete", "amt0")
    assert scenario.border.wait(20.0) == 3
    assert "amt0 was removed" in scenario.border.log_tail()
    scenario.border.start()
    counting.wait_for_more(20.0)


def test_a_downstream_interface_without_address_to_query_from_is_told(make_scenario):
    scenario = make_scenario()
    lan = downstream(0)
    assert not has_problem(scenario.border, "no_querier_address", lan)
    scenario.lab.run(scenario.lab.topology.border, "ip", "-4", "address", "flush", "dev", lan)
    wait_until(lambda: has_problem(scenario.border, "no_querier_address", lan), 10.0, "the problem is told")
