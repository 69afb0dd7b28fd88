"""A border in router mode between a relay and the domain's routers, shared by the tests of one module."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx

from lab import topology
from lab.agents import Agent, gateway_configuration
from lab.frr import FrrRouter, domain_router
from lab.namespaces import Lab, wait_until
from lab.scenario import Counting, Scenario
from lab.topology import Topology

_log = logging.getLogger("measured")

QUICK_PIM = """
[pim]
hello_interval = 1.0
join_prune_interval = 5.0
"""
QUICK_LISTENERS = "".join(
    f"\n[{name}]\nquery_interval = 4.0\nquery_response_interval = 1.0\nstartup_query_interval = 1.0\n"
    for name in ("igmp", "mld")
)
GATEWAY_SECTIONS = QUICK_LISTENERS + QUICK_PIM
"""Keys of [pim] may follow."""
QUICK_QUERIES = {"query_interval": 1.0, "query_response_interval": 0.5}
SOURCE = str(topology.SOURCE.ipv4)
WRONG = ("lost", "duplicates", "reordered")


@dataclass
class Scene:
    """A running lab; what tests start in it is gone when `quiet` returned.

    Attributes:
        routers: FRR, from the border to the receivers.
    """

    scenario: Scenario
    routers: list[FrrRouter]
    receivers: list[Counting] = field(default_factory=list)

    @property
    def lab(self) -> Lab:
        """The namespaces."""
        return self.scenario.lab

    @property
    def names(self) -> Topology:
        """Their names."""
        return self.lab.topology

    def receive(self, group: str, receiver: int = 0, *, any_source: bool = False) -> Counting:
        """Start a measuring receiver."""
        found = self.scenario.receive(group, receiver=receiver, any_source=any_source)
        self.receivers.append(found)
        return found

    def relay_has(self, group: str, source: str | None = SOURCE) -> bool:
        """Whether a tunnel subscribes to a channel at the relay."""
        return any((row["source"], row["group"]) == (source, group) for row in self.scenario.relay.channels())

    def wait_for_leave(self, group: str, seconds: float, source: str = SOURCE) -> None:
        """Wait until no tunnel subscribes to (source, `group`) any more."""
        wait_until(lambda: not self.relay_has(group, source), seconds, f"{group} is left at the relay")

    def quiet(self) -> None:
        """End every receiver."""
        for receiver in self.receivers:
            receiver.finish()
        self.receivers.clear()


@contextmanager
def border_scene(
    directory: Path,
    sizes: dict[str, Any],
    *,
    sections: str = "",
    pim: str = QUICK_PIM,
    native: Collection[str] = (),
    frr: bool = True,
    **settings: Any,
) -> Iterator[Scene]:
    """A lab with relay and border running, and FRR in each of the domain's routers.

    Args:
        directory: for what the programs write.
        sizes: of the topology.
        sections: what follows [pim] in the border's configuration, or keys of it.
        pim: the [pim] section.
        native: downstream LANs of the lab that are native ones for the border.
        frr: whether FRR runs.
        settings: of the scenario.
    """
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(Topology(prefix=f"islt{os.getpid()}", **sizes)))
        relay = QUICK_QUERIES | settings.pop("relay", {})
        sections = QUICK_LISTENERS + pim + sections
        scenario = Scenario(lab, directory, relay=relay, sections=sections, **settings)
        if native:
            below = [name for name in lab.topology.downstream_interfaces if name not in native]
            relays = [str(topology.RELAY.ipv4), str(topology.RELAY.ipv6)]
            scenario.border.configure(gateway_configuration(below, relays, sections=sections, native=list(native)))
        stack.enter_context(scenario)
        routers = []
        for index in range(1, lab.topology.routed + 1) if frr else ():
            router = FrrRouter(lab, lab.topology.routers()[index - 1], directory, domain_router(lab.topology, index))
            routers.append(stack.enter_context(router))
        scene = Scene(scenario, routers)
        stack.callback(scene.quiet)
        if routers:
            wait_until(lambda: pim_neighbors(scenario.border), 20, "FRR is a neighbour")
        yield scene


def pim_neighbors(agent: Agent, version: int = 4) -> list[dict[str, Any]]:
    """PIM neighbours of an agent in one IP version."""
    rows = agent.get("neighbors")["items"]
    return [row for row in rows if row["kind"] == "pim" and ip_address(row["address"]).version == version]


def channel_row(agent: Agent, group: str, source: str | None = SOURCE) -> dict[str, Any] | None:
    """What an agent shows of a channel, None when nobody wants it."""
    rows = agent.channels()
    return next((row for row in rows if (row["source"], row["group"]) == (source, group)), None)


def ask(agent: Agent, method: str, resource: str, document: dict[str, Any]) -> None:
    """Ask an agent's REST interface for a change."""
    transport = httpx.HTTPTransport(uds=str(agent.place.socket))
    with httpx.Client(transport=transport, base_url="http://agent", timeout=5.0) as client:
        client.request(method, f"/v1/{resource}", json=document).raise_for_status()


def wrong_of(receiver: Counting) -> list[int]:
    """Packets lost, doubled and out of order so far."""
    return [receiver.figures[name] for name in WRONG]


def measured(what: str, value: float) -> None:
    """Tell a figure: pytest -o log_cli=true --log-cli-level=INFO shows it."""
    _log.info("%s: %.3f", what, value)
