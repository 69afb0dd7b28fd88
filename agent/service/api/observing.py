"""What can be read: status, tunnels, channels, interfaces, neighbours, statistics."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from agent.service.api.paging import IDLE_SECONDS, PageQuery, page
from agent.service.api.problems import responses
from agent.service.model import (
    AgentStatus,
    AnyAddress,
    ChannelStatus,
    InterfaceStatus,
    NeighborStatus,
    StatisticsReport,
    TunnelState,
    TunnelStatus,
)
from agent.service.port import AgentService


class TunnelQuery(PageQuery):
    """Which tunnels."""

    state: TunnelState | None = Field(default=None, description="Only tunnels in this state.")
    address: AnyAddress | None = Field(
        default=None, description="Only tunnels with this address as relay, gateway or discovery address."
    )


class ChannelQuery(PageQuery):
    """Which channels."""

    source: AnyAddress | None = Field(default=None, description="Only channels of this source.")
    group: AnyAddress | None = Field(default=None, description="Only channels of this group.")
    interface: str | None = Field(
        default=None, max_length=15, description="Only channels that come in or leave by this interface."
    )
    tunnel: str | None = Field(default=None, max_length=200, description="Only channels that list this tunnel.")
    idle: bool | None = Field(
        default=None, description="True: only channels no packet came for in the last ten seconds; false: the others."
    )


class TunnelPage(BaseModel):
    """A page of tunnels."""

    items: list[TunnelStatus] = Field(description="Tunnels, oldest first.")
    next_offset: int | None = Field(description="`offset` of the next page; null on the last.")


class ChannelPage(BaseModel):
    """A page of channels."""

    items: list[ChannelStatus] = Field(description="Channels, oldest first.")
    next_offset: int | None = Field(description="`offset` of the next page; null on the last.")


class InterfaceList(BaseModel):
    """Every interface."""

    items: list[InterfaceStatus] = Field(description="Interfaces in the order of the configuration.")


class NeighborList(BaseModel):
    """Every neighbour."""

    items: list[NeighborStatus] = Field(description="Other multicast routers.")


def router(service: AgentService) -> APIRouter:
    """Routes that read."""
    routes = APIRouter(tags=["observing"], responses=responses())

    @routes.get("/v1/status", operation_id="get_status", summary="The agent in short")
    async def get_status() -> AgentStatus:
        return service.status()

    @routes.get(
        "/v1/tunnels",
        operation_id="list_tunnels",
        summary="Tunnels",
        response_model=TunnelPage,
    )
    async def list_tunnels(query: Annotated[TunnelQuery, Query()]) -> StreamingResponse:
        return page(service.tunnels(), lambda row: _tunnel_matches(row, query), query)

    @routes.get("/v1/channels", operation_id="list_channels", summary="Channels", response_model=ChannelPage)
    async def list_channels(query: Annotated[ChannelQuery, Query()]) -> StreamingResponse:
        return page(service.channels(), lambda row: _channel_matches(row, query), query)

    @routes.get("/v1/interfaces", operation_id="list_interfaces", summary="Interfaces")
    async def list_interfaces() -> InterfaceList:
        return InterfaceList(items=list(service.interfaces()))

    @routes.get("/v1/neighbors", operation_id="list_neighbors", summary="Other multicast routers")
    async def list_neighbors() -> NeighborList:
        return NeighborList(items=list(service.neighbors()))

    @routes.get("/v1/statistics", operation_id="get_statistics", summary="Counters since the start")
    async def get_statistics() -> StatisticsReport:
        return service.statistics()

    return routes


def _tunnel_matches(row: TunnelStatus, query: TunnelQuery) -> bool:
    if query.state is not None and row.state is not query.state:
        return False
    addresses = (row.relay_address, row.gateway_address, row.discovery_address)
    return query.address is None or query.address in addresses


def _channel_matches(row: ChannelStatus, query: ChannelQuery) -> bool:
    if query.source is not None and row.source != query.source:
        return False
    if query.group is not None and row.group != query.group:
        return False
    if query.interface is not None and query.interface not in (row.incoming_interface, *row.outgoing_interfaces):
        return False
    if query.tunnel is not None and query.tunnel not in row.tunnels:
        return False
    if query.idle is None:
        return True
    return query.idle is (row.last_packet_age is None or row.last_packet_age > IDLE_SECONDS)
