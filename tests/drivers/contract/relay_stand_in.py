"""An agent in the relay role without sockets, to stand behind its real API and store: rows of a synthetic relay."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address

from agent.service.config import Configuration
from agent.service.configuration_store import ConfigurationStore
from agent.service.engine_model import EngineStatus
from agent.service.fixed_keys import refuse_fixed
from agent.service.model import (
    AgentStatus,
    ChannelStatus,
    Counts,
    DrainStatus,
    InterfaceStatus,
    JoinRequest,
    JoinStatus,
    NeighborStatus,
    Role,
    StatisticsReport,
    TunnelState,
    TunnelStatus,
)
from agent.service.port import RefusedError

STARTED = datetime(2026, 1, 1, tzinfo=UTC)


class RelayStandIn:
    """An `AgentService` with one tunnel and one channel; refuses what the relay role refuses."""

    def __init__(self, store: ConfigurationStore) -> None:
        self.store = store
        self.running = store.configuration
        self.draining = False

    def status(self) -> AgentStatus:
        return AgentStatus(
            name="relay",
            version="0.1.0",
            role=Role.RELAY,
            started_at=STARTED,
            uptime=12.5,
            ready=True,
            draining=self.draining,
            engine=EngineStatus(name="userspace", details={}),
            counts=Counts(tunnels=1, channels=1, joins=0, interfaces=1),
            configuration=self.store.state(),
        )

    def tunnels(self) -> Iterator[TunnelStatus]:
        yield TunnelStatus(
            id="203.0.113.5:40000",
            state=TunnelState.ESTABLISHED,
            relay_address=ip_address("198.51.100.7"),
            relay_port=2268,
            gateway_address=ip_address("203.0.113.5"),
            gateway_port=40000,
            local_address=ip_address("198.51.100.7"),
            local_port=2268,
            established_at=STARTED,
            expires_in=240.0,
            channels=1,
            packets=10,
            bytes=13440,
        )

    def channels(self) -> Iterator[ChannelStatus]:
        yield ChannelStatus(
            source=ip_address("198.51.100.9"),
            group=ip_address("232.1.1.1"),
            since=STARTED,
            incoming_interface="eth1",
            tunnels=["203.0.113.5:40000"],
            tunnel_count=1,
            packets=10,
            bytes=13440,
        )

    def interfaces(self) -> list[InterfaceStatus]:
        return []

    def neighbors(self) -> list[NeighborStatus]:
        return []

    def statistics(self) -> StatisticsReport:
        control = {"received_request": 4, "sent_membership_query": 4, "refused_bad_mac": 1}
        return StatisticsReport(collected_at=datetime.now(UTC), uptime=12.5, control={"relay": control})

    def joins(self) -> list[JoinStatus]:
        return []

    def add_join(self, request: JoinRequest) -> tuple[JoinStatus, bool]:
        raise RefusedError("wrong_role", "a relay has no joins")

    def remove_join(self, request: JoinRequest) -> bool:
        raise RefusedError("wrong_role", "a relay has no joins")

    def set_drain(self, enabled: bool) -> DrainStatus:
        self.draining = enabled
        return DrainStatus(draining=enabled, tunnels=1)

    async def apply(self, configuration: Configuration) -> None:
        keys = ("interfaces", "address", "discovery_address", "port", "oversize", "state_dir")
        refuse_fixed(self.running, configuration, "relay", keys)
        self.running = configuration
