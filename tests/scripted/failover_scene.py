"""A border whose relays are found in the DNS, or named in its file, and fail: shared by the tests of failover."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from lab import topology
from lab.agents import Agent, AgentPlace, relay_configuration
from lab.ensemble import Ensemble
from lab.names import NameServer, Zone, source_zones
from lab.namespaces import Lab, wait_until
from lab.scenario import Counting
from lab.topology import FAULTY_RELAY, HOST_INTERFACE, INTERNET_BORDER_SIDE, RELAY, SOURCE, SSM_GROUP_IPV4, STRANGER

SERVER: Final = str(INTERNET_BORDER_SIDE.ipv4)
RATE: Final = 500
FIRST, SECOND = str(RELAY.ipv4), str(STRANGER.ipv4)
PROXY: Final = str(FAULTY_RELAY.ipv4)
"""The fault proxy in front of the first relay; the second one is then the first relay itself."""

QUICK: Final = {"query_interval": 1.0, "query_response_interval": 0.5}
PATIENT: Final = {"query_interval": 60.0}
"""It is not the next Request that notices."""

_LISTENERS: Final = "".join(
    f"[{name}]\nquery_interval = 4.0\nquery_response_interval = 1.0\nstartup_query_interval = 1.0\n"
    for name in ("igmp", "mld")
)


def published(*relays: str, ttl: int = 300) -> Zone:
    """The zone that names relays of the source, each of less precedence than the one before."""
    (zone,) = source_zones(
        SOURCE.ipv4, [f"{10 * number} 0 1 {relay}" for number, relay in enumerate(relays, 1)], ttl=ttl
    )
    return zone


def section(name: str, **keys: object) -> str:
    """A section of a configuration."""
    lines = (f"{key} = {str(value).lower() if isinstance(value, bool) else value}\n" for key, value in keys.items())
    return f"[{name}]\n{''.join(lines)}"


class Scene(Ensemble):
    """Relays, a name server, and a border that is told nothing of them but `sections`.

    Attributes:
        names: the name server, None where nothing is published.
        first: the relay at FIRST.
        second: the relay at SECOND, None with the fault proxy.
        border: the gateway's agent.
    """

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        *,
        sections: str = "",
        zone: Zone | None = None,
        faulty: bool = False,
        relay: dict[str, object] | None = None,
        second: bool = True,
    ) -> None:
        """`relay` adds keys to the sections of the relays; `second` is whether the second one runs."""
        super().__init__(lab, directory)
        self._faulty = faulty
        names = lab.topology
        keys = relay or PATIENT
        both = [FIRST, str(RELAY.ipv6)]
        self.first = Agent(lab, AgentPlace(names.relay, directory, "relay"), relay_configuration(address=both, **keys))
        self.second: Agent | None = None
        if second and not faulty:
            place = AgentPlace(names.relay, directory, "relay2")
            self.second = Agent(lab, place, relay_configuration(address=[SECOND], **keys))
        self.names: NameServer | None = None
        if zone is not None:
            self.names = NameServer(lab, names.internet, directory / "names", (zone,), addresses=(SERVER,))
        gateway = f'uplink = "{topology.BORDER_UPLINK}"\ndownstream = {names.downstream_interfaces}\n'
        configuration = f'role = "gateway"\n[gateway]\n{gateway}{_LISTENERS}{sections}'
        self.border = Agent(lab, AgentPlace(names.border, directory, "border"), configuration)

    def _start_all(self) -> None:
        """All of it, the border last."""
        if self.names is not None:
            self._stack.callback(self.names.stop)
            self.names.start()
        if self._faulty:
            self._start_proxy(FIRST, SECOND)
        relays = [agent for agent in (self.first, self.second) if agent is not None]
        for agent in relays:
            self._stack.callback(agent.close)
            agent.launch()
        for agent in relays:
            agent.wait_until_ready()
        self._stack.callback(self.border.close)
        self.border.start()

    def drain(self, relay: Agent) -> None:
        """Have a relay take no new gateways."""
        relay.ask("PUT", "drain", {"enabled": True})

    def join(self, group: str) -> None:
        """Have the border ask for a channel without a receiver."""
        self.border.ask("POST", "joins", {"source": str(SOURCE.ipv4), "group": group})

    def requests_to(self, relay: Agent) -> int:
        """Requests a relay had."""
        return int(relay.get("statistics")["control"]["relay"].get("received_request", 0))

    def send(self, group: str, *options: str) -> None:
        """Start a numbered stream."""
        command = ("send", group, "--interface", HOST_INTERFACE, "--rate", str(RATE), "--size", "400", *options)
        self._start(self.lab.topology.source, *command)

    def receive(self, group: str) -> Counting:
        """Start a measuring receiver behind the border."""
        options = (str(SOURCE.ipv4), group, "--interface", HOST_INTERFACE, "--every", "0.1")
        process = self._start(self.lab.topology.receiver(0), "receive", *options, stdout=subprocess.PIPE)
        return Counting(group, process)

    def flowing(self, group: str = SSM_GROUP_IPV4) -> Counting:
        """A stream and its receiver, which has had packets."""
        self.send(group)
        counting = self.receive(group)
        counting.wait_for_more(20.0, packets=RATE // 2)
        return counting

    def tunnels_of(self, group: str = SSM_GROUP_IPV4) -> set[str]:
        """Through which tunnels a channel comes."""
        return {name for row in self.border.channels() if row["group"] == group for name in row["tunnels"]}

    def moves_to(self, seconds: float, *tunnels: str, group: str = SSM_GROUP_IPV4) -> None:
        """Wait until a channel comes through these tunnels alone."""
        wait_until(lambda: self.tunnels_of(group) == set(tunnels), seconds, f"{group} comes through {tunnels}")

    def answers(self, *tunnels: str) -> None:
        """Wait until relays answer, whether or not anything comes through them."""
        wait_until(
            lambda: set(tunnels) <= {row["id"] for row in self.border.tunnels()}, 40.0, f"{tunnels} are established"
        )

    def moves(self) -> list[str]:
        """Reasons of the moves in the log."""
        return re.findall(r"channel moved .*reason=(\w+)", self.border.place.log.read_text())

    def flows_again(self) -> tuple[str, float]:
        """The signal of the last move and the seconds from it to the first packet of the next relay."""
        found = re.compile(r"channel flows again .*signal=(\w+) seconds=([0-9.]+)")
        wait_until(lambda: found.search(self.border.log_tail()), 10.0, "the log tells of the first packet")
        kind, seconds = found.findall(self.border.log_tail())[-1]
        return kind, float(seconds)
