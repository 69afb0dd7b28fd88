"""`amt-agent discover`, without the DNS but for a loopback port nobody listens on."""

import json
import socket
import sys

import pytest
from click.testing import CliRunner

from agent.cli import main

CONFIGURATION = """
role = "gateway"
[gateway]
downstream = "lan0"
[[gateway.relay]]
address = "192.0.2.1"
sources = ["198.51.100.0/24"]
[[gateway.relay]]
address = ["192.0.2.2", "2001:db8::2"]
port = 3000
discover = false
[discovery]
methods = "anycast"
anycast = ["192.0.2.50"]
"""


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["agent.cli.discover"], "DEFAULT_CONFIG", tmp_path / "none.toml")
    monkeypatch.delenv("AMT_AGENT_CONFIG", raising=False)


@pytest.fixture
def configuration(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(CONFIGURATION)
    return str(path)


def discover(*arguments):
    return CliRunner().invoke(main, ["discover", *arguments])


def test_relays_of_the_configuration_come_first(configuration):
    result = discover("198.51.100.7", "--config", configuration)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[1] == "  192.0.2.1:2268 serves its prefix of length 24, discovery first (D=0); comes before all below"
    assert lines[2] == "  192.0.2.2:3000 serves every source, direct (D=1); comes before all below"
    assert "anycast: 1 found" in lines


def test_relays_for_other_sources_are_shown_as_such(configuration):
    result = discover("203.0.113.7", "--config", configuration, "--json")
    assert [item["prefix_length"] for item in json.loads(result.output)["configured"]] == [0, 0, None]


def test_a_relay_of_some_groups_serves_a_source_in_them_only(tmp_path):
    path = tmp_path / "groups.toml"
    path.write_text(
        'role = "gateway"\n[gateway]\ndownstream = "eth1"\n'
        '[[gateway.relay]]\naddress = "192.0.2.1"\ngroups = "239.0.0.0/8"\n'
    )
    asked = ("198.51.100.7", "--config", str(path))
    assert "serves every source" in discover(*asked, "--group", "239.1.1.1").output
    assert "does not serve this channel" in discover(*asked, "--group", "232.1.1.1").output
    assert "serves some groups only" in discover(*asked).output


def test_a_configured_relay_alone_is_a_relay(configuration, tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(CONFIGURATION.partition("[discovery]")[0])
    result = discover("198.51.100.7", "--config", str(path))
    assert result.exit_code == 0
    assert "no method is configured" in result.output


def test_the_document_for_programs_has_every_step(configuration):
    result = discover("198.51.100.7", "--config", configuration, "--group", "232.1.1.1", "--json")
    found = json.loads(result.output)
    assert (found["source"], found["group"], found["outcome"]) == ("198.51.100.7", "232.1.1.1", "found")
    (candidate,) = found["candidates"]
    assert (candidate["address"], candidate["method"], candidate["reason"]) == (
        "192.0.2.50",
        "anycast",
        "anycast is asked first",
    )
    assert found["methods"] == [
        {"method": "anycast", "outcome": "found", "steps": [{"remark": "nobody is asked: 192.0.2.50"}]}
    ]


def test_a_server_that_is_not_there_is_told_and_there_is_no_relay():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        options = ["--resolver", "127.0.0.1", "--resolver-port", port, "--timeout", "0.2"]
        result = discover("198.51.100.7", "--method", "driad", *options)
    assert result.exit_code == 1
    assert f"failed: 127.0.0.1:{port}: no reply in time" in result.output
    assert result.output.endswith("discovered: failed\n")


def test_methods_stand_in_the_order_given():
    options = ["--resolver", "127.0.0.1", "--resolver-port", "1", "--timeout", "0.2", "--json"]
    result = discover("2001:db8::7", "--method", "anycast", "--method", "driad", *options)
    assert result.exit_code == 0
    found = json.loads(result.output)
    assert [item["method"] for item in found["methods"]] == ["anycast", "driad"]
    assert found["configured"] == []


def test_a_group_that_is_not_source_specific_is_remarked(configuration):
    result = discover("198.51.100.7", "--config", configuration, "--group", "239.1.1.1")
    assert "239.1.1.1 is no source-specific group" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        ["224.0.0.1"],
        ["*"],
        ["198.51.100.7", "--group", "198.51.100.8"],
        ["198.51.100.7", "--group", "ff3e::1"],
        ["*", "--group", "239.1.1.1"],
        ["198.51.100.7", "--method", "dhcp"],
        ["198.51.100.7", "--method", "driad", "--method", "driad"],
        ["198.51.100.7", "--resolver", "dns.example"],
        ["198.51.100.7", "--domain", "a..b"],
        ["198.51.100.7", "--timeout", "0"],
        ["198.51.100.7", "--config", "/nowhere/agent.toml"],
    ],
)
def test_wrong_usage_is_told_in_a_line(arguments):
    result = discover(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.output
    assert "Traceback" not in result.output


def test_help_teaches_the_order_and_the_record():
    result = discover("--help")
    assert "dns-sd, anycast, driad" in result.output
    assert "IN AMTRELAY 10 0 3" in result.output
