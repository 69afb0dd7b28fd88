"""Unmodified netmiko drives the simulated classic IOS, which knows no AMT. All data is synthetic."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from ntc_templates.parse import parse_output
from sim.ios_clients import ERRORS, cli, in_thread

from lab.sim import ios
from lab.sim.command import sim_group
from lab.sim.options import SimOptions

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:paramiko"),
    pytest.mark.filterwarnings("ignore:TripleDES"),
]


async def test_it_is_a_router_without_amt(tmp_path):
    def work(sim):
        with cli(sim, tmp_path, "cisco_ios") as device:
            version = parse_output("cisco_ios", "show version", device.send_command("show version"))
            assert (version[0]["version"], version[0]["software_image"]) == ("15.7(3)M8", "C2900-UNIVERSALK9-M")
            printed = device.send_config_set(
                ["interface Tunnel1", "tunnel mode udp multipoint", "amt relay traffic ip"]
            )
            assert printed.count("% Invalid input detected at '^' marker.") == 2
            assert "amt" not in device.send_command("show running-config")

    async with ios.start(SimOptions()) as sim:
        assert sim.netconf_port is None
        await in_thread(work, sim)


async def test_routes_groups_and_neighbours_are_read(tmp_path):
    def work(sim):
        with cli(sim, tmp_path, "cisco_ios") as device:
            routes = parse_output("cisco_ios", "show ip mroute", device.send_command("show ip mroute"))
            assert {tuple(route["outgoing_interface"]) for route in routes} == {("GigabitEthernet0/2",)}
            assert len(routes) == len(sim.population.snapshot().channels)
            verbose = device.send_command("show ip mroute verbose")
            assert "UDP port" not in verbose
            assert "GigabitEthernet0/2" in device.send_command("show ip igmp groups")
            assert "10.255.0.2" in device.send_command("show ip pim neighbor")

    async with ios.start(SimOptions(tunnels=3, channels=2)) as sim:
        await in_thread(work, sim)


async def test_the_timer_of_a_confirmed_change_is_there_too(tmp_path):
    def work(sim):
        with cli(sim, tmp_path, "cisco_ios") as device:
            before = sim.device.running.text()
            lines = ["interface Loopback9", "description synthetic"]
            device.send_config_set(lines, config_mode_command="configure terminal revert timer 3", error_pattern=ERRORS)
            assert sim.device.running.text() != before
            device.send_command("configure revert now")
            assert sim.device.running.text() == before

    async with ios.start(SimOptions()) as sim:
        await in_thread(work, sim)


@pytest.mark.parametrize("kind", ["iosxe", "ios"])
def test_the_command_line_tells_what_is_wrong(kind, tmp_path):
    secret = tmp_path / "password"
    secret.write_text("x")
    run = CliRunner()
    words = [kind, "--password-file", str(secret), "--listen"]
    assert "write HOST:PORT" in run.invoke(sim_group, [*words, "nowhere"]).output
    assert "no fault is called 'rust'" in run.invoke(sim_group, [*words, "127.0.0.1:0", "--fault", "rust"]).output
