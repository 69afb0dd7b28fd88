"""A relay, a border agent, streams and receivers in a lab: what demonstrations, tests and benchmarks start from."""

from __future__ import annotations

import json
import subprocess
import threading
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from agent.protocol.channels import Address
from lab import topology
from lab.agents import Agent, AgentPlace, gateway_configuration, relay_configuration
from lab.ensemble import Ensemble
from lab.namespaces import Lab, wait_until


@dataclass(slots=True)
class Counting:
    """A measuring receiver that prints a line of figures again and again.

    Attributes:
        label: what it receives.
        figures: its last line; empty before the first.
    """

    label: str
    process: subprocess.Popen[str]
    figures: dict[str, Any] = field(default_factory=dict)
    _reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        """Follow its lines."""
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def _follow(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.figures = json.loads(line)

    @property
    def received(self) -> int:
        """Packets so far."""
        return int(self.figures.get("received", 0))

    def finish(self) -> dict[str, Any]:
        """End it and give its last figures."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10.0)
        self._reader.join(10.0)
        return self.figures

    def wait_for_more(self, seconds: float, packets: int = 10) -> None:
        """Wait until it has received `packets` more.

        Raises:
            LabError: it has not within `seconds`.
        """
        wanted = self.received + packets
        wait_until(lambda: self.received >= wanted, seconds, f"{self.label}: {packets} more packets")

    def is_whole(self) -> bool:
        """Whether packets came, and none was lost, doubled, late or broken."""
        wrong = ("lost", "duplicates", "reordered", "continuity_errors")
        return self.received > 0 and not any(self.figures.get(name) for name in wrong)


class Scenario(Ensemble):
    """One relay and one border agent, joined by the lab's Internet, with a fault proxy between them if wanted.

    Attributes:
        relay: the relay's agent.
        border: the gateway's agent.
    """

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        *,
        faulty: bool = False,
        relay: dict[str, object] | None = None,
        gateway: dict[str, object] | None = None,
        sections: str = "",
    ) -> None:
        """`relay` and `gateway` add keys to those sections of the configurations, `sections` adds to the gateway's."""
        names = lab.topology
        super().__init__(lab, directory)
        self._faulty = faulty
        self.relay = Agent(lab, AgentPlace(names.relay, directory, "relay"), relay_configuration(**(relay or {})))
        asked = topology.FAULTY_RELAY if faulty else topology.RELAY
        configuration = gateway_configuration(
            names.downstream_interfaces,
            [str(asked.ipv4)] if faulty or names.translate else [str(asked.ipv4), str(asked.ipv6)],
            sections=sections,
            **(gateway or {}),
        )
        self.border = Agent(lab, AgentPlace(names.border, directory, "border"), configuration)

    def _start_all(self) -> None:
        """Both agents and the proxy."""
        if self._faulty:
            self._start_proxy(str(topology.RELAY.ipv4), str(topology.STRANGER.ipv4))
        for agent in (self.relay, self.border):
            self._stack.callback(agent.close)
            agent.launch()
        for agent in (self.relay, self.border):
            agent.wait_until_ready()

    def pim_neighbors(self) -> list[dict[str, Any]]:
        """The border's PIM neighbours."""
        return [row for row in self.border.get("neighbors")["items"] if row["kind"] == "pim"]

    def send(self, group: str, *options: str) -> subprocess.Popen[str]:
        """Start a numbered stream from the source's namespace."""
        return self._start(self.lab.topology.source, "send", group, "--interface", topology.HOST_INTERFACE, *options)

    def receive(
        self, group: str, *options: str, receiver: int = 0, any_source: bool = False, label: str | None = None
    ) -> Counting:
        """Start a measuring receiver of (source, `group`), or (*, `group`), behind the border."""
        address: Address = ip_address(group)
        source = "*" if any_source else str(topology.SOURCE.of(address.version))
        common = ("--interface", topology.HOST_INTERFACE, "--every", "0.1")
        namespace = self.lab.topology.receiver(receiver)
        process = self._start(namespace, "receive", source, group, *common, *options, stdout=subprocess.PIPE)
        return Counting(f"({source},{group})" if label is None else label, process)
