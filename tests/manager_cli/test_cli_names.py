"""Every documented command is there under its exact name, and its help teaches."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from relaymgr.cli import main
from relaymgr.settings import Settings

DOCUMENTED = """
serve | worker | db upgrade | db check | token create | token revoke | token list
credential add | credential list | credential delete
ad add | ad list | ad show | ad delete | site add | site list | site show | site delete
relay add | relay list | relay show | relay intent get | relay intent put | relay plan | relay apply | relay drain
relay undrain | relay rollback | relay restore | relay accept | relay drift | relay delete | relay scan
tunnel list | channel list
rollout create | rollout list | rollout show | rollout pause | rollout resume | rollout abort | rollout watch
job list | job show | job watch | job cancel | audit list | event list | event watch
backup list | backup show | backup diff | user add | user list | user delete
profile set | profile list | profile show | profile use | profile delete
"""
COMMANDS = [words.strip() for line in DOCUMENTED.strip().splitlines() for words in line.split("|")]
LOCAL = {"serve", "worker", "db upgrade"}
NO_JSON = {"profile set", "profile use", "profile delete", "event watch"}


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


EVERY = dict(leaves(main))


@pytest.mark.parametrize("words", COMMANDS)
def test_documented_commands_exist(words: str) -> None:
    assert words in EVERY


@pytest.mark.parametrize("words", sorted(EVERY))
def test_help_of_every_command_teaches(words: str, relaymgr: Any) -> None:
    text = relaymgr(*words.split(), "--help").stdout
    assert "Example" in text
    assert f"relaymgr {words.split(maxsplit=1)[0]}" in text
    for parameter in EVERY[words].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.name} is not explained"


@pytest.mark.parametrize("words", sorted(EVERY))
def test_no_option_takes_a_token_or_password_itself(words: str) -> None:
    for parameter in EVERY[words].params:
        if isinstance(parameter, click.Option) and not parameter.is_flag:
            assert parameter.name not in {"token", "password", "secret"}


@pytest.mark.parametrize("words", sorted(set(EVERY) - LOCAL - NO_JSON))
def test_resource_commands_have_json(words: str) -> None:
    named = {option for parameter in EVERY[words].params for option in parameter.opts}
    deleting = words.endswith((" delete", " revoke"))
    assert "--json" in named or deleting


def test_flags_of_serve_mirror_the_settings() -> None:
    flags = {parameter.name for parameter in EVERY["serve"].params}
    secrets = {"key", "vault_token", "oidc_client_secret"}
    assert flags == set(Settings.model_fields) - secrets


def test_main_help_names_exit_statuses(relaymgr: Any) -> None:
    text = " ".join(relaymgr("--help").stdout.split())
    assert "0 done; 1 refused or failed; 2 wrong usage; 3 no manager answers; 4 the job failed" in text


def test_serve_hands_its_flags_to_the_service(relaymgr: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Settings] = []

    async def serve(settings: Settings) -> None:
        seen.append(settings)

    monkeypatch.setattr("relaymgr.service.serve", serve, raising=False)
    monkeypatch.setenv("ISTHMUS_WORKERS", "3")
    relaymgr("serve", "--listen", "127.0.0.1:9", "--database-url", f"sqlite:///{tmp_path}/a.db", "--no-poll")
    (settings,) = seen
    assert (settings.listen, settings.workers, settings.poll) == ("127.0.0.1:9", 3, False)
    assert settings.database_url.endswith("/a.db")


def test_bad_settings_are_named_without_their_value(relaymgr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTHMUS_WORKERS", "hunter2")
    result = relaymgr("serve", status=2)
    assert "workers" in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--listen", "nowhere"], 2, "is not HOST:PORT"),
        (["--listen", "0.0.0.0:0"], 2, "in clear"),
        (["--listen", "taken"], 1, "cannot listen on 127.0.0.1"),
        (["--listen", "127.0.0.1:0", "--database-url", "mysql://hunter2@x/y"], 2, "not supported"),
    ],
)
def test_serve_that_cannot_start_says_why_in_one_line(words: list[str], status: int, told: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        given = [address if word == "taken" else word for word in words]
        if "--database-url" not in given:
            given += ["--database-url", f"sqlite:///{tmp_path}/r.db"]
        command = [sys.executable, "-c", "from relaymgr.cli import main; main(prog_name='relaymgr')", "serve", *given]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == status
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stderr
