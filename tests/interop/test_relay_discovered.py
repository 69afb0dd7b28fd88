"""A source without a relay in the file comes through the one that discovery finds."""

from __future__ import annotations

import re

import pytest

from lab.namespaces import wait_until
from lab.topology import DISCOVERY, RELAY, SSM_GROUP_IPV4

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_the_well_known_anycast_address_leads_to_a_relay_that_is_let_go_afterwards(make_scenario):
    anycast = {"discovery_address": [str(DISCOVERY.ipv4), str(DISCOVERY.ipv6)]}
    scenario = make_scenario(relay=anycast, sections='\n[discovery]\nmethods = "anycast"\nidle_time = 1.0\n')
    file = scenario.border.place.configuration
    file.write_text(re.sub(r"\[\[gateway.relay\]\]\naddress = .*\n", "", file.read_text()))
    scenario.border.reload()
    wait_until(lambda: not scenario.border.get("tunnels")["items"], 10.0, "the relay of the file is gone")

    scenario.send(SSM_GROUP_IPV4, "--rate", "200", "--size", "400")
    counting = scenario.receive(SSM_GROUP_IPV4)
    counting.wait_for_more(15.0, packets=200)
    (tunnel,) = scenario.border.tunnels()
    assert tunnel["id"] in {str(DISCOVERY.ipv4), str(DISCOVERY.ipv6)}
    assert tunnel["relay_address"] in {str(RELAY.ipv4), str(RELAY.ipv6)}
    assert counting.finish()["lost"] == 0
    wait_until(lambda: not scenario.border.get("tunnels")["items"], 40.0, "the discovered relay is let go")
