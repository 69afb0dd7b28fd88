"""What relays were last seen doing: tunnels, channels, PIM neighbours."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field

from relaymgr.api.listings import CSV_ANSWER, Resource, TableQuery, equal
from relaymgr.api.schemas.observed import Channel, ChannelPage, PimNeighbor, PimNeighborPage, Tunnel, TunnelPage
from relaymgr.api.security import VIEWER, Caller, ServicesOf
from relaymgr.api.views import observed_view
from relaymgr.store.paging import Listing
from relaymgr.store.principals import visible_of_relays, visible_tunnels
from relaymgr.store.tables import ChannelRow, PimNeighborRow, TunnelRow

router = APIRouter(prefix="/api/v1", tags=["observed"])
TUNNELS = Resource(
    Listing(
        TunnelRow,
        TunnelRow.id,
        {
            "id": TunnelRow.id,
            "gateway_address": TunnelRow.gateway_address,
            "uptime_seconds": TunnelRow.uptime_seconds,
            "packets_per_second": TunnelRow.packets_per_second,
            "channels": TunnelRow.channels,
        },
        "id",
        {
            "relay_id": equal(TunnelRow.relay_id),
            "ad_id": equal(TunnelRow.ad_id),
            "state": equal(TunnelRow.state),
            "gateway_address": equal(TunnelRow.gateway_address),
            "interface": equal(TunnelRow.interface),
            "min_channels": lambda value: TunnelRow.channels >= value,
        },
    ),
    Tunnel,
    observed_view(Tunnel, "tunnels"),
)
CHANNELS = Resource(
    Listing(
        ChannelRow,
        ChannelRow.id,
        {
            "id": ChannelRow.id,
            "group_address": ChannelRow.group_address,
            "kilobits_per_second": ChannelRow.kilobits_per_second,
            "gateways": ChannelRow.gateways,
        },
        "id",
        {
            "relay_id": equal(ChannelRow.relay_id),
            "group_address": equal(ChannelRow.group_address),
            "source_address": equal(ChannelRow.source_address),
            "upstream_interface": equal(ChannelRow.upstream_interface),
        },
    ),
    Channel,
    observed_view(Channel, "channels"),
)
NEIGHBORS = Resource(
    Listing(
        PimNeighborRow,
        PimNeighborRow.id,
        {"id": PimNeighborRow.id, "address": PimNeighborRow.address},
        "id",
        {
            "relay_id": equal(PimNeighborRow.relay_id),
            "address": equal(PimNeighborRow.address),
            "interface": equal(PimNeighborRow.interface),
        },
    ),
    PimNeighbor,
    observed_view(PimNeighbor, "pim_neighbors"),
)


class _OfRelay(TableQuery):
    relay_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """Only those at this relay."""


class TunnelQuery(_OfRelay):
    """Page and filters of tunnels."""

    ad_id: str | None = Field(default=None, max_length=64, examples=["019a3f0c77e2a1b2c3d4e5f60718293a"])
    """Only those whose gateway is in this AD."""
    state: str | None = Field(default=None, max_length=16, examples=["active"])
    """Only those: active, pending, down or unknown."""
    gateway_address: str | None = Field(default=None, max_length=64, examples=["203.0.113.9"])
    """Only those of this gateway."""
    interface: str | None = Field(default=None, max_length=64, examples=["ud-0/0/0.1120256"])
    """Only the one on this logical interface."""
    min_channels: int | None = Field(default=None, ge=0, le=2147483647, examples=[1])
    """Only those known to carry at least so many channels."""


class ChannelQuery(_OfRelay):
    """Page and filters of channels."""

    group_address: str | None = Field(default=None, max_length=64, examples=["232.1.1.1"])
    """Only those of this group."""
    source_address: str | None = Field(default=None, max_length=64, examples=["192.0.2.10"])
    """Only those of this source."""
    upstream_interface: str | None = Field(default=None, max_length=64, examples=["ge-1/0/0.0"])
    """Only those coming in here."""


class PimNeighborQuery(_OfRelay):
    """Page and filters of PIM neighbours."""

    address: str | None = Field(default=None, max_length=64, examples=["192.0.2.1"])
    """Only those with this address."""
    interface: str | None = Field(default=None, max_length=64, examples=["ge-1/0/0.0"])
    """Only those heard here."""


@router.get(
    "/tunnels", operation_id="list_tunnels", dependencies=[VIEWER], responses=CSV_ANSWER | {200: {"model": TunnelPage}}
)
async def list_tunnels(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[TunnelQuery, Query()]
) -> Response:
    """Tunnels as last polled: those at relays of the token's ADs, and those whose gateway is in its ADs."""
    return await TUNNELS.answer(request, services, query, visible_tunnels(caller))


@router.get(
    "/channels",
    operation_id="list_channels",
    dependencies=[VIEWER],
    responses=CSV_ANSWER | {200: {"model": ChannelPage}},
)
async def list_channels(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[ChannelQuery, Query()]
) -> Response:
    """Channels as last polled."""
    return await CHANNELS.answer(request, services, query, visible_of_relays(caller, ChannelRow.relay_id))


@router.get(
    "/pim-neighbors",
    operation_id="list_pim_neighbors",
    dependencies=[VIEWER],
    responses=CSV_ANSWER | {200: {"model": PimNeighborPage}},
)
async def list_pim_neighbors(
    request: Request, services: ServicesOf, caller: Caller, query: Annotated[PimNeighborQuery, Query()]
) -> Response:
    """PIM neighbours as last polled."""
    return await NEIGHBORS.answer(request, services, query, visible_of_relays(caller, PimNeighborRow.relay_id))
