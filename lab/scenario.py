"""A relay, a border agent, streams and receivers in a lab: what demonstrations, tests and benchmarks start from."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from agent.protocol.channels import Address
from lab import faulty_relay, topology
from lab.agents import Agent, AgentPlace, gateway_configuration, relay_configuration
from lab.namespaces import Lab, stop, wait_until

_FAULTY_START_SECONDS: Final = 10.0


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


class Scenario:
    """One relay and one border agent, joined by the lab's Internet, with a fault proxy between them if wanted.

    Attributes:
        lab: the namespaces.
        relay: the relay's agent.
        border: the gateway's agent.
        control: where the fault proxy is told its faults.
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
        self.lab = lab
        self.control = directory / "faults.sock"
        self._faulty = faulty
        self._stack = ExitStack()
        self.relay = Agent(lab, AgentPlace(names.relay, directory, "relay"), relay_configuration(**(relay or {})))
        asked = topology.FAULTY_RELAY if faulty else topology.RELAY
        configuration = gateway_configuration(
            names.downstream_interfaces,
            [str(asked.ipv4)] if faulty else [str(asked.ipv4), str(asked.ipv6)],
            sections=sections,
            **(gateway or {}),
        )
        self.border = Agent(lab, AgentPlace(names.border, directory, "border"), configuration)

    def __enter__(self) -> Self:
        """Start both agents and the proxy.

        Raises:
            LabError: one of them did not become ready.
        """
        try:
            if self._faulty:
                self._start_proxy()
            for agent in (self.relay, self.border):
                self._stack.callback(agent.close)
                agent.launch()
            for agent in (self.relay, self.border):
                agent.wait_until_ready()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End everything started here."""
        self._stack.close()

    def _start_proxy(self) -> None:
        places = (
            *("--address", str(topology.FAULTY_RELAY.ipv4), "--relay", str(topology.RELAY.ipv4)),
            *("--stranger", str(topology.STRANGER.ipv4), "--control", str(self.control)),
        )
        self._start(self.lab.topology.relay, "faulty-relay", *places)
        wait_until(self.control.exists, _FAULTY_START_SECONDS, "the fault proxy listens")

    def _start(self, namespace: str, *command: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        process = self.lab.start(namespace, sys.executable, "-m", "lab", *command, stdout=stdout)
        self._stack.callback(stop, process)
        return process

    def faults(self, **faults: object) -> dict[str, int]:
        """Set the faults between gateway and relay, those not named being off; the proxy's counters."""
        return faulty_relay.tell(self.control, **faults)

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
