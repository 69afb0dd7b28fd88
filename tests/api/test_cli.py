"""The command line against a served agent, and against none."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.cli.tables import age, count, size
from agent.service.api.server import ApiServer
from agent.service.port import RefusedError


@pytest.fixture
async def amt_agent(agent, store):
    """Run `amt-agent ARGUMENTS` in a thread against a served agent; gives (exit status, stdout, stderr)."""
    import asyncio

    store.start(agent.apply)
    server = ApiServer(store.configuration.api, agent, store)
    await server.start()

    def run(arguments):
        result = CliRunner().invoke(main, arguments, env={"AMT_AGENT_SOCKET": store.configuration.api.listen})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    async def call(*arguments):
        return await asyncio.to_thread(run, arguments)

    yield call
    await server.stop()


async def test_status_tells_people_and_programs(amt_agent, agent):
    status, out, _ = await amt_agent("status")
    assert status == 0
    assert "border, gateway, version 0.1.0" in out
    assert "warning: no answer (relay_unreachable)" in out
    status, out, _ = await amt_agent("status", "--json")
    assert json.loads(out) == json.loads(agent.status().model_dump_json())


async def test_status_tells_what_each_interface_can_carry_and_why_no_more(amt_agent):
    _, out, _ = await amt_agent("status")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "engine xdp, automatically: each channel by the fastest plane that its interfaces allow" in lines
    assert "eth0 uplink, xdp" in lines
    assert "eth1.7 downstream, tc; not xdp: a VLAN device is no target of native XDP" in lines
    assert "eth2 downstream, not in use: no channel needs it, or it is down or absent" in lines
    assert "left to userspace too_big 3" in lines
    assert any(line.startswith("channels ") and line.endswith("(xdp 1, tc 1)") for line in lines)


async def test_channels_tell_their_plane_and_why_it_is_no_faster_one(amt_agent):
    _, out, _ = await amt_agent("channels")
    assert "PLANE" in out
    assert "not faster: xdp: eth1: a VLAN device is no target of native XDP" in out


async def test_statistics_tell_what_was_left_to_userspace(amt_agent):
    _, out, _ = await amt_agent("statistics")
    assert ["to", "userspace", "too_big", "3"] in [line.split() for line in out.splitlines()]


async def test_status_of_an_agent_that_is_not_ready_fails(amt_agent, agent):
    agent.ready = False
    assert (await amt_agent("status"))[0] == 1
    assert (await amt_agent("status", "--json"))[0] == 1


@pytest.mark.parametrize("command", ["tunnels", "channels", "interfaces", "neighbors", "statistics", "joins"])
async def test_json_is_the_document_of_the_api(amt_agent, client, command):
    status, out, _ = await amt_agent(command, "--json")
    assert status == 0
    expected = (await client.get(f"/v1/{command}")).json()
    assert json.loads(out) == expected


async def test_tables_show_addresses_and_numbers_as_they_are(amt_agent):
    _, out, _ = await amt_agent("tunnels")
    assert "192.0.2.1:2268" in out
    assert "203.0.113.5:40000" in out
    assert "13.4 kB" in out
    _, out, _ = await amt_agent("channels")
    assert "20.0 ms" in out
    assert "ff3e::1" in out
    _, out, _ = await amt_agent("channels", "--idle")
    assert "232.1.1.1" not in out
    assert "ff3e::1" in out
    assert all(line and line == line.rstrip() for line in out.splitlines())


async def test_tables_show_the_routers_of_the_domain(amt_agent):
    _, out, _ = await amt_agent("neighbors")
    router = next(line for line in out.splitlines() if "10.0.0.9" in line)
    assert router.split() == ["eth1", "10.0.0.9", "pim", "12.5s", "1m44s", "yes", "100", "0000beef", "10.0.1.9"]
    assert "querier" in out
    _, out, _ = await amt_agent("interfaces")
    assert "ipv4 dr 10.0.0.9, 1 neighbours, 7 channels" in out
    _, out, _ = await amt_agent("channels")
    assert "pim:eth1:fe80::9" in out
    assert "assert_lost, assert loser on eth1" in out


async def test_an_ipv6_tunnel_is_not_taken_for_markup(amt_agent, agent):
    row = agent.tunnel_rows[0].model_copy(update={"relay_address": "fe80::1"})
    agent.tunnel_rows[:] = [row]
    _, out, _ = await amt_agent("tunnels")
    assert "[fe80::1]:2268" in out


async def test_empty_tables_say_so(amt_agent, agent):
    agent.channel_rows.clear()
    assert (await amt_agent("channels"))[1] == "no channels\n"


async def test_a_cut_list_says_so(amt_agent):
    _, _, error = await amt_agent("channels", "--limit", "1")
    assert "only the first 1" in error


async def test_join_and_leave(amt_agent, agent):
    assert await amt_agent("join", "198.51.100.7", "232.1.1.1") == (0, "joined (198.51.100.7,232.1.1.1)\n", "")
    assert len(agent.api_joins) == 1
    _, out, _ = await amt_agent("joins")
    assert "198.51.100.7" in out
    assert (await amt_agent("leave", "198.51.100.7", "232.1.1.1"))[0] == 0
    assert agent.api_joins == {}
    status, _, error = await amt_agent("leave", "198.51.100.7", "232.1.1.1")
    assert (status, error) == (1, "amt-agent: there is no such join (no_such_join)\n")


async def test_join_of_any_source(amt_agent, agent):
    await amt_agent("join", "*", "239.1.1.1", "--interface", "eth1")
    (join,) = agent.api_joins
    assert (join.source, str(join.group), join.interface) == (None, "239.1.1.1", "eth1")


@pytest.mark.parametrize("arguments", [["10.0.0.1", "10.0.0.2"], ["x", "232.1.1.1"], ["::1", "232.1.1.1"]])
async def test_what_is_no_channel_is_wrong_usage(amt_agent, arguments):
    assert (await amt_agent("join", *arguments))[0] == 2


async def test_refusals_of_the_agent_are_told(amt_agent, agent):
    agent.refuse = RefusedError("wrong_role", "a relay has no joins")
    status, _, error = await amt_agent("join", "198.51.100.7", "232.1.1.1")
    assert (status, error) == (1, "amt-agent: a relay has no joins (wrong_role)\n")


async def test_drain_is_switched_on_and_off(amt_agent, agent):
    assert await amt_agent("drain", "on") == (0, "draining, 1 tunnels established\n", "")
    assert agent.draining
    assert json.loads((await amt_agent("drain", "off", "--json"))[1])["draining"] is False


async def test_a_configuration_is_committed_confirmed_and_rolled_back(amt_agent, agent, store, configuration_text):
    before = store.path.read_text()
    new = store.path.with_name("new.toml")
    new.write_text(configuration_text(channel_limit=7))
    _, out, _ = await amt_agent("config", "diff", str(new))
    assert "+channel_limit = 7" in out
    status, out, error = await amt_agent("config", "commit", str(new), "--confirm", "600")
    assert status == 0
    assert "+channel_limit = 7" in out
    assert "rolled back in" in error
    assert "unconfirmed" in (await amt_agent("status"))[1]
    assert await amt_agent("config", "confirm") == (0, "confirmed\n", "")
    assert (await amt_agent("config", "show"))[1] == new.read_text()
    status, out, _ = await amt_agent("config", "rollback", "1")
    assert "-channel_limit = 7" in out
    assert store.path.read_text() == before
    assert [item.gateway.channel_limit for item in agent.applied] == [7, 20_000]


async def test_a_candidate_is_kept_shown_and_committed(amt_agent, store, configuration_text):
    new = store.path.with_name("new.toml")
    new.write_text(configuration_text(channel_limit=7))
    assert (await amt_agent("config", "diff"))[0] == 1
    await amt_agent("config", "candidate", str(new))
    assert "+channel_limit = 7" in (await amt_agent("config", "diff"))[1]
    assert (await amt_agent("config", "commit"))[0] == 0
    assert store.path.read_text() == new.read_text()


async def test_faults_of_a_candidate_are_told_with_lines(amt_agent, store):
    new = store.path.with_name("new.toml")
    new.write_text('role = "gateway"\n[gatway]\n')
    status, _, error = await amt_agent("config", "commit", str(new))
    assert status == 1
    assert "  line 2: gatway: unknown key" in error


def invoke(*arguments, **environment):
    return CliRunner().invoke(main, arguments, env=environment)


@pytest.mark.parametrize("command", [["status"], ["channels", "--json"], ["config", "show"], ["drain", "on"]])
def test_without_an_agent_one_line_says_what_to_do(tmp_path, command):
    result = invoke(*command, "--socket", str(tmp_path / "none.sock"))
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "is it running (systemctl status isthmus-agent)?" in result.stderr


def test_without_an_agent_on_the_network_the_reason_is_told():
    result = invoke("status", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 3
    assert "no agent answers on http://127.0.0.1:1" in result.stderr


def test_a_configuration_is_checked_with_every_fault(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text('role = "gateway"\n[gatway]\n[igmp]\nquery_interval = "x"\n')
    result = invoke("config", "check", str(path))
    assert result.exit_code == 1
    assert [line.split(":")[1] for line in result.stderr.splitlines()] == ["2", "4"]
    good = tmp_path / "good.toml"
    good.write_text(invoke("config", "show-defaults", "--role", "relay").stdout)
    assert invoke("config", "check", str(good)).exit_code == 0
    assert invoke("config", "check", "--config", str(good)).stdout == f"{good}: valid, role relay\n"


def test_run_refuses_a_bad_configuration_before_it_touches_anything(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text('role = "gateway"\n[gatway]\n')
    program = Path(sys.executable).with_name("amt-agent")
    done = subprocess.run([program, "run", "--config", path], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"{path}:2: gatway: unknown key" in done.stderr
    assert [item.name for item in tmp_path.iterdir()] == ["agent.toml"]


def commands(group, path=()):
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_every_command_explains_itself(path):
    result = invoke(*path, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5
    assert "\\b" not in result.stdout
    for line in result.stdout.splitlines():
        if "[OPTIONS]" not in line and line.strip().startswith("--"):
            assert len(line.split(maxsplit=1)) > 1


def test_the_version_is_told():
    assert invoke("--version").stdout.startswith("amt-agent, version ")


def test_units_read_well():
    assert [age(value) for value in (None, 0.25, 59.9, 60, 3599, 3600, 90_000)] == [
        None,
        "0.2s",
        "59.9s",
        "1m00s",
        "59m59s",
        "1h00m",
        "1d01h",
    ]
    assert [size(value) for value in (0, 999, 1000, 2_500_000)] == ["0 B", "999 B", "1.0 kB", "2.5 MB"]
    assert count(1234567) == "1 234 567"
