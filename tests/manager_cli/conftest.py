"""A running manager, and `relaymgr` as a user calls it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from manager_cli.running_manager import RunningManager, Script

from relaymgr.cli import main


class Command:
    """Runs `relaymgr` in this process."""

    def __init__(self) -> None:
        self._runner = CliRunner()

    def __call__(self, *words: str, status: int = 0, input: str | None = None) -> Result:  # noqa: A002
        result = self._runner.invoke(main, words, input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, f"{words}: {result.exit_code}\n{result.stdout}\n{result.stderr}"
        return result

    def json(self, *words: str, status: int = 0, input: str | None = None) -> Any:  # noqa: A002
        return json.loads(self(*words, "--json", status=status, input=input).stdout)


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ISTHMUS_URL", "ISTHMUS_TOKEN", "ISTHMUS_PROFILE", "ISTHMUS_CA_FILE", "ISTHMUS_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ISTHMUS_PROFILE_FILE", str(tmp_path / "profiles.toml"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def relaymgr() -> Command:
    return Command()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningManager]:
    running = RunningManager(tmp_path_factory.mktemp("manager"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def manager(server: RunningManager, monkeypatch: pytest.MonkeyPatch) -> RunningManager:
    """The manager that ISTHMUS_URL and ISTHMUS_TOKEN name."""
    monkeypatch.setenv("ISTHMUS_URL", server.url)
    monkeypatch.setenv("ISTHMUS_TOKEN", server.token)
    for name, value in vars(Script()).items():
        setattr(server.script, name, value)
    return server


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a terminal to ask on."""
    monkeypatch.setattr("relaymgr.cli.terminal.somebody_there", lambda: True)


@pytest.fixture
def mx1(manager: RunningManager, relaymgr: Command, request: pytest.FixtureRequest) -> str:
    """A relay of its own for each test, with a credential and an intent."""
    name = "mx-" + re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:80].strip("-")
    relaymgr("credential", "add", f"c-{name}", "--username", "isthmus", "--secret-file", "-", input="s3cret-of-mx\n")
    relaymgr(
        "relay", "add", name, "--platform", "junos", "--host", "mx1.example.net",
        "--credential", f"c-{name}", "--accept-host-key", manager.script.presented.fingerprint,
    )  # fmt: skip
    relaymgr("relay", "intent", "put", name, "-", input=INTENT)
    return name


INTENT = """\
inet:
  anycast_prefix: 192.0.2.0/24
  local_address: 198.51.100.7
tunnel_limit: 100
"""
Ask = Callable[..., Result]
