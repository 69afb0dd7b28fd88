"""IosxeDriver against the simulated router: what only this platform has to get right."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from lab.sim import iosxe
from lab.sim.options import RunningSim, SimOptions
from relaymgr.domain.configuration import Change, Confirmation, DiffSource
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.platforms import Capability, CapabilityMissing, Platform
from relaymgr.drivers.errors import (
    ConfigurationChanged,
    ConfigurationRefused,
    DeviceBusy,
    LoginRefused,
    SessionLost,
    Unreachable,
)
from relaymgr.drivers.iosxe import IosxeDriver
from relaymgr.drivers.iosxe.cli import CliSession
from relaymgr.drivers.iosxe.shell import refusal
from relaymgr.drivers.protocol import Credential, Deadlines, DeviceTarget, DriverContext

pytestmark = [
    pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(paramiko|netmiko).*"),
]

PASSWORD = "synthetic-iosxe-secret"
INTENT = RelayIntent.model_validate(
    {
        "inet": {"anycast_prefix": "192.0.2.0/24", "local_address": "198.51.100.7"},
        "group_policy": {"name": "AMT-GROUPS", "permit": ["232.0.0.0/8"]},
        "pim_interfaces": [{"name": "GigabitEthernet1", "priority": 10}],
    }
)


@asynccontextmanager
async def running(*, netconf: bool = True, version: str = "17.9.4a", **more: Any) -> AsyncIterator[tuple[Any, Any]]:
    options = SimOptions(password=PASSWORD, netconf_port=0 if netconf else None, **more)
    executor = ThreadPoolExecutor(4)
    async with iosxe.start(options, ios_version=version) as sim:
        made = driver(sim, executor)
        try:
            yield sim, made
        finally:
            await made.close()
            executor.shutdown(wait=False)


def driver(sim: RunningSim, executor: ThreadPoolExecutor, **changes: Any) -> IosxeDriver:
    target = DeviceTarget(
        name="xe",
        platform=Platform.IOSXE,
        host=sim.host,
        port=sim.port,
        netconf_port=sim.netconf_port,
        host_key=sim.host_key_line,
        deadlines=Deadlines(connect=20, rpc=20, commit=30),
    )
    return IosxeDriver(replace(target, **changes), Credential("isthmus", PASSWORD), DriverContext(executor))


async def planned(made: IosxeDriver, intent: RelayIntent = INTENT, minutes: int = 5) -> Change:
    wanted = made.render(intent, drained=False)
    plan = await made.plan(wanted)
    return Change("isthmus 1", wanted, plan.before, plan.device_fingerprint, minutes)


async def test_the_plan_says_who_computed_it_and_what_would_be_typed():
    async with running() as (_, made):
        plan = await made.plan(made.render(INTENT, drained=False))
        assert plan.diff_source is DiffSource.MANAGER
        assert "+interface Tunnel2268\n+ ip unnumbered Loopback2268\n" in plan.diff
        assert "interface Tunnel2268\nip unnumbered Loopback2268\n" in plan.commands


@pytest.mark.parametrize(("version", "over_netconf"), [("17.9.4a", True), ("16.12.5", False)])
async def test_lines_go_the_way_the_release_has(version, over_netconf):
    async with running(version=version) as (sim, made):
        change = await planned(made)
        await made.begin_change(change)
        assert any("config-ios-cli-rpc" in str(entry) for entry in sim.log) is over_netconf
        assert (await made.read_change(change)).owned == change.desired


async def test_a_confirmed_change_is_saved_for_the_next_start():
    async with running() as (sim, made):
        change = await planned(made)
        await made.begin_change(change)
        assert "Tunnel2268" not in sim.device.startup.text
        await made.confirm_change(change)
        assert "interface Tunnel2268" in sim.device.startup.text


async def test_a_change_confirmed_by_one_who_died_before_saving_is_saved_by_the_next():
    async with running() as (sim, made):
        change = await planned(made)
        await made.begin_change(change)
        assert (await made.read_change(change)).saved is None
        sim.device.confirm()
        reading = await made.read_change(change)
        assert (reading.owned, reading.confirmation, reading.saved) == (change.desired, Confirmation.NONE, False)
        await made.confirm_change(change)
        assert "interface Tunnel2268" in sim.device.startup.text
        assert (await made.read_change(change)).saved is True
        with pytest.raises(ConfigurationChanged):
            await made.confirm_change(change)


async def test_without_an_archive_the_plan_says_which_lines_to_configure_first():
    async with running(configuration="hostname bare\nip multicast-routing distributed\n") as (_, made):
        capabilities = await made.device_capabilities()
        assert Capability.CONFIRMED_COMMIT not in capabilities.supported
        intent = INTENT.model_copy(update={"pim_interfaces": ()})
        with pytest.raises(CapabilityMissing) as caught:
            await made.plan(made.render(intent, drained=False))
        assert caught.value.capability is Capability.CONFIRMED_COMMIT
        assert "archive" in caught.value.reason
        assert "path bootflash:" in caught.value.reason
        assert "Tunnel2268" not in await made.read_configuration()


async def test_a_router_without_multicast_routing_is_no_relay():
    async with running(configuration="hostname bare\n") as (_, made):
        capabilities = await made.device_capabilities()
        assert Capability.AMT_IPV4 not in capabilities.supported
        assert "ip multicast-routing distributed" in capabilities.reason(Capability.AMT_IPV4)


async def test_a_loopback_others_use_by_now_is_not_taken_back():
    async with running() as (sim, made):
        change = await planned(made)
        await made.begin_change(change)
        await made.confirm_change(change)
        path = sim.device.running.apply("interface Loopback2268", ())
        sim.device.running.apply("description billing counts on this", path)
        with pytest.raises(ConfigurationRefused) as caught:
            await made.plan(change.before)
        assert caught.value.path == "interface Loopback2268"
        assert "billing counts on this" in caught.value.detail


async def test_an_interface_the_router_does_not_have_is_refused_before_anything_is_touched():
    async with running() as (_, made):
        intent = INTENT.model_copy(
            update={"pim_interfaces": (INTENT.pim_interfaces[0].model_copy(update={"name": "Gi9"}),)}
        )
        with pytest.raises(ConfigurationRefused) as caught:
            await made.plan(made.render(intent, drained=False))
        assert caught.value.path == "interface Gi9"


@pytest.mark.parametrize("version", ["17.9.4a", "16.12.5"])
async def test_a_refused_line_is_named_and_everything_before_it_is_taken_back(version):
    async with running(version=version) as (sim, made):
        configuration = await made.read_configuration()
        wanted = made.render(INTENT, drained=False)
        wrong = replace(wanted, text=wanted.text.replace("amt relay traffic ip", "amt relay traffic carrier-pigeon"))
        plan = await made.plan(wrong)
        change = Change("isthmus 1", wrong, plan.before, plan.device_fingerprint, 5)
        with pytest.raises(ConfigurationRefused) as caught:
            await made.begin_change(change)
        assert "amt relay traffic carrier-pigeon" in caught.value.detail
        assert caught.value.path == "amt relay traffic carrier-pigeon"
        reading = await made.read_change(change)
        assert reading.confirmation is Confirmation.NONE
        assert reading.owned == change.before
        assert settled(await made.read_configuration()) == settled(configuration)
        assert sim.device.revert is None


def settled(configuration: str) -> list[str]:
    return [line for line in configuration.splitlines() if not line.startswith("!")]


async def test_no_line_is_typed_when_the_timer_may_have_gone_back(monkeypatch):
    """Half of a change typed after the rollback would stay for good."""
    given: list[float] = []

    async def configure(self, opening, lines, seconds):
        given.append(seconds)

    monkeypatch.setattr(CliSession, "configure", configure)
    async with running(version="16.12.5") as (sim, _):
        executor = ThreadPoolExecutor(2)
        made = driver(sim, executor, deadlines=Deadlines(connect=20, rpc=20, commit=300))
        await made.begin_change(await planned(made, minutes=1))
        await made.begin_change(await planned(made, minutes=60))
        await made.close()
        executor.shutdown(wait=False)
    assert given == [50.0, 300.0]


@pytest.mark.parametrize("version", ["17.9.4a", "16.12.5"])
async def test_a_locked_configuration_is_busy(version):
    async with running(version=version) as (sim, made):
        change = await planned(made)
        sim.set_fault("lock-held")
        with pytest.raises((DeviceBusy, ConfigurationRefused)):
            await made.begin_change(change)
        sim.set_fault(None)
        assert (await made.read_change(change)).owned == change.before


async def test_a_session_lost_after_the_lines_is_in_doubt_and_the_timer_decides():
    async with running(version="16.12.5", minute_seconds=2.0) as (sim, made):
        change = await planned(made, minutes=1)
        sim.set_fault("drop-after-commit")
        with pytest.raises(SessionLost):
            await made.begin_change(change)
        sim.set_fault(None)
        reading = await made.read_change(change)
        assert reading.owned in {change.desired, change.before}
        assert (reading.confirmation is Confirmation.PENDING) == (reading.owned == change.desired)


async def test_no_secret_of_the_configuration_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    async with running(netconf=False) as (_, made):
        assert "synthetic-community" in await made.read_configuration()
        await made.facts()
    assert "synthetic-community" not in caplog.text
    assert PASSWORD not in caplog.text


async def test_one_session_at_a_time():
    async with running() as (sim, made):
        await made.observe()
        await made.read_configuration()
        change = await planned(made)
        await made.begin_change(change)
        await made.read_change(change)
        assert len(sim.device.terminals) <= 1


async def test_netconf_off_is_said_where_tunnels_are_missing():
    async with running(netconf=False) as (_, made):
        seen = await made.observe()
        assert seen.tunnels is None
        assert "NETCONF" in seen.missing["tunnels"]
        assert Capability.TUNNEL_LIST not in (await made.device_capabilities()).supported


async def test_aged_ssh_is_spoken_only_where_it_is_asked_for():
    async with running(old_ssh=True, netconf=False) as (sim, made):
        with pytest.raises(Unreachable) as caught:
            await made.facts()
        assert "legacy_ssh" in caught.value.detail
        executor = ThreadPoolExecutor(1)
        aged = driver(sim, executor, legacy_ssh=True)
        assert (await aged.facts()).hostname == "xe-relay"
        await aged.close()
        executor.shutdown(wait=False)


async def test_a_user_without_privilege_is_told_what_is_missing():
    async with running(read_only_user="looker") as (sim, _):
        executor = ThreadPoolExecutor(1)
        target = DeviceTarget("xe", Platform.IOSXE, sim.host, sim.port, host_key=sim.host_key_line)
        made = IosxeDriver(target, Credential("looker", PASSWORD), DriverContext(executor))
        with pytest.raises((ConfigurationRefused, LoginRefused)):
            await made.plan(made.render(INTENT, drained=False))
        await made.close()
        executor.shutdown(wait=False)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("", None),
        ("relay(config)#", None),
        ("          ^\n% Invalid input detected at '^' marker.\n", "Invalid input detected at '^' marker."),
        ("% Incomplete command.", "Incomplete command."),
        ("% Authorization failed.\n", "Authorization failed."),
        ("Command authorization failed.\n", "Command authorization failed."),
        (" description authorization failed here", None),
        ("%Turn config archive on before using Rollback", "Turn config archive on before using Rollback"),
        ("% Warning: use /31 mask on non point-to-point interface cautiously", None),
        ("%Warning: something", None),
        ("%ARCHIVE_DIFF-5-ROLLBK_CNFMD_CHG_BACKUP: Backing up", None),
        ("*Nov 23 12:00:00.000: %SYS-5-CONFIG_I: Configured from console", None),
        ("% Not all config may be removed and may reappear", None),
        ("% 198.51.100.7 overlaps with Loopback0", "198.51.100.7 overlaps with Loopback0"),
    ],
)
def test_what_a_router_says_against_a_command(output, said):
    assert refusal(output) == said
