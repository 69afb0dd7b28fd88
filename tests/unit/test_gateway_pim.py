"""Routes, native sources and PIM put together for the gateway."""

import asyncio

import pytest

from agent.protocol.channels import Family
from agent.service.config import Configuration
from agent.service.gateway_pim import GatewayPim
from agent.tree import Tree


@pytest.fixture
async def pim(monkeypatch):
    routes = type("Routes", (), {"close": lambda _: None})
    monkeypatch.setattr("agent.service.gateway_pim.UnicastRoutes", lambda *_: routes())
    made = GatewayPim(
        asyncio.get_running_loop(), Tree(lambda _: None), None, lambda _: None, lambda _: None, lambda: None
    )
    yield made
    made.close()


def configuration(**gateway):
    return Configuration.model_validate({"role": "gateway", "gateway": gateway, "pim": {"enabled": False}})


@pytest.mark.parametrize(("count", "watched"), [(31, 31), (32, 0)])
async def test_sources_are_noticed_as_long_as_the_kernels_table_has_room_for_channels(pim, count, watched):
    pim.configure(configuration(downstream=[f"lan{index}" for index in range(count)]), (Family.IPV4,))
    assert len(pim.interfaces) == watched


async def test_beside_frr_nothing_is_native_to_us(pim):
    pim.configure(configuration(mode="frr", native=["core0"]), (Family.IPV4,))
    assert pim.interfaces == frozenset()


async def test_without_pim_no_link_is_opened(pim):
    pim.configure(configuration(downstream=["lan0"], native=["core0"]), tuple(Family))
    assert pim.service.links == {}
    assert pim.interfaces == {"lan0", "core0"}
