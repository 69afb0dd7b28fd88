"""What an agent costs that carries many channels on which nothing is sent: memory and processor time."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from agent.protocol.channels import Channel
from lab import topology
from lab.bench.relay_topology import inside
from lab.measure import join
from lab.namespaces import Lab, wait_until
from lab.scenario import Scenario
from lab.topology import Topology

CHANNELS: Final = (1000, 10000)
WINDOW_SECONDS: Final = 125.0  # one query interval of the defaults, so that every periodic work is in it once
_STARTED_SECONDS: Final = 45.0  # the last start-up query (31.25 s, RFC 3376 §8.6) and its answers are over
_SETTLE_SECONDS: Final = 90.0
_GROUPS_A_SOCKET: Final = 1000
_LIMITS: Final = "\n[igmp]\ngroup_limit = 20000\n"


@dataclass(frozen=True, slots=True)
class Idle:
    """Cost of idle channels.

    Attributes:
        role: "gateway" or "relay".
        channels: how many.
        resident_bytes: resident memory of the agent's process.
        processor_share: share of one core.
    """

    role: str
    channels: int
    resident_bytes: int
    processor_share: float


def resident_bytes(process_id: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor_seconds(process_id: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _join_many(stack: ExitStack, scenario: Scenario, channels: int) -> None:
    """Join by IGMPv3 from a receiver, as its programs would."""
    names = scenario.lab.topology
    scenario.lab.run(names.receiver(), "sysctl", "-q", "-w", f"net.ipv4.igmp_max_memberships={channels}")
    first = ip_address("232.16.0.0")
    with inside(names.receiver()):
        for number in range(channels):
            if number % _GROUPS_A_SOCKET == 0:
                receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            channel = Channel(topology.SOURCE.ipv4, first + number)
            join(receiver, channel, topology.HOST_INTERFACE)


def _measure_one(prefix: str, channels: int, window: float) -> list[Idle]:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="isl-bench-"))
        lab = stack.enter_context(Lab(Topology(prefix=prefix)))
        limits: dict[str, object] = {"channels_per_tunnel": 20000}
        scenario = stack.enter_context(Scenario(lab, Path(directory), relay=limits, sections=_LIMITS))
        started = time.monotonic()
        _join_many(stack, scenario, channels)
        agents = {"gateway": scenario.border, "relay": scenario.relay}
        for role, agent in agents.items():
            wait_until(
                lambda agent=agent: agent.get("status")["counts"]["channels"] >= channels,  # type: ignore[misc]
                _SETTLE_SECONDS,
                f"the {role} has {channels} channels",
                interval=0.5,
            )
        time.sleep(max(started + _STARTED_SECONDS - time.monotonic(), 0.0))
        before = {role: processor_seconds(agent.process_id) for role, agent in agents.items()}
        time.sleep(window)
        return [
            Idle(
                role,
                channels,
                resident_bytes(agent.process_id),
                (processor_seconds(agent.process_id) - before[role]) / window,
            )
            for role, agent in agents.items()
        ]


def measure(prefix: str = "islb", window: float = WINDOW_SECONDS) -> list[Idle]:
    """Both roles at every number of channels."""
    return [row for channels in CHANNELS for row in _measure_one(prefix, channels, window)]
