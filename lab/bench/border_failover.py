"""What a receiver misses when its relay is killed, drained or swallowed: a steady stream, another relay to go to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lab.agents import Agent, AgentPlace, relay_configuration
from lab.namespaces import Lab, wait_until
from lab.scenario import Counting, Scenario
from lab.topology import RELAY, SSM_GROUP_IPV4, STRANGER, Topology

SILENCE: Final = 1.0
DETECTION: Final = SILENCE * 1.25
"""Seconds until silence is noticed: it is looked for four times in `failover.relay_silence`."""
RATE: Final = 500.0
_PATIENCE: Final = 15.0
_STEADY: Final = int(2.5 * SILENCE * RATE)  # packets after which a silence means something
_AFTER: Final = int(RATE / 2)
_PATIENT: Final[dict[str, object]] = {"query_interval": 30.0}  # it is not the next Request that notices
_QUICK: Final[dict[str, object]] = {"query_interval": 1.0, "query_response_interval": 0.5}


@dataclass(frozen=True, slots=True)
class Failover:
    """What one receiver missed.

    Attributes:
        what: what happened to the relay.
        detection: seconds of the gap in which nobody could know; 0 where the relay says what happens.
        bound: seconds of the gap beyond that are aimed at; None when no packet may be missed.
        gap: longest time between two packets, in seconds.
        lost: packets of `RATE` a second.
        duplicates: packets that came twice.
    """

    what: str
    detection: float
    bound: float | None
    gap: float
    lost: int
    duplicates: int

    @property
    def is_reached(self) -> bool:
        """Whether it went as aimed at."""
        return self.lost == 0 if self.bound is None else self.gap - self.detection < self.bound


def measure(prefix: str) -> list[Failover]:
    """Every way to lose a relay."""
    return [killed(prefix), swallowed(prefix), drained(prefix), live_live(prefix)]


def killed(prefix: str) -> Failover:
    """The relay's process is gone: what we send to it comes back as ICMP errors."""
    with _pair(prefix) as scenario:
        figures = _moved(scenario, scenario.relay.kill, str(STRANGER.ipv4))
    return _failover("killed, ICMP errors come back", figures, DETECTION, 1.0)


def swallowed(prefix: str) -> Failover:
    """The relay is silent, and nothing tells."""
    with _faulty(prefix) as scenario:
        figures = _moved(scenario, lambda: scenario.faults(silence=True), str(RELAY.ipv4))
    return _failover("swallowed, nothing comes back", figures, DETECTION, 3.0)


def drained(prefix: str) -> Failover:
    """The relay sets its L flag, and we are configured to leave it for that."""
    with _faulty(prefix, move_on_limit="true") as scenario:
        figures = _moved(scenario, lambda: scenario.faults(limit=True), str(RELAY.ipv4))
    return _failover("drained, L flag and `move_on_limit`", figures, 0.0, None)


def live_live(prefix: str) -> Failover:
    """One of two relays that bring the same channel is killed."""
    with _pair(prefix, live_live='["232.1.1.0/24"]') as scenario:
        figures = _moved(scenario, scenario.relay.kill, str(STRANGER.ipv4))
    return _failover("killed, `live_live`", figures, 0.0, None)


def _failover(what: str, figures: dict[str, Any], detection: float, bound: float | None) -> Failover:
    return Failover(
        what, detection, bound, figures["longest_gap_seconds"], int(figures["lost"]), int(figures["duplicates"])
    )


@contextmanager
def _pair(prefix: str, **keys: object) -> Iterator[Scenario]:
    """Two relays of the same source; the second one is where the channel is to go."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isl-bench-")))
        lab = stack.enter_context(Lab(Topology(prefix=prefix)))
        sections = _second(STRANGER.ipv4) + _section(keys)
        scenario = stack.enter_context(Scenario(lab, directory, sections=sections, relay=_PATIENT))
        place = AgentPlace(lab.topology.relay, directory, "relay2")
        other = Agent(lab, place, relay_configuration(address=[str(STRANGER.ipv4)], **_QUICK))
        stack.callback(other.close)
        other.start()
        yield scenario


@contextmanager
def _faulty(prefix: str, **keys: object) -> Iterator[Scenario]:
    """One relay behind two addresses; the first of them has faults on demand."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isl-bench-")))
        lab = stack.enter_context(Lab(Topology(prefix=prefix)))
        sections = _second(RELAY.ipv4) + _section(keys)
        relay = _QUICK if keys else _PATIENT
        yield stack.enter_context(Scenario(lab, directory, faulty=True, sections=sections, relay=relay))


def _second(address: object) -> str:
    return f'\n[[gateway.relay]]\naddress = "{address}"\n'


def _section(keys: dict[str, object]) -> str:
    lines = {"relay_silence": SILENCE} | keys
    return "\n[failover]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())


def _moved(scenario: Scenario, action: Callable[[], object], relay: str) -> dict[str, Any]:
    """What a receiver counted of a stream that goes on through `relay` after the action."""
    wait_until(lambda: len(scenario.border.tunnels()) >= 2, _PATIENCE, "both relays answer")
    counting = _flowing(scenario)
    action()
    wait_until(lambda: _through(scenario) == {relay}, _PATIENCE, "the channel moved")
    counting.wait_for_more(_PATIENCE, packets=_AFTER)
    return counting.finish()


def _flowing(scenario: Scenario) -> Counting:
    scenario.send(SSM_GROUP_IPV4, "--rate", str(RATE), "--size", "400")
    counting = scenario.receive(SSM_GROUP_IPV4)
    counting.wait_for_more(_PATIENCE)
    counting.wait_for_more(_PATIENCE, packets=_STEADY)
    return counting


def _through(scenario: Scenario) -> set[str]:
    return {tunnel for channel in scenario.border.channels() for tunnel in channel["tunnels"]}
