"""Unmodified netmiko drives the simulated IOS-XE. All configurations are synthetic."""

from __future__ import annotations

import contextlib

import asyncssh
import pytest
from netmiko import ConfigInvalidException, NetmikoAuthenticationException
from ntc_templates.parse import parse_output
from sim.ios_clients import ERRORS, PASSWORD, USER, cli, in_thread, known_hosts

from lab.sim import iosxe
from lab.sim.options import SimOptions

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:paramiko"),
    pytest.mark.filterwarnings("ignore:TripleDES"),
]
RELAY = [
    "interface Tunnel77",
    "ip address 192.0.2.1 255.255.255.0",
    "no ip redirects",
    "ip pim sparse-mode",
    "ip igmp version 3",
    "tunnel source Loopback0",
    "tunnel mode udp multipoint",
    "tunnel dst-port dynamic",
    "tunnel src-port dynamic",
    "amt relay traffic ip",
]
LOW = "hostname low\nusername isthmus privilege 1 secret 9 x\n"


async def test_configuration_is_typed_read_back_and_saved(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            assert device.find_prompt() == "xe-relay#"
            device.send_config_set(RELAY, error_pattern=ERRORS)
            section = device.send_command("show running-config interface Tunnel77")
            assert section.splitlines()[-len(RELAY) - 1 : -1] == [RELAY[0], *(" " + line for line in RELAY[1:])]
            differences = device.send_command("show archive config differences")
            assert "+interface Tunnel77" in differences
            assert "[OK]" in device.save_config()
            assert "!No changes were found" in device.send_command("show archive config differences")
            assert "amt relay traffic ip" in device.send_command("show startup-config")

    async with iosxe.start(SimOptions()) as sim:
        await in_thread(work, sim)


async def test_sections_and_words_are_filtered(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            section = device.send_command("show running-config | section ^interface Tunnel2268")
            assert section.startswith("interface Tunnel2268\n")
            assert section.splitlines()[-1] == " amt relay traffic ip"
            assert device.send_command("show run | include ^ amt").strip() == "amt relay traffic ip"
            assert "amt" not in device.send_command("show run | exclude amt")
            assert device.send_command("sh run | count ^interface") == "Number of lines which match regexp = 6"

    async with iosxe.start(SimOptions(configured=True, tunnels=1)) as sim:
        await in_thread(work, sim)


async def test_wrong_lines_are_refused_and_told(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            with pytest.raises(ConfigInvalidException):
                device.send_config_set(["interface Tunnel5", "amt relay traffik ip"], error_pattern=ERRORS)
            device.exit_config_mode()
            assert "% Invalid input detected at '^' marker." in device.send_command("show ip amt tunnels")
            assert "% Incomplete command." in device.send_command("show ip")

    async with iosxe.start(SimOptions()) as sim:
        await in_thread(work, sim)
        assert sim.device.running.section("interface Tunnel5") is not None  # what came before the error stays


async def test_enable_asks_for_the_password(tmp_path):
    def work(sim):
        with cli(sim, tmp_path, secret="synthetic-password") as device:
            assert device.find_prompt() == "low>"
            assert "% Invalid input" in device.send_command("show running-config")
            device.enable()
            assert device.find_prompt() == "low#"
            assert device.send_command("show privilege") == "Current privilege level is 15"
            device.exit_enable_mode()
            device.secret = "wrong"
            with pytest.raises(ValueError, match="enable"):
                device.enable()

    async with iosxe.start(SimOptions(configuration=LOW)) as sim:
        await in_thread(work, sim)
        assert "synthetic-password" not in str(sim.log)


async def test_a_user_who_may_look_cannot_change(tmp_path):
    def work(sim):
        with cli(sim, tmp_path, username="watcher", secret="synthetic-password") as device:
            assert device.find_prompt() == "xe-relay>"
            assert "Tunnel2268" in device.send_command("show ip mroute")
            with pytest.raises(ValueError, match="enable"):
                device.enable()
            assert "% Invalid input" in device.send_command("configure terminal")
        with pytest.raises(NetmikoAuthenticationException):
            cli(sim, tmp_path, username="stranger")

    async with iosxe.start(SimOptions(configured=True, tunnels=1, read_only_user="watcher")) as sim:
        await in_thread(work, sim)


async def test_long_output_waits_at_each_page(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            device.send_command("terminal length 10")
            page = device.send_command("show running-config", expect_string="--More--")
            assert "interface Tunnel2268" not in page
            device.write_channel("q")
            device.read_until_prompt()
            device.send_command("terminal length 0")
            assert "interface Tunnel2268" in device.send_command("show running-config")

    async with iosxe.start(SimOptions(configured=True, tunnels=1)) as sim:
        await in_thread(work, sim)


async def test_parsers_of_ntc_templates_read_the_output(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            version, routes, clock, users, archive = (
                parse_output("cisco_ios", command, device.send_command(command))
                for command in ("show version", "show ip mroute", "show clock", "show users", "show archive")
            )
            interfaces = parse_output("cisco_ios", "show interfaces", device.send_command("show int tu2268"))
        assert "bootflash:archive-<timestamp>" in archive[0]["next_filename"]
        assert (version[0]["version"], version[0]["hostname"]) == ("17.9.4a", "xe-relay")
        assert version[0]["hardware"] == ["C8000V"]
        assert [(route["multicast_source_ip"], route["outgoing_interface"]) for route in routes] == [
            (str(channel.source), ["Tunnel2268"]) for channel in sim.population.snapshot().channels
        ]
        assert interfaces[0]["protocol_status"] == "up"
        assert interfaces[0]["description"] == ""
        assert clock[0]["timezone"] == "UTC"
        assert users[0]["user"] == USER

    async with iosxe.start(SimOptions(configured=True, tunnels=3, channels=2)) as sim:
        await in_thread(work, sim)


async def test_gateways_show_only_while_the_relay_is_up(tmp_path):
    def work(sim):
        with cli(sim, tmp_path) as device:
            everything = device.send_command("show ip mroute verbose")
            for tunnel in sim.population.snapshot().tunnels:
                assert f"{tunnel.gateway_address}, UDP port {tunnel.gateway_port}" in everything
                assert str(tunnel.joined_by) in device.send_command("show ip igmp membership")
            assert "Tunnel2268" in device.send_command("show ip igmp groups")
            assert device.send_command("show ip igmp groups detail").count("Group mode:\tINCLUDE") == 2
            device.send_config_set(["interface Tunnel2268", "no amt relay traffic ip"], error_pattern=ERRORS)
            assert "Tunnel2268" not in device.send_command("show ip mroute")
            assert "10.255.0.2" in device.send_command("show ip pim neighbor")
            device.send_config_set(["interface GigabitEthernet1", "no ip pim sparse-mode"], error_pattern=ERRORS)
            assert "10.255.0.2" not in device.send_command("show ip pim neighbor")
            assert "GigabitEthernet1" not in device.send_command("show ip pim interface")

    async with iosxe.start(SimOptions(configured=True, tunnels=2, channels=1, seed=3)) as sim:
        await in_thread(work, sim)


async def test_a_single_command_needs_no_terminal(tmp_path):
    async with iosxe.start(SimOptions()) as sim:
        options = {"username": USER, "password": PASSWORD, "known_hosts": str(known_hosts(sim, tmp_path))}
        async with asyncssh.connect(sim.host, sim.port, **options) as connection:
            done = await connection.run("show version", check=True)
            assert "Version 17.9.4a" in str(done.stdout)
            assert "--More--" not in str((await connection.run("show running-config", check=True)).stdout)


async def test_more_sessions_than_lines_are_refused(tmp_path):
    async with iosxe.start(SimOptions()) as sim, contextlib.AsyncExitStack() as stack:
        options = {"username": USER, "password": PASSWORD, "known_hosts": str(known_hosts(sim, tmp_path))}
        connection = await stack.enter_async_context(asyncssh.connect(sim.host, sim.port, **options))
        for number in range(1, 17):
            process = await stack.enter_async_context(connection.create_process(term_type="vt100", encoding="utf-8"))
            assert await process.stdout.readuntil("#")
            assert len(sim.device.terminals) == number
        refused = await connection.create_process(term_type="vt100")
        assert (await refused.wait()).exit_status == 1
