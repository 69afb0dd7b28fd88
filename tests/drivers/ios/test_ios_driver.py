"""IosDriver against simulated classic IOS: it watches and backs up, and is never changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from lab.sim import ios
from lab.sim.options import SimOptions
from relaymgr.domain.configuration import Change, Confirmation, OwnedConfiguration
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import Capability, CapabilityMissing, Platform
from relaymgr.drivers.ios import IosDriver
from relaymgr.drivers.ios.driver import NO_AMT
from relaymgr.drivers.protocol import Credential, DeviceTarget, DriverContext

pytestmark = [
    pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(paramiko|netmiko).*"),
]

NOTHING = OwnedConfiguration(("interface Tunnel2268",), "")
CHANGE = Change("isthmus 1", NOTHING, NOTHING, "", 5)


@asynccontextmanager
async def running() -> AsyncIterator[tuple[ios.RunningSim, IosDriver]]:
    executor = ThreadPoolExecutor(2)
    async with ios.start(SimOptions()) as sim:
        target = DeviceTarget("old", Platform.IOS, sim.host, sim.port, host_key=sim.host_key_line)
        made = IosDriver(target, Credential("isthmus", "synthetic-password"), DriverContext(executor))
        try:
            yield sim, made
        finally:
            await made.close()
            executor.shutdown(wait=False)


async def test_it_is_watched_and_says_that_it_has_no_tunnels():
    async with running() as (_, made):
        assert (await made.facts()).model == "CISCO2911/K9"
        seen = await made.observe()
        assert seen.tunnels is None
        assert seen.missing["tunnels"] == NO_AMT
        assert [str(one.address) for one in seen.pim_neighbors or ()] == ["10.255.0.2"]
        assert seen.channels == ()


async def test_its_configuration_is_backed_up_whole():
    async with running() as (sim, made):
        text = await made.read_configuration()
        assert text.endswith("end\n")
        assert sim.device.running.hostname in text


async def test_every_change_is_refused_and_the_router_stays_as_it_is():
    async with running() as (_, made):
        before = await made.read_configuration()
        for attempt in (made.plan(NOTHING), made.begin_change(CHANGE), made.confirm_change(CHANGE)):
            with pytest.raises(CapabilityMissing) as caught:
                await attempt
            assert caught.value.capability is Capability.AMT_IPV4
        assert await made.read_configuration() == before
        reading = await made.read_change(CHANGE)
        assert reading.confirmation is Confirmation.NONE
        assert reading.owned == NOTHING


@pytest.mark.parametrize(
    ("family", "capability"),
    [
        ({"inet": {"anycast_prefix": "192.0.2.0/24", "local_address": "198.51.100.7"}}, Capability.AMT_IPV4),
        ({"inet6": {"anycast_prefix": "2001:db8::/64", "local_address": "2001:db8:1::1"}}, Capability.AMT_IPV6),
    ],
)
def test_rendering_names_what_is_missing(family, capability):
    target = DeviceTarget("old", Platform.IOS, "192.0.2.1")
    with ThreadPoolExecutor(1) as executor:
        made = IosDriver(target, Credential("isthmus"), DriverContext(executor))
        with pytest.raises(CapabilityMissing) as caught:
            made.render(RelayIntent.model_validate(family), drained=False)
    assert caught.value.capability is capability
    assert "AMT" in caught.value.reason
