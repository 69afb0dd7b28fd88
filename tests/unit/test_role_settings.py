"""Every key of the configuration reaches what it is about."""

import re
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from pydantic import BaseModel

import agent
from agent.protocol.channels import Family
from agent.protocol.discovery import DiscoveryMethod, RelayLocation
from agent.protocol.relay_selection_config import SelectionConfig
from agent.service.config import Configuration, parse
from agent.service.gateway_settings import (
    discovered_candidate,
    discovered_settings,
    querier_config,
    relay_candidates,
    selection_config,
    tunnel_settings,
)
from agent.service.relay_role import relay_config

GATEWAY = """
role = "gateway"
[gateway]
downstream = "lan0"
uplink = "wan0"
port = [0, 5001, 5002]
[[gateway.relay]]
address = "192.0.2.1"
port = 3000
discover = false
strict_data_port = false
[[gateway.relay]]
address = ["192.0.2.2", "2001:db8::2"]
[igmp]
unsolicited_report_interval = 0.5
fast_leave = true
group_limit = 7
source_limit = 8
last_member_query_count = 5
[mld]
startup_query_interval = 3.0
last_listener_query_interval = 0.25
last_listener_query_count = 6
[dataplane]
receive_buffer = 65536
"""

RELAY = """
role = "relay"
[relay]
interfaces = "lan0"
address = "192.0.2.1"
requests_per_second = 1.5
secret_rotation = 60.0
tunnel_limit = 3
channels_per_tunnel = 4
gateway_address_in_query = false
ipv6 = false
"""


def test_tunnels_are_opened_as_configured():
    settings = tunnel_settings(parse(GATEWAY))
    assert [(name, item.port) for name, item in settings.items()] == [
        ("192.0.2.1:3000", 0),
        ("192.0.2.2", 5001),
        ("2001:db8::2", 5002),
    ]
    first = settings["192.0.2.1:3000"]
    assert (first.interface, first.strict_port, first.receive_buffer) == ("wan0", False, 65536)
    assert (first.gateway.port, first.gateway.discover, first.gateway.report_interval) == (3000, False, 0.5)


def test_several_tunnels_to_a_relay_have_a_port_each():
    settings = tunnel_settings(parse(GATEWAY.replace("discover = false", "discover = false\ntunnels = 2")))
    assert [(name, item.port) for name, item in settings.items()] == [
        ("192.0.2.1:3000", 0),
        ("192.0.2.1:3000#2", 5001),
        ("192.0.2.2", 5002),
        ("2001:db8::2", 0),
    ]


def test_both_addresses_of_a_relay_are_candidates_of_one_preference():
    candidates = relay_candidates(parse(GATEWAY))
    assert [(item.name, item.identity, item.preference) for item in candidates] == [
        ("192.0.2.1:3000", "192.0.2.1:3000", 0),
        ("192.0.2.2", "192.0.2.2", 1),
        ("2001:db8::2", "192.0.2.2", 1),
    ]


def test_the_selection_is_told_when_channels_move():
    failover = """
[failover]
hold_down = 7.0
failback_delay = 8.0
move_on_limit = true
live_live = "232.9.0.0/16"
[discovery]
family_delay = 0.5
"""
    assert selection_config(parse(GATEWAY + failover)) == SelectionConfig(
        hold_down=7.0,
        failback_delay=8.0,
        move_on_limit=True,
        patience=0.5,
        live_live=(ip_network("232.9.0.0/16"),),
    )


def test_a_discovered_relay_is_named_by_its_address_and_port():
    location = RelayLocation(ip_address("2001:db8::7"), DiscoveryMethod.DRIAD, port=2269, discover=False, preference=3)
    candidate = discovered_candidate(location)
    assert (candidate.name, candidate.preference, candidate.origin) == ("[2001:db8::7]:2269", 3, "driad")
    settings = discovered_settings(parse(GATEWAY), candidate.name, location)
    assert (settings.strict_port, settings.port, settings.interface) == (True, 0, "wan0")
    assert (settings.gateway.port, settings.gateway.discover) == (2269, False)


def test_listeners_are_told_timers_and_limits_of_their_family():
    igmp, mld = (querier_config(parse(GATEWAY), family) for family in Family)
    assert (igmp.fast_leave, igmp.max_groups, igmp.max_sources, igmp.last_member_query_count) == (True, 7, 8, 5)
    assert (mld.startup_query_interval, mld.last_member_query_interval, mld.last_member_query_count) == (3.0, 0.25, 6)


def test_a_relay_is_told_what_is_configured():
    config = relay_config(parse(RELAY))
    assert (config.requests_per_second, config.request_burst, config.secret_lifetime) == (1.5, 30, 60.0)
    assert (config.tunnel_limit, config.channels_per_tunnel, config.gateway_address_in_query) == (3, 4, False)
    assert config.families == {Family.IPV4}
    assert relay_config(parse(RELAY.replace("ipv6 = false", ""))) == replace(config, families=frozenset(Family))


def keys(model: type[BaseModel]) -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
        tables = [item for item in inner if isinstance(item, type) and issubclass(item, BaseModel)]
        found |= {key for table in tables for key in keys(table)} if tables else {name}
    return found


@pytest.fixture(scope="module")
def source() -> str:
    """The agent without the checks of its configuration."""
    root = Path(agent.__file__).parent
    files = [path for path in root.rglob("*.py") if path.name not in {"checks.py", "loader.py"}]
    return "\n".join(path.read_text() for path in files)


@pytest.mark.parametrize("key", sorted(keys(Configuration)))
def test_no_key_is_there_for_nothing(source, key):
    assert re.search(rf"\.{key}\b", source)
