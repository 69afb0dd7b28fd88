"""A border that knows no relay finds that of the source in the DNS, which bind9 serves, and the stream comes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.agents import Agent, AgentPlace, relay_configuration
from lab.names import Delegation, NameServer, missing_for_names, service_zone, source_zones
from lab.namespaces import Lab, wait_until
from lab.scenario import Counting
from lab.topology import (
    BORDER_UPLINK,
    HOST_INTERFACE,
    INTERNET_BORDER_SIDE,
    RELAY,
    SOURCE,
    SSM_GROUP_IPV4,
    SSM_GROUP_IPV6,
    STRANGER,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing_for_names()), reason="named (Debian: bind9) is not installed"),
]

SERVER = str(INTERNET_BORDER_SIDE.ipv4)
TTL = 2  # seconds, so that answers are refreshed while a test runs


def configuration(lab: Lab, *methods: str) -> str:
    return f"""
role = "gateway"
[gateway]
uplink = "{BORDER_UPLINK}"
downstream = {lab.topology.downstream_interfaces}
[discovery]
methods = {list(methods)}
resolvers = "{SERVER}"
domain = "lab.example"
query_timeout = 1.0
negative_ttl = 1.0
maximum_ttl = 2.0
[igmp]
query_interval = 4.0
query_response_interval = 1.0
startup_query_interval = 1.0
[mld]
query_interval = 4.0
query_response_interval = 1.0
startup_query_interval = 1.0
"""


class Border:
    """A relay, a name server and a border that has to find it."""

    def __init__(self, lab: Lab, directory: Path, *methods: str) -> None:
        self.lab = lab
        self.directory = directory
        self.names: NameServer | None = None
        self.relay = Agent(lab, AgentPlace(lab.topology.relay, directory, "relay"), relay_configuration())
        place = AgentPlace(lab.topology.border, directory, "border")
        self.agent = Agent(lab, place, configuration(lab, *methods))

    def start(self, *zones) -> None:
        self.names = NameServer(
            self.lab, self.lab.topology.internet, self.directory / "names", zones, addresses=(SERVER,)
        )
        self.relay.launch()
        self.agent.launch()
        self.names.start()
        for agent in (self.relay, self.agent):
            agent.wait_until_ready()

    def receive(self, group: str) -> Counting:
        program = [sys.executable, "-m", "lab"]
        self.lab.start(self.lab.topology.source, *program, "send", group, "--interface", HOST_INTERFACE)
        source = str(SOURCE.of(6 if ":" in group else 4))
        options = [source, group, "--interface", HOST_INTERFACE, "--every", "0.1"]
        receiver = self.lab.topology.receiver(0)
        return Counting(group, self.lab.start(receiver, *program, "receive", *options, stdout=subprocess.PIPE))

    def answers(self, outcome: str) -> int:
        """How often discovery came to that."""
        return int(self.agent.get("statistics")["control"]["discovery"].get(f"answers_{outcome}", 0))

    def relays(self) -> set[str]:
        return {str(tunnel["relay_address"]) for tunnel in self.agent.tunnels()}


@pytest.fixture
def make_border(make_lab: Callable[..., Lab], tmp_path: Path):
    made = []

    def make(*methods: str) -> Border:
        made.append(Border(make_lab(), tmp_path, *methods))
        return made[-1]

    yield make
    for border in made:
        border.agent.close()
        border.relay.close()
        if border.names is not None:
            border.names.stop()


@pytest.mark.parametrize(
    ("group", "delegation", "discover"),
    [(SSM_GROUP_IPV4, Delegation.CNAME, 0), (SSM_GROUP_IPV6, Delegation.DNAME, 1)],
)
def test_the_relay_of_the_source_is_found(make_border, group, delegation, discover):
    border = make_border("driad")
    source = SOURCE.of(6 if ":" in group else 4)
    border.start(*source_zones(source, [f"10 {discover} 1 {RELAY.ipv4}"], delegation=delegation, ttl=TTL))
    counting = border.receive(group)
    counting.wait_for_more(20.0)
    assert border.relays() == {str(RELAY.ipv4)}
    counting.wait_for_more(20.0, packets=counting.received)
    assert counting.finish()["received"]


def test_a_relay_that_is_published_later_is_found(make_border):
    border = make_border("driad")
    (zone,) = source_zones(SOURCE.ipv4, ["0 0 0 ."], ttl=1, negative_ttl=1)
    border.start(zone)
    counting = border.receive(SSM_GROUP_IPV4)
    wait_until(lambda: "AMTRELAY" in border.names.log.read_text(), 15.0, "the server was asked")
    assert counting.received == 0
    (published,) = source_zones(SOURCE.ipv4, [f"10 0 1 {RELAY.ipv4}"], ttl=TTL)
    border.names.reload(published)
    counting.wait_for_more(30.0)


def test_a_stream_does_not_notice_that_its_records_change(make_border):
    """RFC 8777 §2.5.3: a healthy tunnel is not disturbed."""
    border = make_border("driad")
    (zone,) = source_zones(SOURCE.ipv4, [f"10 0 1 {RELAY.ipv4}"], ttl=TTL)
    border.start(zone)
    counting = border.receive(SSM_GROUP_IPV4)
    counting.wait_for_more(20.0)
    (changed,) = source_zones(SOURCE.ipv4, [f"5 0 1 {STRANGER.ipv4}"], ttl=TTL)
    asked = border.names.log.read_text().count("AMTRELAY")
    border.names.reload(changed)
    wait_until(lambda: border.names.log.read_text().count("AMTRELAY") >= asked + 2, 30.0, "it was asked again")
    counting.wait_for_more(20.0, packets=20)
    figures = counting.finish()
    assert (figures["lost"], figures["duplicates"]) == (0, 0)
    assert str(RELAY.ipv4) in border.relays()


def test_a_stream_outlives_the_name_server(make_border):
    """Longer than answers are kept: `maximum_ttl` is 2 s here."""
    border = make_border("driad")
    (zone,) = source_zones(SOURCE.ipv4, [f"10 0 1 {RELAY.ipv4}"], ttl=TTL)
    border.start(zone)
    counting = border.receive(SSM_GROUP_IPV4)
    counting.wait_for_more(20.0)
    border.names.stop()
    wait_until(lambda: border.answers("failed") >= 1, 60.0, "nothing is known of the source any more")
    counting.wait_for_more(20.0, packets=500)
    figures = counting.finish()
    assert (figures["lost"], figures["duplicates"]) == (0, 0)
    assert border.relays() == {str(RELAY.ipv4)}


def test_the_relay_of_the_domain_is_found(make_border):
    border = make_border("dns-sd", "driad")
    border.start(service_zone("lab.example.", {"border": "0 0 2268 relay"}, f"relay IN AAAA {RELAY.ipv6}"))
    counting = border.receive(SSM_GROUP_IPV4)
    counting.wait_for_more(20.0)
    assert border.relays() == {str(RELAY.ipv6)}
