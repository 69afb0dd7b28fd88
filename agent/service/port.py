"""What the API asks of the daemon: the seam between HTTP and the protocol machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from agent.service.config import Configuration
from agent.service.model import (
    AgentStatus,
    ChannelStatus,
    DrainStatus,
    InterfaceStatus,
    JoinRequest,
    JoinStatus,
    NeighborStatus,
    StatisticsReport,
    TunnelStatus,
)


class RefusedError(Exception):
    """The daemon will not do what was asked; nothing was changed.

    Attributes:
        code: stable code of the problem, part of the HTTP contract.
        message: one sentence for a human.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class AgentService(Protocol):
    """The running agent as the API sees it.

    Every method is called in the event loop's thread and returns quickly. The two iterators are consumed in slices
    with other work between them: they must produce rows lazily and bear tunnels and channels coming and going
    meanwhile (walk a list of the keys, skip what is gone), oldest row first.
    """

    def status(self) -> AgentStatus:
        """The agent in short; `configuration` is what `ConfigurationStore.state()` says."""

    def tunnels(self) -> Iterator[TunnelStatus]:
        """Every tunnel."""

    def channels(self) -> Iterator[ChannelStatus]:
        """Every channel with an interest."""

    def interfaces(self) -> Sequence[InterfaceStatus]:
        """Every interface of the configuration, existing or not, and `amt0`."""

    def neighbors(self) -> Sequence[NeighborStatus]:
        """Other multicast routers seen."""

    def statistics(self) -> StatisticsReport:
        """Counters since the start."""

    def joins(self) -> Sequence[JoinStatus]:
        """Static joins, of the configuration and of the API."""

    def add_join(self, request: JoinRequest) -> tuple[JoinStatus, bool]:
        """Want a channel until it is removed; the flag tells whether the join is new.

        Raises:
            RefusedError: the role has no joins, the interface is not ours, or a limit is reached.
        """

    def remove_join(self, request: JoinRequest) -> bool:
        """Stop wanting a channel; False when there is no such join of the API.

        Raises:
            RefusedError: the join belongs to the configuration.
        """

    def set_drain(self, enabled: bool) -> DrainStatus:
        """Turn new tunnels away, or take them again; established ones stay."""

    async def apply(self, configuration: Configuration) -> None:
        """Run with another configuration without losing a stream; called by the configuration store.

        Raises:
            RefusedError: it cannot be applied; the agent runs on with the previous one.
        """
