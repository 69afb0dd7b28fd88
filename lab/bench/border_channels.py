"""Ten thousand (S,G) of one PIM neighbour: until all are subscribed at the relay, at rest, until none is left.

Times begin with the first Join or Prune at the border's downstream interface and end when the relay counts them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from agent.protocol.channels import Channel
from lab import topology
from lab.bench.border_neighbor import Neighbor, numbered_channels
from lab.bench.border_wire import Frame, Tap
from lab.bench.idle import processor_seconds, resident_bytes
from lab.bench.relay_topology import inside
from lab.measure import join
from lab.namespaces import wait_until
from lab.scenario import Scenario

CHANNELS: Final = 10_000
REFRESH_SECONDS: Final = 20
"""Between the neighbour's Joins and between the relay's queries; by default they are 60 and 125 s apart."""
FRR: Final = "FRR"
SCRIPTED: Final = "scripted neighbour"
RELAY: Final[dict[str, object]] = {"channels_per_tunnel": 20_000, "query_interval": float(REFRESH_SECONDS)}
_GROUPS_A_SOCKET: Final = 1000
_PATIENCE: Final = 60.0
_SETTLE_SECONDS: Final = 10.5  # an agent looks closely for the first packet of a new channel so long


@dataclass(frozen=True, slots=True)
class ManyChannels:
    """One neighbour's channels; times in seconds.

    Attributes:
        neighbor: who joins.
        groups: how many.
        sources: of each group.
        messages: Join/Prune messages that said it.
        spoken: from the first of them to the last, which is the neighbour's own time.
        joined: from the first of them until the relay counts all channels.
        pruned: from the first Prune until the relay counts none.
        processor_seconds: of the agent, for the joining.
        resident_bytes: of the agent.
        rest_share: of one core, with the neighbour's and the relay's refreshes every `REFRESH_SECONDS`.
        refresh_seconds: processor time of the agent for all Joins said once more, None where not looked at.
    """

    neighbor: str
    groups: int
    sources: int
    messages: int = 0
    spoken: float = 0.0
    joined: float = 0.0
    pruned: float = 0.0
    processor_seconds: float = 0.0
    resident_bytes: int = 0
    rest_share: float | None = None
    refresh_seconds: float | None = None

    @property
    def channels(self) -> int:
        """How many."""
        return self.groups * self.sources


class Clocked:
    """Does something with many channels and times it by the messages seen."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario

    def joined(self, row: ManyChannels, action: Callable[[], object]) -> ManyChannels:
        """`row` with the times of an action that joins its channels."""
        before = processor_seconds(self._scenario.border.process_id)
        seen, ended = self._until(row.channels, action, Frame.joins)
        return replace(
            row,
            messages=len(seen),
            spoken=seen[-1] - seen[0],
            joined=ended - seen[0],
            processor_seconds=processor_seconds(self._scenario.border.process_id) - before,
            resident_bytes=resident_bytes(self._scenario.border.process_id),
        )

    def pruned(self, row: ManyChannels, action: Callable[[], object]) -> ManyChannels:
        """`row` with the time of an action that prunes its channels."""
        seen, ended = self._until(0, action, Frame.prunes)
        return replace(row, pruned=ended - seen[0])

    def _until(
        self, count: int, action: Callable[[], object], is_it: Callable[[Frame], bool]
    ) -> tuple[list[float], float]:
        """When the messages were seen that an action brought, and when the relay had `count` channels."""
        relay = self._scenario.relay
        with Tap(self._scenario.lab.topology.border, topology.downstream(0)) as tap:
            action()
            wait_until(
                lambda: relay.get("status")["counts"]["channels"] == count,
                _PATIENCE,
                f"the relay has {count} channels",
                interval=0.2,
            )
            ended = time.time()
            return [frame.at for frame in tap.frames() if frame.at <= ended and is_it(frame)], ended


def scripted(
    scenario: Scenario,
    neighbor: Neighbor,
    groups: int,
    sources: int = 1,
    meanwhile: Callable[[], object] | None = None,
) -> ManyChannels:
    """Joins packed into as few messages as they take, all at once; `meanwhile` is done before they are said again."""
    clocked, channels = Clocked(scenario), numbered_channels(groups, sources)
    row = clocked.joined(ManyChannels(SCRIPTED, groups, sources), lambda: neighbor.join(channels))
    if meanwhile is not None:
        time.sleep(_SETTLE_SECONDS)
        meanwhile()
        row = replace(row, refresh_seconds=_refresh_seconds(scenario.border.process_id, neighbor, channels))
    return clocked.pruned(row, lambda: neighbor.prune(channels))


def _refresh_seconds(process_id: int, neighbor: Neighbor, channels: list[Channel]) -> float:
    """What saying everything again costs, beside what the same time costs without."""
    used = [processor_seconds(process_id)]
    for action in (lambda: None, lambda: neighbor.join(channels)):
        action()
        time.sleep(2.0)
        used.append(processor_seconds(process_id))
    return used[2] - 2 * used[1] + used[0]


def through_frr(scenario: Scenario, channels: int = CHANNELS) -> ManyChannels:
    """Joins of FRR for a host behind it, each of another group, then FRR's refreshes and nothing else."""
    clocked, row = Clocked(scenario), ManyChannels(FRR, channels, 1)
    with ExitStack() as receivers:
        row = clocked.joined(row, lambda: join_many(receivers, scenario, channels))
        time.sleep(_SETTLE_SECONDS)
        before = processor_seconds(scenario.border.process_id)
        time.sleep(REFRESH_SECONDS)
        share = (processor_seconds(scenario.border.process_id) - before) / REFRESH_SECONDS
        return clocked.pruned(replace(row, rest_share=share), receivers.close)


def join_many(stack: ExitStack, scenario: Scenario, channels: int) -> None:
    """Join by IGMPv3 from a receiver, as its programs would; the stack leaves."""
    lab = scenario.lab
    lab.run(lab.topology.receiver(), "sysctl", "-q", "-w", f"net.ipv4.igmp_max_memberships={channels}")
    with inside(lab.topology.receiver()):
        for number, channel in enumerate(numbered_channels(channels, 1)):
            if number % _GROUPS_A_SOCKET == 0:
                receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            join(receiver, channel, topology.HOST_INTERFACE)
