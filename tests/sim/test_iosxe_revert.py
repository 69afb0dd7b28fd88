"""The timer of a confirmed change, the archive, and the state that outlives the simulator."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sim.ios_clients import ERRORS, USER, cli, eventually, in_thread

from lab.sim import iosxe
from lab.sim.options import SimOptions

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:paramiko"),
    pytest.mark.filterwarnings("ignore:TripleDES"),
]
WINDOW = "configure terminal revert timer 2"
CHANGE = ["interface Loopback9", "ip address 192.0.2.9 255.255.255.255"]
PENDING = "%No Rollback Confirmed Change pending"


def change(device, minutes_command=WINDOW):
    return device.send_config_set(CHANGE, config_mode_command=minutes_command, error_pattern=ERRORS)


async def test_without_confirmation_the_change_goes_back(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            printed = change(device)
            assert "Backing up current running config to bootflash:archive-" in printed
            timer = device.send_command("show archive config rollback timer")
            assert "Timer type: absolute timer" in timer
            assert "Timer value: 2 min" in timer
            assert f"User: {USER}" in timer
            assert sim.device.running.section("interface Loopback9") is not None

    async with iosxe.start(SimOptions(minute_seconds=1.5)) as sim:
        before = sim.device.running.text()
        await in_thread(work, sim)
        await eventually(lambda: sim.device.revert is None)
        assert sim.device.running.text() == before
        assert {"direction": "out", "session": 0, "kind": "timer", "summary": "rolled back"}.items() <= sim.log[
            -1
        ].items()


async def test_confirmed_it_stays(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            change(device)
            assert device.send_command("configure confirm") == ""
            assert PENDING in device.send_command("show archive config rollback timer")
            assert PENDING in device.send_command("configure confirm")

    async with iosxe.start(SimOptions()) as sim:
        await in_thread(work, sim)
        assert sim.device.revert is None
        assert sim.device._timer is None
        assert sim.device.running.section("interface Loopback9") is not None


async def test_taken_back_at_once(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            change(device)
            assert "Rollback Done" in device.send_command("configure revert now")
            assert PENDING in device.send_command("configure revert now")

    async with iosxe.start(SimOptions()) as sim:
        before = sim.device.running.text()
        await in_thread(work, sim)
        assert sim.device.running.text() == before


async def test_without_an_archive_the_timer_is_refused(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            assert "Archive feature not enabled" in device.send_command("show archive")
            refused = device.send_command(WINDOW)
            assert "%Turn config archive on before using Rollback Confirmed Change" in refused
            assert device.find_prompt() == "bare#"

    async with iosxe.start(SimOptions(configuration="hostname bare\n")) as sim:
        await in_thread(work, sim)


async def test_a_second_window_is_refused_and_the_first_can_be_prolonged(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            change(device)
            assert "already in progress" in device.send_command("configure terminal revert timer 5")
            device.send_command("configure revert timer 9")
            assert "Timer value: 9 min" in device.send_command("show archive config rollback timer")

    async with iosxe.start(SimOptions()) as sim:
        await in_thread(work, sim)


async def test_the_session_is_warned_a_minute_before(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            device.send_config_set(CHANGE, config_mode_command=WINDOW, error_pattern=ERRORS)
            return device.read_until_pattern("Rollback will begin in one minute", read_timeout=20)

    async with iosxe.start(SimOptions(minute_seconds=1.0)) as sim:
        assert "Rollback will begin in one minute" in await in_thread(work, sim)


async def test_a_configuration_of_the_archive_comes_back(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            device.send_command("archive config")
            name = sim.device.archive[-1][0]
            device.send_config_set(CHANGE, error_pattern=ERRORS)
            assert "+interface Loopback9" in device.send_command(f"show archive config differences {name}")
            assert "Rollback Done" in device.send_command(f"configure replace {name} force")
            assert "No such file" in device.send_command("configure replace bootflash:nothing force")

    async with iosxe.start(SimOptions()) as sim:
        before = sim.device.running.text()
        await in_thread(work, sim)
        assert sim.device.running.text() == before


async def test_everything_is_there_after_a_restart(tmp_path):
    options = SimOptions(state=tmp_path / "state", minute_seconds=600.0)

    def work(sim):
        with cli(sim, tmp_path) as device:
            device.save_config()
            change(device)

    async with iosxe.start(options) as sim:
        await in_thread(work, sim)
        before, revert, startup = sim.device.running.text(), sim.device.revert, sim.device.startup
    async with iosxe.start(options) as sim:
        assert (sim.device.running.text(), sim.device.revert, sim.device.startup) == (before, revert, startup)


def start_process(directory: Path) -> subprocess.Popen[bytes]:
    (directory / "password").write_text("synthetic-password\n")
    words = ["sim", "iosxe", "--listen", "127.0.0.1:0", "--netconf-port", "0", "--minute-seconds", "2"]
    words += ["--password-file", str(directory / "password"), "--state", str(directory / "state")]
    words += ["--log", str(directory / "log"), "--ready-file", str(directory / "ready")]
    return subprocess.Popen([sys.executable, "-m", "lab", *words], stdout=subprocess.DEVNULL)


class Listening:
    """The address a simulator process told."""

    host = "127.0.0.1"

    def __init__(self, told: str) -> None:
        described = json.loads(told)[0]
        self.host_key_line = described["host_key"]
        self.port = described["port"]


async def test_killed_within_the_window_the_process_rolls_back_when_it_is_back(tmp_path):
    first = await asyncio.to_thread(start_process, tmp_path)
    second = None
    try:
        ready = tmp_path / "ready"
        await eventually(ready.exists)
        sim = Listening(ready.read_text())
        device = await in_thread(cli, sim, tmp_path)
        await in_thread(change, device)
        first.send_signal(signal.SIGKILL)
        await asyncio.to_thread(first.wait)
        stored = json.loads((tmp_path / "state").read_text())
        assert "interface Loopback9" in stored["running"]
        assert stored["revert"]["minutes"] == 2
        second = await asyncio.to_thread(start_process, tmp_path)
        await eventually(lambda: json.loads((tmp_path / "state").read_text())["revert"] is None)
        assert "interface Loopback9" not in json.loads((tmp_path / "state").read_text())["running"]
        await eventually(lambda: '"kind": "timer"' in (tmp_path / "log").read_text())
    finally:
        for process in filter(None, (first, second)):
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
            await asyncio.to_thread(process.wait)


async def test_somebody_elses_change_in_the_window_goes_back_too(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            change(device)
            sim.device.edit("interface GigabitEthernet2\n description elsewhere\n")
            assert "by operator" in device.send_command("show running-config | include Last")
            device.send_command("configure revert now")

    async with iosxe.start(SimOptions()) as sim:
        before = sim.device.running.text()
        await in_thread(work, sim)
        assert sim.device.running.text() == before


async def test_a_section_that_went_back_under_somebodys_feet_is_left(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            device.send_config_set(CHANGE, config_mode_command=WINDOW, exit_config_mode=False)
            sim.device.revert_now("timer")
            printed = device.send_config_set(["description lost"], enter_config_mode=False)
            assert "% Invalid input detected" in printed  # global configuration knows no description

    async with iosxe.start(SimOptions()) as sim:
        before = sim.device.running.text()
        await in_thread(work, sim)
        assert sim.device.running.text() == before
