"""`python -m lab sim mx80` as a program, and what it keeps over a restart."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from click.testing import CliRunner
from sim.mx80_client import DEADLINE, PASSWORD, eventually, raw_session

from lab.sim import mx80
from lab.sim.command import sim_group
from lab.sim.faults import FAULTS
from lab.sim.options import RunningSim, SimOptions

COMMIT = "<commit-configuration><confirmed/><confirm-timeout>1</confirm-timeout><log>mark</log></commit-configuration>"


async def commit_name(sim: RunningSim, name: str, body: str = "<commit-configuration/>") -> None:
    async with raw_session(sim) as session:
        await session.set(f"set system host-name {name}")
        await session.ok(body)


async def test_committed_configuration_and_history_survive(tmp_path: Path) -> None:
    options = SimOptions(state=tmp_path / "state")
    async with mx80.start(options) as sim:
        await commit_name(sim, "one")
        await commit_name(sim, "two")
        async with raw_session(sim) as session:
            await session.set("set system host-name never")
    async with mx80.start(options) as sim:
        assert "set system host-name two" in sim.device.committed_set()
        assert [commit.user for commit in sim.device.history.commits] == ["isthmus", "isthmus", "root"]
        async with raw_session(sim) as session:
            assert await session.diff() == ""
            assert "+   host-name two;" in await session.diff(rollback=1)


async def test_open_window_goes_on_after_a_restart(tmp_path: Path) -> None:
    options = SimOptions(state=tmp_path / "state", minute_seconds=3600.0)
    async with mx80.start(options) as sim:
        await commit_name(sim, "trial", COMMIT)
        deadline = sim.device.history.deadline
    async with mx80.start(options) as sim:
        assert sim.device.history.deadline == deadline
        assert sim.device.history.commits[0].log == "mark"
        async with raw_session(sim) as session:
            await session.ok("<commit-configuration/>")
    async with mx80.start(options) as sim:
        assert sim.device.history.deadline is None
        assert "set system host-name trial" in sim.device.committed_set()


async def test_window_that_elapsed_meanwhile_is_taken_back(tmp_path: Path) -> None:
    options = SimOptions(state=tmp_path / "state", minute_seconds=0.5)
    async with mx80.start(options) as sim:
        await commit_name(sim, "trial", COMMIT)
        deadline = sim.device.history.deadline
        assert deadline is not None
    await asyncio.sleep(0.6)
    async with mx80.start(options) as sim:
        assert "set system host-name mx80" in sim.device.committed_set()
        assert sim.device.history.deadline is None
        assert sim.device.history.commits[0].at == deadline


@asynccontextmanager
async def program(tmp_path: Path, *arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, list[Any]]]:
    """The program, once it says that it listens; with what its ready file tells."""
    secret, ready = tmp_path / "password", tmp_path / "ready"
    secret.write_text(PASSWORD + "\n")
    ready.unlink(missing_ok=True)
    command = ("-m", "lab", "sim", "mx80", "--listen", "127.0.0.1:0", "--password-file", str(secret))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        "--ready-file",
        str(ready),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(mx80.__file__).parents[3],
    )
    try:
        async with asyncio.timeout(3 * DEADLINE):
            while not ready.exists():
                assert process.returncode is None
                await asyncio.sleep(0.02)
        yield process, json.loads(ready.read_text())
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def logged_in(described: dict[str, Any]) -> AsyncIterator[Any]:
    known = ([asyncssh.import_public_key(described["host_key"])], [], [])
    login: dict[str, Any] = {"username": "isthmus", "password": PASSWORD, "client_keys": None, "config": None}
    async with asyncssh.connect(
        described["host"], described["port"], known_hosts=known, agent_path=None, **login
    ) as connection:
        yield connection


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_program_serves_and_ends_clean(tmp_path: Path, number: int) -> None:
    log = tmp_path / "log"
    async with program(tmp_path, "--log", str(log), "--state", str(tmp_path / "state")) as (process, described):
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        assert described[0]["fingerprint"] in line
        assert f"127.0.0.1:{described[0]['port']}" in line
        async with logged_in(described[0]) as connection:
            await connection.create_process(subsystem="netconf", encoding=None)
            await eventually(lambda: log.exists() and '"hello"' in log.read_text())
            process.send_signal(number)
            async with asyncio.timeout(DEADLINE):
                assert await process.wait() == 0
    assert all(json.loads(line)["session"] for line in log.read_text().splitlines())


async def test_one_program_is_many_routers(tmp_path: Path) -> None:
    control = tmp_path / "control"
    arguments = ("--count", "4", "--tunnels", "5", "--configured", "--control", str(control))
    async with program(tmp_path, *arguments) as (_, described):
        assert len({one["port"] for one in described}) == 4
        for one in described:
            async with logged_in(one):
                pass
        reader, writer = await asyncio.open_unix_connection(control)
        answers = []
        for order in ({"fault": "refuse-login", "index": 1}, {"fault": "nonsense"}, {"edit": "set nonsense"}):
            writer.write(json.dumps(order).encode() + b"\n")
            answers.append(json.loads(await reader.readline()))
        writer.close()
        assert answers[0] == {"faults": ["refuse-login"]}
        assert all("error" in answer for answer in answers[1:])
        async with logged_in(described[0]):
            pass
        with pytest.raises(asyncssh.PermissionDenied):
            async with logged_in(described[1]):
                pass


def test_help_tells_every_fault() -> None:
    text = CliRunner().invoke(sim_group, ["mx80", "--help"]).output
    assert all(name in text for name in FAULTS)
    assert "--password " not in text


@pytest.mark.parametrize(
    "arguments",
    [["--fault", "nonsense"], ["--listen", "here"], ["--password-file", "/nonexistent"]],
)
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: list[str]) -> None:
    secret = tmp_path / "password"
    secret.write_text("x\n")
    given = ["mx80", "--listen", "127.0.0.1:0", "--password-file", str(secret), *arguments]
    assert CliRunner().invoke(sim_group, given).exit_code == 2


def test_an_empty_password_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("\n")
    result = CliRunner().invoke(sim_group, ["mx80", "--listen", "127.0.0.1:0", "--password-file", str(secret)])
    assert result.exit_code == 2
    assert "empty" in result.output
