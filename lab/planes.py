"""The data planes of a border in the lab: choosing one, and seeing which one forwards."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lab.agents import Agent
from lab.namespaces import Lab, LabError, wait_until
from lab.scenario import Counting, Scenario
from lab.topology import BORDER_UPLINK, HOST_INTERFACE

ENGINE: Final = re.compile(r'^engine = "[^"]*"$', re.MULTILINE)
_PLANE_SECONDS: Final = 10.0
_LAST_SECONDS: Final = 10.0


def dataplane(engine: str) -> str:
    """The section of a configuration that chooses an engine."""
    return f'\n[dataplane]\nengine = "{engine}"\n'


def choose(agent: Agent, engine: str) -> None:
    """Write another engine into the configuration and have the agent read it; `dataplane` must be in it."""
    path = agent.place.configuration
    text, count = ENGINE.subn(f'engine = "{engine}"', path.read_text())
    if count != 1:
        raise LabError(f"{path} has {count} lines that choose an engine")
    path.write_text(text)
    agent.reload()


def engine(agent: Agent) -> dict[str, Any]:
    """What the agent says of its engine, as `status` has it."""
    found: dict[str, Any] = agent.get("status")["engine"]
    return found


def planes(agent: Agent) -> dict[str, int]:
    """Channels by the plane that forwards them."""
    return {plane: count for plane, count in engine(agent)["channels"].items() if count}


def interface_plane(agent: Agent, name: str, role: str) -> str | None:
    """The best plane of an interface in a role (`uplink`, `downstream`)."""
    found = [item for item in engine(agent)["interfaces"] if (item["name"], item["role"]) == (name, role)]
    return found[0]["plane"] if found else None


def why_not(agent: Agent, name: str, plane: str, role: str = "uplink") -> str:
    """Why an interface does not carry a plane in a role; empty when it does, or is not in use."""
    for item in engine(agent)["interfaces"]:
        if (item["name"], item["role"]) == (name, role):
            return next((each["reason"] or "" for each in item["planes"] if each["plane"] == plane), "")
    return ""


def wait_for_planes(agent: Agent, seconds: float = _PLANE_SECONDS, **wanted: int) -> None:
    """Wait until that many channels are on each plane (`_` for `-`), and none on another.

    Raises:
        LabError: they are not within `seconds`.
    """
    expected = {name.replace("_", "-"): count for name, count in wanted.items()}
    try:
        wait_until(lambda: planes(agent) == expected, seconds, f"channels by plane are {expected}")
    except LabError as error:
        raise LabError(f"{error}\n{json.dumps(engine(agent), indent=1)}") from error


def xdp_program(lab: Lab, namespace: str, interface: str = BORDER_UPLINK) -> int | None:
    """Number of the XDP program in an interface's driver; None without one."""
    shown = json.loads(lab.run(namespace, "ip", "-j", "-d", "link", "show", interface).stdout)
    (link,) = (item for item in shown if item)
    return int(link["xdp"]["prog"]["id"]) if "xdp" in link else None


def held_objects(process: int) -> set[tuple[str, int]]:
    """What a process has descriptors of that the kernel numbers, as (kind, number): "prog", "map", "link", "btf"."""
    found = set()
    for path in Path(f"/proc/{process}/fdinfo").iterdir():
        try:
            lines = path.read_text().splitlines()
        except OSError:  # closed meanwhile
            continue
        for line in lines:
            name, _, value = line.partition(":")
            if name.endswith("_id"):
                found.add((name.removesuffix("_id"), int(value)))
    return found


def programs_of(process: int) -> set[int]:
    """Numbers of the BPF programs a process has descriptors of."""
    return {number for kind, number in held_objects(process) if kind == "prog"}


@dataclass(slots=True)
class CountedStream:
    """A numbered stream and what receives it, from before its first packet on.

    Attributes:
        sender: `lab send`.
        receivers: `lab receive`, which have joined.
    """

    sender: subprocess.Popen[str]
    receivers: list[Counting]

    def stop(self) -> int:
        """End the sender; what it sent, or one less when it was ended between sending and counting."""
        self.sender.send_signal(signal.SIGTERM)
        return self.sent()

    def sent(self) -> int:
        """Wait for the sender's end; what it sent."""
        said, _ = self.sender.communicate(timeout=60.0)
        return int(json.loads(said)["sent"])

    def finish(self, sent: int) -> list[dict[str, Any]]:
        """The receivers' figures, once the last packet of `sent` came or time was over."""

        def reached(receiver: Counting) -> int:
            return int(receiver.figures.get("last_sequence") or 0)

        def is_last_here() -> bool:
            return all(reached(receiver) >= sent - 1 for receiver in self.receivers)

        with contextlib.suppress(LabError):  # the figures say it better
            wait_until(is_last_here, _LAST_SECONDS, "the last packet is here")
        return [receiver.finish() for receiver in self.receivers]


def start_stream(
    scenario: Scenario, group: str, rate: int, seconds: float | None = None, receivers: int = 1
) -> CountedStream:
    """Join `group` at receivers 0 .. `receivers` - 1, wait until the relay has it, and send."""
    before = len(scenario.relay.channels())
    counting = [scenario.receive(group, receiver=index) for index in range(receivers)]

    def is_everywhere() -> bool:
        carried = [channel for channel in scenario.border.channels() if channel["group"] == group]
        outgoing = {name for channel in carried for name in channel["outgoing_interfaces"]}
        downstreams = scenario.lab.topology.downstreams
        return len(outgoing) == min(receivers, downstreams) and len(scenario.relay.channels()) > before

    wait_until(is_everywhere, 20.0, f"{group} is subscribed to")
    command = [sys.executable, "-m", "lab", "send", group, "--interface", HOST_INTERFACE, "--rate", str(rate)]
    if seconds is not None:
        command += ["--seconds", str(seconds)]
    return CountedStream(scenario.lab.start(scenario.lab.topology.source, *command, stdout=subprocess.PIPE), counting)
