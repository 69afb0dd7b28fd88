"""From the receipt of a PIM Join to the first packet out, at the border's interfaces, by the kernel's clock.

The tunnel is up, the source is sending, one join comes after the other. The time is split at the border's uplink: the
agent's from the Join to its AMT Membership Update, the relay's until its first packet, the agent's until that is out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from agent.protocol.channels import Address, Channel
from lab import topology
from lab.bench.border_neighbor import Neighbor
from lab.bench.border_wire import AMT_DATA, AMT_UPDATE, Frame, Tap
from lab.bench.join_latency import stream
from lab.bench.relay_topology import inside
from lab.measure import join, multicast_receiver
from lab.namespaces import Lab, LabError, wait_until
from lab.scenario import Scenario

JOINS: Final = 200
SCRIPTED: Final = "scripted neighbour"
FRR: Final = "FRR"
_PATIENCE: Final = 10.0
_LEAVE_SECONDS: Final = 60.0
_RUN_UP: Final = 0.02  # the stream is on its way before anybody joins
_FIRST_GROUP: Final = ip_address(topology.SSM_GROUP_IPV4)


@dataclass(frozen=True, slots=True)
class JoinTimes:
    """Times of one join, in seconds.

    Attributes:
        asking: from the Join to our Membership Update.
        relay: from there to the relay's first packet.
        forwarding: from there to the packet on the downstream interface.
    """

    asking: float
    relay: float
    forwarding: float

    @property
    def whole(self) -> float:
        """From the Join to the packet."""
        return self.asking + self.relay + self.forwarding


@dataclass(frozen=True, slots=True)
class Joins:
    """Times of many joins, and who asked."""

    load: str
    times: tuple[JoinTimes, ...]

    def percentile(self, share: float, part: Callable[[JoinTimes], float] = lambda times: times.whole) -> float:
        """What `share` of the joins do not exceed, in seconds (nearest rank)."""
        ordered = sorted(part(times) for times in self.times)
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


class Observer:
    """Watches both sides of the border."""

    def __init__(self, downstream: Tap, uplink: Tap) -> None:
        self._downstream, self._uplink = downstream, uplink

    def clear(self) -> None:
        """Forget what came before."""
        for tap in (self._downstream, self._uplink):
            for _ in tap.frames():
                pass

    def times(self, group: Address) -> JoinTimes:
        """Of the next join of `group`.

        Raises:
            LabError: no packet came.
        """
        joined, out = self._ends(group)
        outside = [frame for frame in self._uplink.frames() if joined <= frame.at <= out]
        asked = _first(outside, lambda frame: frame.is_outgoing and frame.amt_type == AMT_UPDATE)
        came = _first(
            outside,
            lambda frame: not frame.is_outgoing and frame.amt_type == AMT_DATA and frame.inner_group == group.packed,
        )
        return JoinTimes(asked - joined, came - asked, out - came)

    def _ends(self, group: Address) -> tuple[float, float]:
        joined: float | None = None
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            for frame in self._downstream.frames(wait=0.2):
                if joined is None and frame.joins(group):
                    joined = frame.at
                elif joined is not None and frame.is_outgoing and frame.group == group.packed:
                    return joined, frame.at
        raise LabError(f"no packet to {group} within {_PATIENCE:g} s of its Join")


def _first(frames: list[Frame], condition: Callable[[Frame], bool]) -> float:
    found = next((frame.at for frame in frames if condition(frame)), None)
    if found is None:
        raise LabError("a join's packets were not seen on the uplink")
    return found


@contextmanager
def _observer(lab: Lab) -> Iterator[Observer]:
    border = lab.topology.border
    with Tap(border, topology.downstream(0)) as below, Tap(border, topology.BORDER_UPLINK) as above:
        yield Observer(below, above)


def scripted(scenario: Scenario, neighbor: Neighbor, joins: int = JOINS, load: str = SCRIPTED) -> Joins:
    """Joins of a neighbour of ours, each pruned again, beside one that keeps the tunnel up."""
    source, before = topology.SOURCE.ipv4, _carried(scenario)
    kept = [Channel(source, ip_address(topology.NUMBERED_GROUP_IPV4))]
    neighbor.join(kept)
    wait_until(lambda: scenario.border.tunnels() and _carried(scenario) > before, _PATIENCE, "the tunnel is up")
    times: list[JoinTimes] = []
    with _observer(scenario.lab) as observer:
        for number in range(joins + 1):
            channel = Channel(source, _FIRST_GROUP + 256 + number)
            with stream(scenario.lab.topology.source, channel.group):
                time.sleep(_RUN_UP)
                observer.clear()
                neighbor.join([channel])
                times.append(observer.times(channel.group))
            neighbor.prune([channel])
    neighbor.prune(kept)
    wait_until(lambda: _carried(scenario) == before, _PATIENCE, "all are left again")
    return Joins(load, tuple(times[1:]))  # the first pays for what is done once


def _carried(scenario: Scenario) -> int:
    """Channels the relay brings."""
    return int(scenario.relay.get("status")["counts"]["channels"])


def through_frr(scenario: Scenario, joins: int = JOINS) -> Joins:
    """Joins of FRR, for a host behind it that joins one group after the other and leaves all in the end."""
    lab, before = scenario.lab, _carried(scenario)
    times: list[JoinTimes] = []
    lab.run(lab.topology.receiver(), "sysctl", "-q", "-w", f"net.ipv4.igmp_max_memberships={joins + 20}")
    with ExitStack() as stack:
        observer = stack.enter_context(_observer(lab))
        for number in range(joins + 1):
            channel = Channel(topology.SOURCE.ipv4, _FIRST_GROUP + 4096 + number)
            with stream(lab.topology.source, channel.group), inside(lab.topology.receiver()):
                time.sleep(_RUN_UP)
                receiver = stack.enter_context(multicast_receiver(channel.group, topology.PAYLOAD_PORT))
                observer.clear()
                join(receiver, channel, topology.HOST_INTERFACE)
                times.append(observer.times(channel.group))
    wait_until(lambda: _carried(scenario) == before, _LEAVE_SECONDS, "all are left again")
    return Joins(FRR, tuple(times[1:]))
