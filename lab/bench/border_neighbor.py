"""A PIM router that says what it is told, as fast as it can: what a benchmark of the border needs of a neighbour."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final, Self

from agent.protocol import pim_packet
from agent.protocol.channels import Channel, Family
from agent.protocol.wire.pim import (
    HOLDTIME_FOREVER,
    EncodedSource,
    Hello,
    JoinPrune,
    JoinPruneEntry,
    LanPruneDelay,
    Message,
    pack_join_prunes,
)
from lab import topology
from lab.bench.relay_topology import inside
from lab.namespaces import wait_until
from lab.scenario import Scenario
from lab.topology import Topology

PACKET_SIZE: Final = 1400
HOLDTIME: Final = 210
_ROUTERS: Final = pim_packet.ALL_PIM_ROUTERS[Family.IPV4]
_START_SECONDS: Final = 20.0


class Neighbor:
    """In the place of the domain's first router; its Hello never expires."""

    def __init__(self, lab: Topology) -> None:
        self._address = topology.router_upstream(1).ipv4
        self._upstream = topology.border_downstream(0).ipv4
        with inside(lab.router):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_BINDTODEVICE, topology.ROUTER_UPSTREAM.encode() + b"\0"
            )

    def __enter__(self) -> Self:
        """The neighbour."""
        return self

    def __exit__(self, *_: object) -> None:
        """Say no more."""
        self._socket.close()

    def greet(self, scenario: Scenario) -> None:
        """Say Hello until the border takes it for a neighbour.

        Raises:
            LabError: it does not in time.
        """
        hello = Hello(HOLDTIME_FOREVER, LanPruneDelay(500, 2500), dr_priority=0, generation_id=1)

        def is_known() -> bool:
            self._send(hello)
            return bool(scenario.pim_neighbors())

        wait_until(is_known, _START_SECONDS, "the border knows the neighbour", interval=0.2)

    def join(self, channels: Iterable[Channel]) -> int:
        """Join channels in as few messages as they take; how many that were."""
        return self._say(pack_join_prunes(self._upstream, HOLDTIME, _entries(channels), (), PACKET_SIZE))

    def prune(self, channels: Iterable[Channel]) -> int:
        """Prune them."""
        return self._say(pack_join_prunes(self._upstream, HOLDTIME, (), _entries(channels), PACKET_SIZE))

    def _say(self, messages: list[JoinPrune]) -> int:
        for message in messages:
            self._send(message)
        return len(messages)

    def _send(self, message: Message) -> None:
        packet = pim_packet.encode_packet(message, self._address, _ROUTERS)
        self._socket.sendto(packet, (str(_ROUTERS), 0))


def _entries(channels: Iterable[Channel]) -> list[JoinPruneEntry]:
    return [(channel.group, EncodedSource(channel.source)) for channel in channels if channel.source is not None]


def numbered_channels(groups: int, sources: int) -> list[Channel]:
    """`groups` SSM groups of the same `sources` sources, all in the lab's external prefix."""
    first_group, first_source = ip_address("232.16.0.0"), topology.SOURCE.ipv4
    return [Channel(first_source + source, first_group + group) for group in range(groups) for source in range(sources)]
