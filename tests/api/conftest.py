"""A fake daemon with rows to answer, a real configuration store, and clients over real listeners."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest

from agent.service.api.app import create_app
from agent.service.config import Configuration
from agent.service.configuration_store import ConfigurationStore
from agent.service.engine_model import (
    ChannelPlane,
    EngineStatus,
    FastPlane,
    InterfacePlanes,
    InterfaceRole,
    PlaneStatus,
    ProbeState,
)
from agent.service.model import (
    AgentStatus,
    AssertState,
    AssertStatus,
    ChannelStatus,
    Counts,
    DrainStatus,
    Interest,
    InterestKind,
    InterfaceStatus,
    JoinOrigin,
    JoinRequest,
    JoinStatus,
    NeighborKind,
    NeighborStatus,
    PimStatus,
    Problem,
    QuerierStatus,
    Role,
    Severity,
    StatisticsReport,
    TunnelState,
    TunnelStatus,
)
from agent.service.port import RefusedError

ENGINE = EngineStatus(
    name="xdp",
    configured="auto",
    reason="automatically: each channel by the fastest plane that its interfaces allow",
    interfaces=[
        InterfacePlanes(
            name="eth0",
            role=InterfaceRole.UPLINK,
            plane=ChannelPlane.XDP,
            planes=[
                PlaneStatus(plane=FastPlane.XDP, usable=True),
                PlaneStatus(plane=FastPlane.XDP_MFC, usable=False, reason="engine auto does not use it"),
                PlaneStatus(plane=FastPlane.TC, usable=True),
            ],
        ),
        InterfacePlanes(
            name="eth1.7",
            role=InterfaceRole.DOWNSTREAM,
            plane=ChannelPlane.TC,
            planes=[
                PlaneStatus(plane=FastPlane.XDP, usable=False, reason="a VLAN device is no target of native XDP"),
                PlaneStatus(plane=FastPlane.XDP_MFC, usable=False, reason="engine auto does not use it"),
                PlaneStatus(plane=FastPlane.TC, usable=True),
            ],
            probe=ProbeState.FAILED,
        ),
        InterfacePlanes(name="eth2", role=InterfaceRole.DOWNSTREAM, plane=None),
    ],
    channels={"xdp": 1, "tc": 1},
    exceptions={"too_big": 3},
    details={"tap_segmentation": "per packet"},
)
STARTED = datetime(2026, 1, 1, tzinfo=UTC)


class FakeAgent:
    """An `AgentService` of plain lists."""

    def __init__(self, store: ConfigurationStore) -> None:
        self.store = store
        self.ready = True
        self.draining = False
        self.applied: list[Configuration] = []
        self.refuse: RefusedError | None = None
        self.api_joins: dict[JoinRequest, None] = {}
        self.tunnel_rows = [
            TunnelStatus(
                id="192.0.2.1:2268",
                state=TunnelState.ESTABLISHED,
                discovery_address=ip_address("192.52.193.1"),
                relay_address=ip_address("192.0.2.1"),
                relay_port=2268,
                gateway_address=ip_address("203.0.113.5"),
                gateway_port=40000,
                channels=2,
                packets=10,
                bytes=13440,
            ),
            TunnelStatus(id="192.0.2.2:2268", state=TunnelState.DISCOVERING, limited=True),
        ]
        self.channel_rows = [
            ChannelStatus(
                source=ip_address("198.51.100.7"),
                group=ip_address("232.1.1.1"),
                plane=ChannelPlane.TC,
                plane_reason="xdp: eth1: a VLAN device is no target of native XDP",
                incoming_interface="amt0",
                outgoing_interfaces=["eth1"],
                tunnels=["192.0.2.1:2268"],
                tunnel_count=1,
                packets=10,
                bytes=13440,
                last_packet_age=0.5,
                join_latency=0.02,
            ),
            ChannelStatus(
                source=None,
                group=ip_address("ff3e::1"),
                interests=[Interest(kind=InterestKind.PIM, interface="eth1", neighbor="fe80::9")],
                interest_count=1,
                asserts=[AssertStatus(interface="eth1", state=AssertState.LOSER, winner=ip_address("fe80::7"))],
                reason="assert_lost",
            ),
        ]

    def status(self) -> AgentStatus:
        return AgentStatus(
            name="border",
            version="0.1.0",
            role=Role.GATEWAY,
            started_at=STARTED,
            uptime=12.5,
            ready=self.ready,
            draining=self.draining,
            engine=ENGINE,
            counts=Counts(tunnels=1, channels=len(self.channel_rows), joins=len(self.joins()), interfaces=1),
            configuration=self.store.state(),
            problems=[Problem(code="relay_unreachable", severity=Severity.WARNING, message="no answer")],
        )

    def tunnels(self) -> Iterator[TunnelStatus]:
        return iter(self.tunnel_rows)

    def channels(self) -> Iterator[ChannelStatus]:
        return iter(self.channel_rows)

    def interfaces(self) -> list[InterfaceStatus]:
        querier = QuerierStatus(protocol="igmp", version=3, elected=True, groups=1)
        pim = PimStatus(
            family=4,
            address=ip_address("10.0.0.2"),
            designated_router=ip_address("10.0.0.9"),
            designated=False,
            priority=1,
            hello_interval=30.0,
            neighbors=1,
            channels=7,
        )
        downstream = InterfaceRole.DOWNSTREAM
        return [InterfaceStatus(name="eth1", role=downstream, index=3, up=True, queriers=[querier], pim=[pim])]

    def neighbors(self) -> list[NeighborStatus]:
        router = NeighborStatus(
            kind=NeighborKind.PIM,
            interface="eth1",
            address=ip_address("10.0.0.9"),
            expires_in=104.0,
            uptime=12.5,
            designated=True,
            priority=100,
            generation_id=0xBEEF,
            secondary_addresses=[ip_address("10.0.1.9")],
        )
        querier = NeighborStatus(kind=NeighborKind.QUERIER, interface="eth1", address=ip_address("10.0.0.1"))
        return [router, querier]

    def statistics(self) -> StatisticsReport:
        return StatisticsReport(
            collected_at=STARTED,
            uptime=12.5,
            forwarded_packets=10,
            forwarded_bytes=13440,
            refused={"not_subscribed": 3},
            exceptions={"too_big": 3},
            control={"gateway": {"queries_received": 4}},
            cpu_seconds=1.5,
            resident_bytes=50_000_000,
        )

    def joins(self) -> list[JoinStatus]:
        return [JoinStatus(**join.model_dump(), origin=JoinOrigin.API) for join in self.api_joins]

    def add_join(self, request: JoinRequest) -> tuple[JoinStatus, bool]:
        if self.refuse:
            raise self.refuse
        is_new = request not in self.api_joins
        self.api_joins[request] = None
        return JoinStatus(**request.model_dump(), origin=JoinOrigin.API), is_new

    def remove_join(self, request: JoinRequest) -> bool:
        return self.api_joins.pop(request, "absent") is None

    def set_drain(self, enabled: bool) -> DrainStatus:
        self.draining = enabled
        return DrainStatus(draining=enabled, tunnels=1)

    async def apply(self, configuration: Configuration) -> None:
        if self.refuse:
            raise self.refuse
        self.applied.append(configuration)


@pytest.fixture
def configuration_text(tmp_path: Path) -> Callable[..., str]:
    """Text of a valid gateway configuration that lives in `tmp_path`, with more keys of [gateway] if wanted."""

    def text(**gateway: object) -> str:
        keys = "".join(f"{key} = {value!r}\n" for key, value in gateway.items())
        return (
            f'role = "gateway"\n[gateway]\ndownstream = "eth1"\nstate_dir = "{tmp_path}/state"\n{keys}'
            f'[[gateway.relay]]\naddress = "192.0.2.1"\n[api]\nlisten = "{tmp_path}/api.sock"\n'
        )

    return text


@pytest.fixture
def store(tmp_path: Path, configuration_text: Callable[..., str]) -> Iterator[ConfigurationStore]:
    path = tmp_path / "agent.toml"
    path.write_text(configuration_text())
    opened = ConfigurationStore(path)
    yield opened
    opened.close()


@pytest.fixture
def agent(store: ConfigurationStore) -> FakeAgent:
    return FakeAgent(store)


@pytest.fixture
async def client(agent: FakeAgent, store: ConfigurationStore) -> AsyncIterator[httpx.AsyncClient]:
    store.start(agent.apply)
    transport = httpx.ASGITransport(create_app(agent, store))
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as opened:
        yield opened
