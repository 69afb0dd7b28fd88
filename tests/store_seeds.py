"""Rows that tests of the store start from. All addresses are of documentation prefixes: synthetic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from relaymgr.domain.observed import Channel, Observation, PimNeighbor, Statistics, Tunnel, TunnelState
from relaymgr.store.tables import Ad, Relay

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def later(seconds):
    return NOW + timedelta(seconds=seconds)


async def add_ad(database, name, prefixes=()):
    async with database.begin() as session:
        ad = Ad(name=name, prefixes=list(prefixes), created_at=NOW, updated_at=NOW)
        session.add(ad)
    return ad.id


async def add_relay(database, name, **values):
    async with database.begin() as session:
        relay = Relay(
            **{"name": name, "platform": "junos", "host": "192.0.2.9", "created_at": NOW, "updated_at": NOW} | values
        )
        session.add(relay)
    return relay.id


def tunnel(address, port=40000, **values):
    return Tunnel(ip_address(address), port, **{"state": TunnelState.ACTIVE} | values)


def channel(group, source, **values):
    return Channel(ip_address(group), ip_address(source) if source else None, **values)


def neighbor(address, interface="ge-0/0/0.0", **values):
    return PimNeighbor(ip_address(address), interface, **values)


def observed(*tunnels, channels=(), neighbors=(), statistics=None, missing=()):
    return Observation(
        tunnels=None if "tunnels" in missing else tunnels,
        channels=None if "channels" in missing else tuple(channels),
        pim_neighbors=None if "pim_neighbors" in missing else tuple(neighbors),
        statistics=None if "statistics" in missing else statistics or Statistics(),
        missing=dict(missing),
    )
