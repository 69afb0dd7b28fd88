"""Relay discovery against bind9: what a source's operator would publish is what is found."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent.cli import main
from lab.agents import PROGRAM
from lab.names import Delegation, NameServer, Zone, missing_for_names, service_zone, source_zones
from lab.namespaces import Lab, LabError
from lab.topology import INTERNET_BORDER_SIDE

pytestmark = pytest.mark.skipif(bool(missing_for_names()), reason="named (Debian: bind9) is not installed")

SOURCES = ["198.51.100.10", "2001:db8:51::10"]
RECORDS = ["10 0 1 192.0.2.1", "10 1 2 2001:db8:a::1", "20 0 3 relays.lab.example."]
HOSTS = Zone("lab.example.", ("relays IN A 192.0.2.9",))

Start = Callable[..., NameServer]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        port: int = first.getsockname()[1]
        second.bind(("127.0.0.1", port))
        return port


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[NameServer] = []

    def run(*zones: Zone, recursion: bool = False) -> NameServer:
        server = NameServer(None, None, tmp_path / "names", zones, port=free_port(), recursion=recursion)
        servers.append(server)
        server.start()
        return server

    yield run
    for server in servers:
        server.stop()


def discover(server: NameServer, source: str, *options: str, status: int = 0) -> dict[str, Any]:
    arguments = ["discover", source, "--resolver", "127.0.0.1", "--resolver-port", str(server.port), "--json"]
    arguments += options or ["--method", "driad"]
    result = CliRunner().invoke(main, arguments, env={"AMT_AGENT_CONFIG": None})
    assert result.exit_code == status, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def places(found: dict[str, Any]) -> list[tuple[str, int, bool]]:
    return sorted((item["address"], item["precedence"], item["discover"]) for item in found["candidates"])


@pytest.mark.parametrize("recursion", [False, True], ids=["authoritative", "recursive"])
@pytest.mark.parametrize("generic", [False, True], ids=["AMTRELAY", "TYPE260"])
@pytest.mark.parametrize("delegation", Delegation)
def test_what_is_published_is_found(start: Start, delegation: Delegation, generic: bool, recursion: bool) -> None:
    zones = [
        zone
        for source in SOURCES
        for zone in source_zones(ip_address(source), RECORDS, delegation=delegation, generic=generic)
    ]
    server = start(*zones, HOSTS, recursion=recursion)
    for source in SOURCES:
        found = discover(server, source)
        assert places(found) == [("192.0.2.1", 10, True), ("192.0.2.9", 20, True), ("2001:db8:a::1", 10, False)]
        aliases = [alias["type"] for alias in found["methods"][0]["steps"][0]["aliases"]]
        assert aliases == ([] if delegation is Delegation.DIRECT else [delegation.name])


def test_an_alias_into_a_zone_nobody_serves_leads_to_nothing(start: Start) -> None:
    reverse, holder = source_zones(ip_address(SOURCES[0]), RECORDS, delegation=Delegation.CNAME)
    found = discover(start(reverse), SOURCES[0], status=1)
    (step,) = found["methods"][0]["steps"]
    assert [alias["target"] for alias in step["aliases"]] == [f"10.{holder.origin}"]
    assert found["outcome"] == "nothing"


def test_no_relay_is_said_and_nothing_is_found(start: Start) -> None:
    zones = source_zones(ip_address("198.51.100.10"), ["0 0 0 ."], negative_ttl=17)
    server = start(*zones)
    assert discover(server, "198.51.100.10", status=1)["outcome"] == "no_relay"
    found = discover(server, "198.51.100.11", status=1)
    assert found["outcome"] == "nothing"
    (step,) = found["methods"][0]["steps"]
    assert (step["status"], step["lifetime"]) == ("no_name", 17.0)


def test_names_nobody_has_a_zone_for_are_refused_by_the_server(start: Start) -> None:
    found = discover(start(HOSTS), "203.0.113.1", status=1)
    (step,) = found["methods"][0]["steps"]
    assert step["status"] in {"failed", "no_name"}


def test_many_relays_come_over_tcp(start: Start) -> None:
    records = [f"{number} 0 2 2001:db8:a::{number:x}" for number in range(1, 61)]
    found = discover(start(*source_zones(ip_address("198.51.100.10"), records)), "198.51.100.10")
    (step,) = found["methods"][0]["steps"]
    assert (step["transport"], len(step["records"])) == ("tcp", 60)
    assert [item["precedence"] for item in found["candidates"]] == list(range(1, 33))


def test_a_changed_zone_is_found(start: Start) -> None:
    (zone,) = source_zones(ip_address("198.51.100.10"), ["10 0 1 192.0.2.1"])
    server = start(zone)
    assert places(discover(server, "198.51.100.10")) == [("192.0.2.1", 10, True)]
    (changed,) = source_zones(ip_address("198.51.100.10"), ["10 1 1 192.0.2.2"])
    server.reload(changed)
    assert places(discover(server, "198.51.100.10")) == [("192.0.2.2", 10, False)]


def test_services_of_the_domain_are_found(start: Start) -> None:
    relays = {"near": "0 3 2268 near", "far": "9 0 2300 far"}
    addresses = ["near IN A 192.0.2.1", "near IN AAAA 2001:db8:a::1", "far IN A 192.0.2.2"]
    server = start(service_zone("lab.example.", relays, *addresses))
    found = discover(server, "198.51.100.10", "--method", "dns-sd", "--domain", "lab.example")
    assert [(item["address"], item["port"], item["precedence"]) for item in found["candidates"][-1:]] == [
        ("192.0.2.2", 2300, 9)
    ]
    assert {item["address"] for item in found["candidates"][:2]} == {"192.0.2.1", "2001:db8:a::1"}


def test_a_server_that_ended_is_a_failure(start: Start) -> None:
    server = start(HOSTS)
    server.stop()
    found = discover(server, "198.51.100.10", status=1)
    assert found["outcome"] == "failed"
    assert "refused" in found["methods"][0]["steps"][0]["detail"]


def test_a_zone_with_a_fault_is_told(start: Start) -> None:
    with pytest.raises(LabError, match="refuses a zone"):
        start(Zone("lab.example.", ("relays IN A 192.0.2",)))


@pytest.mark.root
def test_a_server_in_the_lab_is_asked_from_the_border(make_lab: Callable[..., Lab], tmp_path: Path) -> None:
    lab = make_lab()
    zones = [zone for source in SOURCES for zone in source_zones(ip_address(source), RECORDS)]
    server_address = str(INTERNET_BORDER_SIDE.ipv4)
    with NameServer(lab, lab.topology.internet, tmp_path / "names", [*zones, HOSTS], addresses=(server_address,)):
        for source in SOURCES:
            arguments = ["discover", source, "--method", "driad", "--resolver", server_address, "--json"]
            found = json.loads(lab.run(lab.topology.border, *PROGRAM, *arguments).stdout)
            assert [item["precedence"] for item in found["candidates"]] == [10, 10, 20]
            assert [item["usable"] for item in found["candidates"]] == [True] * 3
