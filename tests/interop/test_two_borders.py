"""Two border agents on one LAN of hosts: the designated router serves, the other takes over when it goes."""

import pytest

from lab import topology
from lab.agents import Agent, AgentPlace, gateway_configuration
from lab.namespaces import missing_for_namespaces, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(missing := missing_for_namespaces()), reason=", ".join(missing)),
]

GROUP = topology.NUMBERED_GROUP_IPV4
LISTENERS = "[igmp]\nquery_interval = 4.0\nquery_response_interval = 1.0\nstartup_query_interval = 1.0\n"
JOIN = f'[[gateway.join]]\nsource = "{topology.SOURCE.ipv4}"\ngroup = "{GROUP}"\ninterface = "down0"\n'
QUICK_PIM = "[pim]\nhello_interval = 1.0\n"


def reason(agent):
    return next((row["reason"] for row in agent.channels() if str(row["group"]) == GROUP), "not there")


def is_designated(agent):
    """Whether it is the designated router; None while it does not know its neighbour."""
    pim = next(row for row in agent.get("interfaces")["items"] if row["name"] == "down0")["pim"]
    return next(item["designated"] if item["neighbors"] == 1 else None for item in pim if item["family"] == 4)


def are_settled(first, second):
    return is_designated(second) is True and is_designated(first) is False


def test_hosts_get_one_copy_and_the_other_border_takes_over(make_scenario, tmp_path):
    scenario = make_scenario(sizes={"borders": 2}, sections=QUICK_PIM)
    place = AgentPlace(scenario.lab.topology.second_border, tmp_path, "border2")
    relay = str(topology.RELAY.ipv4)
    second = Agent(scenario.lab, place, gateway_configuration(["down0"], relay, sections=LISTENERS + QUICK_PIM))
    try:
        second.start()  # the higher address of equal priorities is the designated router
        wait_until(lambda: are_settled(scenario.border, second), 20, "one is elected")
        scenario.send(GROUP, "--rate", "200")
        receiver = scenario.receive(GROUP)
        receiver.wait_for_more(20, packets=100)
        assert reason(second) is None
        wait_until(lambda: reason(scenario.border) == "not_designated", 10, "the other knows why it does nothing")
        assert receiver.figures["duplicates"] == 0
        second.kill()
        wait_until(lambda: reason(scenario.border) is None, 15, "the other serves once the neighbour expired")
        receiver.wait_for_more(20, packets=100)
        assert receiver.figures["duplicates"] == 0
    finally:
        second.close()


def test_of_two_borders_that_forward_whatever_is_asked_one_stops(make_scenario, tmp_path):
    """Static joins know no designated router: the kernel tells of the other's packets, and an Assert settles it."""
    scenario = make_scenario(sizes={"borders": 2}, sections=QUICK_PIM + JOIN)
    place = AgentPlace(scenario.lab.topology.second_border, tmp_path, "border2")
    relay = str(topology.RELAY.ipv4)
    second = Agent(scenario.lab, place, gateway_configuration(["down0"], relay, sections=LISTENERS + QUICK_PIM + JOIN))
    try:
        second.start()
        wait_until(lambda: are_settled(scenario.border, second), 20, "they are neighbours")
        scenario.send(GROUP, "--rate", "200")
        receiver = scenario.receive(GROUP)
        wait_until(lambda: reason(scenario.border) == "assert_lost", 15, "the lower address lost")
        assert reason(second) is None
        receiver.wait_for_more(20, packets=50)
        doubled = receiver.figures["duplicates"]
        receiver.wait_for_more(20, packets=200)
        assert receiver.figures["duplicates"] == doubled
        second.kill()
        wait_until(lambda: reason(scenario.border) is None, 15, "the loser takes over once the winner expired")
        receiver.wait_for_more(20, packets=100)
    finally:
        second.close()
