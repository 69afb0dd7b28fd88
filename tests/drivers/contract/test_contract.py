"""What every driver promises, whatever its vendor: one suite, every platform, over real sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drivers.contract.devices import CHANGED, EVERY, RELAYS, Bench, bench

from relaymgr.domain.configuration import Change, Confirmation, OwnedConfiguration
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import Capability, CapabilityMissing
from relaymgr.drivers.errors import (
    ConfigurationChanged,
    ConfigurationRefused,
    ConfirmWindowOpen,
)
from relaymgr.drivers.protocol import Driver

# What PyEZ, ncclient and paramiko say about themselves is not what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:jnpr.junos"),
    pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(paramiko|netmiko|ncclient|jnpr).*"),
]

WINDOW = 60.0
"""Seconds a minute lasts where a window shall stay open."""


@asynccontextmanager
async def opened(name: str, folder: Path, minute_seconds: float = WINDOW) -> AsyncIterator[Bench]:
    async with bench(name, folder, minute_seconds=minute_seconds) as made:
        yield made


def desired(device: Bench, driver: Driver, *, drained: bool = False) -> OwnedConfiguration:
    assert device.intent is not None
    return driver.render(device.intent, drained=drained)


async def change(driver: Driver, wanted: OwnedConfiguration, device: Bench, mark: str = "isthmus 01J0") -> Change:
    plan = await driver.plan(wanted)
    return Change(mark, wanted, plan.before, plan.device_fingerprint, device.minutes, "made by the contract suite")


async def applied(driver: Driver, wanted: OwnedConfiguration, device: Bench) -> Change:
    made = await change(driver, wanted, device)
    await driver.begin_change(made)
    await driver.confirm_change(made)
    return made


async def until(reached: Callable[[], Any], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not await reached():
            await asyncio.sleep(0.1)


def comparable(configuration: str) -> list[str]:
    """Lines of a configuration without what the device dates by itself."""
    return [line for line in configuration.splitlines() if not line.startswith(("!", "## Last"))]


@pytest.mark.parametrize("name", EVERY)
async def test_facts_tell_who_it_is(name, tmp_path):
    async with opened(name, tmp_path) as device:
        facts = await device.driver().facts()
        assert facts.hostname
        assert facts.version
        assert facts.model
        assert facts.uptime_seconds is not None


@pytest.mark.parametrize("name", EVERY)
async def test_an_observation_has_every_part_or_says_why_not(name, tmp_path):
    async with opened(name, tmp_path) as device:
        seen = await device.driver().observe()
        for part in ("tunnels", "channels", "pim_neighbors", "statistics"):
            assert (getattr(seen, part) is None) == (part in seen.missing)
            assert seen.missing.get(part) != ""
        assert seen.channels is not None


@pytest.mark.parametrize("name", [name for name in RELAYS if name != "iosxe-cli"])
async def test_tunnels_of_the_device_are_observed(name, tmp_path):
    async with opened(name, tmp_path) as device:
        driver = device.driver()
        await applied(driver, desired(device, driver), device)  # a router without a relay tells of none
        seen = await driver.observe()
        assert seen.tunnels
        assert len({(tunnel.gateway_address, tunnel.gateway_port) for tunnel in seen.tunnels}) == len(seen.tunnels)
        assert seen.statistics is not None
        assert seen.statistics.active_tunnels == len(seen.tunnels)
        fed = {gateway for channel in seen.channels or () for gateway in channel.gateways or ()}
        assert fed <= {(tunnel.gateway_address, tunnel.gateway_port) for tunnel in seen.tunnels}


@pytest.mark.parametrize("name", RELAYS)
async def test_reading_owned_sections_is_stable_and_changes_nothing(name, tmp_path):
    async with opened(name, tmp_path) as device:
        driver = device.driver()
        scope = desired(device, driver).scope
        configuration = await driver.read_configuration()
        first = await driver.read_owned(scope)
        assert first == await driver.read_owned(scope)
        assert first.scope == scope
        assert comparable(await driver.read_configuration()) == comparable(configuration)


@pytest.mark.parametrize("name", RELAYS)
async def test_a_plan_leaves_no_trace_and_says_the_same_again(name, tmp_path):
    async with opened(name, tmp_path) as device:
        driver = device.driver()
        configuration = await driver.read_configuration()
        wanted = desired(device, driver)
        plan = await driver.plan(wanted)
        assert plan.diff
        assert plan.commands
        assert plan.before == await driver.read_owned(wanted.scope)
        assert await driver.plan(wanted) == plan
        assert comparable(await driver.read_configuration()) == comparable(configuration)
        another = await device.driver().plan(wanted)
        assert another == plan


@pytest.mark.parametrize("name", CHANGED)
async def test_a_confirmed_change_stays_and_leaves_nothing_to_plan(name, tmp_path):
    async with opened(name, tmp_path) as device:
        driver = device.driver()
        wanted = desired(device, driver)
        made = await change(driver, wanted, device)
        await driver.begin_change(made)
        pending = await driver.read_change(made)
        assert pending.owned == wanted
        assert pending.confirmation is Confirmation.PENDING
        assert pending.confirmation_is_ours is True
        await driver.confirm_change(made)
        kept = await driver.read_change(made)
        assert kept.owned == wanted
        assert kept.confirmation is Confirmation.NONE
        again = await driver.plan(wanted)
        assert again.diff == ""
        assert again.before == wanted
        assert again.device_fingerprint != made.device_fingerprint


@pytest.mark.parametrize("name", CHANGED)
async def test_what_nobody_confirms_goes_back_by_itself(name, tmp_path):
    typed = name.startswith("iosxe")  # line by line, which may take longer here than a short window
    async with opened(name, tmp_path, minute_seconds=WINDOW if typed else 2.0) as device:
        driver = device.driver()
        configuration = await driver.read_configuration()
        made = await change(driver, desired(device, driver), device)
        await driver.begin_change(made)
        device.pass_time()

        async def is_back() -> bool:
            reading = await driver.read_change(made)
            return reading.confirmation is Confirmation.NONE and reading.owned == made.before

        await until(is_back)
        assert comparable(await driver.read_configuration()) == comparable(configuration)
        with pytest.raises(ConfigurationChanged):
            await driver.confirm_change(made)


@pytest.mark.parametrize("name", RELAYS)
async def test_a_pending_change_can_be_taken_back_at_once(name, tmp_path):
    async with opened(name, tmp_path) as device:
        driver = device.driver()
        configuration = await driver.read_configuration()
        made = await change(driver, desired(device, driver), device)
        await driver.begin_change(made)
        await driver.revert_change(made)
        reading = await driver.read_change(made)
        assert reading.owned == made.before
        assert reading.confirmation is Confirmation.NONE
        assert comparable(await driver.read_configuration()) == comparable(configuration)


@pytest.mark.parametrize("name", CHANGED)
async def test_a_window_that_no_platform_has_is_refused_before_anything_is_touched(name, tmp_path):
    async with opened(name, tmp_path) as device:
        driver = device.driver()
        made = await change(driver, desired(device, driver), device)
        with pytest.raises(ConfigurationRefused):
            await driver.begin_change(replace(made, confirm_minutes=0))
        reading = await driver.read_change(made)
        assert (reading.owned, reading.confirmation) == (made.before, Confirmation.NONE)


@pytest.mark.parametrize("name", [*RELAYS, "iosxe-bare"])
async def test_nothing_of_others_is_touched_and_all_comes_back(name, tmp_path):
    async with opened(name, tmp_path) as device:
        driver = device.driver()
        configuration = await driver.read_configuration()
        for line in device.foreign:
            assert line in configuration
        made = await applied(driver, desired(device, driver), device)
        changed = await driver.read_configuration()
        assert comparable(changed) != comparable(configuration)
        for line in device.foreign:
            assert line in changed
        await applied(driver, made.before, device)
        assert sorted(comparable(await driver.read_configuration())) == sorted(comparable(configuration))


@pytest.mark.parametrize("name", RELAYS)
async def test_a_drain_keeps_the_local_address_and_ends(name, tmp_path):
    async with opened(name, tmp_path) as device:
        driver = device.driver()
        assert device.intent is not None
        assert device.intent.inet is not None
        wanted, drained = desired(device, driver), desired(device, driver, drained=True)
        assert drained.text != wanted.text
        await applied(driver, wanted, device)
        await applied(driver, drained.widened(wanted.scope), device)
        now = await driver.read_owned(wanted.widened(drained.scope).scope)
        assert str(device.intent.inet.local_address) in now.text
        assert now.text == drained.text
        await applied(driver, wanted.widened(drained.scope), device)
        assert (await driver.read_owned(wanted.scope)) == wanted


@pytest.mark.parametrize("name", RELAYS)
async def test_a_change_planned_on_something_else_is_refused(name, tmp_path):
    async with opened(name, tmp_path) as device:
        driver = device.driver()
        wanted, drained = desired(device, driver), desired(device, driver, drained=True)
        stale = await change(driver, wanted, device)
        await applied(driver, drained.widened(wanted.scope), device)
        with pytest.raises(ConfigurationChanged):
            await driver.begin_change(stale)
        assert (await driver.read_change(stale)).confirmation is Confirmation.NONE


@pytest.mark.parametrize("name", RELAYS)
async def test_an_open_window_keeps_plans_and_changes_away(name, tmp_path):
    async with opened(name, tmp_path) as device:
        driver = device.driver()
        wanted = desired(device, driver)
        made = await change(driver, wanted, device)
        await driver.begin_change(made)
        with pytest.raises(ConfirmWindowOpen):
            await driver.plan(desired(device, driver, drained=True))
        with pytest.raises((ConfirmWindowOpen, ConfigurationChanged)):
            await driver.begin_change(replace(made, mark="isthmus 01J1"))
        reading = await driver.read_change(made)
        assert reading.confirmation is Confirmation.PENDING
        assert reading.owned == wanted


@pytest.mark.parametrize("name", RELAYS)
async def test_the_open_window_of_another_change_is_not_confirmed(name, tmp_path):
    async with opened(name, tmp_path) as device:
        driver = device.driver()
        made = await change(driver, desired(device, driver), device)
        await driver.begin_change(made)
        other = desired(device, driver, drained=True).widened(made.desired.scope)
        foreign = replace(made, mark="isthmus 01J1", desired=other)
        assert (await driver.read_change(foreign)).confirmation_is_ours is not True
        with pytest.raises(ConfigurationChanged):
            await driver.confirm_change(foreign)
        assert (await driver.read_change(made)).confirmation is Confirmation.PENDING


# Refusals before anything is touched


@pytest.mark.parametrize("name", EVERY)
async def test_what_a_platform_cannot_do_is_refused_without_a_session(name, tmp_path):
    impossible = {
        "junos": {"inet6": {"anycast_prefix": "2001:db8::/64", "local_address": "2001:db8:1::1"}},
        "isthmus": {"stream_limit": 5},
        "ios": {},
    }.get(name, {"inet6": {"anycast_prefix": "2001:db8::/64", "local_address": "2001:db8:1::1"}})
    amt = {"inet": {"anycast_prefix": "192.0.2.0/24", "local_address": "198.51.100.7"}}
    async with opened(name, tmp_path) as device:
        driver = device.driver(host="https://192.0.2.1" if name == "isthmus" else "192.0.2.1")
        with pytest.raises(CapabilityMissing) as caught:
            driver.render(RelayIntent.model_validate(amt | impossible), drained=False)
        assert caught.value.capability not in driver.capabilities().supported
        assert caught.value.reason.startswith(driver.capabilities().reason(caught.value.capability))


@pytest.mark.parametrize("name", EVERY)
async def test_every_capability_is_there_or_has_a_reason(name, tmp_path):
    async with opened(name, tmp_path) as device:
        driver = device.driver()
        for capabilities in (driver.capabilities(), await driver.device_capabilities()):
            for capability in Capability:
                assert capability in capabilities.supported or capability in capabilities.reasons
